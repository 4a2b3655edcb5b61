"""Attempts begin, end, come twice, come late, are tried again and given up."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from scans import Ledger, Published, Register, Write
from sqlalchemy import text

from kaleidoscope.bus import service as bus
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import NotFound
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import jobs
from kaleidoscope.library import service as library
from kaleidoscope.library.events import PhotoProcessed
from kaleidoscope.library.service import Registered


@pytest.fixture
async def photo(write: Write, register: Register) -> Registered:
    (registered,) = await register([write("a.jpg", b"abc")])
    return registered


@pytest.fixture
def max_retries(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("KALEIDOSCOPE_LIBRARY_MAX_RETRIES", "2")
    load.cache_clear()
    return 2


async def begin(db: Database, photo: Registered, attempt_id: UUID | None) -> str:
    async with db.transaction() as session:
        return await library.begin_attempt(session, photo.photo_id, attempt_id, "worker-1")


async def finish(db: Database, photo: Registered, attempt_id: UUID | None, **found: Any) -> bool:
    async with db.transaction() as session:
        return await library.finish(session, photo.photo_id, attempt_id, **found)


async def fail(
    db: Database, photo: Registered, attempt_id: UUID | None, permanent: bool = False
) -> bool:
    async with db.transaction() as session:
        return await library.fail(
            session,
            photo.photo_id,
            attempt_id,
            code="decode",
            error="broken\0 JPEG",
            permanent=permanent,
        )


async def let_retries_be_due(db: Database) -> None:
    async with db.transaction() as session:
        await session.execute(
            text("UPDATE media_assets SET next_retry_at = now() WHERE next_retry_at IS NOT NULL")
        )


async def test_processing_and_processed(
    db: Database, photo: Registered, ledger: Ledger, published: Published
) -> None:
    assert await begin(db, photo, photo.attempt_id) == "started"
    found = (await ledger())["a.jpg"]
    assert found.status == "PROCESSING"
    assert datetime.now(UTC) - found.processing_since < timedelta(minutes=1)
    assert await finish(
        db,
        photo,
        photo.attempt_id,
        person_ids=[7],
        created_person_ids=[7],
        faces=1,
        width=4,
        height=3,
        mime_type="image/png",
        model_version="builtin-1",
        duration_ms=12,
        result={"ok": True},
    )
    found = (await ledger())["a.jpg"]
    assert (found.status, found.processing_since) == ("PROCESSED", None)
    assert (found.person_ids, found.no_faces) == ([7], False)
    assert (found.width, found.height, found.mime_type) == (4, 3, "image/png")
    (event,) = await published()
    assert event.pop("topic") == PhotoProcessed.topic
    assert PhotoProcessed.model_validate(event) == PhotoProcessed(
        photo_id=photo.photo_id,
        attempt_id=photo.attempt_id,
        outcome="PROCESSED",
        final=True,
        person_ids=(7,),
        created_person_ids=(7,),
        faces=1,
        model_version="builtin-1",
        duration_ms=12,
    )
    async with db.transaction() as session:
        assert await library.attempt_results(session, [photo.attempt_id]) == {
            photo.attempt_id: {"ok": True}
        }
        (attempt,) = await library.attempts(session, photo.photo_id)
    assert (attempt.worker, attempt.outcome) == ("worker-1", "PROCESSED")
    assert attempt.started_at and attempt.finished_at


async def test_no_face_is_said(db: Database, photo: Registered, ledger: Ledger) -> None:
    assert (await ledger())["a.jpg"].no_faces is None
    await finish(db, photo, photo.attempt_id, person_ids=[], faces=0)
    found = (await ledger())["a.jpg"]
    assert (found.no_faces, found.person_ids) == (True, [])


async def test_delivered_twice_counts_once(
    db: Database, photo: Registered, ledger: Ledger, published: Published
) -> None:
    assert await begin(db, photo, photo.attempt_id) == "started"
    assert await begin(db, photo, photo.attempt_id) == "started"  # its worker died
    assert await finish(db, photo, photo.attempt_id, person_ids=[7], faces=1)
    before = await ledger()
    await published()
    assert not await finish(db, photo, photo.attempt_id, person_ids=[8], faces=2)
    assert not await fail(db, photo, photo.attempt_id)
    assert await begin(db, photo, photo.attempt_id) == "already-done"
    assert await ledger() == before
    assert await published() == []


async def test_failed_twice_counts_once(
    db: Database, photo: Registered, ledger: Ledger, published: Published
) -> None:
    assert await fail(db, photo, photo.attempt_id)
    before = await ledger()
    assert len(await published()) == 1
    assert not await fail(db, photo, photo.attempt_id)
    assert not await finish(db, photo, photo.attempt_id, person_ids=[8])
    assert await begin(db, photo, photo.attempt_id) == "already-done"
    assert await ledger() == before
    assert await published() == []


async def test_finished_by_two_at_once(db: Database, photo: Registered) -> None:
    outcomes = await asyncio.gather(
        *[finish(db, photo, photo.attempt_id, person_ids=[n], faces=1) for n in range(8)]
    )
    assert sorted(outcomes) == [False] * 7 + [True]


async def test_a_failure_says_why_and_when_it_comes_again(
    db: Database, photo: Registered, ledger: Ledger, published: Published
) -> None:
    await begin(db, photo, photo.attempt_id)
    await fail(db, photo, photo.attempt_id)
    found = (await ledger())["a.jpg"]
    assert (found.status, found.retry_count, found.processing_since) == ("FAILED", 1, None)
    assert found.has_errors and found.error_message == "broken\\0 JPEG"
    wait = found.next_retry_at - datetime.now(UTC)
    assert timedelta(seconds=20) < wait < timedelta(seconds=40)
    (event,) = await published()
    assert (event["outcome"], event["final"]) == ("FAILED", False)
    assert await jobs.retry_failed(db) == 0  # not yet


async def test_tried_again_and_healed(
    db: Database, photo: Registered, ledger: Ledger, published: Published
) -> None:
    await fail(db, photo, photo.attempt_id)
    await let_retries_be_due(db)
    await published()
    assert await jobs.retry_failed(db) == 1
    assert await jobs.retry_failed(db) == 0
    (asked,) = await published()
    found = (await ledger())["a.jpg"]
    assert (found.status, found.next_retry_at, found.retry_count) == ("READY", None, 1)
    assert (asked["topic"], asked["attempt_id"]) == ("photos-to-process", str(found.attempt_id))
    assert found.attempt_id != photo.attempt_id
    assert await begin(db, photo, found.attempt_id) == "started"
    assert await finish(db, photo, found.attempt_id, person_ids=[], faces=0)
    found = (await ledger())["a.jpg"]
    assert (found.status, found.retry_count) == ("PROCESSED", 0)
    assert not found.has_errors and found.error_message is None


async def test_a_late_result_of_a_superseded_attempt_is_void(
    db: Database, photo: Registered, ledger: Ledger
) -> None:
    await begin(db, photo, photo.attempt_id)
    async with db.transaction() as session:
        assert await library.reprocess(session, [photo.photo_id]) == 1
    before = await ledger()
    assert await begin(db, photo, photo.attempt_id) == "superseded"
    assert not await finish(db, photo, photo.attempt_id, person_ids=[7])
    assert not await fail(db, photo, photo.attempt_id)
    assert await ledger() == before
    async with db.transaction() as session:
        (attempt,) = await library.attempts(session, photo.photo_id)
    assert attempt.outcome == "SUPERSEDED"


async def test_an_attempt_that_never_began_is_superseded_too(
    db: Database, photo: Registered
) -> None:
    async with db.transaction() as session:
        await library.reprocess(session, [photo.photo_id])
    assert await begin(db, photo, photo.attempt_id) == "superseded"
    assert not await finish(db, photo, photo.attempt_id, person_ids=[7])


async def test_retries_end_in_a_dead_letter_with_its_history(
    db: Database, photo: Registered, ledger: Ledger, published: Published, max_retries: int
) -> None:
    for _ in range(max_retries + 1):
        attempt_id = (await ledger())["a.jpg"].attempt_id
        assert await begin(db, photo, attempt_id) == "started"
        assert await fail(db, photo, attempt_id)
        await let_retries_be_due(db)
        await jobs.retry_failed(db)
    found = (await ledger())["a.jpg"]
    assert (found.status, found.retry_count, found.next_retry_at) == ("FAILED", 3, None)
    events = [e for e in await published() if e["topic"] == PhotoProcessed.topic]
    assert [e["final"] for e in events] == [False, False, True]
    async with db.transaction() as session:
        (letter,) = await bus.list_dead(session)
    assert letter.topic == "photos-to-process"
    assert letter.payload["photo_id"] == photo.photo_id
    assert letter.cause == "broken\\0 JPEG"
    assert [h["error"] for h in letter.history] == ["decode: broken\\0 JPEG"] * 3
    assert {h["consumer"] for h in letter.history} == {"worker-1"}


async def test_what_cannot_get_better_is_a_dead_letter_at_once(
    db: Database, photo: Registered, ledger: Ledger
) -> None:
    await fail(db, photo, photo.attempt_id, permanent=True)
    found = (await ledger())["a.jpg"]
    assert (found.status, found.next_retry_at, found.retry_count) == ("FAILED", None, 1)
    async with db.transaction() as session:
        assert len(await bus.list_dead(session)) == 1


async def test_a_revived_dead_letter_begins_anew(
    db: Database, photo: Registered, ledger: Ledger, published: Published
) -> None:
    await fail(db, photo, photo.attempt_id, permanent=True)
    await published()
    async with db.transaction() as session:
        await bus.revive(session, topic="photos-to-process")
    (asked,) = await published()
    attempt_id = UUID(asked["attempt_id"])
    assert await begin(db, photo, attempt_id) == "started"
    found = (await ledger())["a.jpg"]
    assert (found.status, found.retry_count) == ("PROCESSING", 0)
    assert await fail(db, photo, attempt_id)
    assert (await ledger())["a.jpg"].next_retry_at is not None  # all retries are there again


async def test_a_dead_letter_revived_after_reprocessing_is_void(
    db: Database, photo: Registered, published: Published
) -> None:
    await fail(db, photo, photo.attempt_id, permanent=True)
    async with db.transaction() as session:
        (letter,) = await bus.list_dead(session)
        await library.reprocess(session, [photo.photo_id])
    assert await begin(db, photo, UUID(letter.payload["attempt_id"])) == "superseded"


async def test_a_person_revives_what_failed_for_good(
    db: Database, photo: Registered, ledger: Ledger, published: Published
) -> None:
    await fail(db, photo, photo.attempt_id, permanent=True)
    await published()
    async with db.transaction() as session:
        assert await library.reprocess(session, [photo.photo_id, 5]) == 1
    found = (await ledger())["a.jpg"]
    assert (found.status, found.retry_count) == ("READY", 0)
    (asked,) = await published()
    assert asked["attempt_id"] == str(found.attempt_id)


async def test_stuck_photos_fail_and_are_tried_again(
    db: Database, photo: Registered, ledger: Ledger
) -> None:
    await begin(db, photo, photo.attempt_id)
    assert await jobs.fail_stuck(db) == 0
    async with db.transaction() as session:
        assert await library.stuck(session) == []
        await session.execute(
            text("UPDATE media_assets SET processing_since = now() - interval '11 minutes'")
        )
    async with db.transaction() as session:
        assert [p.photo_id for p in await library.stuck(session)] == [photo.photo_id]
    assert await jobs.fail_stuck(db) == 1
    found = (await ledger())["a.jpg"]
    assert (found.status, found.error_message) == ("FAILED", "still PROCESSING after 600 s")
    assert found.next_retry_at is not None
    assert not await finish(db, photo, photo.attempt_id, person_ids=[7])


async def test_begun_again_it_is_not_stuck(db: Database, photo: Registered) -> None:
    await begin(db, photo, photo.attempt_id)
    async with db.transaction() as session:
        await session.execute(
            text("UPDATE media_assets SET processing_since = now() - interval '11 minutes'")
        )
    await begin(db, photo, photo.attempt_id)
    assert await jobs.fail_stuck(db) == 0


async def test_two_schedulers_retry_once(
    db: Database, write: Write, register: Register, published: Published
) -> None:
    photos = await register([write(f"{n}.jpg", b"%d" % n) for n in range(40)])
    for photo in photos:
        await fail(db, photo, photo.attempt_id)
    await let_retries_be_due(db)
    await published()
    assert sum(await asyncio.gather(*[jobs.retry_failed(db) for _ in range(4)])) == 40
    assert len(await published()) == 40


async def test_an_outcome_that_somebody_else_reports(
    db: Database, photo: Registered, ledger: Ledger
) -> None:
    """An ML service of the user's own may call back under an id that it made up."""
    theirs = uuid4()
    assert await begin(db, photo, photo.attempt_id) == "started"
    assert await begin(db, photo, theirs) == "superseded"  # only ours are begun
    assert await finish(db, photo, theirs, person_ids=[7], faces=1, result={"ok": 1})
    assert (await ledger())["a.jpg"].person_ids == [7]
    assert not await finish(db, photo, theirs, person_ids=[8], faces=1)
    assert not await finish(db, photo, photo.attempt_id, person_ids=[8], faces=1)


async def test_without_an_id_the_current_attempt_is_meant(
    db: Database, photo: Registered, ledger: Ledger
) -> None:
    assert await begin(db, photo, None) == "started"
    assert await finish(db, photo, None, person_ids=[7], faces=1)
    assert (await ledger())["a.jpg"].status == "PROCESSED"


async def test_an_attempt_without_a_message(
    db: Database, photo: Registered, ledger: Ledger, published: Published
) -> None:
    async with db.transaction() as session:
        attempt_id = await library.new_attempt(session, photo.photo_id, "classify")
    assert (await ledger())["a.jpg"].status == "PROCESSING"
    assert await published() == []
    assert await begin(db, photo, photo.attempt_id) == "superseded"
    assert await finish(db, photo, attempt_id, person_ids=[], faces=0)


async def test_duplicates_follow_their_first_one(
    db: Database, write: Write, register: Register, ledger: Ledger, published: Published
) -> None:
    first, second, _ = await register([write(f"{n}.jpg", b"same") for n in "abc"])
    assert await begin(db, second, second.attempt_id) == "superseded"
    assert not await finish(db, second, second.attempt_id, person_ids=[1])
    assert await fail(db, first, first.attempt_id, permanent=True)
    photos = await ledger()
    assert [p.status for p in photos.values()] == ["FAILED"] * 3
    assert all(p.has_errors and p.error_message for p in photos.values())
    events = await published()
    given_up = events.pop(next(i for i, e in enumerate(events) if e["topic"].endswith("-dlq")))
    assert (given_up["topic"], given_up["photo_id"]) == ("photos-to-process-dlq", first.photo_id)
    assert [e["outcome"] for e in events] == ["FAILED", "DUPLICATE", "DUPLICATE"]
    assert all(e["final"] and e["error"] for e in events)
    async with db.transaction() as session:
        assert await library.reprocess(session, [second.photo_id]) == 1  # its first one is
    (asked,) = await published()
    assert asked["photo_id"] == first.photo_id
    assert await finish(db, first, UUID(asked["attempt_id"]), person_ids=[7], faces=1, width=4)
    photos = await ledger()
    assert [(p.status, p.person_ids, p.width) for p in photos.values()] == [
        ("PROCESSED", [7], 4)
    ] * 3
    assert not any(p.has_errors for p in photos.values())
    events = await published()
    assert [(e["outcome"], e["faces"], e["person_ids"]) for e in events] == [
        ("PROCESSED", 1, [7]),
        ("DUPLICATE", 0, [7]),
        ("DUPLICATE", 0, [7]),
    ]


async def test_failed_duplicates_are_not_retried_by_themselves(
    db: Database, write: Write, register: Register, published: Published
) -> None:
    first, _ = await register([write(f"{n}.jpg", b"same") for n in "ab"])
    await fail(db, first, first.attempt_id)
    await let_retries_be_due(db)
    await published()
    assert await jobs.retry_failed(db) == 1
    assert [e["photo_id"] for e in await published()] == [first.photo_id]


async def test_persons_of_photos_and_of_their_duplicates(
    db: Database, write: Write, register: Register, ledger: Ledger
) -> None:
    first, copy, other = await register(
        [write("a.jpg", b"same"), write("b.jpg", b"same"), write("c.jpg", b"other")]
    )
    async with db.transaction() as session:
        await library.set_person_ids(
            session, {first.photo_id: [7, 9], copy.photo_id: [1], other.photo_id: []}
        )
        await library.set_person_ids(session, {})
    assert [p.person_ids for p in (await ledger()).values()] == [[7, 9], [7, 9], []]


async def test_videos_ask_for_their_own_message(
    db: Database, write: Write, register: Register, published: Published
) -> None:
    (video,) = await register([write("a.mp4", b"abc", kind="video")])
    async with db.transaction() as session:
        await library.reprocess(session, [video.photo_id])
    (asked,) = await published()
    assert asked["topic"] == "videos-to-read"


async def test_unknown_photos_are_not_found(db: Database) -> None:
    with pytest.raises(NotFound, match="no photo 5"):
        async with db.transaction() as session:
            await library.begin_attempt(session, 5, uuid4())
    with pytest.raises(NotFound):
        async with db.transaction() as session:
            await library.get(session, 5)
