"""The worker: retries, dead letters, order, stops, outages."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from kaleidoscope.bus import rules, service, worker
from kaleidoscope.bus.handlers import Context, Discard, Handler, Retry
from kaleidoscope.bus.messages import DeadLetter, Delivery, Message, message_of
from kaleidoscope.bus.publish import publish
from kaleidoscope.bus.transports import TransportError
from kaleidoscope.bus.transports.memory import MemoryTransport
from kaleidoscope.bus.transports.postgres import PostgresTransport
from kaleidoscope.bus.worker import run_worker
from kaleidoscope.kernel.db import Database

from .conftest import Said, until, working

Run = Callable[[Context, Any], Awaitable[None]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "FIRST_DELAY", 0.02)
    monkeypatch.setattr(rules, "LONGEST_DELAY", 0.1)
    monkeypatch.setattr(worker, "POLL", timedelta(seconds=0.1))


def handler(run: Run, **terms: Any) -> Handler:
    return Handler("said", Said, "ears", run, **terms)


async def say(db: Database, *ns: int, who: str = "") -> None:
    async with db.transaction() as session:
        await publish(session, *(Said(n=n, who=who) for n in ns))


async def dead(db: Database) -> list[DeadLetter]:
    async with db.transaction() as session:
        return await service.list_dead(session)


async def left(db: Database) -> int:
    async with db.transaction() as session:
        depths = await service.topic_depths(session)
        return sum(d.waiting + d.delayed + d.in_flight for d in depths)


async def nothing_left(db: Database) -> bool:
    async with db.transaction() as session:
        on_its_way = await service.outbox_size(session)
    return on_its_way == 0 and await left(db) == 0


async def test_a_published_event_is_handled_and_gone(
    db: Database, transport: PostgresTransport
) -> None:
    heard: list[Said] = []

    async def run(context: Context, said: Said) -> None:
        assert context.delivery.attempt == 1
        heard.append(said)

    async with working(db, transport, [handler(run)]):
        await until(lambda: _subscribed(db))
        await say(db, 1, 2, 3, who="me")
        await until(lambda: len(heard) == 3)
        await until(lambda: nothing_left(db))
    assert heard == [Said(n=n, who="me") for n in (1, 2, 3)]


async def test_what_falls_due_is_seen_while_another_topic_is_never_quiet(db: Database) -> None:
    transport, over = MemoryTransport(), asyncio.Event()

    class Noise(Said):
        topic = "noise"

    async def run(context: Context, said: Said) -> None:
        if context.delivery.attempt == 1:
            raise Retry(timedelta(seconds=0.2), "later")
        over.set()

    async def ignore(context: Context, noise: Noise) -> None:
        pass

    handlers = [handler(run), Handler("noise", Noise, "ears", ignore)]
    async with working(db, transport, handlers):
        await asyncio.sleep(0.05)
        await transport.send([message_of(Said(n=1))])
        async with asyncio.timeout(15):
            while not over.is_set():
                await transport.send([message_of(Noise())])
                await asyncio.sleep(0.01)


async def _subscribed(db: Database) -> bool:
    async with db.transaction() as session:
        return bool(await service.topic_depths(session))


async def test_a_published_event_arrives_without_waiting_for_a_poll(
    db: Database, transport: PostgresTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "POLL", timedelta(seconds=30))
    heard: list[float] = []

    async def run(context: Context, said: Said) -> None:
        heard.append(time.monotonic())

    async with working(db, transport, [handler(run)]) as stop:
        await until(lambda: _subscribed(db))
        await asyncio.sleep(0.5)
        for n in range(3):
            began = time.monotonic()
            await say(db, n)
            await until(lambda n=n: len(heard) > n)
            assert heard[n] - began < 1
            await asyncio.sleep(0.2)
        began = time.monotonic()
        stop.set()
    assert time.monotonic() - began < 2, "a stop is not waited for either"


async def test_handlers_run_side_by_side_up_to_their_concurrency(
    db: Database, transport: PostgresTransport
) -> None:
    running, most, handled = 0, 0, 0

    async def run(context: Context, said: Said) -> None:
        nonlocal running, most, handled
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        handled += 1

    async with working(db, transport, [handler(run, concurrency=5)]):
        await until(lambda: _subscribed(db))
        await say(db, *range(40))
        await until(lambda: handled == 40)
    assert most == 5


async def test_a_failure_is_tried_again_then_dead_with_its_history(
    db: Database, transport: PostgresTransport
) -> None:
    tries: Counter[int] = Counter()

    async def run(context: Context, said: Said) -> None:
        tries[said.n] += 1
        if said.n == 1 or tries[said.n] < 3:
            raise ValueError(f"stumbled over {said.n}, try {tries[said.n]}")

    async with working(db, transport, [handler(run, max_attempts=3)], name="w-7"):
        await until(lambda: _subscribed(db))
        await say(db, 1, 2, who="me")
        await until(lambda: nothing_left(db))
        await until(lambda: tries[2] == 3)
    assert tries == {1: 3, 2: 3}
    (letter,) = await dead(db)
    assert (letter.topic, letter.group, letter.key) == ("said", "ears", "me")
    assert letter.payload == {"n": 1, "who": "me"}
    assert letter.cause == "ValueError: stumbled over 1, try 3"
    assert [entry["error"] for entry in letter.history] == [
        f"ValueError: stumbled over 1, try {n}" for n in (1, 2, 3)
    ]
    assert {entry["consumer"] for entry in letter.history} == {"w-7"}
    times = [entry["time"] for entry in letter.history]
    assert times == sorted(times)


async def test_a_handler_may_ask_for_later_and_for_never(
    db: Database, transport: PostgresTransport
) -> None:
    tries = 0

    async def run(context: Context, said: Said) -> None:
        nonlocal tries
        if said.n == 0:
            raise Discard("the photo is gone")
        tries += 1
        if tries <= 10:
            raise Retry(timedelta(0), "service away", count=False)
        assert context.delivery.attempt == 1

    async with working(db, transport, [handler(run, max_attempts=2)]):
        await until(lambda: _subscribed(db))
        await say(db, 0, 1)
        await until(lambda: nothing_left(db))
    assert tries == 11
    assert [letter.cause for letter in await dead(db)] == ["the photo is gone"]


async def test_a_retry_that_counts_is_spent_like_a_failure(
    db: Database, transport: PostgresTransport
) -> None:
    async def run(context: Context, said: Said) -> None:
        raise Retry(timedelta(0), f"try {context.delivery.attempt}")

    async with working(db, transport, [handler(run, max_attempts=3)]):
        await until(lambda: _subscribed(db))
        await say(db, 1)
        await until(lambda: nothing_left(db))
    (letter,) = await dead(db)
    assert [entry["error"] for entry in letter.history] == ["try 1", "try 2", "try 3"]


async def test_what_is_no_message_of_the_topic_is_dead_at_once(
    db: Database, transport: PostgresTransport
) -> None:
    async def run(context: Context, said: Said) -> None:
        raise AssertionError("never called")

    await transport.subscribe("said", "ears")
    await transport.send([Message(topic="said", payload={"n": "many"})])
    async with working(db, transport, [handler(run)]):
        await until(lambda: nothing_left(db))
    (letter,) = await dead(db)
    assert "not a message of said" in letter.cause


async def test_a_message_that_kills_its_workers_is_dead_in_the_end(
    db: Database, transport: PostgresTransport
) -> None:
    await transport.subscribe("said", "ears")
    await transport.send([Message(topic="said", payload={"n": 1})])
    for _ in range(worker.MOST_LOST):
        held = await transport.claim(
            "said", "ears", 1, consumer="w", visibility=timedelta(seconds=60)
        )
        assert len(held) == 1
        await transport.release("w")

    async def run(context: Context, said: Said) -> None:
        raise AssertionError("never called")

    async with working(db, transport, [handler(run)]):
        await until(lambda: nothing_left(db))
    (letter,) = await dead(db)
    assert letter.cause.startswith(f"{worker.MOST_LOST} workers died")


async def test_a_long_run_keeps_its_message(db: Database, transport: PostgresTransport) -> None:
    transport_of_two = PostgresTransport(db)
    runs = 0

    async def run(context: Context, said: Said) -> None:
        nonlocal runs
        runs += 1
        await asyncio.sleep(1.5)

    terms = {"visibility": timedelta(seconds=0.6)}
    async with (
        working(db, transport, [handler(run, **terms)], name="one"),
        working(db, transport_of_two, [handler(run, **terms)], name="two"),
    ):
        await until(lambda: _subscribed(db))
        await say(db, 1)
        await until(lambda: runs > 0)
        await until(lambda: nothing_left(db))
    await transport_of_two.close()
    assert runs == 1


async def test_order_holds_through_failures(db: Database, transport: PostgresTransport) -> None:
    heard: dict[str, list[int]] = {"a": [], "b": []}
    stumbled: set[int] = set()

    async def run(context: Context, said: Said) -> None:
        if said.n % 3 == 0 and said.n not in stumbled:
            stumbled.add(said.n)
            raise ValueError("once")
        heard[said.who].append(said.n)

    async with working(db, transport, [handler(run, concurrency=4, ordered=True)]):
        await until(lambda: _subscribed(db))
        for n in range(20):
            await say(db, n, who="ab"[n % 2])
        await until(lambda: sum(map(len, heard.values())) == 20)
    assert heard == {"a": list(range(0, 20, 2)), "b": list(range(1, 20, 2))}


async def test_a_stop_lets_what_runs_end(db: Database, transport: PostgresTransport) -> None:
    begun, ended = 0, 0

    async def run(context: Context, said: Said) -> None:
        nonlocal begun, ended
        begun += 1
        await asyncio.sleep(0.5)
        ended += 1

    async with working(db, transport, [handler(run, concurrency=2)]):
        await until(lambda: _subscribed(db))
        await say(db, 1, 2, 3)
        await until(lambda: begun == 2)
    assert (begun, ended) == (2, 2)
    assert await left(db) == 1


@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_what_does_not_end_in_time_is_handed_back(
    db: Database, transport: PostgresTransport, how: str
) -> None:
    begun = asyncio.Event()

    async def run(context: Context, said: Said) -> None:
        begun.set()
        await asyncio.sleep(60)

    stop, grace = asyncio.Event(), timedelta(seconds=0.1)
    running = asyncio.create_task(
        run_worker(db, transport, [handler(run)], name="w", stop=stop, grace=grace)
    )
    await until(lambda: _subscribed(db))
    await say(db, 1)
    await asyncio.wait_for(begun.wait(), 10)
    if how == "stop":
        stop.set()
    else:
        running.cancel()
    await asyncio.wait([running], timeout=10)
    (back,) = await transport.claim(
        "said", "ears", 1, consumer="other", visibility=timedelta(seconds=60)
    )
    assert (back.attempt, back.lost) == (1, 0)


class Fickle(MemoryTransport):
    """Fails in every second call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def _fail_now_and_then(self) -> None:
        self.calls += 1
        if self.calls % 2:
            raise TransportError("away")

    async def subscribe(self, topic: str, group: str, *, ordered: bool = False) -> None:
        self._fail_now_and_then()
        await super().subscribe(topic, group, ordered=ordered)

    async def claim(self, *args: Any, **terms: Any) -> list[Delivery]:
        self._fail_now_and_then()
        return await super().claim(*args, **terms)

    async def send(self, messages: Sequence[Message]) -> None:
        self._fail_now_and_then()
        await super().send(messages)

    async def retry(self, *args: Any, **terms: Any) -> None:
        self._fail_now_and_then()
        await super().retry(*args, **terms)


async def test_a_transport_that_fails_now_and_then_loses_nothing(db: Database) -> None:
    transport = Fickle()
    handled: Counter[int] = Counter()

    async def run(context: Context, said: Said) -> None:
        handled[said.n] += 1
        if handled[said.n] == 1:
            raise ValueError("once")

    async with working(db, transport, [handler(run, concurrency=3)]):
        await until(lambda: bool(transport._queues))
        await say(db, *range(20))
        await until(lambda: set(handled.values()) == {2} and len(handled) == 20)


async def test_an_outage_is_no_attempt(db: Database, transport: PostgresTransport) -> None:
    tries = 0

    async def run(context: Context, said: Said) -> None:
        nonlocal tries
        tries += 1
        if tries <= 5:
            raise TransportError("away")

    async with working(db, transport, [handler(run, max_attempts=2)]):
        await until(lambda: _subscribed(db))
        await say(db, 1)
        await until(lambda: tries == 6)
        await until(lambda: nothing_left(db))
    assert await dead(db) == []
