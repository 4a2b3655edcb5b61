"""A topic, a transport, and a worker that runs while a test looks on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import ClassVar

import pytest

from kaleidoscope.bus.handlers import Handler
from kaleidoscope.bus.messages import Event
from kaleidoscope.bus.transports import Transport
from kaleidoscope.bus.transports.postgres import PostgresTransport
from kaleidoscope.bus.worker import run_worker
from kaleidoscope.kernel.db import Database


class Said(Event):
    topic: ClassVar[str] = "said"
    n: int = 0
    who: str = ""

    def key(self) -> str:
        return self.who


@pytest.fixture
async def transport(db: Database) -> AsyncIterator[PostgresTransport]:
    made = PostgresTransport(db)
    yield made
    await made.close()


@asynccontextmanager
async def working(
    db: Database, transport: Transport, handlers: Sequence[Handler], name: str = "worker"
) -> AsyncIterator[asyncio.Event]:
    """A worker that runs as long as the block; what it raises, the test raises."""
    stop = asyncio.Event()
    grace = timedelta(seconds=10)
    task = asyncio.create_task(
        run_worker(db, transport, handlers, name=name, stop=stop, grace=grace)
    )
    try:
        yield stop
    finally:
        stop.set()
        await task


async def until(
    happened: Callable[[], bool] | Callable[[], Awaitable[bool]], within: float = 15.0
) -> None:
    """Wait until it happened; a test that waits too long fails."""
    deadline = time.monotonic() + within
    while True:
        answer = happened()
        if answer if isinstance(answer, bool) else await answer:
            return
        assert time.monotonic() < deadline, f"did not happen in {within} s"
        await asyncio.sleep(0.02)
