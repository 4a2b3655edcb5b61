"""The worker: every room's handlers, run on the messages that come."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from datetime import timedelta

import httpx

from kaleidoscope.apps import process, registry, state
from kaleidoscope.bus.worker import run_worker
from kaleidoscope.kernel import http
from kaleidoscope.ops.service import Health, Heartbeat

GRACE = timedelta(seconds=10)  # for what is being handled when the end comes
PEERS = {"KALEIDOSCOPE_API_URL": "/health/live", "KALEIDOSCOPE_ML_URL": "/version"}


def main() -> None:
    """Run a worker until it is told to stop."""
    process.run_until_told("worker", serve)


async def serve(stop: asyncio.Event) -> None:
    """Handle messages; what is claimed and not done when the end comes is released."""
    name = _name()
    async with registry.database() as db, Heartbeat(db, name, check=_health):
        transport = registry.transport(db)
        await run_worker(db, transport, registry.HANDLERS, name=name, stop=stop, grace=GRACE)


def _name() -> str:
    """`worker-HOST-N` with the first N that no living worker of this data folder has.

    A worker that comes after one that was killed takes its name, and so frees at once what that
    one had claimed.
    """
    for number in range(1, 1000):
        lock = os.open(state.run_dir() / f"worker-{number}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # goes with this process
        except BlockingIOError:
            os.close(lock)
            continue
        return f"worker-{socket.gethostname()[:40]}-{number}"
    raise AssertionError("a thousand workers in one data folder")


async def _health() -> Health:
    """WARNING while a service that the handlers call does not answer."""
    async with http.client(timeout=5) as client:
        for variable, path in PEERS.items():
            url = os.environ.get(variable)
            try:
                if url and (await client.get(url + path)).is_error:
                    return Health("WARNING", f"{url} answers with an error")
            except httpx.HTTPError as error:
                return Health("WARNING", f"{url} does not answer: {error}")
    return Health("OK", "handling messages")
