"""The HTTP API: every room's routes at one door."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import APIRouter, FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from kaleidoscope.apps import page, process, registry
from kaleidoscope.apps.settings import ApiSettings
from kaleidoscope.ingest import metrics as ingest_metrics
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.settings import load
from kaleidoscope.kernel.web import Session, create_app
from kaleidoscope.ops import metrics as ops_metrics
from kaleidoscope.ops.service import Health, Heartbeat, Pulse, check_ready, database_health

metrics = APIRouter(tags=["operation"])


def main(port: int | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C; `port` overrules the settings."""
    settings = load(ApiSettings)
    process.check_listen_address(settings.host)
    process.begin("api")
    app = build()
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    app.state.leaving = lambda: server.should_exit  # who listens to the stream is sent away
    server.run(sockets=[process.listener(settings.host, port or settings.port)])


def build() -> FastAPI:
    """The application; it opens the database when it starts."""
    routers = [*registry.routers(), metrics, page.router]
    return create_app("Kaleidoscope", routers, lifespan=_alive, hosts=load(ApiSettings).hosts)


@asynccontextmanager
async def _alive(app: FastAPI) -> AsyncIterator[None]:
    async with registry.database() as db:
        pulse = Pulse(db, getattr(app.state, "leaving", lambda: False))
        heart = Heartbeat(db, "api", check=lambda: _health(db))
        app.state.db, app.state.pulse, app.state.heart = db, pulse, heart
        dashboard = Heartbeat(db, "dashboard", check=lambda: _page_health(pulse))
        database = Heartbeat(db, "factory-db", check=lambda: database_health(db))
        async with heart, dashboard, database:
            yield


async def _health(db: Database) -> Health:
    async with db.transaction() as session:
        await check_ready(session)
    return Health("OK", "serving")


async def _page_health(pulse: Pulse) -> Health:
    if not page.is_built():
        return Health("WARNING", page.NOT_BUILT)
    return Health("OK", f"{pulse.listeners} watching")


@metrics.get("/metrics", include_in_schema=False)
async def prometheus(session: Session) -> Response:
    """The jobs' figures, and the metrics of every process under this supervisor."""
    chosen = CollectorRegistry()
    chosen.register(await ingest_metrics.read(session))
    chosen.register(await ops_metrics.read(session))
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        MultiProcessCollector(chosen)  # type: ignore[no-untyped-call]
        return Response(generate_latest(chosen), media_type=CONTENT_TYPE_LATEST)
    own = generate_latest(REGISTRY)
    return Response(generate_latest(chosen) + own, media_type=CONTENT_TYPE_LATEST)
