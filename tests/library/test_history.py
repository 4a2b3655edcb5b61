"""The flight recorder: events are told once, problems stand until they are healed."""

from __future__ import annotations

from typing import Any

from scans import Ledger, Register, Write
from sqlalchemy import text

from kaleidoscope.kernel.db import Database
from kaleidoscope.library import service as library
from kaleidoscope.library.service import Happened

PROBLEMS = (
    "SELECT what, error, failures, extract(epoch FROM retry_at - failed_at)::float AS wait"
    " FROM asset_problems ORDER BY since, what"
)
EVENTS = "SELECT what, outcome, duration_ms, error, detail FROM asset_events ORDER BY event_id"


async def rows(db: Database, query: str) -> list[Any]:
    async with db.transaction() as session:
        return list((await session.execute(text(query))).all())


async def note(db: Database, *events: Happened) -> None:
    async with db.transaction() as session:
        await library.note(session, events)


async def test_what_happened_is_written_in_its_order(
    db: Database, write: Write, register: Register
) -> None:
    (photo,) = await register([write("a.jpg", b"a")])
    await note(
        db,
        Happened(photo.photo_id, "received"),
        Happened(photo.photo_id, "dated", duration_ms=3, detail={"source": "exif"}),
        Happened(photo.photo_id, "geocoded", outcome="skipped"),
    )
    assert await rows(db, EVENTS) == [
        ("received", "ok", None, None, None),
        ("dated", "ok", 3, None, {"source": "exif"}),
        ("geocoded", "skipped", None, None, None),
    ]
    assert not await rows(db, PROBLEMS)


async def test_a_failure_is_told_once_and_waits_longer_each_time(
    db: Database, write: Write, register: Register, ledger: Ledger
) -> None:
    (photo,) = await register([write("a.jpg", b"a")])
    failure = Happened(
        photo.photo_id, "thumbnailed", "failed", error="no\0 JPEG", code="unreadable"
    )
    for _ in range(3):
        await note(db, failure)
    assert [e.error for e in await rows(db, EVENTS)] == ["no\\0 JPEG"]
    assert await rows(db, PROBLEMS) == [("thumbnailed", "no\\0 JPEG", 3, 120.0)]
    found = (await ledger())["a.jpg"]
    assert (found.has_errors, found.error_message) == (True, "no\\0 JPEG")
    await note(db, Happened(photo.photo_id, "thumbnailed", "failed", error="gone", permanent=True))
    assert await rows(db, PROBLEMS) == [("thumbnailed", "gone", 4, None)]
    assert [e.error for e in await rows(db, EVENTS)] == ["no\\0 JPEG", "gone"]


async def test_each_problem_is_healed_by_its_own_success(
    db: Database, write: Write, register: Register, ledger: Ledger
) -> None:
    (photo,) = await register([write("a.jpg", b"a")])
    await note(db, Happened(photo.photo_id, "dated", "failed", error="no date"))
    await note(db, Happened(photo.photo_id, "missing", "failed", error="it is gone"))
    assert (await ledger())["a.jpg"].error_message == "no date; it is gone"
    await note(db, Happened(photo.photo_id, "found-again"))
    assert (await ledger())["a.jpg"].error_message == "no date"
    await note(db, Happened(photo.photo_id, "dated"))
    found = (await ledger())["a.jpg"]
    assert (found.has_errors, found.error_message) == (False, None)


async def test_the_same_words_of_two_passes_are_said_once(
    db: Database, write: Write, register: Register, ledger: Ledger
) -> None:
    (photo,) = await register([write("a.jpg", b"a")])
    for what, error in (("recognised", "is empty"), ("dated", "no date"), ("hashed", "is empty")):
        await note(db, Happened(photo.photo_id, what, "failed", error=error))  # type: ignore[arg-type]
    assert (await ledger())["a.jpg"].error_message == "is empty; no date"
    await note(db, Happened(photo.photo_id, "recognised"))
    assert (await ledger())["a.jpg"].error_message == "no date; is empty"


async def test_an_asset_that_is_gone_takes_nothing_with_it(db: Database) -> None:
    await note(db, Happened(7, "dated"), Happened(7, "hashed", "failed", error="it is gone"))
    assert not await rows(db, EVENTS) and not await rows(db, PROBLEMS)


async def test_recognition_and_other_passes_leave_each_other_s_errors_alone(
    db: Database, write: Write, register: Register, ledger: Ledger
) -> None:
    first, copy = await register([write("a.jpg", b"a"), write("b.jpg", b"a")])
    await note(db, Happened(first.photo_id, "thumbnailed", "failed", error="no JPEG"))
    attempt = first.attempt_id
    async with db.transaction() as session:
        await library.fail(session, first.photo_id, attempt, code="decode", error="no faces")
    errors = {name: p.error_message for name, p in (await ledger()).items()}
    assert errors == {"a.jpg": "no faces; no JPEG", "b.jpg": "no faces"}
    async with db.transaction() as session:
        await library.reprocess(session, [copy.photo_id])
        await library.finish(session, first.photo_id, None, faces=0)
    photos = await ledger()
    assert (photos["a.jpg"].has_errors, photos["a.jpg"].error_message) == (True, "no JPEG")
    assert (photos["b.jpg"].has_errors, photos["b.jpg"].error_message) == (False, None)


async def test_other_content_has_no_problems_yet(
    db: Database, write: Write, register: Register, ledger: Ledger
) -> None:
    (photo,) = await register([write("a.jpg", b"a")])
    await note(db, Happened(photo.photo_id, "thumbnailed", "failed", error="no JPEG"))
    await register([write("a.jpg", b"other", time=1_800_000_000)])
    assert not (await ledger())["a.jpg"].has_errors


async def test_the_moves_of_a_file_are_part_of_its_history(
    db: Database, write: Write, register: Register
) -> None:
    (photo,) = await register([write("a.jpg", b"a")])
    async with db.transaction() as session:
        await session.execute(
            text(
                "INSERT INTO custody_moves (kind, state, source_path, source_identity, size_bytes,"
                " file_hash, target_path, target_identity, photo_id, planned_at, recorded_at)"
                " VALUES ('file', 'RELEASED', '/in/a.jpg', '1:2:1:3', 1, repeat('a', 64),"
                " '/originals/a.jpg', '1:2:1:3', :photo, now() - interval '2 s', now())"
            ),
            {"photo": photo.photo_id},
        )
    async with db.transaction() as session:
        events = (await library.history(session, photo.photo_id)).events
    assert [event.what for event in events] == ["received", "hashed", "filed"]
    filed = events[-1]
    assert (filed.outcome, filed.duration_ms) == ("ok", 2000)
    assert filed.detail is not None
    assert (filed.detail["from"], filed.detail["to"]) == ("/in/a.jpg", "/originals/a.jpg")
