"""The ML service as a process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI

from kaleidoscope.apps import process
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.settings import KernelSettings, load
from kaleidoscope.library import service as library
from kaleidoscope.ml.server import MlService, create_server
from kaleidoscope.ml.settings import MlSettings
from kaleidoscope.ops.service import Health, Heartbeat


def main(port: int | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C; `port` overrules the settings."""
    settings = load(MlSettings)
    process.check_listen_address(settings.host)
    process.begin("mlserver")
    asyncio.run(serve(process.listener(settings.host, port or settings.port)))


async def serve(listener: socket.socket) -> None:
    """Serve until a signal comes. Nothing here is worth a long farewell: what is not delivered is
    sent again.
    """
    app = create_server(function=library.LOOK)
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
    async with _heartbeats(app):
        await uvicorn.Server(config).serve(sockets=[listener])


@asynccontextmanager
async def _heartbeats(app: FastAPI) -> AsyncIterator[None]:
    """Signs of life, where there is a database to write them to: the service itself needs none."""
    url = load(KernelSettings).database_url
    if not url:
        yield
        return
    db = Database(url, pool_size=1)
    try:
        async with Heartbeat(db, "mlserver", check=lambda: _health(app)):
            yield
    finally:
        await db.close()


async def _health(app: FastAPI) -> Health:
    service: MlService | None = getattr(app.state, "service", None)
    if service is None:
        return Health("WARNING", "starting")
    if service.trouble:
        return Health("ERROR", service.trouble)
    return Health("OK", f"{service.attempts.open} photos on their way")
