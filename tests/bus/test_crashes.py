"""kill -9 of a worker, and of the database's postmaster, with messages in flight."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path

import psycopg

from kaleidoscope.bus.handlers import Context, Handler
from kaleidoscope.bus.messages import message_of
from kaleidoscope.bus.publish import publish
from kaleidoscope.bus.transports.postgres import PostgresTransport
from kaleidoscope.kernel import migrate
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.embedded_postgres import EmbeddedPostgres

from .conftest import Said, until, working

KILLS = 4
MESSAGES = 120
PROGRAM = Path(__file__).with_name("worker_process.py")


def start_worker(url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, PROGRAM, url, "killed"], stdout=subprocess.DEVNULL)


async def test_a_killed_worker_loses_nothing(
    db: Database, transport: PostgresTransport, database_url: str
) -> None:
    await transport.subscribe("said", "ears")
    await transport.send([message_of(Said(n=n)) for n in range(MESSAGES)])
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE heard (n int)")

        def heard() -> Counter[int]:
            return Counter(n for (n,) in connection.execute("SELECT n FROM heard"))

        for kill in range(KILLS):
            killed = start_worker(database_url)
            await until(lambda kill=kill: len(heard()) > 20 * kill + 5, within=60)
            killed.kill()
            killed.wait()
        # Claims would run out after ten minutes: the successor of the same name resumes at once.
        last = start_worker(database_url)
        try:
            await until(lambda: len(heard()) == MESSAGES, within=60)
        finally:
            last.terminate()
            last.wait()
        times = heard()
    assert set(times) == set(range(MESSAGES))
    assert times.total() <= MESSAGES + 4 * KILLS, "only what was in flight came twice"


async def test_a_killed_database_neither_ends_the_worker_nor_loses_messages(folder: Path) -> None:
    server = EmbeddedPostgres(folder / "postgres")
    url = server.start()
    migrate.upgrade(url, "0001")
    db = Database(url)
    transport = PostgresTransport(db)
    handled: Counter[int] = Counter()

    async def handle(context: Context, said: Said) -> None:
        await asyncio.sleep(0.02)
        async with context.db.transaction() as session:
            await publish(session, Said(n=said.n, who="answer")) if said.who == "" else None
        handled[said.n if said.who == "" else -said.n] += 1

    handler = Handler("said", Said, "ears", handle, concurrency=4, visibility=timedelta(seconds=5))
    try:
        await transport.subscribe("said", "ears")
        await transport.send([message_of(Said(n=n)) for n in range(1, 61)])
        async with working(db, transport, [handler]):
            for kill in range(2):
                await until(lambda kill=kill: len(handled) > 15 * (kill + 1), within=60)
                pid = (folder / "postgres/cluster/postmaster.pid").read_text().split()[0]
                os.kill(int(pid), signal.SIGKILL)
                await asyncio.sleep(0.5)
                await asyncio.to_thread(server.start)
            await until(lambda: len(handled) == 120, within=60)
        async with db.transaction() as session:
            depths = await transport.depth("said")
            letters = await session.connection()
            dead = (await letters.exec_driver_sql("SELECT cause FROM dead_letters")).all()
        assert dead == []
        assert sum(d.waiting + d.delayed + d.in_flight for d in depths) == 0
    finally:
        await transport.close()
        await db.close()
        server.stop()
