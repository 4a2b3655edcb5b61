"""What the library does by message and by the clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import cache
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.bus.handlers import Context, Handler, Retry
from kaleidoscope.kernel.clock import ClockJob
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import KaleidoscopeError, Unavailable, UnreadableMedia
from kaleidoscope.library import service
from kaleidoscope.library.events import VideoToRead
from kaleidoscope.ml.pool import Pool


async def read_metadata(context: Context, event: VideoToRead) -> None:
    """Read a video's metadata: then it is PROCESSED, or FAILED with the cause."""
    async with context.db.transaction() as session:
        worker = context.delivery.group
        state = await service.begin_attempt(session, event.photo_id, event.attempt_id, worker)
    if state != "started":
        return
    try:
        async with context.db.transaction() as session:
            video = await service.undated_asset(session, event.photo_id)
            path = (await service.get(session, event.photo_id)).path  # perhaps filed again since
        task: dict[str, Any] = {"path": path, "media_type": "video", "sidecars": []}
        if video is not None:
            task = service.metadata_task(video)
        (facts,) = await _reader().run([task], name=path)
        if facts["error_code"] == Unavailable.code:
            raise Unavailable(facts["error"])
    except Unavailable as away:
        raise Retry(None, str(away), count=False) from away
    except KaleidoscopeError as error:
        await _fail(context, event, error.code, error.message)
        return
    async with context.db.transaction() as session:
        if video is not None:
            await service.tell_dates(session, [(video, facts, None)])
    if facts["error"] is not None:
        await _refuse_moved(context, event, path)
        await _fail(context, event, facts["error_code"], facts["error"])
        return
    async with context.db.transaction() as session:
        await service.finish(
            session,
            event.photo_id,
            event.attempt_id,
            width=facts["width"],
            height=facts["height"],
            duration_seconds=facts["duration_seconds"],
            frame_rate=facts["frame_rate"],
        )


async def _refuse_moved(context: Context, event: VideoToRead, path: str) -> None:
    """Raise `Retry` where a video lies elsewhere by now: it was looked for at its old place."""
    async with context.db.transaction() as session:
        now = (await service.get(session, event.photo_id)).path
    if now != path:
        raise Retry(None, f"{path} was filed elsewhere: {now}", count=False)


async def _fail(context: Context, event: VideoToRead, code: str, error: str) -> None:
    async with context.db.transaction() as session:
        await service.fail(
            session,
            event.photo_id,
            event.attempt_id,
            code=code,
            error=error,
            permanent=code == UnreadableMedia.code,
        )


@cache
def _reader() -> Pool:
    """The child process for videos, which ends with this one."""
    return service.metadata_reader()


async def retry_failed(db: Database) -> int:
    """Try failed photos again whose wait is over; answers how many."""
    return await _until_none(db, service.retry_due)


async def fail_stuck(db: Database) -> int:
    """Fail photos that are PROCESSING for too long; answers how many."""
    return await _until_none(db, service.time_out)


async def _until_none(db: Database, verb: Callable[[AsyncSession], Awaitable[int]]) -> int:
    """Do some at a time, each in a transaction of its own."""
    total = 0
    while True:
        async with db.transaction() as session:
            done = await verb(session)
        total += done
        if not done:
            return total


HANDLERS = [
    Handler(
        topic=VideoToRead.topic,
        event=VideoToRead,
        group="videos",
        run=read_metadata,
        visibility=timedelta(minutes=5),
    )
]

CLOCK = [
    ClockJob("library.retry_failed", timedelta(seconds=5), retry_failed),
    ClockJob("library.fail_stuck", timedelta(seconds=15), fail_stuck),
    ClockJob("library.date_assets", timedelta(seconds=20), service.date_assets),
    ClockJob("library.file_corrected", timedelta(seconds=10), service.file_corrected),
    ClockJob("library.hash_pending", timedelta(seconds=30), service.hash_pending),
    ClockJob("library.thumbnails", timedelta(seconds=10), service.thumbnail_pending),
    ClockJob("library.sweep_derivatives", timedelta(hours=1), service.sweep_derivatives),
    ClockJob("library.geocode", timedelta(seconds=15), service.geocode_pending),
    ClockJob("library.find_kept", timedelta(hours=1), service.find_kept),
    ClockJob("library.scrub", timedelta(seconds=60), service.scrub),
]
