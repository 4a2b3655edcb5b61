"""Messages a second through the queue, as a ratio to the barest queue there is.

usage: bench_queue.py [--messages 20000] [--rounds 3] [--workers 4] [--waiting 1000000] [--batch 10]

A PostgreSQL of its own on the disk of the temporary folder, fsync on; every consumer is a process.

baseline   plain psycopg on a bare table, DELETE … (SELECT … LIMIT 10 FOR UPDATE SKIP LOCKED)
           RETURNING: one commit a batch, and a consumer that dies loses what it took
transport  acknowledge ten and claim the next ten, in one commit: nothing is ever lost
worker     the whole worker, a handler that does nothing, ten at once
publish    events committed with the transactions of 1 and 8 writers, one a transaction
relay      from the outbox to the transport
deep       the transport again, with a million other messages waiting
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import psycopg
from psycopg.types.json import Jsonb

from kaleidoscope.bus.handlers import Context, Handler
from kaleidoscope.bus.messages import Delivery, Event, message_of
from kaleidoscope.bus.publish import publish, relay
from kaleidoscope.bus.transports.postgres import PostgresTransport
from kaleidoscope.bus.worker import run_worker
from kaleidoscope.kernel import migrate
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.embedded_postgres import EmbeddedPostgres

GROUP = "bench"
VISIBILITY = timedelta(seconds=60)


class Measured(Event):
    """About as large as a message that asks for a photo to be recognised."""

    topic: ClassVar[str] = "measured"
    photo_id: int
    path: str = "/photos/2019/08 Lake Constance/IMG_20190813_174512.jpg"
    job_id: str = "0d1f7f6e-8c5e-4b35-9d84-0a3c3e7c8f10"
    attempt_id: str = "a61cc2d7-6d0c-49a4-8c6c-a2dd0cb12a3b"
    created_at: str = "2026-01-31T12:00:00.000000Z"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3, help="the median is told")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--waiting", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--consume", help=argparse.SUPPRESS)  # a consumer process: its kind
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.consume:
        asyncio.run(consume(options.consume, options.url, options.batch))
    else:
        with server() as url:
            measure(url, options)


@contextmanager
def server() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="kaleidoscope-bench-"))
    folder.chmod(0o711)
    postgres = EmbeddedPostgres(folder / "postgres")
    try:
        url = postgres.start()
        migrate.upgrade(url, "0001")
        with psycopg.connect(url, autocommit=True) as connection:
            for setting in ("fsync", "full_page_writes", "synchronous_commit"):
                assert connection.execute(f"SHOW {setting}").fetchone() == ("on",), setting
            connection.execute(
                "CREATE TABLE bare (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
                " payload JSONB NOT NULL)"
            )
        yield url
    finally:
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


def measure(url: str, options: argparse.Namespace) -> None:
    kinds = ("bare", "transport", "worker")
    rounds = [{kind: consumed(kind, url, options) for kind in kinds} for _ in range(options.rounds)]
    bare, transport, worker = (median(each[kind] for each in rounds) for kind in kinds)
    baseline = report("baseline", bare)
    report("transport", transport, baseline)
    report("worker", worker, baseline)
    for writers in (1, 8):
        rate = asyncio.run(published(url, options.messages // 10, writers))
        report(f"publish, {writers} writers", rate, baseline)
    report("relay", asyncio.run(relayed(url)), baseline)
    fill_deep(url, options.waiting)
    name = f"deep, {options.waiting:,} waiting"
    report(name, consumed("transport", url, options, fill_first=False), baseline)


def report(name: str, rate: float, baseline: float | None = None) -> float:
    ratio = f"  {rate / baseline:5.2f} of the baseline" if baseline else ""
    print(f"{name:28}{rate:9,.0f} messages/s{ratio}", flush=True)
    return rate


# -- filling


def fill(kind: str, url: str, count: int) -> None:
    messages = [message_of(Measured(photo_id=n)) for n in range(count)]
    if kind == "bare":
        insert = "INSERT INTO bare (payload) SELECT unnest(%s::jsonb[])"
        with psycopg.connect(url) as connection:
            connection.execute(insert, [[Jsonb(message.payload) for message in messages]])
        return

    async def send() -> None:
        async with database(url) as (_, transport):
            await transport.subscribe(Measured.topic, GROUP)
            for start in range(0, count, 1000):
                await transport.send(messages[start : start + 1000])

    asyncio.run(send())


def fill_deep(url: str, count: int) -> None:
    """Straight into the table, as fast as it goes; no statistics are taken."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO bus_messages (message_id, topic, consumer_group, key, payload, headers)"
            " SELECT gen_random_uuid(), %s, %s, '', %s, '{}' FROM generate_series(1, %s)",
            [
                Measured.topic,
                GROUP,
                Jsonb(message_of(Measured(photo_id=1)).payload),
                count,
            ],
        )


# -- consuming


def consumed(kind: str, url: str, options: argparse.Namespace, *, fill_first: bool = True) -> float:
    """Messages a second of all consumer processes together."""
    if fill_first:
        fill(kind, url, options.messages)
    share = options.messages // options.workers
    command = [sys.executable, __file__, "--url", url, "--batch", str(options.batch)]
    consumers = [
        subprocess.Popen(
            [*command, "--consume", f"{kind}:{share}:{n}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(options.workers)
    ]
    for consumer in consumers:
        assert consumer.stdout is not None
        assert consumer.stdout.readline() == "ready\n"
    for consumer in consumers:
        assert consumer.stdin is not None
        consumer.stdin.write("go\n")
        consumer.stdin.flush()
    spans = [tuple(map(float, consumer.communicate()[0].split())) for consumer in consumers]
    count = sum(span[2] for span in spans)
    return count / (max(span[1] for span in spans) - min(span[0] for span in spans))


async def consume(order: str, url: str, batch: int) -> None:
    """One consumer process: says ready, waits for the word, takes its share, tells its times."""
    kind, share, number = order.split(":")
    kinds: dict[str, Callable[[str, int, int, str], Awaitable[int]]] = {
        "bare": consume_bare,
        "transport": consume_transport,
        "worker": consume_worker,
    }
    count = await kinds[kind](url, int(share), batch, f"consumer-{number}")
    print(BEGAN[0], time.time(), count)


BEGAN: list[float] = []


def wait_for_the_word() -> None:
    print("ready", flush=True)
    sys.stdin.readline()
    BEGAN.append(time.time())


async def consume_bare(url: str, share: int, batch: int, name: str) -> int:
    take = (
        "DELETE FROM bare WHERE id IN (SELECT id FROM bare ORDER BY id LIMIT %s"
        " FOR UPDATE SKIP LOCKED) RETURNING id, payload"
    )
    count = 0
    with psycopg.connect(url, autocommit=True) as connection:
        wait_for_the_word()
        while count < share and (rows := connection.execute(take, [batch]).fetchall()):
            count += len(rows)
    return count


async def consume_transport(url: str, share: int, batch: int, name: str) -> int:
    count = 0
    async with database(url) as (_, transport):
        await transport.release(name)  # connects
        wait_for_the_word()
        held: list[Delivery] = []
        while count < share:
            held = await transport.claim(
                Measured.topic, GROUP, batch, consumer=name, visibility=VISIBILITY, done=held
            )
            if not held:
                break
            count += len(held)
        await transport.ack(held)
    return count


async def consume_worker(url: str, share: int, batch: int, name: str) -> int:
    count, stop = 0, asyncio.Event()

    async def run(context: Context, event: Any) -> None:
        nonlocal count
        count += 1
        if count >= share:
            stop.set()

    handler = Handler(Measured.topic, Measured, GROUP, run, concurrency=batch)
    async with database(url) as (db, transport):
        wait_for_the_word()
        async with asyncio.timeout(120):
            await run_worker(db, transport, [handler], name=name, stop=stop)
    return count


# -- publishing


async def published(url: str, count: int, writers: int) -> float:
    async with database(url) as (db, _):

        async def write() -> None:
            for n in range(count // writers):
                async with db.transaction() as session:
                    await publish(session, Measured(photo_id=n))

        began = time.monotonic()
        await asyncio.gather(*(write() for _ in range(writers)))
        return count / (time.monotonic() - began)


async def relayed(url: str) -> float:
    count = 0
    async with database(url) as (db, transport):
        began = time.monotonic()
        while moved := await relay(db, transport):
            count += moved
        return count / (time.monotonic() - began)


class database:
    """A database and a transport on it, closed at the end."""

    def __init__(self, url: str) -> None:
        self.db = Database(url)

    async def __aenter__(self) -> tuple[Database, PostgresTransport]:
        self.transport = PostgresTransport(self.db)
        return self.db, self.transport

    async def __aexit__(self, *_: object) -> None:
        await self.transport.close()
        await self.db.close()


if __name__ == "__main__":
    main()
