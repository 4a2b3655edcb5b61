"""Folder jobs: order a job, take in what its scan finds, follow its photos to their end.

None commits. Between the verbs nothing is held: a process that dies after any of them leaves a job
that the next delivery of its message, or the clock, takes up.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.bus import service as bus
from kaleidoscope.bus.messages import Message, message_of
from kaleidoscope.bus.publish import publish
from kaleidoscope.ingest import queries, rules, schemas
from kaleidoscope.ingest.events import BatchesToPublish, FolderToIngest
from kaleidoscope.ingest.queries import Entry, NewError
from kaleidoscope.ingest.settings import IngestSettings
from kaleidoscope.kernel import clock
from kaleidoscope.kernel.errors import Conflict, Invalid, NotFound
from kaleidoscope.kernel.paths import allow, allowed, inside, to_bytes, to_text
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library
from kaleidoscope.library.events import PhotoProcessed, PhotoToProcess, VideoToRead
from kaleidoscope.library.ids import PhotoId
from kaleidoscope.library.schemas import Photo
from kaleidoscope.library.service import Refused, Registered, ScannedFile

ENOUGH_TO_MEASURE = 20  # photos in a job, for its speed to tell that of the next
BATCHES_AT_ONCE = 200


class Found(Protocol):
    """A path that could not be taken in."""

    @property
    def path(self) -> str: ...
    @property
    def code(self) -> str: ...
    @property
    def cause(self) -> str: ...


@dataclass(frozen=True)
class Publication:
    """Batches of a job with the messages that are still to be sent for them."""

    job_id: UUID
    batch_ids: Sequence[int]
    messages: Sequence[Message]


# -- ordering


async def order(
    session: AsyncSession,
    wish: schemas.IngestFolder,
    *,
    requested_by: str | None = None,
    anywhere: bool = False,
) -> UUID:
    """A new job for a folder; its scan begins when the transaction commits.

    `anywhere`: the caller may name any folder, not only those inside `ingest.roots`, and the
    services of this machine may read it from then on. Raises `Invalid`, `NotFound` or `Forbidden`
    that name the folder.
    """
    settings = load(IngestSettings)
    job_id = await queries.add_job(
        session,
        path=to_text(_folder(wish.path, settings, anywhere=anywhere)),
        recursive=wish.recursive,
        batch_size=wish.batch_size or settings.batch_size,
        job_name=wish.job_name,
        dry_run=wish.dry_run,
        requested_by=requested_by,
    )
    await publish(session, FolderToIngest(job_id=job_id))
    return job_id


def _folder(path: str, settings: IngestSettings, *, anywhere: bool) -> bytes:
    """The real path of a folder that may be taken in."""
    raw = to_bytes(path)
    if not raw.startswith(b"/"):
        raise Invalid(f"{path} is no absolute path", path=path)
    real = os.path.realpath(raw) if anywhere else inside(raw, [*settings.roots, *allowed()])
    try:
        is_folder = stat.S_ISDIR(Path(os.fsdecode(real)).stat().st_mode)
    except FileNotFoundError:
        raise NotFound(
            f"there is no folder {path}",
            hint="is it spelled so, and its disk mounted?",
            path=path,
        ) from None
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror or error}", path=path) from None
    if not is_folder:
        raise Invalid(f"{path} is no folder", path=path)
    if anywhere:
        allow(real)
    return real


async def cancel(session: AsyncSession, job_id: UUID) -> None:
    """End a job: its scan stops, what is not published is not. Raises `NotFound`, `Conflict`."""
    if not await queries.fail_job(session, job_id, "cancelled", cancelled=True):
        state = await queries.state(session, job_id)
        if state is None:
            raise _no_job(job_id)
        raise Conflict(f"job {job_id} is {state.status} already", job_status=state.status)


async def fail(session: AsyncSession, job_id: UUID, cause: str) -> None:
    """End a job that cannot go on; one that is over stays what it is."""
    await queries.fail_job(session, job_id, cause)


# -- taking in


async def register(
    session: AsyncSession, job: queries.Job, files: Sequence[ScannedFile]
) -> Publication | None:
    """Files into the ledger and, as batches, into the job; None: the job is over.

    Answers the batches with their messages, to be published once the transaction is committed.
    Known files are not published again, unless the job that brought them ended before it did.
    """
    if not await queries.lock_running(session, job.job_id):
        return None
    registered = await library.register(session, files)
    left = await _left_behind(session, [r for r in registered if r.outcome == "known"])
    chosen = [r for r in registered if r.outcome != "known" or r.photo_id in left]
    portions = rules.portions(chosen, job.batch_size)
    ids = await queries.add_batches(session, job.job_id, [len(p) for p in portions])
    batches = list(zip(ids, portions, strict=True))
    if batches:
        entries = [(batch_id, [_entry(r) for r in photos]) for batch_id, photos in batches]
        await queries.add_photos(session, job.job_id, entries)
    outcomes = [r.outcome for r in registered]
    await queries.count_registered(
        session,
        job.job_id,
        inserted=outcomes.count("new") + outcomes.count("duplicate"),
        changed=outcomes.count("changed"),
        duplicates=outcomes.count("duplicate"),
    )
    messages = [
        _message(job.job_id, batch_id, r.photo_id, r.path, r.media_type, r.attempt_id)
        for batch_id, photos in batches
        for r in photos
        if r.outcome != "duplicate"
    ]
    return Publication(job.job_id, ids, messages)


async def note_scanned(
    session: AsyncSession, job: queries.Job, scanned: int, skipped: Mapping[str, int]
) -> None:
    """How much the scan has seen so far: photos and videos, and what it passed over by cause."""
    await queries.set_scanned(session, job.job_id, scanned, skipped)


async def note_errors(session: AsyncSession, job: queries.Job, found: Sequence[Found]) -> None:
    """What the scan could not take in."""
    errors = [NewError(f.path, f.code, f.cause) for f in found]
    await queries.add_errors(session, job.job_id, errors)


def _entry(registered: Registered) -> Entry:
    is_duplicate = registered.outcome == "duplicate"
    return Entry(registered.photo_id, registered.attempt_id, "DUPLICATE" if is_duplicate else None)


async def _left_behind(session: AsyncSession, known: Sequence[Registered]) -> set[int]:
    """Of known photos those that an ended job has left unpublished, and that still wait."""
    left = await queries.take_over(session, [r.photo_id for r in known])
    photos = await library.get_many(session, sorted(left)) if left else []
    return {photo.photo_id for photo in photos if photo.status == "READY"}


# -- publishing


async def publication(session: AsyncSession, job_id: UUID, batch_ids: Sequence[int]) -> Publication:
    """What is still to be sent for batches that were registered earlier."""
    waiting = await queries.unpublished(session, batch_ids)
    photos = await library.get_many(session, [w.photo_id for w in waiting])
    messages = [
        _message(job_id, w.batch_id, p.photo_id, p.path, p.media_type, w.attempt_id)
        for w, p in zip(waiting, photos, strict=True)
    ]
    return Publication(job_id, batch_ids, messages)


async def published(session: AsyncSession, sent: Publication) -> None:
    """The transport has acknowledged them."""
    await queries.set_published(session, sent.job_id, sent.batch_ids)


async def not_published(session: AsyncSession, unsent: Publication, error: str, tries: int) -> None:
    """`tries` to publish them have failed: FAILED, tried again later, or given up for good.

    What is given up becomes dead letters with their cause; reviving them is publishing them.
    """
    settings = load(IngestSettings)
    failures = await queries.set_unpublished(session, unsent.batch_ids, error, tries)
    for batch_id, number in failures:
        wait = rules.publish_wait(number, settings)
        await queries.set_next_publish(session, batch_id, wait)
        if wait is None:
            for message in unsent.messages:
                if message.payload["ingest_batch_id"] == batch_id:
                    await _bury(session, message, error, number)


async def due(session: AsyncSession) -> int:
    """Have batches published again whose time has come; answers how many."""
    age = timedelta(seconds=load(IngestSettings).overdue_after)
    found = await queries.due_batches(session, age, BATCHES_AT_ONCE)
    by_job: dict[UUID, list[int]] = {}
    for job_id, batch_id in found:
        by_job.setdefault(job_id, []).append(batch_id)
    events = [BatchesToPublish(job_id=j, batch_ids=tuple(ids)) for j, ids in by_job.items()]
    await publish(session, *events)
    return len(found)


def _message(
    job_id: UUID, batch_id: int, photo_id: int, path: str, media_type: str, attempt_id: UUID
) -> Message:
    """A photo's message. Its id is that of its attempt: sent again it is the same one."""
    kind = VideoToRead if media_type == "video" else PhotoToProcess
    event = kind(
        photo_id=PhotoId(photo_id),
        path=path,
        job_id=job_id,
        ingest_batch_id=batch_id,
        created_at=clock.now(),
        attempt_id=attempt_id,
    )
    return message_of(event, id=attempt_id)


async def _bury(session: AsyncSession, message: Message, error: str, failures: int) -> None:
    history = [{"time": clock.now().isoformat(), "consumer": "ingest", "error": error}]
    cause = f"could not be published in {failures} tries: {error}"
    await bus.dead_letter(
        session,
        message.topic,
        message.key,
        message.payload,
        cause,
        history,
        message_id=message.id,
    )


# -- the ends of photos and jobs


async def photo_ended(session: AsyncSession, event: PhotoProcessed) -> None:
    """Count what came of a photo in every job that waits for it; told twice, it counts once."""
    await photos_ended(session, [event])


async def photos_ended(session: AsyncSession, events: Sequence[PhotoProcessed]) -> None:
    """Count what came of photos, of which there is one event each."""
    told = {int(event.photo_id): event for event in events}
    if len(told) < len(events):
        raise ValueError("two events of one photo: their order would be lost")
    ends = await queries.set_outcomes(session, {p: (e.outcome, e.final) for p, e in told.items()})
    errors = {p: await _error_of(session, told[p]) for p in _failed(told, ends)}
    batches: dict[int, list[int]] = {}
    for end in ends:
        batches.setdefault(end.batch_id, []).append(end.photo_id)
    for batch_id, photos in sorted(batches.items()):
        failed = sum(photo in errors for photo in photos)
        await queries.count_ended(
            session,
            batch_id,
            processed=len(photos) - failed,
            failed=failed,
            faces=sum(told[photo].faces for photo in photos),
        )
    jobs: dict[UUID, list[int]] = {}
    for end in ends:
        jobs.setdefault(end.job_id, []).append(end.photo_id)
    for job_id, photos in sorted(jobs.items()):
        persons: dict[int, bool] = {}
        for event in (told[photo] for photo in photos):
            for person in event.person_ids:
                persons[person] = persons.get(person, False) or person in event.created_person_ids
        if persons:
            await queries.add_persons(session, job_id, persons)
        await queries.add_errors(session, job_id, [errors[p] for p in photos if p in errors])
        await settle(session, job_id)


def _failed(told: Mapping[int, PhotoProcessed], ends: Sequence[queries.Ended]) -> list[int]:
    """The photos that have ended with an error."""
    return sorted({end.photo_id for end in ends if told[end.photo_id].error is not None})


async def settle(session: AsyncSession, job_id: UUID) -> None:
    """Give a job the status it has earned."""
    state = await queries.state(session, job_id)
    if state is None:
        return
    status, failure = rules.next_status(state)
    if status != state.status:
        await queries.set_status(session, job_id, status, failure)


async def end_scan(
    session: AsyncSession, job: queries.Job, estimate: schemas.Estimate | None = None
) -> None:
    """The scan has come to its end."""
    found = None if estimate is None else estimate.model_dump()
    await queries.end_scan(session, job.job_id, found)
    await settle(session, job.job_id)


async def ask_after(session: AsyncSession, after: int, limit: int = 1000) -> tuple[int, int]:
    """Ask the ledger about photos whose end was not told for long, some at a time.

    Answers how many had ended, and the `after` of the next portion (0: that was the last).
    """
    age = timedelta(seconds=load(IngestSettings).overdue_after)
    rows = await queries.overdue(session, age, after, limit)
    photos = await library.get_many(session, sorted({row.photo_id for row in rows}))
    ended = [p for p in photos if p.updated_at < clock.now() - age and _has_ended(p)]
    for photo in ended:
        await photo_ended(session, _outcome_of(photo))
    return len(ended), rows[-1].map_id if len(rows) == limit else 0


def _has_ended(photo: Photo) -> bool:
    return photo.status == "PROCESSED" or (photo.status == "FAILED" and photo.next_retry_at is None)


def _outcome_of(photo: Photo) -> PhotoProcessed:
    """What the message said that did not come, as far as the ledger knows."""
    failed = photo.status == "FAILED"
    return PhotoProcessed(
        photo_id=photo.photo_id,
        attempt_id=photo.attempt_id,
        outcome="FAILED" if failed else "PROCESSED",
        final=True,
        person_ids=tuple(photo.person_ids or ()),
        error=(photo.error_message or "failed") if failed else None,
    )


async def _error_of(session: AsyncSession, event: PhotoProcessed) -> NewError:
    photo = await library.get(session, event.photo_id)
    attempts = await library.attempts(session, photo.duplicate_of or photo.photo_id)
    codes = [a.error_code for a in attempts if a.outcome == "FAILED" and a.error_code]
    return NewError(photo.path, codes[-1] if codes else "failed", event.error or "", event.photo_id)


async def relocate(session: AsyncSession, old: str, new: str) -> None:
    """After a restore into another data folder: jobs and inboxes that lay in the old one."""
    await queries.relocate(session, old, new)


# -- reading


async def status(session: AsyncSession, job_id: UUID, batches: int = 100) -> schemas.IngestStatus:
    """A job in detail, with its last `batches`. Raises `NotFound`."""
    row = await queries.job(session, job_id)
    if row is None:
        raise _no_job(job_id)
    created, matched = await queries.persons(session, job_id)
    shown = await queries.batches(session, job_id, batches) if batches else []
    return schemas.IngestStatus(
        **_job(row),
        persons_created=created,
        persons_matched=matched,
        errors=await queries.errors_by_code(session, job_id),
        batches=[schemas.Batch(**batch) for batch in shown],
    )


async def jobs(
    session: AsyncSession,
    *,
    status: schemas.JobStatus | None = None,
    before: datetime | None = None,
    limit: int = 100,
) -> list[schemas.Job]:
    """Jobs ordered before a moment, the youngest first."""
    rows = await queries.jobs(session, status, before, limit)
    return [schemas.Job(**_job(row)) for row in rows]


async def errors(
    session: AsyncSession, job_id: UUID, *, after: int = 0, limit: int = 100
) -> schemas.ErrorPage:
    """What a job could not take in, in the order it was met. Raises `NotFound`."""
    if await queries.job(session, job_id) is None:
        raise _no_job(job_id)
    rows = await queries.errors(session, job_id, after, limit + 1)
    page = [schemas.IngestError(**row) for row in rows[:limit]]
    return schemas.ErrorPage(errors=page, next=page[-1].error_id if len(rows) > limit else None)


async def estimate(
    session: AsyncSession, photos: int, videos: int, known: int, size: int
) -> schemas.Estimate:
    """How long it will take to recognise what a dry run has found; `size` in bytes."""
    measured = await queries.photos_per_second(session, ENOUGH_TO_MEASURE)
    speed = measured or load(IngestSettings).photos_per_second
    return schemas.Estimate(
        photos=photos,
        videos=videos,
        known=known,
        bytes=size,
        seconds=round(max(0, photos - known) / speed),
        photos_per_second=round(speed, 2),
        measured=measured is not None,
    )


def refusals(refused: Sequence[Refused]) -> list[NewError]:
    """What the ledger could not take, as errors of a job."""
    return [NewError(r.path, "refused", r.cause) for r in refused]


def _job(row: RowMapping) -> dict[str, Any]:
    renamed = {
        "scanned": "scanned_count",
        "inserted": "inserted_count",
        "changed": "changed_count",
        "duplicates": "duplicate_count",
        "published": "published_count",
        "faces_detected": "faces",
    }
    values = dict(row) | {name: row[column] for name, column in renamed.items()}
    # A scan that was interrupted begins anew, and has seen less at first than was inserted.
    values["known"] = max(0, row.scanned_count - row.inserted_count - row.changed_count)
    return values


def _no_job(job_id: UUID) -> NotFound:
    return NotFound(
        f"there is no job {job_id}", hint="`kaleidoscope jobs list` has all", job_id=str(job_id)
    )
