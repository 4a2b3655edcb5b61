"""Every path has one spelling as text, and only named folders are entered."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaleidoscope.kernel.errors import Forbidden, Invalid
from kaleidoscope.kernel.paths import allow, allowed, inside, is_utf8, to_bytes, to_text

PATHS = st.binary(min_size=1).map(lambda raw: raw.replace(b"\0", b"")).filter(bool)
# Bytes that arbitrary ones seldom hold: what an escape looks like, and halves of characters.
TRICKY = st.lists(
    st.sampled_from([b"\\", b"x", b"f", b"5c", b"\\x", b"\\xff", b"\xff", b"\xc3", b"\xa4", b"/"]),
    min_size=1,
).map(b"".join)


@given(PATHS | TRICKY)
def test_any_path_comes_back_byte_for_byte(path: bytes) -> None:
    text = to_text(path)
    text.encode("utf-8")
    assert to_bytes(text) == path


@given(PATHS | TRICKY, PATHS | TRICKY)
def test_two_paths_never_share_a_spelling(one: bytes, other: bytes) -> None:
    assert (to_text(one) == to_text(other)) == (one == other)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\\")))
def test_an_ordinary_path_is_its_own_text(text: str) -> None:
    assert to_text(text.encode()) == text
    assert is_utf8(text)


def test_what_is_escaped_is_told() -> None:
    assert to_text(b"/a/caf\xe9.jpg") == "/a/caf\\xe9.jpg"
    assert not is_utf8(to_text(b"/a/caf\xe9.jpg"))
    assert to_text(Path("/a/b")) == "/a/b"
    assert to_text("C:\\x41") == "C:\\x5cx41"


@pytest.mark.parametrize("text", ["/a\0b", "/a\\x00b", "/a\ud800b"])
def test_what_spells_no_path_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="is no path"):
        to_bytes(text)


def test_inside_follows_links_before_it_judges(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "root-of-another"
    for folder in (root / "deep", outside):
        folder.mkdir(parents=True)
    (root / "out").symlink_to(outside)
    (outside / "in").symlink_to(root / "deep")
    assert inside(os.fsencode(root / "deep"), [root]) == os.fsencode(root / "deep")
    assert inside(os.fsencode(root), [root]) == os.fsencode(root)
    assert inside(os.fsencode(outside / "in"), [root]) == os.fsencode(root / "deep")
    assert inside(os.fsencode(root / "not-there"), [outside, root])
    for path in (outside, root / "out", root / "deep/../../root-of-another", Path("/")):
        with pytest.raises(Forbidden, match="outside the allowed folders"):
            inside(os.fsencode(path), [root])


def test_a_root_may_itself_be_a_link_or_the_whole_disk(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    path = os.fsencode(tmp_path / "real" / "a.jpg")
    assert inside(path, [tmp_path / "link"]) == path
    assert inside(path, [Path("/")]) == path
    with pytest.raises(Forbidden):
        inside(path, [])


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    inside(os.fsencode(tmp_path / "loop"), [tmp_path])


def test_a_folder_that_its_owner_has_named_is_remembered(data_dir: Path) -> None:
    assert allowed() == []
    for folder in (b"/photos/new\nline", b"/photos/\xff", b"/photos/\xff/below"):
        allow(folder)
    assert [os.fsencode(folder) for folder in allowed()] == [b"/photos/new\nline", b"/photos/\xff"]
    assert (data_dir / "folders").stat().st_mode & 0o777 == 0o600
