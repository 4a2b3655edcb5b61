"""What a scan finds, passes over, and cannot read."""

from __future__ import annotations

import asyncio
import csv
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes

import hostile
import pytest
import xxhash
from workbench import Workbench, fill, photo

from kaleidoscope.ingest.outside import scan as scanning
from kaleidoscope.ingest.outside.read_ahead import Chunk, read_ahead
from kaleidoscope.ingest.outside.scan import Filter, Item, Skip, Trouble, sample_hash, scan
from kaleidoscope.ingest.settings import IngestSettings
from kaleidoscope.kernel.paths import to_bytes
from kaleidoscope.library.service import ScannedFile

WANTED = Filter.of(IngestSettings())


def look(folder: Path, wanted: Filter = WANTED, *, recursive: bool = True) -> Chunk:
    """Everything that a scan says of a folder."""
    found = Chunk()
    for item in scan(os.fsencode(folder), wanted, recursive=recursive):
        found.add(item)
    return found


def names(found: Chunk, folder: Path) -> set[bytes]:
    return {os.path.relpath(to_bytes(f.path), os.fsencode(folder)) for f in found.files}


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    hostile.make(tmp_path)
    yield tmp_path
    hostile.open_up(tmp_path)


def test_the_hostile_tree(tree: Path) -> None:
    found = look(tree)
    expected = {*hostile.ODD_NAMES, *hostile.TIMES, b"sparse.mp4", b"empty.jpg"}
    root = os.geteuid() == 0  # opens every door
    closed = {b"closed.jpg", b"closed_folder/a.jpg"}
    assert names(found, tree) == (expected | closed if root else expected)
    troubles = Counter(trouble.code for trouble in found.troubles)
    assert troubles == {"special-file": 2, "path-too-long": 1} | (
        {} if root else {"unreadable-file": 1, "unreadable-folder": 1}
    )
    assert found.skipped - troubles == Counter(hostile.PASSED_OVER.values()) + Counter(
        {"link": len(hostile.LINKS)}
    )
    assert not Path("PWNED").exists()


async def test_the_hostile_tree_becomes_a_job(bench: Workbench, tree: Path) -> None:
    job = await bench.ingest(tree)
    assert job.inserted == job.scanned >= len(hostile.ODD_NAMES)
    paths = await bench.rows("SELECT final_path FROM media_assets")
    assert all(os.path.lexists(to_bytes(row.final_path)) for row in paths)
    assert job.errors["path-too-long"] == 1
    assert job.skipped["link"] == len(hostile.LINKS)
    await bench.recognise(faces=0)
    job = await bench.status(job.job_id)
    again = await bench.ingest(tree)
    assert (again.inserted, again.changed, again.published) == (0, 0, 0)
    assert again.known == job.scanned


async def test_the_hostile_tree_of_the_corpus(
    shared: Path, bench: Workbench, tmp_path: Path
) -> None:
    maker = shared / "media" / "hostile" / "make_hostile.py"
    tree = tmp_path / "tree"
    subprocess.run([sys.executable, maker, tree], check=True, capture_output=True)  # noqa: ASYNC221
    found = look(tree)
    taken = names(found, tree)
    with (tmp_path / "hostile_expect.csv").open() as file:
        for row in csv.DictReader(file):
            name, expect = unquote_to_bytes(row["name_percent_encoded"]), row["expect"]
            if row["kind"] == "file" and expect.startswith("import"):
                assert name in taken, row
            elif "must not" in expect or "ignore" in expect:
                assert name not in taken or expect.startswith("policy"), row
    job = await bench.ingest(tree)
    assert (job.scanned, job.status) == (len(found.files), "PUBLISHED")
    assert job.duplicates >= 1  # the hard link
    for path in (tree / "closed_dir", tree / "locked_dir"):
        path.chmod(0o700)


def test_content_tells_what_a_file_is(tmp_path: Path) -> None:
    png = b"\x89PNG\r\n\x1a\n" + bytes(50)
    mp4 = b"\0\0\0\x18ftypmp42" + bytes(50)
    for name, content in {
        "a.jpg": png,
        "b.jpg": mp4,
        "c.jpg": b"<html>",
        "d": png,
        "e": b"text",
        "f.mov": b"",
        "g.svg": b"<svg>",
        "h.JPEG ": photo(1),
    }.items():
        (tmp_path / name).write_bytes(content)
    found = look(tmp_path)
    kinds = {Path(f.path).name: (f.mime_type, f.media_type) for f in found.files}
    assert kinds == {
        "a.jpg": ("image/png", "photo"),
        "b.jpg": ("video/mp4", "video"),
        "c.jpg": ("image/jpeg", "photo"),
        "d": ("image/png", "photo"),
        "f.mov": ("video/quicktime", "video"),
        "h.JPEG ": ("image/jpeg", "photo"),
    }
    assert found.skipped == {"extension": 2}


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 131071, 131072, 131073, 500_000])
def test_the_sample_hash_covers_both_ends(tmp_path: Path, size: int) -> None:
    content = (photo(size) * (size // 100 + 1))[:size]
    (tmp_path / "a.jpg").write_bytes(content)
    (found,) = look(tmp_path).files
    ends = content if size <= 131072 else content[:65536] + content[-65536:]
    assert found.sample_hash == xxhash.xxh64(ends + size.to_bytes(8, "little")).hexdigest()
    assert found.size == size


def test_the_sample_hash_is_what_it_was() -> None:
    """It stands in ledgers: it must never change."""
    assert sample_hash(b"first", b"last", 9) == "a4b15fc54689f17a"


def test_a_file_that_is_being_written_waits_for_the_next_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(photo(1))
    read = os.read

    def read_and_grow(descriptor: int, size: int) -> bytes:
        found = read(descriptor, size)
        with path.open("ab") as file:
            file.write(b"more")
        return found

    monkeypatch.setattr(scanning.os, "read", read_and_grow)
    (trouble,) = look(tmp_path).troubles
    assert (trouble.code, trouble.path) == ("changing", str(path))
    monkeypatch.undo()
    assert len(look(tmp_path).files) == 1


def test_what_vanishes_while_it_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, 3)
    opening = os.open

    def open_too_late(path: bytes, flags: int) -> int:
        if path.endswith(b"0001.jpg"):
            Path(os.fsdecode(path)).unlink()
        if path.endswith(b"0002.jpg"):
            Path(os.fsdecode(path)).unlink()
            os.mkfifo(path)
        return opening(path, flags)

    monkeypatch.setattr(scanning.os, "open", open_too_late)
    found = look(tmp_path)
    assert {Path(t.path).name: t.code for t in found.troubles} == {
        "0001.jpg": "vanished",
        "0002.jpg": "special-file",
    }
    assert len(found.files) == 1


def test_folders_that_are_passed_over(tmp_path: Path) -> None:
    for folder in ("album", "data", ".hidden", "lost+found"):
        fill(tmp_path / folder, 1)
    found = look(tmp_path, Filter.of(IngestSettings(), tmp_path / "data"))
    assert found.skipped == {"system-folder": 2, "hidden-folder": 1}
    assert names(found, tmp_path) == {b"album/0000.jpg"}
    chosen = IngestSettings(hidden=True, skip_folders=["album"], extensions=[".JPG"])
    assert len(look(tmp_path, Filter.of(chosen)).files) == 3


def test_a_folder_that_cannot_be_read_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        look(tmp_path / "nowhere")


async def test_the_reader_is_bounded_and_stops(tmp_path: Path) -> None:
    seen = 0

    def endless() -> Iterator[Item]:
        nonlocal seen
        while True:
            seen += 1
            yield Skip("extension") if seen % 2 else Trouble("/a", "vanished", "gone")

    async with read_ahead(endless(), 10) as chunks:
        async for chunk in chunks:
            if chunk.skipped["extension"]:
                break
    await asyncio.sleep(0.7)
    before = seen
    await asyncio.sleep(0.2)
    assert seen == before


async def test_the_reader_keeps_at_most_a_few_chunks(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    (file,) = look(tmp_path).files
    made = 0

    def many() -> Iterator[ScannedFile]:
        nonlocal made
        for _ in range(1000):
            made += 1
            yield file

    async with read_ahead(many(), 10) as chunks:
        total = 0
        async for chunk in chunks:
            total += len(chunk.files)
            await asyncio.sleep(0.005)
            assert made - total <= 70
    assert total == 1000


async def test_what_the_scan_raises_reaches_the_reader(tmp_path: Path) -> None:
    async with read_ahead(scan(os.fsencode(tmp_path / "nowhere"), WANTED), 10) as chunks:
        with pytest.raises(FileNotFoundError):
            async for _ in chunks:
                pass
