"""What every transport promises, held against each of them through the interface alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from kaleidoscope.bus.messages import GROUP, Delivery, Depth, Message
from kaleidoscope.bus.transports import Transport
from kaleidoscope.bus.transports.memory import MemoryTransport
from kaleidoscope.bus.transports.postgres import PostgresTransport
from kaleidoscope.kernel.db import Database

TOPIC, GROUP_A, GROUP_B = "photos", "album", "backup"
AT_ONCE, BRIEFLY, LONG = timedelta(0), timedelta(seconds=0.3), timedelta(seconds=60)
SOON = 5.0  # seconds in which what is due must have come


# A new transport is held to the contract by one line here.
MAKERS: dict[str, Callable[[Database], Transport]] = {
    "memory": lambda _: MemoryTransport(),
    "postgres": PostgresTransport,
}


@pytest.fixture(params=MAKERS)
async def transport(request: pytest.FixtureRequest, db: Database) -> AsyncIterator[Transport]:
    made = MAKERS[request.param](db)
    await made.subscribe(TOPIC, GROUP_A)
    yield made
    await made.close()


def message(n: int = 0, key: str = "", topic: str = TOPIC) -> Message:
    return Message(topic=topic, key=key, payload={"n": n})


def numbers(deliveries: list[Delivery]) -> list[int]:
    return [delivery.payload["n"] for delivery in deliveries]


async def claim(
    transport: Transport,
    limit: int = 10,
    *,
    group: str = GROUP_A,
    consumer: str = "one",
    visibility: timedelta = LONG,
    topic: str = TOPIC,
) -> list[Delivery]:
    return await transport.claim(topic, group, limit, consumer=consumer, visibility=visibility)


async def claim_soon(transport: Transport, count: int = 1, **terms: Any) -> list[Delivery]:
    """Claim until so many have come."""
    found: list[Delivery] = []
    deadline = time.monotonic() + SOON
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} messages came in {SOON} s"
        found += await claim(transport, count - len(found), **terms)
        await asyncio.sleep(0.01)
    return found


async def depth(transport: Transport, group: str = GROUP_A) -> Depth:
    (found,) = [d for d in await transport.depth(TOPIC) if d.group == group]
    return found


async def test_a_message_arrives_as_it_was_sent(transport: Transport) -> None:
    payload = {"text": "Grüße 📷 \\x00", "list": [1, 2.5, None, True], "deep": {"a": {}}}
    sent = Message(topic=TOPIC, key="k/ü", payload=payload, headers={"trace": "abc"})
    await transport.send([sent])
    (delivery,) = await claim_soon(transport)
    assert (delivery.id, delivery.key, delivery.payload) == (sent.id, sent.key, sent.payload)
    assert delivery.headers == {"trace": "abc"}
    assert (delivery.topic, delivery.group, delivery.attempt) == (TOPIC, GROUP_A, 1)


async def test_messages_come_in_the_order_they_were_sent(transport: Transport) -> None:
    await transport.send([message(n) for n in range(5)])
    await transport.send([message(n) for n in range(5, 8)])
    assert numbers(await claim_soon(transport, 8)) == list(range(8))


async def test_a_claim_takes_no_more_than_its_limit(transport: Transport) -> None:
    await transport.send([message(n) for n in range(5)])
    assert len(await claim_soon(transport, 2)) == 2
    assert len(await claim_soon(transport, 3)) == 3


async def test_nothing_sent_nothing_claimed(transport: Transport) -> None:
    await transport.send([])
    await transport.ack([])
    assert await claim(transport) == []
    assert await claim(transport, topic="unheard of") == []


async def test_a_claimed_message_is_out_of_sight(transport: Transport) -> None:
    await transport.send([message()])
    await claim_soon(transport)
    assert await claim(transport, consumer="two") == []


async def test_two_consumers_share_without_overlap(transport: Transport) -> None:
    await transport.send([message(n) for n in range(200)])
    seen: list[int] = []

    async def consume(name: str) -> None:
        while batch := await claim(transport, 7, consumer=name):
            seen.extend(numbers(batch))
            await transport.ack(batch)

    await asyncio.gather(*(consume(f"consumer {n}") for n in range(4)))
    assert sorted(seen) == list(range(200))


async def test_an_acknowledged_message_never_comes_back(transport: Transport) -> None:
    await transport.send([message()])
    await transport.ack(await claim_soon(transport, visibility=BRIEFLY))
    await asyncio.sleep(0.5)
    assert await claim(transport) == []


async def test_a_claim_may_acknowledge_what_is_done(transport: Transport) -> None:
    await transport.subscribe(TOPIC, "line", ordered=True)
    await transport.send([message(n) for n in range(3)])
    for group in (GROUP_A, "line"):
        held: list[Delivery] = []
        for n in range(3):
            held = await transport.claim(
                TOPIC, group, 1, consumer="one", visibility=LONG, done=held
            )
            assert numbers(held) == [n]
        await transport.ack(held)
        left = await depth(transport, group)
        assert left.waiting + left.delayed + left.in_flight == 0


async def test_an_unsettled_message_comes_back(transport: Transport) -> None:
    await transport.send([message()])
    (first,) = await claim_soon(transport, visibility=BRIEFLY)
    (again,) = await claim_soon(transport, consumer="two")
    assert again.id == first.id
    assert again.attempt == 1, "a lost consumer is no failure of the message"


async def test_a_consumer_that_lost_its_message_settles_nothing(transport: Transport) -> None:
    await transport.send([message()])
    (lost,) = await claim_soon(transport, visibility=timedelta(milliseconds=50))
    (held,) = await claim_soon(transport, consumer="two")
    await transport.ack([lost])
    await transport.retry(lost, delay=AT_ONCE, error="late")
    await transport.dead_letter(lost, "late")
    await transport.extend([lost], AT_ONCE)
    assert await claim(transport, consumer="three") == []
    await transport.retry(held, delay=AT_ONCE, error="it is still mine")
    assert [d.attempt for d in await claim_soon(transport)] == [2]


async def test_extending_keeps_it_out_of_sight(transport: Transport) -> None:
    await transport.send([message()])
    held = await claim_soon(transport, visibility=BRIEFLY)
    await transport.extend(held, LONG)
    await asyncio.sleep(0.5)
    assert await claim(transport, consumer="two") == []
    await transport.ack(held)
    assert (await depth(transport)).in_flight == 0


async def test_a_retry_comes_after_its_delay_as_the_next_attempt(transport: Transport) -> None:
    await transport.send([message()])
    (first,) = await claim_soon(transport)
    began = time.monotonic()
    await transport.retry(first, delay=timedelta(seconds=0.4), error="not now")
    assert await claim(transport) == []
    (second,) = await claim_soon(transport)
    assert time.monotonic() - began >= 0.4
    assert (second.id, second.attempt) == (first.id, 2)


async def test_a_retry_that_does_not_count_is_no_attempt(transport: Transport) -> None:
    await transport.send([message()])
    for _ in range(3):
        (delivery,) = await claim_soon(transport)
        assert delivery.attempt == 1
        await transport.retry(delivery, delay=AT_ONCE, error="service away", count=False)


async def test_a_retry_does_not_hold_back_others(transport: Transport) -> None:
    await transport.send([message(1, key="a"), message(2, key="a")])
    first, second = await claim_soon(transport, 2)
    await transport.retry(first, delay=LONG, error="not now")
    await transport.ack([second])
    await transport.send([message(3, key="a")])
    assert numbers(await claim_soon(transport)) == [3]


async def test_a_dead_letter_never_comes_back(transport: Transport) -> None:
    await transport.send([message()])
    (delivery,) = await claim_soon(transport, visibility=BRIEFLY)
    await transport.dead_letter(delivery, "hopeless")
    await asyncio.sleep(0.5)
    assert await claim(transport) == []


async def test_a_restarted_consumer_has_its_messages_at_once(transport: Transport) -> None:
    await transport.send([message(1), message(2)])
    await claim_soon(transport, consumer="one")
    await claim_soon(transport, consumer="two")
    await transport.release("one")
    assert numbers(await claim_soon(transport, consumer="one")) == [1]
    assert await claim(transport) == []


async def test_every_group_gets_every_message_once(transport: Transport) -> None:
    await transport.subscribe(TOPIC, GROUP_B)
    await transport.send([message(n) for n in range(3)])
    for group in (GROUP_A, GROUP_B):
        got = await claim_soon(transport, 3, group=group)
        assert numbers(got) == [0, 1, 2]
        await transport.ack(got)
        assert await claim(transport, group=group) == []


async def test_groups_settle_for_themselves(transport: Transport) -> None:
    await transport.subscribe(TOPIC, GROUP_B)
    await transport.send([message()])
    (failed,) = await claim_soon(transport)
    await transport.ack(await claim_soon(transport, group=GROUP_B))
    await transport.retry(failed, delay=AT_ONCE, error="only mine")
    assert [d.attempt for d in await claim_soon(transport)] == [2]
    assert await claim(transport, group=GROUP_B) == []


async def test_topics_are_apart(transport: Transport) -> None:
    await transport.subscribe("videos", GROUP_A)
    await transport.send([message(1), message(2, topic="videos")])
    assert numbers(await claim_soon(transport)) == [1]
    assert numbers(await claim_soon(transport, topic="videos")) == [2]


async def test_a_message_may_be_for_one_group_alone(transport: Transport) -> None:
    await transport.subscribe(TOPIC, GROUP_B)
    await transport.send([Message(topic=TOPIC, payload={"n": 1}, headers={GROUP: GROUP_B})])
    assert numbers(await claim_soon(transport, group=GROUP_B)) == [1]
    assert await claim(transport) == []


async def test_subscribing_again_changes_nothing(transport: Transport) -> None:
    await transport.send([message(1)])
    await transport.subscribe(TOPIC, GROUP_A)
    await transport.send([message(2)])
    assert numbers(await claim_soon(transport, 2)) == [1, 2]


async def test_order_one_message_of_a_key_at_a_time(transport: Transport) -> None:
    await transport.subscribe(TOPIC, "line", ordered=True)
    await transport.send([message(n, key="ab"[n % 2]) for n in range(6)])
    for expected in ([0, 1], [2, 3], [4, 5]):
        held = await claim_soon(transport, 2, group="line")
        assert sorted(numbers(held)) == expected
        assert await claim(transport, group="line", consumer="two") == []
        await transport.ack(held)


async def test_order_what_failed_holds_back_what_follows(transport: Transport) -> None:
    await transport.subscribe(TOPIC, "line", ordered=True)
    await transport.send([message(n, key="a") for n in range(3)])
    (first,) = await claim_soon(transport, group="line")
    await transport.retry(first, delay=BRIEFLY, error="stumbled")
    assert await claim(transport, group="line") == []
    (again,) = await claim_soon(transport, group="line")
    assert again.id == first.id
    await transport.dead_letter(again, "hopeless")
    assert numbers(await claim_soon(transport, group="line")) == [1]


async def test_order_survives_a_lost_consumer(transport: Transport) -> None:
    await transport.subscribe(TOPIC, "line", ordered=True)
    await transport.send([message(n, key="a") for n in range(3)])
    await claim_soon(transport, group="line", visibility=BRIEFLY)
    for n in range(3):
        (held,) = await claim_soon(transport, group="line", consumer="two")
        assert numbers([held]) == [n]
        await transport.ack([held])


async def test_order_holds_with_many_consumers_and_keys(transport: Transport) -> None:
    await transport.subscribe(TOPIC, "line", ordered=True)
    keys = [f"key {n % 13}" for n in range(260)]
    await transport.send([message(n, key=key) for n, key in enumerate(keys)])
    seen: dict[str, list[int]] = {key: [] for key in keys}
    busy: set[str] = set()

    async def consume(name: str) -> None:
        while sum(map(len, seen.values())) < len(keys):
            held = await claim(transport, 3, group="line", consumer=name)
            for delivery in held:
                assert delivery.key not in busy, "two messages of a key in flight"
                busy.add(delivery.key)
            await asyncio.sleep(0.001)
            for delivery in held:
                busy.discard(delivery.key)
                seen[delivery.key].append(delivery.payload["n"])
            await transport.ack(held)

    async with asyncio.timeout(60):
        await asyncio.gather(*(consume(f"consumer {n}") for n in range(4)))
    assert all(found == sorted(found) for found in seen.values())


async def test_a_waiting_consumer_is_woken(transport: Transport) -> None:
    """By the message and not by a poll: the wait would go on for a minute."""

    async def consume() -> float:
        while not (held := await claim(transport)):
            await transport.wait([TOPIC], LONG)
        await transport.ack(held)
        return time.monotonic()

    delays = []
    for n in range(5):
        waiting = asyncio.create_task(consume())
        await asyncio.sleep(0.3)
        sent_at = time.monotonic()
        await transport.send([message(n)])
        async with asyncio.timeout(SOON):
            delays.append(await waiting - sent_at)
    assert sorted(delays)[2] < 0.25, f"half of the messages took longer: {delays}"


async def test_what_was_sent_before_the_wait_ends_it(transport: Transport) -> None:
    await transport.wait([TOPIC], timedelta(seconds=0.2))
    assert await claim(transport) == []
    await transport.send([message()])
    async with asyncio.timeout(SOON):
        while not await claim(transport):
            await transport.wait([TOPIC], LONG)


async def test_a_wait_in_vain_ends_in_time(transport: Transport) -> None:
    began = time.monotonic()
    await transport.wait([TOPIC], timedelta(seconds=0.2))
    await transport.wait(["other"], timedelta(seconds=0.2))
    assert time.monotonic() - began < SOON


async def test_depth_counts_what_waits(transport: Transport) -> None:
    await transport.subscribe(TOPIC, GROUP_B)
    await transport.send([message(n) for n in range(5)])
    held = await claim_soon(transport, 3)
    await transport.ack(held[:1])
    await transport.retry(held[1], delay=LONG, error="later")
    mine, other = await depth(transport), await depth(transport, GROUP_B)
    assert (mine.waiting, mine.delayed, mine.in_flight) == (2, 1, 1)
    assert (other.waiting, other.delayed, other.in_flight) == (5, 0, 0)
    assert mine.oldest is not None
    assert {(d.topic, d.group) for d in await transport.depth()} >= {(TOPIC, GROUP_A)}


async def test_errors_of_any_kind_of_text_are_kept(transport: Transport) -> None:
    await transport.send([message()])
    (held,) = await claim_soon(transport)
    await transport.retry(held, delay=AT_ONCE, error="nul \0, a torn \udc80, long " + "x" * 9999)
    (held,) = await claim_soon(transport)
    await transport.dead_letter(held, "nul \0, a torn \udc80")


async def test_ids_are_kept_apart_between_groups_and_topics(transport: Transport) -> None:
    await transport.subscribe(TOPIC, GROUP_B)
    same = uuid4()
    await transport.send([Message(topic=TOPIC, payload={"n": 1}, id=same)])
    await transport.ack(await claim_soon(transport))
    (other,) = await claim_soon(transport, group=GROUP_B)
    assert other.id == same
