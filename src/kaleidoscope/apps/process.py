"""What every service process does alike: logs, signals, its database, and its end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from kaleidoscope.apps import registry
from kaleidoscope.kernel import log
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.terminal import open_database

PARENT = "KALEIDOSCOPE_PARENT"
"""Environment variable: the process whose end is ours, too."""

LOOK = 0.25  # seconds between looks at the parent
GRACE = 10.0  # seconds to end cleanly once it is gone


def command(*arguments: str) -> list[str]:
    """The words that run `kaleidoscope ARGUMENTS` with this very Python."""
    return [sys.executable, "-m", "kaleidoscope.apps.cli", *arguments]


def begin(service: str) -> None:
    """Start the log of this process, and end with the process that started it."""
    log.configure(service)
    end_with_parent()


def end_with_parent() -> None:
    """End when the process named by `KALEIDOSCOPE_PARENT` does, even by `kill -9`."""
    parent = os.environ.get(PARENT)
    if parent:
        threading.Thread(target=_outlive_not, args=[int(parent)], daemon=True).start()


def _outlive_not(parent: int) -> None:
    # A thread of its own: it notices even while the event loop is busy.
    while os.getppid() == parent:
        time.sleep(LOOK)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)


def run_until_told(service: str, work: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run a service until SIGTERM or Ctrl-C sets the event that `work` is given."""

    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await work(stop)

    begin(service)
    asyncio.run(main())


@asynccontextmanager
async def database() -> AsyncIterator[Database]:
    """The migrated database, in which every group of handlers has its subscription."""
    async with open_database() as db:
        await registry.subscribe(db)
        yield db
