"""Sidecars, duplicates and what was set aside: kept, backed up and read through like originals."""

from __future__ import annotations

import errno
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from backups import originals, rows
from custodian import Custodian, files, jpeg
from scans import Register, Write

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import Conflict, NotFound, Unavailable
from kaleidoscope.kernel.paths import to_text
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library
from kaleidoscope.library.outside import originals as disk

NOW = timedelta(0)
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>five stars</x:xmpmeta>"
JSON = b'{"title": "IMG_2.jpg", "description": "grandmother"}'


@pytest.fixture
def target(folder: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = folder / "second disk"
    monkeypatch.setenv("KALEIDOSCOPE_BACKUP_TARGET", str(place))
    load.cache_clear()
    return place


async def copy(db: Database) -> dict[str, int]:
    return await library.copy_pending(db, await library.use_target(db))


async def kept(db: Database) -> dict[str, Any]:
    """What is kept, by its name."""
    found = await rows(db, "SELECT * FROM kept_files ORDER BY file_id")
    return {row.final_path.rpartition("/")[2]: row for row in found}


async def fill(custodian: Custodian) -> None:
    """A photo with its sidecar, one with Takeout's, a duplicate, and what is no photo."""
    custodian.drop("IMG_1.jpg", jpeg(1))
    custodian.drop("IMG_1.xmp", XMP)
    custodian.drop("IMG_2.jpg", jpeg(2))
    custodian.drop("IMG_2.jpg.json", JSON)
    custodian.drop("notes.txt", b"Rome, with the children")
    await custodian.sweep()
    custodian.drop("again.jpg", jpeg(1))
    await custodian.sweep()


async def test_they_are_kept_as_they_are_filed(custodian: Custodian) -> None:
    await fill(custodian)
    found = await kept(custodian.db)
    assert {name: row.kind for name, row in found.items()} == {
        "IMG_1.xmp": "sidecar",
        "IMG_2.jpg.json": "sidecar",
        "notes.txt": "set-aside",
        "again.jpg": "duplicate",
    }
    photos = {p.filename: p.photo_id for p in (await custodian.ledger()).values()}
    assert found["IMG_1.xmp"].photo_id == found["again.jpg"].photo_id == photos["IMG_1.jpg"]
    for row in found.values():
        path = Path(row.final_path)
        assert row.size_bytes == path.stat().st_size
        assert row.modified_at == library.modified_at(path.stat())
    assert await library.find_kept(custodian.db) == {}  # the round over the disk finds nothing new


async def test_they_are_in_the_backup(custodian: Custodian, target: Path) -> None:
    await fill(custodian)
    done = await copy(custodian.db)
    assert done["failed"] == 0 and done["copied"] == 5  # the duplicate has a content that is there
    bodies = set(originals(target).values())
    assert {XMP, JSON, b"Rome, with the children", jpeg(1), jpeg(2)} == bodies
    assert all(row.is_backed_up for row in (await kept(custodian.db)).values())
    async with custodian.db.transaction() as session:
        assert await library.count_pending(session) == (0, 0)
    # What was damaged there is made anew, and until then is not backed up.
    (name,) = [n for n, body in originals(target).items() if body == XMP]
    (target / name).write_bytes(XMP[::-1])
    told = await library.verify_copies(custodian.db, await library.use_target(custodian.db))
    assert told["damaged"] == [name]
    assert not (await kept(custodian.db))["IMG_1.xmp"].is_backed_up
    assert (await copy(custodian.db))["copied"] == 1
    assert (target / name).read_bytes() == XMP


async def test_they_come_back(custodian: Custodian, target: Path) -> None:
    await fill(custodian)
    await copy(custodian.db)
    roots = (custodian.originals, custodian.duplicates, custodian.set_aside)
    before = {path: path.read_bytes() for root in roots for path in files(root)}
    times = {path: path.stat().st_mtime for path in before}
    assert len(before) == 6
    for path in before:
        path.unlink()
    done = await library.put_back(custodian.db, await library.use_target(custodian.db))
    assert (done["restored"], done["beside"], done["failed"]) == (2, 4, {})
    assert {path: path.read_bytes() for root in roots for path in files(root)} == before
    assert {path: path.stat().st_mtime for path in before} == times


async def test_a_duplicate_that_a_person_deleted_stays_deleted(
    custodian: Custodian, target: Path
) -> None:
    """Its content is an original's; what was set aside is nowhere else, and does come back."""
    await fill(custodian)
    await copy(custodian.db)
    (custodian.duplicates / "again.jpg").unlink()
    (custodian.set_aside / "notes.txt").unlink()
    assert await library.find_kept(custodian.db) == {"gone": 2}
    assert await library.find_kept(custodian.db) == {}
    await library.put_back(custodian.db, await library.use_target(custodian.db))
    assert not (custodian.duplicates / "again.jpg").exists()
    assert (custodian.set_aside / "notes.txt").exists()
    assert await library.find_kept(custodian.db) == {"back": 1}


async def problems(db: Database) -> dict[str, tuple[int, str]]:
    """What is wrong with what is kept, by its message: how many, and one of them."""
    async with db.transaction() as session:
        found = await library.kept_errors(session)
    return {row.message.partition(" (")[0]: (row.total, row.path) for row in found}


@pytest.mark.parametrize("how", ["back", "healed", "accepted"])
async def test_what_is_gone_is_a_problem_until_it_is_back_healed_or_accepted(
    custodian: Custodian, target: Path, how: str
) -> None:
    await fill(custodian)
    await copy(custodian.db)
    assert await problems(custodian.db) == {}
    paths = [Path((await kept(custodian.db))[n].final_path) for n in ("IMG_1.xmp", "again.jpg")]
    was = [path.read_bytes() for path in paths]
    for path in paths:
        path.unlink()
    assert await library.find_kept(custodian.db) == {"gone": 2}
    told = {
        "a sidecar is gone": (1, str(paths[0])),
        "a duplicate is gone whose original is kept": (1, str(paths[1])),
    }
    assert await problems(custodian.db) == told
    async with custodian.db.transaction() as session:
        assert await library.alarms(session) == []  # nothing is damaged
        listed = await library.kept_files(session, unwell=True)
    assert [file.final_path for file in listed] == [str(path) for path in paths]
    await library.scrub_some(custodian.db, NOW)
    assert await library.find_kept(custodian.db) == {}
    assert await problems(custodian.db) == told
    if how == "back":
        for path, content in zip(paths, was, strict=True):
            path.write_bytes(content)
        assert (await library.find_kept(custodian.db))["back"] == 2
    elif how == "healed":
        for path in paths:
            await library.heal_kept(custodian.db, to_text(path))
        assert [path.read_bytes() for path in paths] == was
    else:
        async with custodian.db.transaction() as session:
            assert await library.accept_missing(session, to_text(custodian.duplicates)) == [
                str(paths[1])
            ]
            assert await library.accept_missing(session) == [str(paths[0])]
    assert await problems(custodian.db) == {}
    assert await library.find_kept(custodian.db) == {}
    assert len(await kept(custodian.db)) == (2 if how == "accepted" else 4)


async def test_what_was_gone_before_this_was_told_is_told(custodian: Custodian) -> None:
    await fill(custodian)
    (custodian.set_aside / "notes.txt").unlink()
    await rows(
        custodian.db,
        "UPDATE kept_files SET missing_since = '2026-01-01' WHERE kind = 'set-aside' RETURNING 1",
    )
    assert await library.find_kept(custodian.db) == {}
    assert list(await problems(custodian.db)) == ["a file that was set aside is gone"]
    assert (await kept(custodian.db))["notes.txt"].missing_since.year == 2026


async def test_a_person_has_it_looked_for_again(custodian: Custodian) -> None:
    await fill(custodian)
    path = Path((await kept(custodian.db))["IMG_1.xmp"].final_path)
    path.unlink()
    await library.find_kept(custodian.db)
    message = (await kept(custodian.db))["IMG_1.xmp"].error
    for is_there in (False, True):
        if is_there:
            path.write_bytes(XMP)
        async with custodian.db.transaction() as session:
            assert await library.try_kept_again(session, "missing", message) == 1
        assert bool(await problems(custodian.db)) is not is_there
    assert (await kept(custodian.db))["IMG_1.xmp"].missing_since is None


async def test_rot_in_them_is_found_and_healed(custodian: Custodian, target: Path) -> None:
    await fill(custodian)
    await copy(custodian.db)
    path = Path((await kept(custodian.db))["IMG_1.xmp"].final_path)
    status = path.stat()
    path.write_bytes(XMP[:-1] + b"?")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert await library.scrub_some(custodian.db, NOW) == {"read": 6, "damaged": 1}
    row = (await kept(custodian.db))["IMG_1.xmp"]
    assert row.error_code == "rot" and "damaged" in row.error
    async with custodian.db.transaction() as session:
        (alarm,) = await library.alarms(session)
        (listed,) = await library.kept_files(session, unwell=True)
    assert alarm.status == "WARNING" and "beside the originals: 1" in alarm.text
    assert listed.final_path == row.final_path
    healed = await library.heal_kept(custodian.db, row.final_path)
    assert path.read_bytes() == XMP and path.stat().st_mtime_ns == status.st_mtime_ns
    assert healed.kept_aside is not None and Path(healed.kept_aside).read_bytes() == XMP[:-1] + b"?"
    assert (await kept(custodian.db))["IMG_1.xmp"].error is None
    assert await library.find_kept(custodian.db) == {}  # what was kept aside is no sidecar
    with pytest.raises(Conflict, match="neither damaged nor missing"):
        await library.heal_kept(custodian.db, row.final_path)
    with pytest.raises(NotFound):
        await library.heal_kept(custodian.db, "/nowhere.xmp")


async def test_a_folder_that_cannot_be_written_is_told(
    custodian: Custodian, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the last step, too: then all is as it was, and healing can be tried again."""
    await fill(custodian)
    await copy(custodian.db)
    path = Path((await kept(custodian.db))["IMG_1.xmp"].final_path)
    status = path.stat()
    damaged = XMP[:-1] + b"?"
    path.write_bytes(damaged)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    before = files(path.parent)

    def refuse(*words: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        with pytest.raises(Unavailable, match=f"{path}: it cannot be written: Read-only") as told:
            await library.heal_kept(custodian.db, to_text(path))
    assert str(path.parent) in (told.value.hint or "")
    assert files(path.parent) == before and path.read_bytes() == damaged
    await library.heal_kept(custodian.db, to_text(path))
    assert path.read_bytes() == XMP


async def test_a_folder_that_is_none_any_more_is_told(custodian: Custodian, target: Path) -> None:
    await fill(custodian)
    await copy(custodian.db)
    path = Path((await kept(custodian.db))["notes.txt"].final_path)
    away = path.parent.rename(path.parent.with_name("away"))
    path.parent.write_bytes(b"a file in its place")
    with pytest.raises(Unavailable, match=f"{path}: it cannot be written") as told:
        await library.heal_kept(custodian.db, to_text(path))
    assert str(path.parent) in (told.value.hint or "")
    path.parent.unlink()
    away.rename(path.parent)


async def test_what_cannot_be_put_back_hinders_no_other(
    custodian: Custodian, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(custodian)
    await copy(custodian.db)
    roots = [custodian.originals, custodian.duplicates, custodian.set_aside]
    before = [path for root in roots for path in files(root)]
    for path in before:
        path.unlink()
    name = disk._name

    def refuse(draft: Path, to: Path) -> None:
        if to.suffix == ".xmp":
            raise OSError(errno.EROFS, "Read-only file system")
        name(draft, to)

    monkeypatch.setattr(disk, "_name", refuse)
    done = await library.put_back(custodian.db, await library.use_target(custodian.db))
    (told,) = done["failed"].items()
    assert (
        told[0].endswith("IMG_1.xmp") and told[1] == "it cannot be written: Read-only file system"
    )
    lying = [path for root in roots for path in files(root)]
    assert lying == [path for path in before if path.suffix != ".xmp"]  # no half of it either


async def test_a_sidecar_that_an_editor_wrote_to_is_no_rot(
    custodian: Custodian, target: Path
) -> None:
    await fill(custodian)
    await copy(custodian.db)
    path = Path((await kept(custodian.db))["IMG_1.xmp"].final_path)
    path.write_bytes(b"<x:xmpmeta>four stars</x:xmpmeta>")
    assert "damaged" not in await library.scrub_some(custodian.db, NOW)
    assert await library.find_kept(custodian.db) == {"found": 1}
    assert not (await kept(custodian.db))["IMG_1.xmp"].is_backed_up
    assert (await copy(custodian.db))["copied"] == 1
    assert b"four stars" in b"".join(originals(target).values())
    assert XMP in originals(target).values()  # nothing but a person's prune deletes there


async def test_filed_again_with_its_photo_it_is_kept_where_it_lies_then(
    custodian: Custodian, target: Path
) -> None:
    await fill(custodian)
    await copy(custodian.db)
    before = (await kept(custodian.db))["IMG_1.xmp"]
    await rows(
        custodian.db,
        "UPDATE media_assets SET captured_at = '2019-07-08 09:00' WHERE photo_id = :id",
        id=before.photo_id,
    )
    await library.refile(custodian.db, [before.photo_id])
    found = [r for r in (await kept(custodian.db)).values() if r.kind == "sidecar"]
    (after,) = [r for r in found if r.photo_id == before.photo_id]
    assert (
        after.final_path.endswith("2019/2019-07-08/IMG_1.xmp") and Path(after.final_path).exists()
    )
    assert after.is_backed_up and len(found) == 2
    assert (await copy(custodian.db))["copied"] == 0


async def test_a_sidecar_that_was_edited_or_came_later_travels_with_its_photo(
    custodian: Custodian,
) -> None:
    """A person's editor, or ours, writes it beside the original: custody has never moved it."""
    await fill(custodian)
    first = Path((await kept(custodian.db))["IMG_1.xmp"].final_path)
    first.write_bytes(b"<x:xmpmeta>four stars</x:xmpmeta>")
    late = first.with_name("IMG_2.xmp")
    late.write_bytes(b"<x:xmpmeta>two</x:xmpmeta>")
    await library.find_kept(custodian.db)
    photos = [p.photo_id for p in (await custodian.ledger()).values()]
    await rows(custodian.db, "UPDATE media_assets SET captured_at = '2019-07-08 09:00'")
    await library.refile(custodian.db, photos)
    there = {p.name for p in files(custodian.originals / "2019/2019-07-08")}
    assert there == {"IMG_1.jpg", "IMG_1.xmp", "IMG_2.jpg", "IMG_2.jpg.json", "IMG_2.xmp"}
    assert not first.exists() and not late.exists()
    assert await library.find_kept(custodian.db) == {}


async def test_sidecars_beside_files_indexed_in_place(
    db: Database, write: Write, register: Register, tmp_path: Path, target: Path
) -> None:
    """Only those that tell of an asset: other files of a folder are nobody's business."""
    await register([write("photos/IMG_7.jpg", b"seven")])
    (tmp_path / "photos/IMG_7.xmp").write_bytes(XMP)
    (tmp_path / "photos/package.json").write_bytes(b"{}")
    (tmp_path / "photos/IMG_8.xmp").write_bytes(b"of no asset")
    (tmp_path / "photos/IMG_8.jpg").write_bytes(b"not taken in")
    async with db.transaction() as session:
        await library.know_place(session, str(tmp_path / "photos"))
    assert await library.find_kept(db) == {"found": 1}
    assert list(await kept(db)) == ["IMG_7.xmp"]
    await library.hash_pending(db)
    await copy(db)
    assert XMP in originals(target).values()


async def test_a_frozen_place_says_nothing_of_what_is_kept_in_it(
    custodian: Custodian, target: Path
) -> None:
    await fill(custodian)
    await library.watch(custodian.db)
    custodian.originals.rename(custodian.originals.with_name("away"))
    await library.watch(custodian.db)
    assert await library.find_kept(custodian.db) == {}
    assert all(row.missing_since is None for row in (await kept(custodian.db)).values())


async def test_rebuild_keeps_the_sidecars_of_a_ledger_that_was_lost(custodian: Custodian) -> None:
    await fill(custodian)
    for table in ("kept_files", "custody_moves", "media_assets"):
        await rows(custodian.db, f"DELETE FROM {table}")
    done = await library.rebuild(custodian.db, custodian.work)
    assert (done.added, done.sidecars) == (2, 2)
    found = await kept(custodian.db)
    photos = {p.filename: p.photo_id for p in (await custodian.ledger()).values()}
    assert found["IMG_1.xmp"].photo_id == photos["IMG_1.jpg"]
    assert found["IMG_2.jpg.json"].photo_id == photos["IMG_2.jpg"]
    assert {found["again.jpg"].kind, found["notes.txt"].kind} == {"duplicate", "set-aside"}


async def test_one_that_cannot_be_copied_is_told_and_hinders_no_other(
    custodian: Custodian, target: Path
) -> None:
    await fill(custodian)
    path = Path((await kept(custodian.db))["IMG_1.xmp"].final_path)
    path.unlink()
    path.mkdir()
    done = await copy(custodian.db)
    assert (done["failed"], done["copied"]) == (1, 4)
    row = (await kept(custodian.db))["IMG_1.xmp"]
    assert row.error_code == "backed-up" and not row.is_backed_up
    assert (await copy(custodian.db))["failed"] == 0  # not again at once
    assert to_text(path) == row.final_path
