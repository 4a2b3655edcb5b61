"""The ledger made anew from the originals."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

import pytest
from custodian import Custodian, files, jpeg
from sqlalchemy import text

from kaleidoscope.kernel.errors import NotFound
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library
from kaleidoscope.library.service import Happened


async def filed(custodian: Custodian, count: int) -> None:
    for number in range(count):
        custodian.drop(f"IMG_{number}.jpg", jpeg(number, f"2021:03:{1 + number % 5:02} 05:06:07"))
    custodian.drop("IMG_0.jpg.xmp", b"<x:xmpmeta/>")
    custodian.drop(b"latin1 caf\xe9.jpg", jpeg(1000))
    await custodian.sweep()


async def forget(custodian: Custodian) -> None:
    async with custodian.db.transaction() as session:
        await session.execute(text("TRUNCATE media_assets, custody_moves, bus_outbox CASCADE"))


async def test_from_nothing(custodian: Custodian) -> None:
    """Every column that the file tells is what it was when it was filed."""
    await filed(custodian, 12)
    before = await custodian.ledger()
    await forget(custodian)
    dry = await library.rebuild(custodian.db, custodian.work, dry_run=True)
    assert (dry.files, dry.added, await custodian.ledger()) == (14, 13, {})
    done = await library.rebuild(custodian.db, custodian.work)
    assert (done.added, done.sidecars, done.problems) == (13, 1, [])
    after = await custodian.ledger()
    own = {"id", "photo_id", "attempt_id", "ingested_at", "created_at", "updated_at"}
    received = {"original_path", "original_name"}
    for path, photo in before.items():
        assert photo.model_dump(exclude=own | received) == after[path].model_dump(
            exclude=own | received
        )
    assert len(await custodian.rows("SELECT 1 FROM capture_candidates")) > 13
    await forget_moves(custodian)
    again = await library.rebuild(custodian.db, custodian.work)
    assert (again.known, again.added, again.moved) == (13, 0, 0)


async def forget_moves(custodian: Custodian) -> None:
    await custodian.rows("DELETE FROM custody_moves RETURNING 1")


async def test_a_photo_and_what_tells_its_date_are_read_together(
    custodian: Custodian, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever a portion ends."""
    module = import_module("kaleidoscope.library.service.rebuild")  # the verb has its name
    monkeypatch.setattr(module, "AT_ONCE", 3)
    folder = custodian.originals / "2021"
    folder.mkdir(parents=True)
    for number in range(4):
        (folder / f"{number}.jpg").write_bytes(jpeg(number, taken=None))
        (folder / f"{number}.jpg.json").write_text(
            '{"photoTakenTime": {"timestamp": "1500000000"}}'
        )
    done = await library.rebuild(custodian.db, custodian.work)
    assert (done.files, done.added, done.sidecars) == (8, 4, 4)
    found = await custodian.ledger()
    assert {photo.captured_at.year for photo in found.values()} == {2017}


async def test_rows_whose_files_moved_are_linked_to_them(custodian: Custodian) -> None:
    await filed(custodian, 4)
    before = await custodian.ledger()
    photo = before["2021/2021-03-02/IMG_1.jpg"]
    await custodian.rows(
        "UPDATE media_assets SET person_ids = '[7]' WHERE photo_id = :id RETURNING 1",
        id=photo.photo_id,
    )
    renamed = custodian.originals / "by hand" / "renamed.jpg"
    renamed.parent.mkdir()
    Path(photo.final_path).rename(renamed)
    os.utime(renamed, (1_600_000_000, 1_600_000_000))
    done = await library.rebuild(custodian.db, custodian.work)
    assert (done.moved, done.added) == (1, 0)
    after = (await custodian.ledger())["by hand/renamed.jpg"]
    assert (after.photo_id, after.person_ids) == (photo.photo_id, [7])
    assert after.modified_at.timestamp() == 1_600_000_000
    (asked,) = await custodian.rows("SELECT payload FROM bus_outbox ORDER BY seq DESC LIMIT 1")
    assert asked.payload["path"] == after.path
    del before["2021/2021-03-02/IMG_1.jpg"]
    rest = {p: f for p, f in (await custodian.ledger()).items() if p != "by hand/renamed.jpg"}
    assert rest == before


async def test_a_second_copy_is_a_duplicate(custodian: Custodian) -> None:
    await filed(custodian, 1)
    first = (await custodian.ledger())["2021/2021-03-01/IMG_0.jpg"]
    copy = custodian.originals / "copy.jpg"
    copy.write_bytes(jpeg(0, "2021:03:01 05:06:07"))
    done = await library.rebuild(custodian.db, custodian.work)
    assert (done.added, done.duplicates) == (1, 1)
    assert (await custodian.ledger())["copy.jpg"].duplicate_of == first.photo_id


async def test_content_that_is_not_what_it_was_is_told_and_left(custodian: Custodian) -> None:
    await filed(custodian, 2)
    before = await custodian.ledger()
    path = files(custodian.originals)[0]
    path.write_bytes(jpeg(77))
    done = await library.rebuild(custodian.db, custodian.work)
    assert [p.path for p in done.problems] == [str(path)]
    assert await custodian.ledger() == before


async def test_no_originals(custodian: Custodian) -> None:
    with pytest.raises(NotFound, match="no originals"):
        await library.rebuild(custodian.db, custodian.work)


async def test_a_missing_one_is_found_with_its_time_and_its_error_goes(
    custodian: Custodian,
) -> None:
    custodian.drop("a.jpg", jpeg(1))
    custodian.drop("b.jpg", jpeg(2))
    await custodian.sweep()
    missing = [
        Happened(photo.photo_id, "missing", "failed", error="the file is gone", permanent=True)
        for photo in (await custodian.ledger()).values()
    ]
    async with custodian.db.transaction() as session:
        await session.execute(text("UPDATE media_assets SET missing_since = now()"))
        await library.note(session, missing)
    moved = files(custodian.originals)[0]
    os.utime(moved, (1_600_000_000, 1_600_000_000))
    moved.rename(moved.with_name("elsewhere.jpg"))
    done = await library.rebuild(custodian.db, custodian.work)
    assert (done.moved, done.known) == (1, 1)
    for photo in (await custodian.ledger()).values():
        assert (photo.missing_since, photo.has_errors) == (None, False)
        assert photo.modified_at == library.modified_at(Path(photo.path).stat())


async def test_what_healing_has_kept_aside_is_no_original(
    custodian: Custodian, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_BACKUP_TARGET", str(folder / "disk"))
    load.cache_clear()
    custodian.drop("a.jpg", jpeg(1))
    await custodian.sweep()
    await library.copy_pending(custodian.db, await library.use_target(custodian.db))
    (photo,) = (await custodian.ledger()).values()
    Path(photo.path).write_bytes(jpeg(1) + b"rot")
    await library.scrub(custodian.db)
    assert (await library.heal(custodian.db, photo.photo_id)).kept_aside is not None
    await forget(custodian)
    done = await library.rebuild(custodian.db, custodian.work)
    assert (done.files, done.added, done.problems) == (1, 1, [])
