"""What ingest does when a message or the clock calls it.

A scan goes through steps that each leave the job whole: register files and their batches in one
transaction, send the messages, note that they are sent. Killed between any two of them, it begins
anew when its message comes again: batches that were registered are published first, files that
were registered are known.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from uuid import UUID
from weakref import WeakKeyDictionary

import structlog
from sqlalchemy import text

from kaleidoscope.bus.handlers import Context, Handler, Retry
from kaleidoscope.bus.transports import Transport
from kaleidoscope.ingest import queries, service
from kaleidoscope.ingest.events import BatchesToPublish, FolderToIngest
from kaleidoscope.ingest.outside.read_ahead import Chunk, read_ahead
from kaleidoscope.ingest.outside.scan import Filter, scan
from kaleidoscope.ingest.queries import Job, NewError
from kaleidoscope.ingest.service import Publication
from kaleidoscope.ingest.settings import IngestSettings
from kaleidoscope.kernel.clock import ClockJob
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.gather import Gathering
from kaleidoscope.kernel.paths import to_bytes
from kaleidoscope.kernel.settings import data_dir, load
from kaleidoscope.library import service as library
from kaleidoscope.library.events import PhotoProcessed
from kaleidoscope.library.settings import BackupSettings

log = structlog.get_logger(__name__)

FILES_AT_ONCE = 1000  # registered in one transaction, in as many batches as that makes
MAX_ATTEMPTS = 5
LOOK_AGAIN = 1.0  # seconds between two looks at whether there is room for more batches
FIRST_PAUSE = 0.2  # seconds between the first two tries to publish; then twice as long, and so on


async def take_in_folder(context: Context, event: FolderToIngest) -> None:
    """Scan the folder of a job, register what is in it, publish it."""
    try:
        await run_job(context.db, context.transport, event.job_id)
    except Exception as error:
        if context.delivery.attempt >= MAX_ATTEMPTS and not isinstance(error, Retry):
            async with context.db.transaction() as session:
                await service.fail(session, event.job_id, f"{type(error).__name__}: {error}")
        raise


async def run_job(db: Database, transport: Transport, job_id: UUID) -> None:
    """Bring a job's scan to its end, or to where it is cancelled.

    Raises `Retry` while another process scans the same job.
    """
    async with _alone(db, job_id):
        async with db.transaction() as session:
            job = await queries.begin_scan(session, job_id)
            left = await queries.unpublished_batches(session, job_id) if job else []
        if job is None:
            return
        try:
            if job.dry_run:
                await _estimate(db, job)
                return
            await _publish_again(db, transport, job_id, left)
            passed_over = load(IngestSettings).skip_folders
            if await _is_frozen(db, job, await library.guard(db, job.path, passed_over)):
                return
            await _take_in(db, transport, job)
        except OSError as error:
            # The folder itself: what is wrong below it never comes here.
            async with db.transaction() as session:
                cause = f"{job.path} cannot be read: {error.strerror or error}"
                await service.fail(session, job_id, cause)


async def _is_frozen(db: Database, job: Job, found: Sequence[library.Frozen]) -> bool:
    """Whether the job's folder lies in a place that was found frozen: then the job has failed.

    What is frozen below it is told among the job's errors.
    """
    told = [NewError(f.path, "frozen", f"it is frozen: {f.cause}") for f in found if not f.holds]
    holding = [frozen for frozen in found if frozen.holds]
    async with db.transaction() as session:
        await service.note_errors(session, job, told)
        if holding:
            cause = f"{holding[0]}; `kaleidoscope places list` says what can be done"
            await service.fail(session, job.job_id, cause)
    return bool(holding)


@asynccontextmanager
async def _alone(db: Database, job_id: UUID) -> AsyncIterator[None]:
    """Be the only one who scans this job. The claim goes with the process that dies."""
    async with db.claim() as connection:
        key = {"job": f"ingest:{job_id}"}
        lock = text("SELECT pg_try_advisory_lock(hashtextextended(:job, 0))")
        if not (await connection.execute(lock, key)).scalar_one():
            raise Retry(timedelta(seconds=3), "another worker scans this job", count=False)
        try:
            yield
        finally:
            unlock = text("SELECT pg_advisory_unlock(hashtextextended(:job, 0))")
            await connection.execute(unlock, key)


# -- the scan


async def _take_in(db: Database, transport: Transport, job: Job) -> None:
    scanned, skipped = 0, Counter[str]()
    most = load(IngestSettings).batches_in_flight
    async with db.transaction() as session:
        await library.know_place(session, job.path)
    async with _chunks(job, min(FILES_AT_ONCE, most * job.batch_size)) as chunks:
        async for chunk in chunks:
            scanned += len(chunk.files)
            skipped.update(chunk.skipped)
            if not await _wait_for_room(db, job, chunk, most):
                return
            batches = await _register(db, job, chunk, scanned, skipped)
            if batches is None:
                return
            await _publish(db, transport, batches)
    nothing = [] if scanned else await library.found_nothing(db, job.path)
    if await _is_frozen(db, job, nothing):
        return
    async with db.transaction() as session:
        await service.end_scan(session, job)
        await library.count_anew(session, job.path)
    log.info("scanned", job_id=str(job.job_id), found=scanned, skipped=dict(skipped))


@asynccontextmanager
async def _chunks(job: Job, size: int) -> AsyncIterator[AsyncIterator[Chunk]]:
    backup = load(BackupSettings).target  # its copies are no photos of their own
    without = [data_dir(), *([Path(backup)] if backup and "://" not in backup else [])]
    wanted = Filter.of(load(IngestSettings), *without)
    items = scan(to_bytes(job.path), wanted, recursive=job.recursive)
    async with read_ahead(items, size) as chunks:
        yield chunks


async def _wait_for_room(db: Database, job: Job, chunk: Chunk, most: int) -> bool:
    """Wait until the chunk's batches may be in flight; False: the job is over."""
    coming = -(-len(chunk.files) // job.batch_size)
    while True:
        async with db.transaction() as session:
            if not await queries.is_running(session, job.job_id):
                return False
            if await queries.batches_in_flight(session, job.job_id) + coming <= most:
                return True
        await asyncio.sleep(LOOK_AGAIN)


async def _register(
    db: Database, job: Job, chunk: Chunk, scanned: int, skipped: Counter[str]
) -> Publication | None:
    plan = await library.plan(db, chunk.files)
    refused = service.refusals(plan.refused)
    skipped.update(Counter(error.code for error in refused))
    async with db.transaction() as session:
        publication = await service.register(session, job, plan.files)
        if publication is not None:
            await service.note_scanned(session, job, scanned - skipped["refused"], skipped)
            await service.note_errors(session, job, [*chunk.troubles, *refused])
    return publication


async def _estimate(db: Database, job: Job) -> None:
    """A dry run: look at everything, write nothing but the job."""
    photos = videos = size = known = 0
    skipped = Counter[str]()
    async with _chunks(job, FILES_AT_ONCE) as chunks:
        async for chunk in chunks:
            kinds = Counter(file.media_type for file in chunk.files)
            photos, videos = photos + kinds["photo"], videos + kinds["video"]
            size += sum(file.size for file in chunk.files)
            skipped.update(chunk.skipped)
            async with db.transaction() as session:
                known += await library.count_known(session, [f.path for f in chunk.files])
                await service.note_scanned(session, job, photos + videos, skipped)
                if not await queries.is_running(session, job.job_id):
                    return
    async with db.transaction() as session:
        estimate = await service.estimate(session, photos, videos, known, size)
        await service.end_scan(session, job, estimate)


# -- publishing


async def publish_again(context: Context, event: BatchesToPublish) -> None:
    """Publish batches that were left unpublished."""
    await _publish_again(context.db, context.transport, event.job_id, event.batch_ids)


async def _publish_again(
    db: Database, transport: Transport, job_id: UUID, batch_ids: Sequence[int]
) -> None:
    async with db.transaction() as session:
        if not await queries.is_running(session, job_id):
            return
        found = await service.publication(session, job_id, batch_ids)
    await _publish(db, transport, found)
    async with db.transaction() as session:
        await service.settle(session, job_id)


async def _publish(db: Database, transport: Transport, batches: Publication) -> None:
    """Send the messages of batches, and note how it went."""
    if not batches.batch_ids:
        return
    tries = load(IngestSettings).publish_tries
    error = await _send(transport, batches, tries)
    async with db.transaction() as session:
        if error is None:
            await service.published(session, batches)
        else:
            log.warning("batches not published", job_id=str(batches.job_id), error=error)
            await service.not_published(session, batches, error, tries)


async def _send(transport: Transport, batches: Publication, tries: int) -> str | None:
    """Why the transport did not take the messages; None: it did."""
    error = ""
    for number in range(tries):
        if number:
            await asyncio.sleep(FIRST_PAUSE * 2 ** (number - 1))
        try:
            await transport.send(batches.messages)
        except Exception as refusal:  # whatever a transport raises, the batch is not published
            error = f"{type(refusal).__name__}: {refusal}"
        else:
            return None
    return error


# -- the ends of photos


async def photo_ended(context: Context, event: PhotoProcessed) -> None:
    """Count it in the jobs that wait for it, together with others that end meanwhile."""
    if context.db not in _endings:
        _endings[context.db] = Gathering(partial(_count, context.db))
    await _endings[context.db](event)


_endings: WeakKeyDictionary[Database, Gathering[PhotoProcessed, None]] = WeakKeyDictionary()


async def _count(db: Database, events: Sequence[PhotoProcessed]) -> list[Exception | None]:
    """Count photos in one transaction; where that fails, each in one of its own."""
    try:
        async with db.transaction() as session:
            await service.photos_ended(session, events)
    except Exception as error:
        if len(events) == 1:
            return [error]
        return [(await _count(db, [event]))[0] for event in events]
    return [None] * len(events)


async def repair(db: Database) -> dict[str, int]:
    """Publish again what is due, ask after photos whose end was not told, settle the jobs."""
    async with db.transaction() as session:
        done = {"batches": await service.due(session)}
    after, done["photos"] = 0, 0
    while True:
        async with db.transaction() as session:
            ended, after = await service.ask_after(session, after)
        done["photos"] += ended
        if not after:
            break
    async with db.transaction() as session:
        jobs = await queries.unsettled_jobs(session)
    for job_id in jobs:
        async with db.transaction() as session:
            await service.settle(session, job_id)
    return {what: number for what, number in done.items() if number}


async def watch_places(db: Database) -> dict[str, int]:
    """Look after the places that folders were taken in from. What has been moved to where no scan
    looks, a bin above all, is not followed there."""
    return await library.watch(db, load(IngestSettings).skip_folders)


GROUP = "ingest"
HANDLERS = [
    Handler(
        FolderToIngest.topic,
        FolderToIngest,
        GROUP,
        take_in_folder,
        concurrency=2,
        visibility=timedelta(minutes=2),
        max_attempts=MAX_ATTEMPTS,
    ),
    Handler(BatchesToPublish.topic, BatchesToPublish, GROUP, publish_again, concurrency=2),
    Handler(PhotoProcessed.topic, PhotoProcessed, GROUP, photo_ended, concurrency=64),
]
CLOCK = [
    ClockJob("ingest.repair", timedelta(seconds=15), repair),
    ClockJob("ingest.watch_places", timedelta(seconds=60), watch_places),
]
