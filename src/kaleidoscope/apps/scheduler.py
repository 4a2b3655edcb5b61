"""The scheduler: everything that comes round by the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

from kaleidoscope.apps import process, registry
from kaleidoscope.kernel.clock import ClockJob, run_clock
from kaleidoscope.kernel.db import Database
from kaleidoscope.library.service import Alarm
from kaleidoscope.ops.service import Health, Heartbeat, syncthing_health, watches_syncthing


def main() -> None:
    """Run the scheduler until it is told to stop."""
    process.run_until_told("scheduler", serve)


async def serve(stop: asyncio.Event) -> None:
    """All clock jobs, and a heart that says which of them fail."""
    rounds = Rounds()
    jobs = [rounds.watched(job) for job in registry.CLOCK]
    async with AsyncExitStack() as hearts:
        db = await hearts.enter_async_context(registry.database())

        async def check() -> Health:
            return worst(await rounds.health(), await registry.alarms(db))

        await hearts.enter_async_context(Heartbeat(db, "scheduler", check=check))
        if watches_syncthing():
            watch = Heartbeat(db, "syncthing", check=syncthing_health)
            await hearts.enter_async_context(watch)
        clock = asyncio.create_task(run_clock(db, jobs))
        told = asyncio.create_task(stop.wait())
        await asyncio.wait([clock, told], return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        clock.cancel()
        with suppress(asyncio.CancelledError):
            await clock


def worst(health: Health, alarms: Sequence[Alarm]) -> Health:
    """What the rounds and the rooms say together: the worst of it, with every cause."""
    if not alarms:
        return health
    causes = [alarm.text for alarm in alarms]
    if health.status != "OK":
        causes.append(health.task or "")
    is_error = any(alarm.status == "ERROR" for alarm in alarms)
    return Health("ERROR" if is_error else "WARNING", "; ".join(causes))


class Rounds:
    """The last outcome of each job."""

    def __init__(self) -> None:
        self._failing: dict[str, str] = {}
        self._running: set[str] = set()

    def watched(self, job: ClockJob) -> ClockJob:
        """The same job, whose outcome is remembered."""

        async def run(db: Database) -> object:
            self._running.add(job.name)
            try:
                done = await job.run(db)
            except Exception as error:
                self._failing[job.name] = str(error).split("\n")[0]
                raise
            finally:
                self._running.discard(job.name)
            self._failing.pop(job.name, None)
            return done

        return replace(job, run=run)

    async def health(self) -> Health:
        """WARNING while the last round of any job failed, with its cause."""
        if self._failing:
            causes = "; ".join(f"{name} failed: {why}" for name, why in self._failing.items())
            return Health("WARNING", causes)
        return Health("OK", ", ".join(sorted(self._running)) or "waiting for the next round")
