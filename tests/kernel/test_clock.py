"""Work that comes round: on one machine at a time, and again after a failure."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

from sqlalchemy import text

from kaleidoscope.kernel.clock import ClockJob, now, run_clock, run_once
from kaleidoscope.kernel.db import Database


def test_now_knows_its_zone() -> None:
    assert now().utcoffset() == timedelta(0)


async def test_a_job_runs_on_one_machine_at_a_time(db: Database, database_url: str) -> None:
    other_machine = Database(database_url)
    started, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_: Database) -> None:
        started.set()
        await go_on.wait()

    job = ClockJob("slow", timedelta(hours=1), slow)
    first = asyncio.create_task(run_once(db, job))
    await started.wait()
    assert not await run_once(other_machine, job)
    go_on.set()
    assert await first
    assert await run_once(other_machine, job)
    await other_machine.close()


async def test_different_jobs_do_not_wait_for_each_other(db: Database) -> None:
    async def outer(db: Database) -> bool:
        async def inner(_: Database) -> None: ...

        return await run_once(db, ClockJob("inner", timedelta(hours=1), inner))

    assert await run_once(db, ClockJob("outer", timedelta(hours=1), outer))


async def test_jobs_that_all_begin_at_once_leave_each_other_connections(database_url: str) -> None:
    """More of them than a process may have connections: a claim takes none of these."""
    db = Database(database_url, pool_size=2, pool_timeout=2)
    begun = 0

    async def asks(db: Database) -> None:
        nonlocal begun
        begun += 1
        while begun < 10:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        async with db.transaction() as session:
            await session.execute(text("SELECT 1"))

    jobs = [ClockJob(f"job {n}", timedelta(hours=1), asks) for n in range(10)]
    async with asyncio.timeout(20):
        assert await asyncio.gather(*[run_once(db, job) for job in jobs]) == [True] * 10
    await db.close()


async def test_the_claim_goes_with_a_job_that_fails_or_is_cancelled(db: Database) -> None:
    async def fails(_: Database) -> None:
        raise ZeroDivisionError

    async def hangs(_: Database) -> None:
        await asyncio.sleep(60)

    async def works(_: Database) -> None: ...

    hour = timedelta(hours=1)
    for run in (fails, hangs):
        with suppress(ZeroDivisionError, TimeoutError):
            await asyncio.wait_for(run_once(db, ClockJob("job", hour, run)), 0.2)
        assert await run_once(db, ClockJob("job", hour, works))


async def test_a_job_that_fails_comes_again_and_hinders_no_other(db: Database) -> None:
    rounds = {"failing": 0, "other": 0}
    done = asyncio.Event()

    def job(name: str, error: Exception | None) -> ClockJob:
        async def run(_: Database) -> int:
            rounds[name] += 1
            if min(rounds.values()) >= 3:
                done.set()
            if error:
                raise error
            return rounds[name]

        return ClockJob(name, timedelta(milliseconds=10), run)

    clock = asyncio.create_task(
        run_clock(db, [job("failing", ValueError("no")), job("other", None)])
    )
    await asyncio.wait_for(done.wait(), 10)
    clock.cancel()
    await asyncio.wait([clock])
    assert clock.cancelled()
