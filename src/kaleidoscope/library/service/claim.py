"""The claim on all originals: one process at a time moves or replaces them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text

from kaleidoscope.kernel.db import Database

POLL = 0.05  # seconds between two tries to be the one


@asynccontextmanager
async def alone(db: Database) -> AsyncIterator[None]:
    """Be the only process that moves originals. The claim goes with the process that dies."""
    async with db.claim() as connection:
        lock = text("SELECT pg_try_advisory_lock(hashtextextended('library:custody', 0))")
        # Asked again and again: waiting inside the query would hold a snapshot all the time.
        while not (await connection.execute(lock)).scalar_one():  # noqa: ASYNC110
            await asyncio.sleep(POLL)
        try:
            yield
        finally:
            unlock = text("SELECT pg_advisory_unlock(hashtextextended('library:custody', 0))")
            await connection.execute(unlock)
