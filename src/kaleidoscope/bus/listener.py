"""Being woken: PostgreSQL's LISTEN, kept up through outages."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from datetime import timedelta

import psycopg
import structlog
from psycopg import sql
from psycopg.conninfo import make_conninfo

from kaleidoscope.bus.rules import back_off
from kaleidoscope.kernel.db import DRIVER

log = structlog.get_logger(__name__)

# A silent peer (a machine that lost its power) is noticed after about a minute.
KEEPALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}


def connection_string(url: str) -> str:
    """A database's URL as the driver itself reads it, for connections beside SQLAlchemy's."""
    return make_conninfo(url.replace(f"{DRIVER}://", "postgresql://", 1), **KEEPALIVE)


class Listener:
    """Hears the notifications of one channel, on a connection of its own.

    It may miss some while the database is away, so its user looks by itself now and then.
    """

    def __init__(self, url: str, channel: str) -> None:
        self._target = connection_string(url)
        self._channel = channel
        self._heard: set[str] = set()
        self._listens_anew = False
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def wait(self, wanted: Collection[str], within: timedelta) -> Collection[str]:
        """Return when some of `wanted` were named on the channel since the last wait, and which;
        none of them after `within`.

        The first wait, and that after a broken connection, returns as soon as the channel is
        listened to, with all of them: what was sent before was not heard.
        """
        if self._task is None:
            self._task = asyncio.create_task(self._listen(), name=f"listen {self._channel}")
        with suppress(TimeoutError):
            async with asyncio.timeout(within.total_seconds()):
                while not (found := self._take(wanted)):
                    self._news.clear()
                    await self._news.wait()
                return found
        return ()

    async def close(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def _take(self, wanted: Collection[str]) -> Collection[str]:
        found = wanted if self._listens_anew else self._heard.intersection(wanted)
        self._listens_anew = False
        self._heard.difference_update(wanted)
        return found

    async def _listen(self) -> None:
        failures = 0
        while True:
            try:
                connection = await psycopg.AsyncConnection.connect(self._target, autocommit=True)
                async with connection:
                    await connection.execute(
                        sql.SQL("LISTEN {}").format(sql.Identifier(self._channel))
                    )
                    failures = 0
                    self._listens_anew = True
                    self._news.set()
                    async for notification in connection.notifies():
                        self._heard.add(notification.payload)
                        self._news.set()
            except (psycopg.Error, OSError) as error:
                failures += 1
                log.warning("cannot listen", channel=self._channel, error=str(error).strip())
            await asyncio.sleep(back_off(min(failures, 4)).total_seconds())
