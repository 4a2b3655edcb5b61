"""What every process of the product does alike: logs, signals, and its end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from importlib import import_module

import uvloop

from kaleidoscope.kernel import log
from kaleidoscope.kernel.errors import SettingsError
from kaleidoscope.kernel.loopback import is_loopback
from kaleidoscope.kernel.settings import load_all

PARENT = "KALEIDOSCOPE_PARENT"
"""Environment variable: the process whose end is ours, too."""

LISTEN = "KALEIDOSCOPE_LISTEN_FD"
"""Environment variable: the socket, open already, that an HTTP service listens on."""

BACKLOG = 1024  # callers that may wait for a service to start
ROOMS_WITH_SETTINGS = ("ml", "library", "people", "ingest", "upkeep", "ops", "apps")
LOOK = 0.25  # seconds between looks at the parent
GRACE = 10.0  # seconds to end cleanly once it is gone


def command(*arguments: str) -> list[str]:
    """The words that run `kaleidoscope ARGUMENTS` with this very Python."""
    return [sys.executable, "-m", "kaleidoscope.apps.cli", *arguments]


def import_settings() -> None:
    """Make every room's settings known, whether this process needs them or not."""
    for room in ROOMS_WITH_SETTINGS:
        import_module(f"kaleidoscope.{room}.settings")


def begin(service: str, *, calm: bool = False) -> None:
    """Start the log of this process, look at its settings, and end with who started it.

    `calm`: its console is for people, who are told otherwise of what goes well.
    """
    log.configure(service, calm=calm)
    import_settings()
    load_all()
    # An end by SIGTERM unwinds what is open: uvicorn, too, raises the signal again when it is done.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
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
    uvloop.run(main())


def listener(host: str, port: int) -> socket.socket:
    """The socket that an HTTP service listens on: the supervisor's, else a new one.

    The supervisor keeps its sockets open: a port cannot be lost to another program, and whoever
    calls while a service is started again is answered after that. Raises `SettingsError` where the
    port is taken.
    """
    given = os.environ.get(LISTEN)
    return socket.socket(fileno=int(given)) if given else bind(host, port)


def bind(host: str, port: int) -> socket.socket:
    """A new socket that listens at that address. Raises `SettingsError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((host, port))
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        raise SettingsError(
            f"cannot listen on {host}:{port}: {error.strerror}",
            hint="stop the program that does, or choose another port",
        ) from error
    return opened


def check_listen_address(host: str) -> None:
    """Refuse to listen anywhere but on loopback: there are no accounts yet to protect it."""
    if not is_loopback(host):
        raise SettingsError(
            f"refusing to listen on {host}: without accounts only this machine may call",
            hint="listen on 127.0.0.1 and put a reverse proxy with sign-in before it",
        )
