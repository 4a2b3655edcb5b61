"""The verbs of operation: give a sign of life, say how it is going."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from types import TracebackType
from typing import Literal, Self

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.bus import service as bus
from kaleidoscope.bus.messages import DeadLetter
from kaleidoscope.kernel import migrate
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import DatabaseError
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library
from kaleidoscope.ops import queries, rules
from kaleidoscope.ops.schemas import Failure, Overview, Queue, ServiceStatus
from kaleidoscope.ops.settings import OpsSettings

SHOWN = 20  # failures in an overview

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Health:
    """What a service says of itself. `task`: what it is doing, or what is wrong."""

    status: Literal["OK", "WARNING", "ERROR"] = "OK"
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
        seconds = load(OpsSettings).heartbeat_seconds
        self._interval = interval.total_seconds() if interval else seconds
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
            health = await self._examine()
            rest = self._interval if health.status == "OK" else min(self._interval, self.UNWELL)
            if not await self._say(health):
                rest = self.RETRY
            with suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await self._changed.wait()

    async def _examine(self) -> Health:
        try:
            async with asyncio.timeout(self._interval):
                health = await self._check()
        except TimeoutError:
            return Health("ERROR", f"the health check did not answer in {self._interval:.0f} s")
        except Exception as error:
            return Health("ERROR", f"the health check failed: {error}")
        return health if health.task else Health(health.status, self._current_task)

    async def _say(self, health: Health) -> bool:
        """One heartbeat; whether the database has it."""
        try:
            async with self._db.transaction() as session:
                await beat(session, self.service_name, health)
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


async def beat(session: AsyncSession, service_name: str, health: Health) -> None:
    """Note one heartbeat: the service's row, and a row of the history."""
    await queries.beat(session, service_name, health.status, health.task)


async def services(session: AsyncSession) -> list[ServiceStatus]:
    """Every service with its colour by the age of its last heartbeat."""
    return [
        ServiceStatus(
            **{name: value for name, value in row.items() if name != "age"},
            age_seconds=round(row["age"].total_seconds(), 1),
            colour=rules.colour(row["age"]),
        )
        for row in await queries.services(session)
    ]


async def overview(session: AsyncSession) -> Overview:
    """How the whole is going: services, photos, queues, dead letters, failures."""
    return Overview(
        services=await services(session),
        photos=await library.counts(session),
        queue=[Queue.model_validate(vars(depth)) for depth in await bus.topic_depths(session)],
        outbox=await bus.outbox_size(session),
        dead_letters=sum((await bus.count_dead(session)).values()),
        failed=[Failure.model_validate(photo) for photo in await library.failed(session, SHOWN)],
        stuck=[Failure.model_validate(photo) for photo in await library.stuck(session, SHOWN)],
    )


async def list_dead(
    session: AsyncSession, *, topic: str | None = None, limit: int = 100
) -> list[DeadLetter]:
    """Messages that were given up, the youngest first."""
    return await bus.list_dead(session, topic=topic, limit=limit)


async def revive(
    session: AsyncSession, *, ids: Sequence[int] | None = None, topic: str | None = None
) -> list[int]:
    """Send dead letters again, with fresh attempts; the ids of those that there were."""
    return await bus.revive(session, ids=ids, topic=topic)


async def check_ready(session: AsyncSession) -> str:
    """The revision of the database. Raises `DatabaseError` unless it is the one expected."""
    found, expected = await queries.revision(session), _head()
    if found is None or found != expected:
        raise DatabaseError(
            f"the database is at revision {found}, expected is {expected}",
            hint="`kaleidoscope db upgrade`, or start the newer Kaleidoscope",
        )
    return found


def database_facts(url: str) -> dict[str, str]:
    """What decides whether a database is fit: versions, revision, what keeps it from losing."""
    return {**queries.facts(url), "revision": migrate.current(url) or "none"}


@cache
def _head() -> str | None:
    return migrate.head()


async def trim(session: AsyncSession) -> int:
    """Forget heartbeats, and services not heard of, for longer than `ops.history_days`."""
    return await queries.trim(session, timedelta(days=load(OpsSettings).history_days))
