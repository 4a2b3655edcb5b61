"""What the library does by message and by the clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import cache

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.bus.handlers import Context, Handler, Retry
from kaleidoscope.kernel.clock import ClockJob
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import KaleidoscopeError, Unavailable, UnreadableMedia
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service
from kaleidoscope.library.events import VideoToRead
from kaleidoscope.library.settings import LibrarySettings
from kaleidoscope.ml.pool import Pool


async def read_metadata(context: Context, event: VideoToRead) -> None:
    """Read a video's metadata: then it is PROCESSED, or FAILED with the cause."""
    async with context.db.transaction() as session:
        worker = context.delivery.group
        state = await service.begin_attempt(session, event.photo_id, event.attempt_id, worker)
    if state != "started":
        return
    try:
        facts = await _reader().run(event.path, name=event.path)
    except Unavailable as away:
        raise Retry(None, str(away), count=False) from away
    except KaleidoscopeError as error:
        async with context.db.transaction() as session:
            await service.fail(
                session,
                event.photo_id,
                event.attempt_id,
                code=error.code,
                error=error.message,
                permanent=isinstance(error, UnreadableMedia),
            )
        return
    async with context.db.transaction() as session:
        await service.finish(
            session,
            event.photo_id,
            event.attempt_id,
            width=facts["width"],
            height=facts["height"],
            duration_seconds=facts["duration"],
            frame_rate=facts["frame_rate"],
        )


@cache
def _reader() -> Pool:
    """The child process for videos, which ends with this one."""
    settings = load(LibrarySettings)
    return Pool(
        "kaleidoscope.ml.video:read_file",
        size=1,
        memory=settings.video_memory,
        seconds=settings.video_seconds,
    )


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
    ClockJob("library.hash_pending", timedelta(seconds=30), service.hash_pending),
    ClockJob("library.watch_places", timedelta(seconds=60), service.watch),
    ClockJob("library.scrub", timedelta(seconds=60), service.scrub),
]
