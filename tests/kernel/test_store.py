"""A second location: whole files or none, in folders, behind URLs, in S3."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from kaleidoscope.kernel.errors import SettingsError
from kaleidoscope.kernel.store import FolderStore, Store, StoreProblem, open_store


@pytest.fixture(params=["folder", "file://", "memory://", "local-fsspec", "s3://"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store(str(tmp_path))
    if request.param == "file://":
        return open_store(f"file://{tmp_path}")
    if request.param == "memory://":
        return open_store(f"memory://{uuid4().hex}")
    if request.param == "local-fsspec":  # what has folders and renames, and is reached by URL
        return open_store(f"dir::file://{tmp_path}")
    options = request.getfixturevalue("s3")
    import s3fs

    bucket = f"b-{uuid4().hex}"
    s3fs.S3FileSystem(**options, use_listings_cache=False).mkdir(bucket)
    return open_store(f"s3://{bucket}/photos", options)


def test_what_is_written_is_there(store: Store) -> None:
    store.write("a/b c/é?.jpg", [b"12", b"", b"345"])
    store.put("a/empty", b"")
    assert store.size("a/b c/é?.jpg") == 5 and store.size("a/empty") == 0
    assert b"".join(store.read("a/b c/é?.jpg")) == b"12345"
    assert store.get("a/empty") == b""
    assert sorted(store.names()) == [("a/b c/é?.jpg", 5), ("a/empty", 0)]
    assert list(store.names("a/b c")) == [("a/b c/é?.jpg", 5)]
    assert list(store.names("nothing")) == []
    assert (store.folders("a"), store.folders("nothing")) == (["b c"], [])
    store.put("a/empty", b"no more")
    assert store.get("a/empty") == b"no more"


def test_what_is_not_there(store: Store) -> None:
    assert store.size("a/b") is None
    with pytest.raises(FileNotFoundError):
        store.get("a/b")
    store.delete("a/b")


def test_what_is_deleted_is_gone(store: Store) -> None:
    store.put("a/b", b"1")
    store.put("a/c", b"2")
    store.delete("a/b")
    assert list(store.names()) == [("a/c", 1)]


def test_a_write_that_fails_leaves_all_as_it_was(store: Store) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * (6 << 20)  # beyond the first part of an upload
        raise ValueError("the source gives way")

    store.put("kept", b"before")
    for name in ("kept", "new"):
        with pytest.raises(ValueError, match="gives way"):
            store.write(name, broken())
    assert list(store.names()) == [("kept", 6)]
    assert store.get("kept") == b"before"


def test_what_is_private_is_for_its_owner_alone(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put("a", b"1", private=True)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


KILLED = """
import sys, time
from kaleidoscope.kernel.store import open_store
def pieces():
    yield b"half"
    print("written", flush=True)
    time.sleep(60)
open_store(sys.argv[1]).write("a/photo.jpg", pieces())
"""


def test_killed_while_it_writes_nothing_is_shown(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "written\n"
    process.kill()
    process.wait()
    store = FolderStore(tmp_path)
    assert store.size("a/photo.jpg") is None and list(store.names()) == []
    store.put("a/photo.jpg", b"whole")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["photo.jpg"]


def test_a_full_disk_is_a_clear_error(folder: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can mount a small disk")
    small = folder / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        store = FolderStore(small)
        with pytest.raises(StoreProblem, match="No space left") as caught:
            store.put("photo", b"x" * (2 << 20))
        assert caught.value.hint is not None
        assert list(small.iterdir()) == []
        store.put("small one", b"fits")
    finally:
        subprocess.run(["umount", small], check=True)


def test_what_nothing_here_can_reach() -> None:
    with pytest.raises(SettingsError, match="nowhere"):
        open_store("nowhere://a/b")


def test_an_s3_that_does_not_answer_is_a_problem_of_the_store() -> None:
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    options = {
        "endpoint_url": "http://127.0.0.1:9",
        "key": "a",
        "secret": "b",
        "config_kwargs": {"retries": {"max_attempts": 1}, "connect_timeout": 1},
    }
    began = time.monotonic()
    with pytest.raises(StoreProblem):
        open_store("s3://bucket/photos", options).get("a")
    assert time.monotonic() > began
