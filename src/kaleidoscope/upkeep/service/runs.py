"""A round of something: alone, and with a row that says how it ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from kaleidoscope.kernel.clock import ClockJob, run_once
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import Conflict
from kaleidoscope.upkeep import queries
from kaleidoscope.upkeep.queries import Table


@asynccontextmanager
async def noted(
    db: Database, table: Table, kind: str, target: str | None = None
) -> AsyncIterator[dict[str, Any]]:
    """Write a run down: its begin, its end, the figures put in, and why it failed."""
    async with db.transaction() as session:
        run_id = await queries.begin(session, table, kind, target)
    figures: dict[str, Any] = {}
    error: str | None = None
    try:
        yield figures
    except BaseException as failure:
        error = str(failure) or type(failure).__name__
        raise
    finally:
        async with db.transaction() as session:
            await queries.finish(session, table, run_id, figures, error)


async def alone(
    db: Database, name: str, work: Callable[[Database], Awaitable[object]], what: str
) -> None:
    """Do work that the clock does by itself, too. Raises `Conflict` while somebody is at it."""
    if not await run_once(db, ClockJob(name, timedelta(0), work)):
        raise Conflict(f"{what} is under way in another process", hint="wait for its end")
