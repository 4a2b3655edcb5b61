"""News for whoever watches: one look at the database a moment for all who listen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.settings import load
from kaleidoscope.ops.schemas import Errors, Figures, Overview
from kaleidoscope.ops.service.errors import errors
from kaleidoscope.ops.service.errors import state as state_of_errors
from kaleidoscope.ops.service.figures import figures
from kaleidoscope.ops.service.overview import overview
from kaleidoscope.ops.settings import OpsSettings

log = structlog.get_logger(__name__)

PASSING = {"age_seconds"}
"""What changes all the time and is no news."""


@dataclass(frozen=True)
class News:
    """One kind of thing as it is now. `version` grows with every change."""

    name: str
    data: BaseModel
    version: int


@dataclass
class _Source:
    """Something that is read, not more often than `every`, and more rarely where that takes long.

    `state`, where there is one, tells cheaply whether it is worth reading at all.
    """

    name: str
    read: Callable[[AsyncSession], Awaitable[BaseModel]]
    every: float
    state: Callable[[AsyncSession], Awaitable[object]] | None = None
    due: float = 0.0
    seen: object = None


class Pulse:
    """The latest of everything, read while anybody listens. One a process."""

    SHARE = 10  # reading takes a tenth of the time at most,
    RAREST = 10.0  # but is done every so many seconds in any case

    def __init__(self, db: Database, leaving: Callable[[], bool] = lambda: False) -> None:
        self._db = db
        self._leaving = leaving
        self._changed = asyncio.Condition()
        self._latest: dict[str, News] = {}
        self._version = 0
        self._listeners = 0
        self._reading: asyncio.Task[None] | None = None
        self._pause = load(OpsSettings).stream_seconds

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return self._listeners

    @property
    def reads(self) -> bool:
        """Whether the database is looked at: it is for a moment after the last one has left."""
        return self._reading is not None and not self._reading.done()

    async def listen(self) -> AsyncGenerator[News, None]:
        """Everything as it is now, then whatever changes, until the process is to end."""
        self._listeners += 1
        if not self.reads:
            self._latest.clear()  # nobody has read on since the last one left: it is no news
            self._reading = asyncio.create_task(self._read_on(), name="pulse")
        heard: dict[str, int] = {}
        try:
            while not self._leaving():
                news = [n for n in self._latest.values() if heard.get(n.name) != n.version]
                for one in news:
                    heard[one.name] = one.version
                    yield one
                if not news:
                    await self._wait()
        finally:
            self._listeners -= 1

    async def _wait(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(1), self._changed:
                await self._changed.wait()

    async def _read_on(self) -> None:
        sources = [
            _Source("status", overview, self._pause),
            _Source("errors", errors, self._pause, state_of_errors),
            _Source("figures", figures, 2 * self._pause),
        ]
        while self._listeners and not self._leaving():
            for source in sources:
                try:
                    await self._look(source)
                except Exception as error:  # the database is away, perhaps: it comes again
                    log.warning("no news", of=source.name, error=str(error).split("\n")[0])
            await asyncio.sleep(self._pause)

    async def _look(self, source: _Source) -> None:
        began = time.monotonic()
        if began < source.due:
            return
        async with self._db.transaction() as session:
            seen = await source.state(session) if source.state is not None else None
            if seen is not None and seen == source.seen:
                return
            data = await source.read(session)
        source.seen = seen  # not before: what could not be read is read again
        took = time.monotonic() - began
        source.due = began + max(source.every, min(self.SHARE * took, self.RAREST))
        before = self._latest.get(source.name)
        if before is None or _lasting(before.data) != _lasting(data):
            self._version += 1
            async with self._changed:
                self._latest[source.name] = News(source.name, data, self._version)
                self._changed.notify_all()


def _lasting(data: BaseModel) -> Any:
    """What of it is news when it changes."""
    if isinstance(data, Overview):
        return data.model_dump(exclude={"services": {"__all__": PASSING}})
    assert isinstance(data, (Errors, Figures))
    return data
