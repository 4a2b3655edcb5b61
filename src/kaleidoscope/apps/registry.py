"""What the rooms bring, in one place: routes, message handlers, clock jobs, tables."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from kaleidoscope.bus.handlers import Handler
from kaleidoscope.bus.transports import Transport
from kaleidoscope.bus.transports.postgres import PostgresTransport
from kaleidoscope.ingest import jobs as ingest_jobs
from kaleidoscope.kernel.clock import ClockJob
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.terminal import open_database
from kaleidoscope.library import jobs as library_jobs
from kaleidoscope.library import service as library
from kaleidoscope.ops import jobs as ops_jobs
from kaleidoscope.people import jobs as people_jobs
from kaleidoscope.upkeep import jobs as upkeep_jobs
from kaleidoscope.upkeep import service as upkeep

if TYPE_CHECKING:
    from fastapi import APIRouter

ROOMS_WITH_TABLES = ("bus", "library", "people", "ingest", "upkeep", "ops")

HANDLERS: list[Handler] = [
    *library_jobs.HANDLERS,
    *ingest_jobs.HANDLERS,
    *people_jobs.HANDLERS,
]
CLOCK: list[ClockJob] = [
    *library_jobs.CLOCK,
    *ingest_jobs.CLOCK,
    *people_jobs.CLOCK,
    *upkeep_jobs.CLOCK,
    *ops_jobs.CLOCK,
]


def routers() -> list[APIRouter]:
    """Every room's routes, which only the API needs."""
    rooms = ("ingest", "people", "library", "upkeep", "ops")
    return [importlib.import_module(f"kaleidoscope.{room}.routes").router for room in rooms]


async def alarms(db: Database) -> list[library.Alarm]:
    """What a person should know at once, from every room."""
    async with db.transaction() as session:
        return [*await library.alarms(session), *await upkeep.alarms(session)]


def transport(db: Database) -> Transport:
    """What carries the messages."""
    return PostgresTransport(db)


async def subscribe(db: Database) -> None:
    """Let every group of handlers receive its topic from now on. Any number of times."""
    carrier = transport(db)
    try:
        for handler in HANDLERS:
            await carrier.subscribe(handler.topic, handler.group, ordered=handler.ordered)
    finally:
        await carrier.close()


@asynccontextmanager
async def database() -> AsyncIterator[Database]:
    """The migrated database, in which every group of handlers has its subscription."""
    async with open_database() as db:
        await subscribe(db)
        yield db


def import_models() -> None:
    """Make every room's tables known to the metadata."""
    for room in ROOMS_WITH_TABLES:
        importlib.import_module(f"kaleidoscope.{room}.models")
