"""Published with the transaction or not at all; relayed at least once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from kaleidoscope.bus import service
from kaleidoscope.bus.messages import GROUP, HISTORY, Delivery, Message
from kaleidoscope.bus.publish import publish, publish_messages, relay
from kaleidoscope.bus.transports import TransportError
from kaleidoscope.bus.transports.memory import MemoryTransport
from kaleidoscope.bus.transports.postgres import PostgresTransport
from kaleidoscope.kernel.db import Database

from .conftest import Said


class Killed(BaseException):
    """Stands for kill -9: nothing of ours runs after it."""


class Breaking(MemoryTransport):
    """Sends, and then something happens before the relay hears of it."""

    def __init__(self, happens: BaseException) -> None:
        super().__init__()
        self.happens: BaseException | None = happens

    async def send(self, messages: Sequence[Message]) -> None:
        await super().send(messages)
        if self.happens:
            raise self.happens


async def claim(transport: Any, limit: int = 100) -> list[Delivery]:
    found: list[Delivery] = await transport.claim(
        "said", "ears", limit, consumer="one", visibility=timedelta(seconds=60)
    )
    return found


async def outbox(db: Database) -> int:
    async with db.transaction() as session:
        return await service.outbox_size(session)


async def test_what_is_committed_goes_out_in_order(
    db: Database, transport: PostgresTransport
) -> None:
    await transport.subscribe("said", "ears")
    for n in range(3):
        async with db.transaction() as session:
            await publish(session, Said(n=2 * n, who="a"), Said(n=2 * n + 1))
    assert await relay(db, transport, limit=4) == 4
    assert await relay(db, transport, limit=4) == 2
    assert await relay(db, transport, limit=4) == 0
    got = await claim(transport)
    assert [d.payload for d in got[:2]] == [{"n": 0, "who": "a"}, {"n": 1, "who": ""}]
    assert [d.payload["n"] for d in got] == list(range(6))
    assert [d.key for d in got[:2]] == ["a", ""]


async def test_a_rollback_publishes_nothing(db: Database, transport: PostgresTransport) -> None:
    await transport.subscribe("said", "ears")
    with pytest.raises(ZeroDivisionError):
        async with db.transaction() as session:
            await publish(session, Said())
            raise ZeroDivisionError
    async with db.transaction() as session:
        await publish(session)
    assert await relay(db, transport) == 0


async def test_a_relay_killed_between_send_and_delete_sends_again(db: Database) -> None:
    transport = Breaking(Killed())
    await transport.subscribe("said", "ears")
    async with db.transaction() as session:
        await publish(session, Said(n=1))
    with pytest.raises(Killed):
        await relay(db, transport)
    (first,) = await claim(transport)
    await transport.ack([first])
    transport.happens = None
    assert await relay(db, transport) == 1
    (again,) = await claim(transport)
    assert again.id == first.id, "by its id a receiver knows it"


async def test_what_is_sent_again_while_it_waits_is_dropped(
    db: Database, transport: PostgresTransport
) -> None:
    await transport.subscribe("said", "ears")
    message = Message(topic="said", payload={"n": 1})
    await transport.send([message, message])
    async with db.transaction() as session:
        await publish_messages(session, [message])
    assert await relay(db, transport) == 1
    assert len(await claim(transport)) == 1
    await transport.send([message])
    assert await claim(transport) == []


async def test_while_the_transport_is_away_the_messages_stay(db: Database) -> None:
    transport = Breaking(TransportError("away"))
    async with db.transaction() as session:
        await publish(session, Said())
    for _ in range(2):
        with pytest.raises(TransportError):
            await relay(db, transport)
    assert await outbox(db) == 1


async def test_one_relay_works_at_a_time(db: Database) -> None:
    class Slow(MemoryTransport):
        async def send(self, messages: Sequence[Message]) -> None:
            second.append(await relay(db, MemoryTransport()))
            await super().send(messages)

    second: list[int] = []
    async with db.transaction() as session:
        await publish(session, Said())
    assert await relay(db, Slow()) == 1
    assert second == [0]
    assert await outbox(db) == 0


async def test_addresses_and_history_travel_as_headers(
    db: Database, transport: PostgresTransport
) -> None:
    await transport.subscribe("said", "ears")
    await transport.subscribe("said", "others")
    headers = {GROUP: "ears", HISTORY: [{"error": "once"}], "trace": "x"}
    async with db.transaction() as session:
        await publish_messages(session, [Message(topic="said", payload={}, headers=headers)])
    await relay(db, transport)
    (delivery,) = await claim(transport)
    assert delivery.headers == {"trace": "x"}
    async with db.transaction() as session:
        kept = await session.execute(text("SELECT history FROM bus_messages"))
    assert kept.scalars().all() == [[{"error": "once"}]]
