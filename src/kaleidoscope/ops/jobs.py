"""What operation does by the clock."""

from __future__ import annotations

from datetime import timedelta

from kaleidoscope.kernel.clock import ClockJob
from kaleidoscope.kernel.db import Database
from kaleidoscope.ops import service


async def trim_heartbeats(db: Database) -> int:
    """Forget heartbeats that are older than the settings keep them."""
    async with db.transaction() as session:
        return await service.trim(session)


async def measure_disks(db: Database) -> None:
    """Note how full the disks are: nothing to tell of."""
    await service.measure_disks(db)


CLOCK = [
    ClockJob("trim-heartbeats", timedelta(hours=1), trim_heartbeats),
    ClockJob("measure-disks", timedelta(minutes=10), measure_disks),
]
