"""Killed between any two steps, a job loses nothing and does nothing twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from workbench import SUBSCRIBED, Workbench, fill

from kaleidoscope.bus.transports.postgres import PostgresTransport
from kaleidoscope.ingest import jobs
from kaleidoscope.kernel.db import Database
from kaleidoscope.library import service as library


class Killed(BaseException):
    """Stands for `kill -9`: nothing in the product may catch it."""


class Fuse:
    """Burns through at the step that it is set to."""

    def __init__(self, at: int) -> None:
        self.left = at

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


class DyingDatabase(Database):
    """A database whose user is killed before or after one of its commits."""

    def __init__(self, inner: Database, fuse: Fuse) -> None:
        self.engine = inner.engine
        self._inner = inner
        self._fuse = fuse

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        async with self._inner.transaction() as session:
            yield session
            self._fuse.step()
        self._fuse.step()

    def claim(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return self._inner.claim()


class DyingTransport:
    """A transport whose user is killed before or after it has accepted messages."""

    def __init__(self, inner: Any, fuse: Fuse) -> None:
        self._inner = inner
        self._fuse = fuse

    async def send(self, messages: Any) -> None:
        self._fuse.step()
        await self._inner.send(messages)
        self._fuse.step()


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "FILES_AT_ONCE", 2)


async def check(bench: Workbench, job_id: UUID, photos: int) -> None:
    """Every photo was asked for exactly once, and the job ends."""
    messages = await bench.take()
    assert len({m["photo_id"] for m in messages}) == len(messages) == photos
    job = await bench.status(job_id)
    assert (job.status, job.scanned) == ("PUBLISHED", photos)
    assert (job.inserted, job.published, job.photos) == (photos, photos, photos)
    assert job.failed_batches == 0
    for message in messages:
        async with bench.db.transaction() as session:
            finished = await library.finish(
                session, message["photo_id"], UUID(message["attempt_id"]), faces=1
            )
            assert finished
    await bench.hear()
    job = await bench.status(job_id)
    assert (job.status, job.processed, job.faces_detected) == ("COMPLETED", photos, photos)


async def test_killed_between_any_two_steps(bench: Workbench, tmp_path: Path) -> None:
    for at in count(1):
        folder = tmp_path / str(at)
        fill(folder, 3, start=at * 100)
        job_id = await bench.order(folder, batchSize=1)
        fuse = Fuse(at)
        try:
            await jobs.run_job(
                DyingDatabase(bench.db, fuse), DyingTransport(bench.transport, fuse), job_id
            )
        except Killed:
            await bench.run(job_id)
            await check(bench, job_id, 3)
        else:
            await check(bench, job_id, 3)
            break
    assert at > 20


async def test_killed_again_and_again(bench: Workbench, tmp_path: Path) -> None:
    dice = random.Random(7)
    fill(tmp_path, 30)
    job_id = await bench.order(tmp_path, batchSize=2)
    kills = 0
    while True:
        fuse = Fuse(dice.randrange(8, 40 + 30 * kills))
        try:
            await jobs.run_job(
                DyingDatabase(bench.db, fuse), DyingTransport(bench.transport, fuse), job_id
            )
        except Killed:
            kills += 1
        else:
            break
    assert kills > 3
    await check(bench, job_id, 30)


async def test_delivered_twice(bench: Workbench, tmp_path: Path) -> None:
    fill(tmp_path, 7)
    job_id = await bench.order(tmp_path, batchSize=2)
    await bench.run(job_id)
    await bench.run(job_id)
    await check(bench, job_id, 7)
    await bench.run(job_id)
    assert (await bench.status(job_id)).status == "COMPLETED"
    assert await bench.take() == []


async def test_processed_before_it_is_noted_as_published(bench: Workbench, tmp_path: Path) -> None:
    """The messages are out, their sender dies, and the photos are done before it is back."""
    fill(tmp_path, 4)
    job_id = await bench.order(tmp_path, batchSize=2)

    class Killing(DyingTransport):
        async def send(self, messages: Any) -> None:
            await self._inner.send(messages)
            raise Killed

    with pytest.raises(Killed):
        await jobs.run_job(bench.db, Killing(bench.transport, Fuse(0)), job_id)
    done = await bench.recognise(faces=1)
    assert done
    await bench.run(job_id)
    assert not set(await bench.recognise(faces=1)) & set(done)
    job = await bench.status(job_id)
    assert (job.status, job.published, job.processed) == ("COMPLETED", 4, 4)


CHILD = """
import asyncio, sys
from uuid import UUID
from kaleidoscope.bus.transports.postgres import PostgresTransport
from kaleidoscope.ingest import jobs
from kaleidoscope.kernel.db import Database
from kaleidoscope.library import service as library
jobs.FILES_AT_ONCE = 10
async def main():
    db = Database(sys.argv[1])
    print("go", flush=True)
    await jobs.run_job(db, PostgresTransport(db), UUID(sys.argv[2]))
asyncio.run(main())
"""


@pytest.mark.parametrize(
    "kills", [3, pytest.param(50, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])]
)
async def test_kill_minus_nine(
    bench: Workbench, database_url: str, tmp_path: Path, kills: int
) -> None:
    dice = random.Random(kills)
    bench.transport = PostgresTransport(bench.db)
    for topic, group in SUBSCRIBED:
        await bench.transport.subscribe(topic, group)
    photos = 50 * kills
    fill(tmp_path, photos)
    job_id = await bench.order(tmp_path, batchSize=max(5, photos // 100))

    def run() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", CHILD, database_url, str(job_id)],
            stdout=subprocess.PIPE,
            text=True,
        )

    for _ in range(kills):
        child = run()
        assert child.stdout is not None and child.stdout.readline() == "go\n"
        time.sleep(dice.uniform(0, 0.4))  # noqa: ASYNC251
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    while (child := run()).wait() != 0:
        time.sleep(0.1)  # noqa: ASYNC251
    await check(bench, job_id, photos)
