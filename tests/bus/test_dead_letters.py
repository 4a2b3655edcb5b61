"""Dead letters: listed, and revived only by somebody's word."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kaleidoscope.bus import service
from kaleidoscope.bus.messages import DeadLetter, Delivery, Message
from kaleidoscope.bus.publish import relay
from kaleidoscope.bus.transports.postgres import PostgresTransport
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import Invalid

LONG = timedelta(seconds=60)


async def claim(transport: PostgresTransport, group: str = "ears") -> list[Delivery]:
    return await transport.claim("said", group, 10, consumer="one", visibility=LONG)


async def let_die(transport: PostgresTransport, *ns: int) -> None:
    await transport.subscribe("said", "ears")
    await transport.subscribe("said", "others")
    await transport.send([Message(topic="said", key="k", payload={"n": n}) for n in ns])
    for delivery in await claim(transport):
        await transport.retry(delivery, delay=timedelta(0), error="stumbled")
    for delivery in await claim(transport):
        await transport.dead_letter(delivery, "fell")
    await transport.ack(await claim(transport, "others"))


async def listed(db: Database, **terms: object) -> list[DeadLetter]:
    async with db.transaction() as session:
        return await service.list_dead(session, **terms)  # type: ignore[arg-type]


async def test_dead_letters_are_listed_youngest_first_in_pages(
    db: Database, transport: PostgresTransport
) -> None:
    await let_die(transport, 1, 2, 3)
    first = await listed(db, limit=2)
    rest = await listed(db, before=first[-1].id)
    assert [letter.payload["n"] for letter in first + rest] == [3, 2, 1]
    assert [letter.id for letter in await listed(db, ids=[rest[0].id])] == [rest[0].id]
    assert await listed(db, topic="other") == []
    assert await listed(db, group="others") == []
    async with db.transaction() as session:
        assert await service.count_dead(session) == {("said", "ears"): 3}


async def test_a_revived_one_comes_back_to_its_group_with_its_history(
    db: Database, transport: PostgresTransport
) -> None:
    await let_die(transport, 1, 2)
    chosen = (await listed(db))[1]
    async with db.transaction() as session:
        assert await service.revive(session, ids=[chosen.id, 77]) == [chosen.id]
    await relay(db, transport)
    assert await claim(transport, "others") == []
    (back,) = await claim(transport)
    assert (back.id, back.payload, back.key) == (chosen.message_id, chosen.payload, "k")
    assert (back.attempt, back.headers) == (1, {})
    await transport.dead_letter(back, "fell again")
    letter = (await listed(db))[0]
    assert [entry["error"] for entry in letter.history] == ["stumbled", "fell", "fell again"]
    assert len(await listed(db)) == 2


async def test_nothing_is_revived_without_a_word(
    db: Database, transport: PostgresTransport
) -> None:
    await let_die(transport, 1)
    async with db.transaction() as session:
        with pytest.raises(Invalid):
            await service.revive(session)
        assert await service.revive(session, ids=[]) == []
        assert await service.revive(session, topic="other") == []
        assert len(await service.revive(session, topic="said")) == 1


async def test_a_room_may_give_up_a_message_by_its_own_rules(
    db: Database, transport: PostgresTransport
) -> None:
    await transport.subscribe("said", "ears")
    await transport.subscribe("said", "others")
    history = [{"time": "2026-01-31T12:00:00+00:00", "consumer": "w", "error": "timeout"}]
    async with db.transaction() as session:
        number = await service.dead_letter(
            session, "said", "k", {"n": 1}, "spent \0 at last", history
        )
    (letter,) = await listed(db)
    assert (letter.id, letter.group, letter.history) == (number, None, history)
    async with db.transaction() as session:
        await service.revive(session, ids=[number])
    await relay(db, transport)
    assert len(await claim(transport)) == len(await claim(transport, "others")) == 1


async def test_what_a_room_gives_up_is_told_on_the_topic_for_it(
    db: Database, transport: PostgresTransport
) -> None:
    await transport.subscribe("said-dlq", "repairs")
    async with db.transaction() as session:
        await service.dead_letter(session, "said", "k", {"n": 1}, "fell")
    await relay(db, transport)
    (told,) = await transport.claim("said-dlq", "repairs", 10, consumer="one", visibility=LONG)
    assert told.payload == {"n": 1, "cause": "fell"}
