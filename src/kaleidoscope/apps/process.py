"""What every process of the product does alike: logs, signals, and its end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable

from kaleidoscope.kernel import log

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
