"""What upkeep does by the clock. Each job looks often whether it is time, by its rows of runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from kaleidoscope.kernel.clock import ClockJob
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.postgres_copies import SLOT
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library
from kaleidoscope.library.settings import BackupSettings
from kaleidoscope.upkeep import queries, service
from kaleidoscope.upkeep.queries import Table
from kaleidoscope.upkeep.service import databases
from kaleidoscope.upkeep.settings import UpkeepSettings

MINUTE = timedelta(minutes=1)
SOON = timedelta(minutes=10)  # until a run that failed is tried again
LATER = timedelta(hours=6)
DAY = timedelta(days=1)

ORIGINALS, DATABASE, VERIFY, DRILL = (
    "upkeep.copy_originals",
    "upkeep.copy_database",
    "upkeep.verify_copies",
    "upkeep.restore_drill",
)
VACUUM, REINDEX = "upkeep.vacuum", "upkeep.reindex"


async def copy_originals(db: Database) -> object:
    """Copy new originals, where a backup is set up."""
    settings = load(BackupSettings)
    if not settings.target:
        return None
    every = timedelta(minutes=settings.originals_minutes)
    async with db.transaction() as session:
        if not await library.has_pending(session):
            return None
    if not await _is_due(db, "backup_runs", ("originals",), every):
        return None
    return await service.copy_originals(db)


async def copy_database(db: Database) -> object:
    """Copy the whole database daily, and of our own server every few minutes what is new."""
    settings = load(BackupSettings)
    if not settings.target:
        async with db.transaction() as session:  # nobody fetches what it keeps
            return await queries.drop_slot(session, SLOT)
    if await _is_due(db, "backup_runs", ("database",), timedelta(hours=settings.database_hours)):
        return await service.copy_database(db)
    own = await asyncio.to_thread(databases.is_our_own, db.url)
    every = timedelta(minutes=settings.log_minutes)
    if own and await _is_due(db, "backup_runs", ("log", "database"), every):
        return await service.copy_log(db)
    return None


async def verify_copies(db: Database) -> object:
    """Read back, once a day, the part of the copies whose turn it is."""
    settings = load(BackupSettings)
    if not settings.target or not await _is_due(db, "backup_runs", ("verify",), DAY):
        return None
    return await service.verify_part(db)


async def restore_drill(db: Database) -> object:
    """Restore the backup on the side, once a month, when there is one."""
    settings = load(BackupSettings)
    if not settings.target:
        return None
    async with db.transaction() as session:
        runs = {run.kind: run for run in await queries.latest(session, "backup_runs")}
        is_due = await queries.drill_is_due(session, timedelta(days=settings.drill_days), DAY)
    if "database" not in runs or not is_due:
        return None
    return (await service.drill(db)).colour


async def vacuum(db: Database) -> object:
    """VACUUM ANALYZE, weekly."""
    every = timedelta(days=load(UpkeepSettings).vacuum_days)
    if not await _is_due(db, "maintenance_runs", ("vacuum",), every, LATER):
        return None
    return await service.vacuum(db)


async def reindex(db: Database) -> object:
    """REINDEX, monthly."""
    every = timedelta(days=load(UpkeepSettings).reindex_days)
    if not await _is_due(db, "maintenance_runs", ("reindex",), every, LATER):
        return None
    return await service.reindex(db)


async def _is_due(
    db: Database, table: Table, kinds: Sequence[str], every: timedelta, again: timedelta = SOON
) -> bool:
    async with db.transaction() as session:
        return await queries.is_due(session, table, kinds, every, again)


CLOCK = [
    ClockJob(ORIGINALS, MINUTE, copy_originals),
    ClockJob(DATABASE, MINUTE, copy_database),
    ClockJob(VERIFY, timedelta(minutes=30), verify_copies),
    ClockJob(DRILL, timedelta(minutes=30), restore_drill),
    ClockJob(VACUUM, timedelta(hours=1), vacuum),
    ClockJob(REINDEX, timedelta(hours=1), reindex),
]
