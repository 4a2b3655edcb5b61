"""Hashing files that vanish, change, or were never files."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from kaleidoscope.kernel.paths import to_text
from kaleidoscope.library.outside.files import FileProblem, hash_file, modified_at


def test_hash_is_sha256_of_the_content(tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    path = tmp_path / "a"
    path.write_bytes(content)
    found = hash_file(to_text(path), len(content), modified_at(path.stat()))
    assert found == hashlib.sha256(content).hexdigest()


def test_a_name_of_any_bytes(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9 \\x41.jpg"
    Path(os.fsdecode(path)).write_bytes(b"x")
    assert hash_file(to_text(path), 1, None) == hashlib.sha256(b"x").hexdigest()


@pytest.mark.parametrize("size", [0, 4])
def test_another_size_is_a_problem(tmp_path: Path, size: int) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    with pytest.raises(FileProblem, match="changed"):
        hash_file(str(tmp_path / "a"), size, None)


def test_another_time_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    with pytest.raises(FileProblem, match="changed"):
        hash_file(str(tmp_path / "a"), 3, datetime(2000, 1, 1, tzinfo=UTC))


def test_gone(tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match="gone"):
        hash_file(str(tmp_path / "nothing"), 0, None)


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileProblem, match="plain file"):
        hash_file(str(tmp_path / "pipe"), 0, None)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileProblem):
        hash_file(str(tmp_path), 0, None)


def test_times_are_whole_microseconds_rounded_down() -> None:
    status = SimpleNamespace(st_mtime_ns=1_700_000_000_123_456_999)
    assert modified_at(status) == datetime(2023, 11, 14, 22, 13, 20, 123456, UTC)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [2**63 - 1, -(2**63)])
def test_a_broken_clock_breaks_nothing(wrong: int) -> None:
    modified_at(SimpleNamespace(st_mtime_ns=wrong * 1000))  # type: ignore[arg-type]
