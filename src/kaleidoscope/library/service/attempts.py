"""Attempts: begun, ended, tried again, given up. One counter, one back-off, one owner of both.

An attempt is the asset's current one, or it has an outcome in `processing_attempts`, or somebody
else made it up: a caller of the HTTP API may report on a photo under an id of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.bus import service as bus
from kaleidoscope.bus.publish import publish
from kaleidoscope.kernel import clock
from kaleidoscope.kernel.errors import Conflict, NotFound
from kaleidoscope.kernel.settings import load
from kaleidoscope.library.events import PhotoProcessed, PhotoToProcess, VideoToRead
from kaleidoscope.library.ids import PhotoId
from kaleidoscope.library.queries import attempts, hashes
from kaleidoscope.library.queries.attempts import Held, Requested
from kaleidoscope.library.rules import ledger as rules
from kaleidoscope.library.schemas import (
    AttemptState,
    Problem,
    Status,
    StatusChange,
    StatusChanged,
)
from kaleidoscope.library.settings import LibrarySettings

log = structlog.get_logger(__name__)

AT_ONCE = 500


async def lock(session: AsyncSession, photo_id: int) -> Held:
    """An asset's state, which nobody else changes until the transaction ends; or `NotFound`."""
    held = await attempts.hold(session, photo_id)
    if held is None:
        raise NotFound(f"there is no photo {photo_id}", photo_id=photo_id)
    return held


async def attempt_result(session: AsyncSession, attempt_id: UUID) -> dict[str, Any] | None:
    """What the callback of an attempt was answered; None: none was."""
    return await attempts.result(session, attempt_id)


async def begin_attempt(
    session: AsyncSession, photo_id: int, attempt_id: UUID | None, worker: str | None = None
) -> AttemptState:
    """Mark a photo PROCESSING for an attempt (None: its current one).

    Begun twice (a worker died and its message came again) it is `started` again.
    """
    held = await lock(session, photo_id)
    attempt_id = attempt_id or held.attempt_id
    state = await _state(session, held, attempt_id)
    if state != "started":
        return state
    if attempt_id != held.attempt_id:
        return "superseded"
    await attempts.begin(session, photo_id, attempt_id, worker)
    return "started"


async def finish(
    session: AsyncSession,
    photo_id: int,
    attempt_id: UUID | None,
    *,
    person_ids: Sequence[int] | None = None,
    created_person_ids: Sequence[int] = (),
    faces: int | None = None,
    width: int | None = None,
    height: int | None = None,
    mime_type: str | None = None,
    duration_seconds: float | None = None,
    frame_rate: float | None = None,
    model_version: str | None = None,
    duration_ms: int | None = None,
    result: Mapping[str, Any] | None = None,
) -> bool:
    """The attempt succeeded: PROCESSED, and so are the photo's duplicates.

    `width`, `height` in pixels as displayed. `result` is what `attempt_result` answers from now
    on. What is None leaves the ledger as it is. False, and nothing is written: the attempt had
    ended, another has taken its place, or the photo is a duplicate.
    """
    held = await lock(session, photo_id)
    attempt_id = attempt_id or held.attempt_id
    if not await _accept(session, held, attempt_id):
        return False
    await attempts.end(
        session,
        photo_id,
        attempt_id,
        "PROCESSED",
        model_version=model_version,
        duration_ms=duration_ms,
        result=result,
    )
    found = {
        "person_ids": person_ids,
        "no_faces": None if faces is None else faces == 0,
        "width": width,
        "height": height,
        "mime_type": mime_type,
        "duration_seconds": duration_seconds,
        "frame_rate": frame_rate,
    }
    await attempts.set_processed(session, photo_id, found)
    event = PhotoProcessed(
        photo_id=PhotoId(photo_id),
        attempt_id=attempt_id,
        outcome="PROCESSED",
        final=True,
        person_ids=tuple(person_ids or ()),
        created_person_ids=tuple(created_person_ids),
        faces=faces or 0,
        model_version=model_version,
        duration_ms=duration_ms,
    )
    await _announce(session, event)
    return True


async def fail(
    session: AsyncSession,
    photo_id: int,
    attempt_id: UUID | None,
    *,
    code: str,
    error: str,
    permanent: bool = False,
) -> bool:
    """The attempt failed: FAILED, tried again later, unless `permanent` or its retries are spent.

    Then it becomes a dead letter, which only a person revives. False as `finish` says it.
    """
    held = await lock(session, photo_id)
    attempt_id = attempt_id or held.attempt_id
    if not await _accept(session, held, attempt_id):
        return False
    error = error.replace("\0", "\\0")  # PostgreSQL's text cannot hold it
    await attempts.end(
        session,
        photo_id,
        attempt_id,
        "FAILED",
        error_code=code,
        error_message=error,
        permanent=permanent,
    )
    failure = rules.failure(held.retry_count, permanent, load(LibrarySettings))
    await attempts.set_failed(session, photo_id, failure.count, failure.retry_in, code, error)
    if failure.retry_in is None:
        await _bury(session, photo_id, error)
    event = PhotoProcessed(
        photo_id=PhotoId(photo_id),
        attempt_id=attempt_id,
        outcome="FAILED",
        final=failure.retry_in is None,
        error=error,
    )
    await _announce(session, event)
    return True


async def change_status(session: AsyncSession, change: StatusChange) -> StatusChanged:
    """A status said over HTTP. Raises `NotFound`, and `Conflict` where it cannot follow.

    Without an attempt it is said of the current one. READY is a person's word: see `reprocess`.
    """
    state = await _change(session, change)
    held = await lock(session, change.photo_id)
    return StatusChanged(
        photo_id=change.photo_id,
        status=cast(Status, held.status),
        attempt_id=held.attempt_id,
        path=held.path,
        state=state,
    )


async def _change(session: AsyncSession, change: StatusChange) -> AttemptState:
    if change.status == "PROCESSING":
        return await begin_attempt(session, change.photo_id, change.attempt_id, change.worker)
    held = await lock(session, change.photo_id)
    if change.status == "READY":
        await reprocess(session, [change.photo_id])
        return "started"
    attempt_id = change.attempt_id or held.attempt_id
    state = await _state(session, held, attempt_id)
    if state != "started":
        return state
    if change.status == "FAILED":
        told = change.error or "no cause was given"
        problem = told if isinstance(told, Problem) else Problem(message=told)
        await fail(
            session,
            held.photo_id,
            attempt_id,
            code=problem.code,
            error=problem.message,
            permanent=problem.permanent,
        )
    elif held.status != "PROCESSING":
        raise Conflict(
            f"photo {held.photo_id} is {held.status}: only what is PROCESSING can become PROCESSED",
            photo_id=held.photo_id,
        )
    else:
        await finish(session, held.photo_id, attempt_id)
    return state


async def new_attempt(session: AsyncSession, photo_id: int, worker: str | None = None) -> UUID:
    """Begin an attempt at once, without a message; it supersedes the one before."""
    await lock(session, photo_id)
    requested = (await attempts.request(session, [photo_id], anew=True))[0]
    await attempts.begin(session, photo_id, requested.attempt_id, worker)
    return requested.attempt_id


async def reprocess(session: AsyncSession, photo_ids: Sequence[int]) -> int:
    """Have photos looked at anew, whatever their status; answers how many.

    A person's word: what failed for good is tried again, with all its retries. A duplicate's
    first one is looked at in its place; an id that is unknown is left out.
    """
    ids = await attempts.first_of(session, photo_ids)
    await request(session, ids, anew=True)
    return len(ids)


async def request(session: AsyncSession, photo_ids: Sequence[int], *, anew: bool) -> None:
    """READY with a new attempt, and its message published."""
    requested = await attempts.request(session, photo_ids, anew=anew)
    await publish(session, *[message(r, clock.now()) for r in requested])


async def retry_due(session: AsyncSession) -> int:
    """Try failed assets again whose wait is over, some at a time; answers how many."""
    ids = await attempts.due(session, AT_ONCE)
    if ids:
        await request(session, ids, anew=False)
    return len(ids)


async def time_out(session: AsyncSession) -> int:
    """Fail assets that are PROCESSING for too long, some at a time; answers how many."""
    age = load(LibrarySettings).stuck_after
    rows = await attempts.stuck(session, age, AT_ONCE)
    for row in rows:
        error = f"still PROCESSING after {age.total_seconds():g} s"
        await fail(session, row.photo_id, row.attempt_id, code="stuck", error=error)
    return len(rows)


def message(
    asset: Requested | Held, created_at: datetime, **origin: Any
) -> PhotoToProcess | VideoToRead:
    """The message that asks for an asset's current attempt."""
    kind = VideoToRead if asset.media_type == "video" else PhotoToProcess
    return kind(
        photo_id=PhotoId(asset.photo_id),
        path=asset.path,
        attempt_id=asset.attempt_id,
        created_at=created_at,
        **origin,
    )


async def announce_duplicates(session: AsyncSession, first: int, event: PhotoProcessed) -> None:
    """Show an asset's outcome on its duplicates, and tell of each."""
    rows = await hashes.mirror(session, first)
    told = {"outcome": "DUPLICATE", "created_person_ids": (), "faces": 0, "duration_ms": None}
    await publish(
        session,
        *[
            event.model_copy(
                update={**told, "photo_id": row.photo_id, "attempt_id": row.attempt_id}
            )
            for row in rows
        ],
    )


async def _announce(session: AsyncSession, event: PhotoProcessed) -> None:
    await publish(session, event)
    await announce_duplicates(session, event.photo_id, event)


async def _state(session: AsyncSession, held: Held, attempt_id: UUID) -> AttemptState:
    """`started` if the attempt may still have an outcome."""
    outcome = await attempts.outcome(session, attempt_id)
    if outcome in ("PROCESSED", "FAILED"):
        return "already-done"
    if outcome == "SUPERSEDED" or held.duplicate_of is not None:
        return "superseded"
    return "started"


async def _accept(session: AsyncSession, held: Held, attempt_id: UUID) -> bool:
    """Whether an attempt's outcome counts; one that somebody else made up takes its place."""
    state = await _state(session, held, attempt_id)
    if state != "started":
        log.info("outcome of a void attempt", photo_id=held.photo_id, state=state)
        return False
    if attempt_id != held.attempt_id:
        await attempts.adopt(session, held.photo_id, attempt_id)
    return True


async def _bury(session: AsyncSession, photo_id: int, cause: str) -> None:
    """A dead letter that holds the next attempt's message: reviving it is all that is needed."""
    letter = message(await lock(session, photo_id), clock.now())
    history = [
        {
            "time": row.finished_at.isoformat(),
            "consumer": row.worker,
            "error": f"{row.error_code}: {row.error_message}",
        }
        for row in await attempts.failures(session, photo_id)
    ]
    payload = letter.model_dump(mode="json")
    await bus.dead_letter(session, letter.topic, letter.key(), payload, cause, history)
