"""The circuit breaker: what vanishes as a whole is frozen, what vanishes by itself is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from backups import rows
from scans import Register, Write

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import Conflict, NotFound
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library
from kaleidoscope.library.outside import places as disk
from kaleidoscope.library.queries import places as queries
from kaleidoscope.library.rules.places import Seen, same_device, too_many, unwell
from kaleidoscope.library.settings import LibrarySettings


@pytest.fixture
def take_in(db: Database, write: Write, register: Register, tmp_path: Path) -> Any:
    """So many files of a known place in the ledger, hashed."""

    async def take_in(count: int, folder: str = "photos") -> Path:
        await register([write(f"{folder}/{n}.jpg", f"{folder} {n}".encode()) for n in range(count)])
        await library.hash_pending(db)
        async with db.transaction() as session:
            await library.know_place(session, str(tmp_path / folder))
        await look(db)
        return tmp_path / folder

    return take_in


async def look(db: Database) -> dict[str, int]:
    """The presence pass, with every file's turn."""
    await rows(db, "UPDATE known_places SET counted_at = NULL")
    return await library.watch(db)


async def missing(db: Database) -> list[str]:
    found = await rows(
        db, "SELECT filename FROM media_assets WHERE missing_since IS NOT NULL ORDER BY filename"
    )
    return [row.filename for row in found]


async def state(db: Database) -> Any:
    async with db.transaction() as session:
        (place,) = [p for p in await library.places(session) if p.kind == "folder"]
    return place


async def decide(db: Database, decision: Any) -> None:
    place = await state(db)
    async with db.transaction() as session:
        await library.decide(session, place.place_id, decision)
    await library.watch(db)


async def test_a_single_file_that_vanishes_is_missing(db: Database, take_in: Any) -> None:
    folder = await take_in(20)
    (folder / "3.jpg").rename(folder / "3.away")
    assert await look(db) == {"missing": 1}
    assert await missing(db) == ["3.jpg"]
    (asset,) = await rows(db, "SELECT * FROM media_assets WHERE has_errors")
    assert "the file is gone" in asset.error_message
    assert await look(db) == {}
    (folder / "3.away").rename(folder / "3.jpg")
    assert await look(db) == {"found": 1}
    assert await missing(db) == []
    assert await rows(db, "SELECT FROM media_assets WHERE has_errors") == []
    events = await rows(
        db, "SELECT what FROM asset_events WHERE what IN ('missing', 'found-again') ORDER BY 1"
    )
    assert [event.what for event in events] == ["found-again", "missing"]


@pytest.mark.parametrize("how", ["gone", "empty"])
async def test_a_place_that_is_gone_is_frozen(db: Database, take_in: Any, how: str) -> None:
    folder = await take_in(3)
    folder.rename(folder.with_name("away"))
    if how == "empty":
        folder.mkdir()
    assert await look(db) == {"frozen": 1}
    assert await missing(db) == []
    place = await state(db)
    assert (place.assets, place.missing, place.decision) == (3, 0, None)
    assert how in place.frozen_because and place.frozen_at is not None
    async with db.transaction() as session:
        (alarm,) = await library.alarms(session)
    assert alarm.status == "ERROR" and str(folder) in alarm.text
    if how == "empty":
        folder.rmdir()
    folder.with_name("away").rename(folder)
    assert await library.watch(db) == {}  # it is well again by itself
    assert (await state(db)).frozen_at is None and await missing(db) == []


async def test_too_many_files_gone_at_once_freeze(db: Database, take_in: Any) -> None:
    folder = await take_in(40)
    for n in range(5):
        (folder / f"{n}.jpg").rename(folder / f"{n}.away")
    assert await look(db) == {"frozen": 1}
    assert await missing(db) == []
    assert "5 of 40 files" in (await state(db)).frozen_because
    (folder / "0.away").rename(folder / "0.jpg")
    assert await look(db) == {"missing": 4}
    assert (await state(db)).frozen_at is None


async def test_a_person_accepts_that_files_are_gone(db: Database, take_in: Any) -> None:
    folder = await take_in(10)
    shutil.rmtree(folder)
    await look(db)
    await decide(db, "accept-missing")
    assert len(await missing(db)) == 10
    assert (await state(db)).frozen_at is None
    assert len(await rows(db, "SELECT FROM media_assets")) == 10  # nothing is ever deleted
    assert await look(db) == {}


async def test_a_person_waits(db: Database, take_in: Any) -> None:
    folder = await take_in(10)
    folder.rename(folder.with_name("away"))
    await look(db)
    await decide(db, "wait")
    assert await missing(db) == []
    async with db.transaction() as session:
        (alarm,) = await library.alarms(session)
    assert alarm.status == "WARNING"
    folder.with_name("away").rename(folder)
    await library.watch(db)
    assert (await state(db)).frozen_at is None
    folder.rename(folder.with_name("away"))
    await look(db)
    assert (await state(db)).decision is None  # a new freeze asks anew


async def test_there_is_nothing_to_decide_about_a_place_that_is_well(
    db: Database, take_in: Any
) -> None:
    await take_in(1)
    with pytest.raises(Conflict, match="is not frozen"):
        await decide(db, "accept-missing")
    async with db.transaction() as session:
        with pytest.raises(NotFound):
            await library.decide(session, 77, "wait")


async def test_a_file_that_reappears_elsewhere_keeps_its_number(
    db: Database, take_in: Any, write: Write, register: Register
) -> None:
    """It was known to be missing when it was found at its new place."""
    folder = await take_in(20)
    (before,) = await rows(db, "SELECT photo_id FROM media_assets WHERE filename = '7.jpg'")
    await rows(db, "UPDATE media_assets SET status = 'PROCESSED', person_ids = '[1]'")
    (folder / "7.jpg").unlink()
    await look(db)
    (found,) = await register([write("photos/2020/new name.jpg", b"photos 7")])
    assert (found.photo_id, found.outcome) == (before.photo_id, "known")
    (after,) = await rows(db, "SELECT * FROM media_assets WHERE photo_id = :id", id=before.photo_id)
    assert after.final_path == str(folder / "2020/new name.jpg")
    assert (after.filename, after.missing_since) == ("new name.jpg", None)
    assert (after.original_name, after.person_ids) == ("7.jpg", [1])
    assert not after.has_errors
    assert len(await rows(db, "SELECT FROM media_assets")) == 20
    assert await look(db) == {}


async def test_found_elsewhere_before_it_was_missed(
    db: Database, take_in: Any, write: Write, register: Register
) -> None:
    """It was a duplicate until the first one's file was seen to be gone: then the asset is it."""
    folder = await take_in(20)
    (before,) = await rows(db, "SELECT photo_id FROM media_assets WHERE filename = '7.jpg'")
    (found,) = await register([write("photos/moved.jpg", b"photos 7")])
    assert found.outcome == "duplicate"
    (folder / "7.jpg").unlink()
    assert await look(db) == {"missing": 1, "found": 1}
    (asset,) = await rows(db, "SELECT * FROM media_assets WHERE photo_id = :i", i=before.photo_id)
    assert (asset.final_path, asset.missing_since) == (str(folder / "moved.jpg"), None)
    (other,) = await rows(db, "SELECT * FROM media_assets WHERE photo_id = :i", i=found.photo_id)
    assert other.final_path == str(folder / "7.jpg") and other.missing_since is not None
    assert other.duplicate_of == before.photo_id
    assert await look(db) == {}


async def test_a_missing_one_whose_recognition_has_not_ended_begins_anew(
    db: Database, take_in: Any, write: Write, register: Register
) -> None:
    folder = await take_in(20)
    (folder / "7.jpg").unlink()
    await look(db)
    (found,) = await register([write("photos/moved.jpg", b"photos 7")])
    assert found.outcome == "changed"
    (asset,) = await rows(db, "SELECT * FROM media_assets WHERE photo_id = :i", i=found.photo_id)
    assert (asset.attempt_id, asset.status) == (found.attempt_id, "READY")


async def test_a_folder_inside_a_known_one_is_no_place_of_its_own(
    db: Database, take_in: Any
) -> None:
    folder = await take_in(3)
    async with db.transaction() as session:
        await library.know_place(session, str(folder / "2020"))
        await library.know_place(session, f"{folder}-other")
        found = [place.path for place in await library.places(session)]
    assert found == [str(folder), f"{folder}-other"]


async def test_a_scan_of_a_place_that_is_gone_freezes_it(db: Database, take_in: Any) -> None:
    folder = await take_in(3)
    assert await library.guard(db, str(folder)) == []
    shutil.rmtree(folder)
    folder.mkdir()
    (refusal,) = await library.guard(db, str(folder / "2020"))
    assert refusal.holds and "is frozen: the folder is empty" in str(refusal)
    assert (await state(db)).frozen_at is not None
    (told,) = await library.guard(db, str(folder.parent))  # other folders may be scanned
    assert not told.holds


async def test_a_scan_of_a_place_half_of_which_is_gone_freezes_it_at_once(
    db: Database, take_in: Any
) -> None:
    """Of the scanned folder, be it a small part of the place; and nothing is marked missing."""
    folder = await take_in(100)
    part = await take_in(10, "photos/2020")
    for n in range(5):
        (part / f"{n}.jpg").unlink()
    (refusal,) = await library.guard(db, str(part))
    assert refusal.holds and "5 of 10 files are gone at once" in refusal.cause
    assert (await state(db)).path == str(folder) and (await state(db)).frozen_at is not None
    assert await missing(db) == []
    assert await library.watch(db) == {"missing": 5}  # 5 of 110 are believed, by the place's share


async def test_a_scan_that_finds_nothing_freezes_however_few_files_there_were(
    db: Database, take_in: Any
) -> None:
    folder = await take_in(3)
    for n in range(3):
        (folder / f"{n}.jpg").rename(folder / f"{n}.away")
    assert await library.guard(db, str(folder)) == []  # others may have taken their place
    (frozen,) = await library.found_nothing(db, str(folder))
    assert frozen.holds and "finds nothing, where 3 files were" in frozen.cause
    assert await missing(db) == []
    (folder / "0.away").rename(folder / "0.jpg")
    assert await library.found_nothing(db, str(folder)) == []


async def test_half_a_place_gone_is_noticed_within_a_minute(db: Database, take_in: Any) -> None:
    """Not only when its turn comes: some files are looked for in every round."""
    folder = await take_in(40)
    assert await library.watch(db) == {}
    for n in range(20):
        (folder / f"{n}.jpg").rename(folder / f"{n}.away")
    assert await library.watch(db) == {"frozen": 1}
    assert "20 of 40 files are gone" in (await state(db)).frozen_because
    assert await missing(db) == []


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Any]:
    """Mount something; unmounted at the end."""
    if os.geteuid():
        pytest.skip("only root can mount")
    points: list[Path] = []

    def mount(point: Path, *how: str) -> None:
        point.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["mount", *how, str(point)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
        points.append(point)

    yield mount
    for point in points:
        subprocess.run(["umount", "-l", point], capture_output=True)


def unmount(point: Path) -> None:
    subprocess.run(["umount", point], check=True)


@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
@pytest.mark.parametrize("where", ["photos", "photos/nas"])
async def test_an_unmounted_place_freezes(
    db: Database, take_in: Any, tmp_path: Path, mounted: Any, kind: str, where: str
) -> None:
    """A mount removed: nothing in it is marked missing, whether it is the place or lies in it."""
    point = tmp_path / where
    (tmp_path / "disk").mkdir()
    if kind == "tmpfs":
        mounted(point, "-t", "tmpfs", "tmpfs")
    else:
        mounted(point, "--bind", str(tmp_path / "disk"))
    await take_in(100, "photos/2020" if where == "photos/nas" else "photos")
    await rows(db, "DELETE FROM known_places")
    await take_in(6, where)
    await rows(db, "DELETE FROM known_places")
    async with db.transaction() as session:
        await library.know_place(session, str(tmp_path / "photos"))
    assert await look(db) == {}
    unmount(point)
    assert await look(db) == {"frozen": 1}
    assert await missing(db) == []
    async with db.transaction() as session:
        (frozen,) = [p for p in await library.places(session) if p.frozen_at is not None]
    assert frozen.path == str(point) and "is empty" in frozen.frozen_because
    if kind == "bind":
        mounted(point, "--bind", str(tmp_path / "disk"))
        assert await look(db) == {}
        assert await missing(db) == []


async def test_another_disk_at_the_same_place_freezes(
    db: Database, take_in: Any, tmp_path: Path, mounted: Any
) -> None:
    point = tmp_path / "photos"
    mounted(point, "-t", "tmpfs", "tmpfs")
    await take_in(6)
    unmount(point)
    (point / "something").write_text("else")
    assert await look(db) == {"frozen": 1}
    assert "on another device" in (await state(db)).frozen_because


# -- the decisions alone


def test_what_makes_a_place_unwell() -> None:
    here = Seen(exists=True, device="ext4 UUID=1 at /")
    assert unwell(here, None, 5) is None and unwell(here, "ext4 UUID=1 at /mnt", 5) is None
    assert unwell(Seen(exists=False), None, 0) is None
    assert "gone" in str(unwell(Seen(exists=False), None, 1))
    assert "empty" in str(unwell(Seen(exists=True, is_empty=True), None, 1))
    assert "Stale" in str(unwell(Seen(exists=True, trouble="Stale file handle"), None, 0))
    assert "another device" in str(unwell(here, "ext4 UUID=2 at /", 1))


def test_devices() -> None:
    assert same_device("ext4 UUID=1 at /mnt/a", "ext4 UUID=1 at /media/b")
    assert same_device("tmpfs  at /mnt/a", "tmpfs  at /mnt/a")
    assert not same_device("tmpfs  at /mnt/a", "tmpfs  at /")
    assert not same_device("nfs4 nas:/photos at /mnt", "nfs4 nas:/other at /mnt")
    assert not same_device("nfs4 nas:/photos at /mnt", "ext4 UUID=1 at /")


@pytest.mark.parametrize(
    ("gone", "files", "frozen"),
    [(0, 0, False), (4, 4, False), (5, 5, True), (5, 50, False), (6, 50, True), (10, 1000, False)],
)
def test_how_many_may_vanish(gone: int, files: int, frozen: bool) -> None:
    assert (too_many(gone, files, LibrarySettings()) is not None) == frozen


def test_the_device_of_a_path() -> None:
    found = disk.device_of(b"/")
    if found is None:
        pytest.skip("this system tells nothing of mounts")
    assert found.endswith(" at /")
    assert disk.device_of(b"/no/such/folder") == found


async def test_a_file_that_is_filed_elsewhere_meanwhile_is_not_missing(
    db: Database, take_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Custody moves files between the look at the ledger and the look at the disk."""
    folder = await take_in(10)
    seen = disk.state_of_files

    def filed_again(paths: Sequence[str]) -> list[disk.FileState]:
        for path in [Path(p) for p in paths]:
            path.rename(path.with_suffix(".moved"))
        moved = "UPDATE media_assets SET final_path = replace(final_path, '.jpg', '.moved')"
        with psycopg.connect(db.url) as connection:
            connection.execute(moved)
        return seen(paths)

    monkeypatch.setattr(disk, "state_of_files", filed_again)
    assert await look(db) == {}
    assert await missing(db) == [] and (await state(db)).frozen_at is None
    assert (folder / "1.moved").exists()


async def test_filed_elsewhere_after_it_was_missed_it_is_not_missing(
    db: Database, take_in: Any
) -> None:
    folder = await take_in(20)
    (asset,) = await rows(db, "SELECT photo_id FROM media_assets WHERE filename = '3.jpg'")
    async with db.transaction() as session:
        gone = await queries.mark_missing(session, {asset.photo_id: str(folder / "before.jpg")})
    assert gone == [] and await missing(db) == []


async def test_what_was_accepted_once_does_not_open_a_place_that_is_gone_again(
    db: Database, take_in: Any
) -> None:
    folder = await take_in(10)
    shutil.rmtree(folder)
    await look(db)
    await decide(db, "accept-missing")
    folder = await take_in(10)
    await look(db)
    shutil.rmtree(folder)
    (refusal,) = await library.guard(db, str(folder))
    assert "is frozen" in str(refusal)


async def test_no_pass_blames_photos_for_a_place_that_is_frozen(
    db: Database, write: Write, register: Register, tmp_path: Path
) -> None:
    """They wait, without an error, until it is back."""
    await register([write(f"photos/{n}.jpg", b"%d" % n) for n in range(3)])
    async with db.transaction() as session:
        await library.know_place(session, str(tmp_path / "photos"))
    await look(db)
    (tmp_path / "photos").rename(tmp_path / "away")
    await look(db)
    assert (await state(db)).frozen_at is not None
    assert await library.hash_pending(db) == {}
    assert await library.date_assets(db) == {}
    await rows(db, "UPDATE media_assets SET file_hash = lpad(photo_id::text, 64, '0')")
    assert await library.thumbnail_pending(db) == {}
    assert await rows(db, "SELECT FROM media_assets WHERE has_errors") == []


async def test_the_originals_are_watched_wherever_they_are(
    db: Database, take_in: Any, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_LIBRARY_ORIGINALS", str(tmp_path / "other disk"))
    load.cache_clear()
    await take_in(3, "other disk")
    await rows(db, "DELETE FROM known_places")
    await library.watch(db)
    (place,) = await rows(db, "SELECT path, kind FROM known_places")
    assert (place.path, place.kind) == (str(tmp_path / "other disk"), "originals")
