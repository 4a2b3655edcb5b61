"""Dates in the ledger: read in the background, doubted, corrected, and what never changes."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from custodian import Custodian, files, jpeg
from PIL import Image
from scans import Ledger, Register, scan
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import Conflict, Invalid, NotFound
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library
from kaleidoscope.library.service import Registered
from kaleidoscope.library.service import dates as dating

HOUR = timedelta(hours=1)
Shoot = Callable[..., Awaitable[Registered]]


@pytest.fixture
def shoot(tmp_path: Path, register: Register) -> Shoot:
    """Take a photo: its name, its date, its camera, its position; register it."""

    async def shoot(
        name: str,
        date: str | None = None,
        camera: tuple[str, str] | None = ("Canon", "Canon EOS 7D"),
        gps: dict[int, Any] | None = None,
        pixel: int = 0,
    ) -> Registered:
        path = tmp_path / name
        exif = Image.Exif()
        if camera:
            exif[0x10F], exif[0x110] = camera
        if date:
            exif.get_ifd(0x8769)[0x9003] = date
        exif.get_ifd(0x8825).update(gps or {})
        Image.new("RGB", (40, 20), (pixel, len(name), 7)).save(path, exif=exif)
        os.utime(path, 2 * (1_700_000_000 + pixel,))
        (registered,) = await register([scan(path)])
        return registered

    return shoot


BERLIN = {1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0)}


async def rows(db: Database, query: str) -> list[Any]:
    async with db.transaction() as session:
        return list((await session.execute(text(query))).all())


async def shift(db: Database, camera: str, by: timedelta, **between: datetime) -> int:
    async with db.transaction() as session:
        return (await library.shift(session, camera, by, **between)).correction_id


async def undo(db: Database, correction: int | None = None) -> None:
    async with db.transaction() as session:
        await library.undo_correction(session, correction)


EVENTS = (
    "SELECT what, outcome, detail FROM asset_events"
    " WHERE what IN ('dated', 'date-corrected') ORDER BY event_id"
)
CANDIDATES = "SELECT source, captured_at FROM capture_candidates ORDER BY photo_id, source"


async def test_what_was_indexed_in_place_is_dated(
    db: Database, shoot: Shoot, ledger: Ledger
) -> None:
    await shoot("IMG_20240504_010203.jpg", "2024:05:03 14:30:05", gps=BERLIN)
    await shoot("b.jpg", camera=None)
    assert await library.date_assets(db) == {"dated": 2, "doubtful": 1}
    assert await library.date_assets(db) == {}
    found = await ledger()
    first, second = found["IMG_20240504_010203.jpg"], found["b.jpg"]
    assert first.captured_at == datetime(2024, 5, 3, 14, 30, 5)
    assert (first.captured_at_source, first.captured_at_confidence) == (
        "exif:DateTimeOriginal",
        "high",
    )
    assert (first.camera_make, first.camera_model) == ("Canon", "Canon EOS 7D")
    assert first.location == {"lat": 52.52, "lon": 13.405}
    assert (first.width, first.height, first.duration_seconds) == (40, 20, None)
    assert (second.captured_at, second.captured_at_source) == (
        datetime(2023, 11, 14, 22, 13, 20),
        "mtime",
    )
    assert (second.captured_at_confidence, second.location) == ("low", None)
    assert await rows(db, CANDIDATES) == [
        ("exif:DateTimeOriginal", first.captured_at),
        ("mtime", second.captured_at + HOUR),  # by the clocks of Berlin
        ("name", datetime(2024, 5, 4, 1, 2, 3)),
        ("mtime", second.captured_at),
    ]
    assert await rows(db, EVENTS) == [
        ("dated", "ok", {"source": "exif:DateTimeOriginal", "confidence": "high"}),
        ("dated", "ok", {"source": "mtime", "confidence": "low"}),
    ]


async def test_more_than_one_portion(
    db: Database, shoot: Shoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dating, "AT_ONCE", 3)
    monkeypatch.setattr(dating, "A_HAND_OVER", 2)
    for n in range(8):
        await shoot(f"{n}.jpg", f"2024:05:03 14:30:0{n}")
    assert await library.date_assets(db) == {"dated": 8}


async def test_a_file_that_is_gone_waits_for_its_time(
    db: Database, shoot: Shoot, ledger: Ledger, tmp_path: Path
) -> None:
    await shoot("a.jpg", "2024:05:03 14:30:05")
    (tmp_path / "a.jpg").rename(tmp_path / "away")
    assert await library.date_assets(db) == {"failed": 1}
    assert await library.date_assets(db) == {}  # not at once again
    found = (await ledger())["a.jpg"]
    assert found.captured_at_source is None and found.has_errors
    assert "no such file" in found.error_message
    (tmp_path / "away").rename(tmp_path / "a.jpg")
    await rows(db, "UPDATE asset_problems SET retry_at = now() RETURNING 1")
    assert await library.date_assets(db) == {"dated": 1}
    found = (await ledger())["a.jpg"]
    assert (found.captured_at_confidence, found.has_errors) == ("high", False)


async def test_a_broken_file_has_the_date_of_its_name(
    db: Database, register: Register, ledger: Ledger, tmp_path: Path
) -> None:
    path = tmp_path / "IMG_20130809_050900.jpg"
    path.write_bytes(b"no photo")
    await register([scan(path)])
    assert await library.date_assets(db) == {"dated": 1}
    found = (await ledger())[path.name]
    assert (found.captured_at, found.captured_at_source) == (datetime(2013, 8, 9, 5, 9), "name")
    assert not found.has_errors  # recognition tells of the content
    ((_, _, detail),) = await rows(db, EVENTS)
    assert "neither a photo nor a video" in detail["problem"]


async def test_a_file_that_kills_its_reader_costs_no_other_its_date(
    db: Database, shoot: Shoot, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", here)
    monkeypatch.setattr(dating, "WORK", "deadly:read_files")
    for name in ("a.jpg", "IMG_20130809_050900_deadly.jpg", "c.jpg"):
        await shoot(name, "2024:05:03 14:30:05")
    assert await library.date_assets(db) == {"dated": 3}
    found = await ledger()
    assert [found[n].captured_at_source for n in ("a.jpg", "c.jpg")] == 2 * [
        "exif:DateTimeOriginal"
    ]
    assert found["IMG_20130809_050900_deadly.jpg"].captured_at_source == "name"
    problems = [detail.get("problem") for _, _, detail in await rows(db, EVENTS)]
    assert [p is not None and "decoder crashed" in p for p in problems] == [False, True, False]


async def test_a_file_that_changed_meanwhile_is_read_again(
    db: Database, shoot: Shoot, ledger: Ledger
) -> None:
    photo = await shoot("a.jpg", "2024:05:03 14:30:05")
    async with db.transaction() as session:
        asset = await library.undated(session, photo.photo_id)
        assert asset is not None
    changed = await shoot("a.jpg", "2020:01:02 03:04:05", pixel=200)
    assert changed.photo_id == photo.photo_id
    reading = {**dating.rules.NOTHING, "candidates": []}
    async with db.transaction() as session:
        assert await library.tell(session, [(asset, reading, None)]) == {}
    assert await library.date_assets(db) == {"dated": 1}
    assert (await ledger())["a.jpg"].captured_at == datetime(2020, 1, 2, 3, 4, 5)


async def test_other_content_has_another_date_and_place(
    db: Database, shoot: Shoot, ledger: Ledger
) -> None:
    await shoot("a.jpg", "2024:05:03 14:30:05", gps=BERLIN)
    await library.date_assets(db)
    await shoot("a.jpg", "2020:01:02 03:04:05", gps=BERLIN | {1: "S"}, pixel=9)
    found = (await ledger())["a.jpg"]
    assert (found.captured_at, found.location, found.camera_model) == (None, None, None)
    await library.date_assets(db)
    found = (await ledger())["a.jpg"]
    assert found.captured_at == datetime(2020, 1, 2, 3, 4, 5)
    assert found.location == {"lat": -52.52, "lon": 13.405}


async def test_a_persons_word_outlives_the_content(
    db: Database, shoot: Shoot, ledger: Ledger
) -> None:
    photo = await shoot("a.jpg", "2024:05:03 14:30:05")
    await library.date_assets(db)
    async with db.transaction() as session:
        await library.set_date(session, photo.photo_id, datetime(1985, 7, 14))
    await shoot("a.jpg", "2020:01:02 03:04:05", pixel=9)
    await library.date_assets(db)
    found = (await ledger())["a.jpg"]
    assert (found.captured_at, found.captured_at_source) == (datetime(1985, 7, 14), "person")
    assert found.camera_model == "Canon EOS 7D"


async def test_a_position_is_never_altered(db: Database, shoot: Shoot) -> None:
    await shoot("a.jpg", "2024:05:03 14:30:05", gps=BERLIN)
    await library.date_assets(db)
    for change in (
        "location = NULL",
        "location = jsonb_build_object('lat', 1, 'lon', 2)",
        "location = NULL, file_hash = NULL",
        "location = jsonb_build_object('lat', 1, 'lon', 2), size_bytes = 5, file_hash = NULL",
    ):
        with pytest.raises(DBAPIError, match="is never altered"):
            await rows(db, f"UPDATE media_assets SET {change} RETURNING 1")
    same = "UPDATE media_assets SET location = location || '{}', width = 5 RETURNING 1"
    assert len(await rows(db, same)) == 1


async def test_a_date_that_another_program_gave_stays(
    db: Database, shoot: Shoot, ledger: Ledger
) -> None:
    await shoot("a.jpg", "2024:05:03 14:30:05")
    await rows(db, "UPDATE media_items SET captured_at = '2001-02-03' RETURNING 1")
    await library.date_assets(db)
    found = (await ledger())["a.jpg"]
    assert (found.captured_at, found.captured_at_source) == (datetime(2001, 2, 3), "person")


async def test_what_is_doubtful_is_listed_with_what_tells_it(db: Database, shoot: Shoot) -> None:
    unset = await shoot("a.jpg", "2000:01:01 00:00:00")
    await shoot("b.jpg", "2024:05:03 14:30:05")
    untold = await shoot("c.jpg", camera=None)
    await library.date_assets(db)
    async with db.transaction() as session:
        page = await library.doubtful_dates(session, limit=1)
        rest = await library.doubtful_dates(session, after=page.next or 0)
        told = await library.photo_dates(session, unset.photo_id)
    assert (page.total, rest.next) == (2, None)
    assert [p.photo_id for p in (*page.photos, *rest.photos)] == [unset.photo_id, untold.photo_id]
    (doubtful,) = page.photos
    assert doubtful.camera == "Canon EOS 7D"
    assert [c.source for c in doubtful.candidates] == ["exif:DateTimeOriginal", "mtime"]
    assert doubtful.candidates == told.candidates
    assert told.source == "exif:DateTimeOriginal"


async def test_a_clock_is_put_right_and_back(db: Database, shoot: Shoot, ledger: Ledger) -> None:
    await shoot("a.jpg", "2024:05:03 23:30:05")
    await shoot("b.jpg", "2024:05:04 12:00:00")
    await shoot("c.jpg", "2024:05:09 12:00:00")
    await shoot("d.jpg", "2024:05:04 12:00:00", camera=("NIKON CORPORATION", "NIKON D5600"))
    await library.date_assets(db)
    before = await ledger()
    between = {"since": datetime(2024, 5, 1), "until": datetime(2024, 5, 9)}
    async with db.transaction() as session:
        preview = await library.preview_shift(session, "canon eos 7d", 1.5 * HOUR, **between)
    assert (preview.photos, preview.to_be_filed) == (2, 1)
    assert [(e.before, e.after) for e in preview.examples] == [
        (datetime(2024, 5, 3, 23, 30, 5), datetime(2024, 5, 4, 1, 0, 5)),
        (datetime(2024, 5, 4, 12), datetime(2024, 5, 4, 13, 30)),
    ]
    assert await ledger() == before  # a preview writes nothing
    await shift(db, "Canon EOS 7D", 1.5 * HOUR, **between)
    found = await ledger()
    assert found["a.jpg"].captured_at == datetime(2024, 5, 4, 1, 0, 5)
    assert (found["a.jpg"].captured_at_source, found["b.jpg"].captured_at_confidence) == (
        "person",
        "high",
    )
    assert (found["c.jpg"], found["d.jpg"]) == (before["c.jpg"], before["d.jpg"])
    async with db.transaction() as session:
        (told,) = await library.corrections(session)
    assert (told.kind, told.shifted_by, told.photos, told.to_be_filed) == (
        "shift",
        1.5 * HOUR,
        2,
        1,
    )
    await undo(db)
    assert _dates(await ledger()) == _dates(before)
    with pytest.raises(NotFound, match="left to undo"):
        await undo(db)
    with pytest.raises(Conflict, match="undone already"):
        await undo(db, told.correction_id)
    assert [w for w, *_ in await rows(db, EVENTS)][-4:] == 4 * ["date-corrected"]


async def test_corrections_are_undone_from_the_last(
    db: Database, shoot: Shoot, ledger: Ledger
) -> None:
    photo = await shoot("a.jpg", "2024:05:03 14:30:05")
    await library.date_assets(db)
    before = await ledger()
    first = await shift(db, "Canon EOS 7D", HOUR)
    async with db.transaction() as session:
        await library.set_date(session, photo.photo_id, datetime(1985, 7, 14), 2 * HOUR)
    with pytest.raises(Conflict, match="concerns the same photos"):
        await undo(db, first)
    await undo(db)
    assert (await ledger())["a.jpg"].captured_at == datetime(2024, 5, 3, 15, 30, 5)
    await undo(db)
    assert _dates(await ledger()) == _dates(before)


async def test_what_cannot_be_shifted(db: Database, shoot: Shoot, ledger: Ledger) -> None:
    await shoot("a.jpg", "2024:05:03 14:30:05")
    await shoot("b.jpg", "2024:05:03 14:30:05", camera=("Acme", "X100"))
    await shoot("c.jpg", "2024:05:03 14:30:05", camera=("FUJIFILM", "X100"))
    await library.date_assets(db)
    before = await ledger()
    for camera, by, problem in (
        ("Leica", HOUR, "no photo was taken"),
        ("X100", HOUR, "may be Acme X100 or FUJIFILM X100"),
        ("Canon EOS 7D", timedelta(0), "changes nothing"),
        ("Canon EOS 7D", timedelta(days=36500), "in the future"),
        ("Canon EOS 7D", -timedelta(days=365 * 3000), "before photography"),
    ):
        with pytest.raises((NotFound, Invalid), match=problem):
            await shift(db, camera, by)
    with pytest.raises(NotFound, match="took nothing then"):
        await shift(db, "Canon EOS 7D", HOUR, since=datetime(2025, 1, 1))
    await shift(db, "Acme X100", HOUR)
    after = await ledger()
    assert [n for n in before if before[n] != after[n]] == ["b.jpg"]


async def test_what_a_person_cannot_say(db: Database, shoot: Shoot) -> None:
    photo = await shoot("a.jpg", "2024:05:03 14:30:05")
    async with db.transaction() as session:
        with pytest.raises(Invalid):
            await library.set_date(session, photo.photo_id, datetime(2999, 1, 1))
        with pytest.raises(NotFound):
            await library.set_date(session, 5, datetime(1999, 1, 1))


async def test_the_home_zone_makes_utc_local(
    db: Database,
    register: Register,
    ledger: Ledger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_LIBRARY_HOME_ZONE", "Asia/Tokyo")
    load.cache_clear()
    path = tmp_path / "PXL_20240701_223005123.jpg"
    path.write_bytes(b"no photo")
    await register([scan(path)])
    await library.date_assets(db)
    load.cache_clear()
    found = (await ledger())[path.name]
    assert found.captured_at == datetime(2024, 7, 2, 7, 30, 5, 123_000)
    assert (found.captured_offset, found.captured_at_confidence) == (9 * HOUR, "medium")


async def test_where_videos_without_a_position_were_taken(
    db: Database, register: Register, ledger: Ledger, tmp_path: Path
) -> None:
    names = ["PXL_20240701_223005123.jpg", "PXL_20240801_223005123.jpg", "IMG_20240701_223005.jpg"]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(b"no photo %d" % number)
    await register([scan(tmp_path / name) for name in names])
    await library.date_assets(db)
    before = await ledger()
    async with db.transaction() as session:
        with pytest.raises(Invalid, match="no time zone"):
            await library.preview_zone(session, "Middle/Earth")
        preview = await library.preview_zone(session, "Asia/Tokyo", until=datetime(2024, 7, 9))
        assert (preview.photos, preview.to_be_filed) == (1, 1)
        await library.set_zone(session, "Asia/Tokyo", until=datetime(2024, 7, 9))
    found = await ledger()
    assert found[names[0]].captured_at == datetime(2024, 7, 2, 7, 30, 5, 123_000)
    assert (found[names[0]].captured_offset, found[names[0]].captured_at_source) == (
        9 * HOUR,
        "person",
    )
    assert [found[n] for n in names[1:]] == [before[n] for n in names[1:]]
    await undo(db)
    assert _dates(await ledger()) == _dates(before)


def _dates(ledger: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    return {
        name: (p.captured_at, p.captured_offset, p.captured_at_source, p.captured_at_confidence)
        for name, p in ledger.items()
    }


FACTS = (
    "SELECT captured_at_confidence, camera_make, camera_model,"
    " (SELECT array_agg(source ORDER BY source) FROM capture_candidates c"
    "  WHERE c.photo_id = m.photo_id) FROM media_assets m"
)


async def test_a_filed_original_goes_to_its_new_day_and_back(
    custodian: Custodian, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x10F], exif[0x110] = "Canon", "Canon EOS 7D"
    exif.get_ifd(0x8769)[0x9003] = "2024:05:03 23:30:00"
    for n in range(2):
        Image.new("RGB", (8, 8 + n)).save(custodian.inbox / f"{n}.jpg", exif=exif)
    (custodian.inbox / "1.xmp").write_text("<x:xmpmeta/>")
    await custodian.sweep()
    here, there = "2024/2024-05-03", "2024/2024-05-04"
    assert set(await custodian.ledger()) == {f"{here}/0.jpg", f"{here}/1.jpg"}
    for row in await rows(custodian.db, FACTS):
        assert tuple(row[:3]) == ("high", "Canon", "Canon EOS 7D")
        assert row[3] == ["exif:DateTimeOriginal", "mtime"]
    assert await library.date_assets(custodian.db) == {}  # dated when it was filed

    assert await library.file_corrected(custodian.db) == {}
    correction = await shift(custodian.db, "Canon EOS 7D", HOUR)
    assert await library.file_corrected(custodian.db) == {"filed": 2}
    assert await library.file_corrected(custodian.db) == {}
    found = await custodian.ledger()
    assert set(found) == {f"{there}/0.jpg", f"{there}/1.jpg"}
    assert [p.relative_to(custodian.originals).as_posix() for p in files(custodian.originals)] == [
        f"{there}/{name}" for name in ("0.jpg", "1.jpg", "1.xmp")
    ]
    await undo(custodian.db, correction)
    assert await library.file_corrected(custodian.db) == {"filed": 2}
    assert set(await custodian.ledger()) == {f"{here}/0.jpg", f"{here}/1.jpg"}


async def test_an_original_that_cannot_be_moved_waits(custodian: Custodian) -> None:
    path = custodian.drop("a.jpg", jpeg(1, "2024:05:03 23:30:00"))
    await custodian.sweep()
    assert not path.exists()
    (asset,) = (await custodian.ledger()).values()
    async with custodian.db.transaction() as session:
        await library.set_date(session, asset.photo_id, datetime(1985, 7, 14))
    lying = Path(asset.path)
    whole = lying.read_bytes()
    lying.write_bytes(whole + b"x")  # no longer what the ledger says
    assert await library.file_corrected(custodian.db) == {"left": 1}
    assert await library.file_corrected(custodian.db) == {}  # not at once again
    (asset,) = (await custodian.ledger()).values()
    assert "is not what the ledger says" in (asset.error_message or "")
    lying.write_bytes(whole)
    await rows(custodian.db, "UPDATE asset_problems SET retry_at = now() RETURNING 1")
    assert await library.file_corrected(custodian.db) == {"filed": 1}
    found = await custodian.ledger()
    assert set(found) == {"1985/1985-07-14/a.jpg"}
    assert not found["1985/1985-07-14/a.jpg"].has_errors
