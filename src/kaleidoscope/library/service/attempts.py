"""Attempts: begun, ended, tried again, given up. One counter, one back-off, one owner of both.

An attempt is the asset's current one, or it has an outcome in `processing_attempts`, or somebody
else made it up: a caller of the HTTP API may report on a photo under an id of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.bus import service as bus
from kaleidoscope.bus.publish import publish
from kaleidoscope.kernel import clock
from kaleidoscope.kernel.errors import Conflict
from kaleidoscope.kernel.settings import load
from kaleidoscope.library.events import PhotoProcessed, PhotoToProcess, VideoToRead
from kaleidoscope.library.ids import PhotoId
from kaleidoscope.library.queries import attempts, hashes
from kaleidoscope.library.queries.attempts import End, Held, Requested
from kaleidoscope.library.rules import ledger as rules
from kaleidoscope.library.schemas import (
    AttemptState,
    Problem,
    Status,
    StatusChange,
    StatusChanged,
)
from kaleidoscope.library.service.ledger import no_photo
from kaleidoscope.library.settings import LibrarySettings

log = structlog.get_logger(__name__)

AT_ONCE = 500


@dataclass(frozen=True)
class LookedAt:
    """Photos that were looked at with some models (`done`) and last with others (`left`), that are
    on their way (`waiting`), and that failed for good.
    """

    done: int
    left: int
    waiting: int
    failed: int


async def lock(session: AsyncSession, photo_id: int) -> Held:
    """An asset's state, which nobody else changes until the transaction ends; or `NotFound`."""
    return (await lock_all(session, [photo_id]))[photo_id]


async def lock_all(session: AsyncSession, photo_ids: Sequence[int]) -> dict[int, Held]:
    """The same for several, locked in the order of ids."""
    held = await attempts.hold(session, photo_ids)
    for photo_id in photo_ids:
        if photo_id not in held:
            raise no_photo(photo_id)
    return held


async def attempt_results(
    session: AsyncSession, attempt_ids: Sequence[UUID]
) -> dict[UUID, dict[str, Any]]:
    """What the callbacks of attempts were answered; one that has ended without is left out."""
    return await attempts.results(session, attempt_ids)


async def begin_attempt(
    session: AsyncSession, photo_id: int, attempt_id: UUID | None, worker: str | None = None
) -> AttemptState:
    """Mark a photo PROCESSING for an attempt (None: its current one).

    Begun twice (a worker died and its message came again) it is `started` again.
    """
    await lock(session, photo_id)
    return (await begin_attempts(session, {photo_id: attempt_id}, worker))[photo_id].state


async def begin_attempts(
    session: AsyncSession, asked: Mapping[int, UUID | None], worker: str | None = None
) -> dict[int, StatusChanged]:
    """Mark photos PROCESSING, each for its attempt, as `begin_attempt` does.

    Photos that are unknown are left out.
    """
    held = await attempts.hold(session, list(asked))
    wanted = {photo: asked[photo] or held[photo].attempt_id for photo in held}
    states = await _states(session, [(held[photo], wanted[photo]) for photo in held])
    for photo, state in states.items():
        if state == "started" and wanted[photo] != held[photo].attempt_id:
            states[photo] = "superseded"
    begun = {photo: wanted[photo] for photo, state in states.items() if state == "started"}
    if begun:
        await attempts.begin(session, begun, worker)
    return {
        photo: StatusChanged(
            photo_id=PhotoId(photo),
            status=cast(Status, "PROCESSING" if photo in begun else held[photo].status),
            attempt_id=held[photo].attempt_id,
            path=held[photo].path,
            state=state,
        )
        for photo, state in states.items()
    }


@dataclass(frozen=True)
class Finding:
    """What an attempt (None: the current one) found in an asset.

    `width`, `height` in pixels as displayed. `result` is what `attempt_results` answers from now
    on. What is None leaves the ledger as it is.
    """

    photo_id: int
    attempt_id: UUID | None
    person_ids: Sequence[int] | None = None
    created_person_ids: Sequence[int] = ()
    faces: int | None = None
    width: int | None = None
    height: int | None = None
    mime_type: str | None = None
    duration_seconds: float | None = None
    frame_rate: float | None = None
    model_version: str | None = None
    duration_ms: int | None = None
    result: Mapping[str, Any] | None = None


async def finish(
    session: AsyncSession, photo_id: int, attempt_id: UUID | None, **found: Any
) -> bool:
    """One attempt succeeded: `finish_all` of the `Finding` with these fields."""
    finding = Finding(photo_id, attempt_id, **found)
    return (await finish_all(session, [finding]))[photo_id]


async def finish_all(
    session: AsyncSession, findings: Sequence[Finding], held: Mapping[int, Held] | None = None
) -> dict[int, bool]:
    """The attempts succeeded: PROCESSED, and so are the photos' duplicates.

    By photo_id, of which there is one each; `held` are the photos, where they are locked already
    and have not been changed since. False, and nothing is written: the attempt had ended,
    another has taken its place, or the photo is a duplicate.
    """
    if held is None:
        held = await lock_all(session, [f.photo_id for f in findings])
    tried = {f.photo_id: f.attempt_id or held[f.photo_id].attempt_id for f in findings}
    accepted = await _accept(session, [(held[photo], tried[photo]) for photo in tried])
    counted = [f for f in findings if accepted[f.photo_id]]
    if not counted:
        return accepted
    await attempts.end(
        session,
        [
            End(
                f.photo_id,
                tried[f.photo_id],
                "PROCESSED",
                model_version=f.model_version,
                duration_ms=f.duration_ms,
                result=f.result,
            )
            for f in counted
        ],
    )
    await attempts.set_processed(session, [_shown(f) for f in counted])
    events = [
        PhotoProcessed(
            photo_id=PhotoId(f.photo_id),
            attempt_id=tried[f.photo_id],
            outcome="PROCESSED",
            final=True,
            person_ids=tuple(f.person_ids or ()),
            created_person_ids=tuple(f.created_person_ids),
            faces=f.faces or 0,
            model_version=f.model_version,
            duration_ms=f.duration_ms,
        )
        for f in counted
    ]
    await _announce(session, events)
    return accepted


def _shown(found: Finding) -> dict[str, Any]:
    """What the ledger shows of it."""
    return {
        "photo_id": found.photo_id,
        "person_ids": None if found.person_ids is None else list(found.person_ids),
        "no_faces": None if found.faces is None else found.faces == 0,
        "width": found.width,
        "height": found.height,
        "mime_type": found.mime_type,
        "duration_seconds": found.duration_seconds,
        "frame_rate": found.frame_rate,
    }


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
    if not (await _accept(session, [(held, attempt_id)]))[photo_id]:
        return False
    error = error.replace("\0", "\\0")  # PostgreSQL's text cannot hold it
    end = End(
        photo_id,
        attempt_id,
        "FAILED",
        error_code=code,
        error_message=error,
        permanent=permanent,
    )
    await attempts.end(session, [end])
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
    await _announce(session, [event])
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
    state = (await _states(session, [(held, attempt_id)]))[held.photo_id]
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
    await attempts.begin(session, {photo_id: requested.attempt_id}, worker)
    return requested.attempt_id


async def reprocess(session: AsyncSession, photo_ids: Sequence[int]) -> int:
    """Have photos looked at anew, whatever their status; answers how many.

    A person's word: what failed for good is tried again, with all its retries. A duplicate's
    first one is looked at in its place; an id that is unknown is left out.
    """
    ids = await attempts.first_of(session, photo_ids)
    await request(session, ids, anew=True)
    return len(ids)


async def ask_again(session: AsyncSession, photo_ids: Sequence[int]) -> None:
    """Have photos looked at where they lie now, which the attempts at them did not know: these
    count as none. What has ended well is left out.
    """
    await request(session, await attempts.unended(session, photo_ids), anew=False)


async def looked_at_with(session: AsyncSession, models: str) -> LookedAt:
    """How many photos were last looked at with models whose version begins so."""
    return LookedAt(**(await attempts.looked_at_with(session, models))._mapping)


async def looked_at_otherwise(
    session: AsyncSession, models: str, photo_ids: Sequence[int]
) -> list[int]:
    """Those of the photos that were last looked at with other models."""
    return await attempts.not_looked_at_with(session, models, photo_ids=photo_ids)


async def look_with(session: AsyncSession, models: str, after: int, limit: int) -> list[int]:
    """Have photos looked at anew that were last looked at with other models than those whose
    version begins so: some with ids above `after`, whose ids it answers. A person's word.
    """
    ids = await attempts.not_looked_at_with(session, models, after=after, limit=limit)
    await request(session, ids, anew=True)
    return ids


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


async def announce_duplicates(session: AsyncSession, events: Sequence[PhotoProcessed]) -> None:
    """Show assets' outcomes on their duplicates, and tell of each."""
    said = {int(event.photo_id): event for event in events}
    rows = await hashes.mirror(session, list(said))
    told = {"outcome": "DUPLICATE", "created_person_ids": (), "faces": 0, "duration_ms": None}
    await publish(
        session,
        *[
            said[row.duplicate_of].model_copy(
                update={**told, "photo_id": row.photo_id, "attempt_id": row.attempt_id}
            )
            for row in rows
        ],
    )


async def _announce(session: AsyncSession, events: Sequence[PhotoProcessed]) -> None:
    await publish(session, *events)
    await announce_duplicates(session, events)


async def _states(
    session: AsyncSession, tried: Sequence[tuple[Held, UUID]]
) -> dict[int, AttemptState]:
    """By photo_id; `started` if the attempt may still have an outcome."""
    outcomes = await attempts.outcomes(session, [attempt_id for _, attempt_id in tried])
    return {held.photo_id: _state(held, outcomes.get(attempt_id)) for held, attempt_id in tried}


def _state(held: Held, outcome: str | None) -> AttemptState:
    if outcome in ("PROCESSED", "FAILED"):
        return "already-done"
    if outcome == "SUPERSEDED" or held.duplicate_of is not None:
        return "superseded"
    return "started"


async def _accept(session: AsyncSession, tried: Sequence[tuple[Held, UUID]]) -> dict[int, bool]:
    """Whether each attempt's outcome counts; one that somebody else made up takes its place."""
    states = await _states(session, tried)
    for held, attempt_id in tried:
        state = states[held.photo_id]
        if state != "started":
            log.info("outcome of a void attempt", photo_id=held.photo_id, state=state)
        elif attempt_id != held.attempt_id:
            await attempts.adopt(session, held.photo_id, attempt_id)
    return {photo_id: state == "started" for photo_id, state in states.items()}


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
