"""Signs of life: what a service says of itself, round and round."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.settings import load
from kaleidoscope.ops import queries, rules
from kaleidoscope.ops.settings import OpsSettings

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Health:
    """What a service says of itself. `task`: what it is doing, or what is wrong."""

    status: rules.Status = "OK"
    task: str | None = None


Check = Callable[[], Awaitable[Health]]


class Heartbeat:
    """Signs of life of one service, from entry to exit of the context.

    Each heartbeat asks `check` how the service really is; a check that fails or hangs is an ERROR.
    While the database is away the heart goes on trying. The last word is `stopped`, or the error
    that ended the service.
    """

    RETRY = 2.0  # seconds, after a heartbeat that did not reach the database
    UNWELL = 5.0  # seconds between heartbeats at most while all is not well
    PATIENCE = 20.0  # seconds that a check may take at most

    def __init__(
        self,
        db: Database,
        service_name: str,
        *,
        interval: timedelta | None = None,
        check: Check | None = None,
    ) -> None:
        self.service_name = service_name[:64]
        self._db = db
        self._interval = interval.total_seconds() if interval else interval_of(service_name)
        self._last_round = time.monotonic()
        self._check = check or self._fine
        self._current_task: str | None = None
        self._changed = asyncio.Event()
        self._beats: asyncio.Task[None] | None = None
        self._away = False

    @property
    def current_task(self) -> str | None:
        """What the service is doing; setting it makes the heart beat at once."""
        return self._current_task

    @current_task.setter
    def current_task(self, task: str | None) -> None:
        if task != self._current_task:
            self._current_task = task
            self._changed.set()

    @property
    def goes_on(self) -> bool:
        """Whether this heart still makes its rounds, be the database there or not."""
        late = time.monotonic() - self._last_round > rules.GAP * max(self._interval, self.PATIENCE)
        return self._beats is not None and not self._beats.done() and not late

    async def __aenter__(self) -> Self:
        self._beats = asyncio.create_task(self._go_on(), name=f"heartbeat {self.service_name}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._beats is not None:
            self._beats.cancel()
            with suppress(asyncio.CancelledError):
                await self._beats
        failed = isinstance(error, Exception)
        last = Health("ERROR", f"ended by {error!r}") if failed else Health("OK", "stopped")
        with suppress(TimeoutError):
            async with asyncio.timeout(self.RETRY):
                await self._say(last)

    async def _go_on(self) -> None:
        while True:
            self._changed.clear()
            self._last_round = time.monotonic()
            health = await self._examine()
            rest = self._interval if health.status == "OK" else min(self._interval, self.UNWELL)
            if not await self._say(health):
                rest = self.RETRY
            with suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await self._changed.wait()

    async def _examine(self) -> Health:
        patience = min(self._interval, self.PATIENCE)
        try:
            async with asyncio.timeout(patience):
                health = await self._check()
        except TimeoutError:
            return Health("ERROR", f"the health check did not answer in {patience:.0f} s")
        except Exception as error:
            return Health("ERROR", f"the health check failed: {error}")
        return health if health.task else Health(health.status, self._current_task)

    async def _say(self, health: Health) -> bool:
        """One heartbeat; whether the database has it."""
        try:
            async with self._db.transaction() as session:
                interval = timedelta(seconds=self._interval)
                await beat(session, self.service_name, health, interval=interval)
        except Exception as error:
            if not self._away:
                log.warning("heartbeat cannot be written", error=str(error).split("\n")[0])
            self._away = True
            return False
        if self._away:
            log.info("heartbeats are written again")
        self._away = False
        return True

    async def _fine(self) -> Health:
        return Health()


def interval_of(service_name: str) -> float:
    """Seconds between two heartbeats of a service, by the settings."""
    settings = load(OpsSettings)
    return rules.interval_of(
        service_name, settings.heartbeat_seconds, settings.heartbeat_seconds_of
    )


async def beat(
    session: AsyncSession,
    service_name: str,
    health: Health,
    *,
    interval: timedelta = rules.USUAL,
) -> None:
    """Note one heartbeat: the service's row, and a row of the history.

    `interval`: when the next one comes at the latest.
    """
    await queries.beat(session, service_name, health.status, health.task, interval)
