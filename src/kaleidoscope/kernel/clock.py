"""Time: the wall clock, and work that comes round with it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import text

from kaleidoscope.kernel.db import Database

log = structlog.get_logger(__name__)


def now() -> datetime:
    """The present moment, with its zone."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class ClockJob:
    """Work that comes round: `run(db)` every `interval`, on one machine at a time.

    `run` opens its own short transactions and answers what it did, for the log (falsy: nothing).
    """

    name: str
    interval: timedelta
    run: Callable[[Database], Awaitable[object]]


async def run_clock(db: Database, jobs: list[ClockJob]) -> None:
    """Run every job round and round until cancelled. A job that fails is logged and comes again."""
    async with asyncio.TaskGroup() as group:
        for job in jobs:
            group.create_task(_rounds(db, job), name=job.name)


async def _rounds(db: Database, job: ClockJob) -> None:
    while True:
        try:
            await run_once(db, job)
        except Exception:
            log.exception("clock job failed", job=job.name)
        # A little jitter, so that jobs of one interval do not all wake together.
        await asyncio.sleep(job.interval.total_seconds() * random.uniform(0.9, 1.1))


async def run_once(db: Database, job: ClockJob) -> bool:
    """Run one round, unless another process is in the middle of one. Says whether it ran.

    The claim is an advisory lock of the session, held on a connection of its own: it goes with
    the process that dies.
    """
    async with db.claim() as connection:
        key = {"job": f"clock:{job.name}"}
        lock = text("SELECT pg_try_advisory_lock(hashtextextended(:job, 0))")
        if not (await connection.execute(lock, key)).scalar_one():
            return False
        try:
            done = await job.run(db)
            if done:
                log.info("clock job done", job=job.name, done=done)
        finally:
            unlock = text("SELECT pg_advisory_unlock(hashtextextended(:job, 0))")
            await connection.execute(unlock, key)
    return True
