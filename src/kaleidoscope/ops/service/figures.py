"""The counters of the dashboard: assets, the last hour, the inbox, disks."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import groupby

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.ingest import service as ingest
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.settings import data_dir, load
from kaleidoscope.library import service as library
from kaleidoscope.ops import queries, rules
from kaleidoscope.ops.outside import disks as outside
from kaleidoscope.ops.rules import Measured
from kaleidoscope.ops.schemas import Assets, Disk, Figures, LatestAsset
from kaleidoscope.ops.settings import OpsSettings

LATEST = 24
TREND = timedelta(days=14)  # of the disks' history tells where it goes


async def figures(session: AsyncSession) -> Figures:
    """The counters of this moment."""
    row = await library.figures(session)
    return Figures(
        assets=Assets(**{name: getattr(row, name) for name in Assets.model_fields}),
        filed_last_hour=row.filed_last_hour,
        processed_last_hour=row.processed_last_hour,
        waiting=row.waiting,
        inbox_remaining=await _remaining(session),
        latest=[LatestAsset.model_validate(r) for r in await library.latest(session, LATEST)],
        disks=await disks(session),
    )


async def _remaining(session: AsyncSession) -> int | None:
    inboxes = (await ingest.inboxes(session)).inboxes
    return sum(inbox.waiting for inbox in inboxes) if inboxes else None


async def disks(session: AsyncSession) -> list[Disk]:
    """The disks that are watched, and when they will be full."""
    found = []
    rows = await queries.disks(session, TREND)
    for folder, of_folder in groupby(rows, key=lambda row: str(row["folder"])):
        measured = list(of_folder)
        last = measured[-1]
        history = [Measured(row["measured_at"], row["used_bytes"]) for row in measured]
        found.append(
            Disk(
                folder=folder,
                measured_at=last["measured_at"],
                total_bytes=last["total_bytes"],
                used_bytes=last["used_bytes"],
                free_bytes=last["free_bytes"],
                days_until_full=rules.days_until_full(history, last["free_bytes"]),
                history=[(one.at, one.used) for one in history],
            )
        )
    return found


async def measure_disks(db: Database) -> int:
    """Note how full the disks are; answers how many there are."""
    folders = [data_dir(), *library.folders(), *load(OpsSettings).disks]
    found = await asyncio.to_thread(outside.measure, folders)
    async with db.transaction() as session:
        for space in found:
            await queries.note_disk(session, space.folder, space.total, space.used, space.free)
    return len(found)
