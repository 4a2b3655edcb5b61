"""Files moved inside a known place are followed; what is gone still freezes it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from backups import rows
from scans import Register, Write

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library

BINS = ["#recycle"]
TakeIn = Callable[..., Awaitable[Path]]


@pytest.fixture
def take_in(db: Database, write: Write, register: Register, tmp_path: Path) -> TakeIn:
    """So many files of a known place in the ledger, recognised."""

    async def take_in(count: int, folder: str = "photos", *, hashed: bool = True) -> Path:
        files = []
        for n in range(count):
            content = f"{folder} {n:03}".encode()
            sample = library.sample_hash(content, b"", len(content))
            files.append(replace(write(f"{folder}/{n}.jpg", content), sample_hash=sample))
        await register(files)
        if hashed:
            await library.hash_pending(db)
        await rows(db, "UPDATE media_assets SET status = 'PROCESSED' RETURNING 1")
        async with db.transaction() as session:
            await library.know_place(session, str(tmp_path / folder))
        await look(db)
        return tmp_path / folder

    return take_in


async def look(db: Database) -> dict[str, int]:
    """The presence pass, with every file's turn, as the clock makes it."""
    await rows(db, "UPDATE known_places SET counted_at = NULL RETURNING 1")
    return await library.watch(db, BINS)


async def ledger(db: Database) -> dict[int, tuple[str, bool]]:
    """Where each asset lies, and whether it is missing, by its number."""
    found = await rows(
        db, "SELECT photo_id, final_path, missing_since FROM media_assets ORDER BY 1"
    )
    return {row.photo_id: (row.final_path, row.missing_since is not None) for row in found}


async def is_frozen(db: Database, folder: Path) -> bool:
    async with db.transaction() as session:
        return any(p.frozen_at and p.path == str(folder) for p in await library.places(session))


def move(folder: Path, to: Path, count: int) -> None:
    to.mkdir(parents=True)
    for n in range(count):
        (folder / f"{n}.jpg").rename(to / f"{n}.jpg")


@pytest.mark.parametrize("by", ["the clock", "a scan"])
@pytest.mark.parametrize("count", [20, 40])
async def test_a_folder_that_was_sorted_anew_is_not_frozen(
    db: Database, take_in: TakeIn, by: str, count: int
) -> None:
    """Each keeps its number, and with it its faces and names; nothing was missing for a moment."""
    folder = await take_in(40)
    before = await ledger(db)
    move(folder, folder / "2020" / "summer", count)
    if by == "the clock":
        assert await look(db) == {"moved": count}
    else:
        assert await library.guard(db, str(folder), BINS) == []
    after = await ledger(db)
    assert after.keys() == before.keys()
    for number, (path, missing) in after.items():
        assert not missing and Path(path).is_file()
        assert Path(path).name == Path(before[number][0]).name
    told = await rows(db, "SELECT what FROM asset_events WHERE what IN ('missing', 'found-again')")
    assert [event.what for event in told] == ["found-again"] * count
    assert not await is_frozen(db, folder)
    assert await look(db) == {}


async def test_copies_of_one_content_are_followed_one_by_one(
    db: Database, take_in: TakeIn, write: Write, register: Register
) -> None:
    folder = await take_in(20)
    for n in range(8):
        content = f"photos {n:03}".encode()
        sample = library.sample_hash(content, b"", len(content))
        await register([replace(write(f"photos/copy {n}.jpg", content), sample_hash=sample)])
    before = await ledger(db)
    move(folder, folder / "sorted", 8)
    for n in range(8):
        (folder / f"copy {n}.jpg").rename(folder / "sorted" / f"copy {n}.jpg")
    assert await look(db) == {"moved": 16}
    after = await ledger(db)
    assert [Path(p).name for p, _ in after.values()] == [Path(p).name for p, _ in before.values()]
    assert {Path(path).parent.name for path, _ in after.values()} == {"photos", "sorted"}
    copies = "SELECT count(*) AS n FROM media_assets WHERE duplicate_of IS NOT NULL"
    assert (await rows(db, copies))[0].n == 8


async def test_what_was_not_recognised_yet_is_looked_for_where_it_lies_now(
    db: Database, take_in: TakeIn
) -> None:
    folder = await take_in(20)
    await rows(db, "UPDATE media_assets SET status = 'PROCESSING' WHERE filename = '3.jpg'")
    await rows(db, "DELETE FROM bus_outbox")
    move(folder, folder / "2020", 10)
    await look(db)
    (asked,) = await rows(db, "SELECT payload FROM bus_outbox")
    assert asked.payload["path"] == str(folder / "2020" / "3.jpg")


@pytest.mark.parametrize(
    "to",
    ["photos/#recycle", "photos/.trash", "elsewhere", "photos/backup", "photos/not a photo"],
)
async def test_what_was_moved_to_where_no_scan_looks_is_gone(
    db: Database, take_in: TakeIn, tmp_path: Path, data_dir: Path, monkeypatch: Any, to: str
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_BACKUP_TARGET", str(tmp_path / "photos" / "backup"))
    load.cache_clear()
    folder = await take_in(40)
    before = await ledger(db)
    move(folder, tmp_path / to, 20)
    if to.endswith("not a photo"):
        for path in (tmp_path / to).iterdir():
            path.rename(path.with_suffix(".part"))
    assert await look(db) == {"frozen": 1}
    (refusal,) = await library.guard(db, str(folder), BINS)
    assert "20 of 40 files are gone at once" in refusal.cause
    assert await ledger(db) == before


@pytest.mark.parametrize("why", ["another content", "not hashed", "too few of them"])
async def test_what_cannot_be_proven_is_gone(db: Database, take_in: TakeIn, why: str) -> None:
    folder = await take_in(40, hashed=why != "not hashed")
    if why == "not hashed":
        await rows(db, "UPDATE media_assets SET file_hash = NULL RETURNING 1")
    before = await ledger(db)
    move(folder, folder / "2020", 20)
    for n in range(20):
        path = folder / "2020" / f"{n}.jpg"
        if why == "another content":
            path.write_bytes(path.read_bytes()[::-1])
        elif why == "too few of them" and n < 10:
            path.unlink()
    found = 10 if why == "too few of them" else 0
    assert await look(db) == {"frozen": 1} | ({"moved": found} if found else {})
    assert await is_frozen(db, folder)
    after = await ledger(db)
    assert not any(missing for _, missing in after.values())
    assert sum(after[number] != before[number] for number in before) == found


@pytest.mark.parametrize("how", ["emptied", "gone"])
async def test_a_place_that_is_emptied_or_gone_is_frozen(
    db: Database, take_in: TakeIn, how: str
) -> None:
    folder = await take_in(40)
    if how == "emptied":
        for path in folder.iterdir():
            path.rename(folder.parent / path.name)
    else:
        shutil.move(folder, folder.parent / "photos of another name")
    assert await look(db) == {"frozen": 1}
    assert not any(missing for _, missing in (await ledger(db)).values())


async def test_the_sidecars_of_moved_photos_are_no_problem(db: Database, take_in: TakeIn) -> None:
    folder = await take_in(20)
    (folder / "3.xmp").write_bytes(b"<x:xmpmeta/>")
    os.utime(folder / "3.xmp", (1_600_000_000, 1_600_000_000))
    assert await library.find_kept(db) == {"found": 1}
    move(folder, folder / "2020", 20)
    (folder / "3.xmp").rename(folder / "2020" / "3.xmp")
    await look(db)
    await library.find_kept(db)
    (kept,) = await rows(db, "SELECT final_path, photo_id, missing_since, error FROM kept_files")
    assert (kept.final_path, kept.error) == (str(folder / "2020" / "3.xmp"), None)
    (photo,) = await rows(db, "SELECT photo_id FROM media_assets WHERE filename = '3.jpg'")
    assert kept.photo_id == photo.photo_id
