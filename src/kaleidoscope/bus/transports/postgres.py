"""The queue in PostgreSQL: rows claimed with SKIP LOCKED, consumers woken by NOTIFY.

A row is free (`claimed_until` is null), in the hands of a consumer (`claimed_until` lies ahead), or
lost by one (`claimed_until` is past): then the next claim takes it first. Every method is one
statement in a transaction of its own, so that a crash leaves nothing half done.

Order, where a group asks for it: each row carries its `slot`, a hash of its key. A claim walks
from a random slot on and looks only at the first row of each, so that its cost grows neither with
the messages that wait behind the first ones nor with the number of keys, and no key starves.
Messages of one key that two transactions send at the same moment have no order.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb
from sqlalchemy.exc import DBAPIError

from kaleidoscope.bus import queries
from kaleidoscope.bus.listener import Listener, connection_string
from kaleidoscope.bus.messages import Delivery, Depth, Message
from kaleidoscope.bus.rules import is_outage, storable
from kaleidoscope.bus.transports import TransportError
from kaleidoscope.kernel.db import Database

CHANNEL = "kaleidoscope_messages"
LOWEST_SLOT, HIGHEST_SLOT = -(2**63), 2**63 - 1

Row = tuple[Any, ...]

SUBSCRIBE = """
WITH subscribed AS (
    INSERT INTO bus_subscriptions (topic, consumer_group, ordered)
    VALUES (%(topic)s, %(group)s, %(ordered)s)
    ON CONFLICT (topic, consumer_group) DO UPDATE SET ordered = excluded.ordered
    WHERE bus_subscriptions.ordered <> excluded.ordered
    RETURNING ordered
)
UPDATE bus_messages
SET slot = CASE WHEN subscribed.ordered THEN hashtextextended(key, 0) END
FROM subscribed
WHERE topic = %(topic)s AND consumer_group = %(group)s
"""

SEND = """
WITH sent AS (
    INSERT INTO bus_messages
        (message_id, topic, consumer_group, key, slot, payload, headers, history)
    SELECT m.id, m.topic, s.consumer_group, m.key,
           CASE WHEN s.ordered THEN hashtextextended(m.key, 0) END,
           m.payload, m.headers - '{group,history}'::text[],
           coalesce(m.headers -> 'history', '[]')
    FROM unnest(%(ids)s::uuid[], %(topics)s::text[], %(keys)s::text[],
                %(payloads)s::jsonb[], %(headers)s::jsonb[])
         WITH ORDINALITY AS m(id, topic, key, payload, headers, place)
    JOIN bus_subscriptions s ON s.topic = m.topic
        AND s.consumer_group = coalesce(m.headers ->> 'group', s.consumer_group)
    ORDER BY m.place
    ON CONFLICT (message_id, consumer_group) DO NOTHING
    RETURNING topic
)
SELECT pg_notify(%(channel)s, topic) FROM (SELECT DISTINCT topic FROM sent) AS topics
"""

# The rows of given deliveries, as long as nobody else has claimed them since.
MINE = """
FROM unnest(%(ids)s::uuid[], %(groups)s::text[], %(claims)s::int[]) AS mine(id, grp, number)
WHERE m.message_id = mine.id AND m.consumer_group = mine.grp AND m.claim = mine.number
    AND m.claimed_until IS NOT NULL
"""

ACK = f"DELETE FROM bus_messages m USING {MINE.strip().removeprefix('FROM')}"

# Rows are updated by their place in the table (ctid): they are locked, so that it is theirs still,
# and no plan can be cheaper.
CLAIM = """
UPDATE bus_messages
SET claim = claim + 1, claimed_by = %(consumer)s, claimed_until = now() + %(visibility)s,
    lost = lost + (claimed_until IS NOT NULL)::int,
    history = CASE WHEN claimed_until IS NULL THEN history ELSE history || jsonb_build_object(
        'time', now(), 'consumer', claimed_by, 'error', 'the consumer fell silent') END
WHERE ctid = ANY (ARRAY(SELECT ctid FROM chosen))
RETURNING seq, message_id, key, payload, headers, failures, lost, claim, enqueued_at
"""

CLAIM_ANY = f"""
WITH acknowledged AS ({ACK}), lost AS (
    SELECT ctid FROM bus_messages
    WHERE topic = %(topic)s AND consumer_group = %(group)s AND claimed_until <= now()
    ORDER BY claimed_until LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), waiting AS (
    SELECT ctid FROM bus_messages
    WHERE topic = %(topic)s AND consumer_group = %(group)s
        AND claimed_until IS NULL AND slot IS NULL AND available_at <= now()
    ORDER BY available_at, seq LIMIT %(limit)s - (SELECT count(*) FROM lost)
    FOR UPDATE SKIP LOCKED
), chosen AS (SELECT ctid FROM lost UNION ALL SELECT ctid FROM waiting)
{CLAIM}
"""

CLAIM_ORDERED = f"""
WITH RECURSIVE slots (slot) AS (
    SELECT min(slot) FROM bus_messages
    WHERE topic = %(topic)s AND consumer_group = %(group)s AND slot >= %(low)s
    UNION ALL
    SELECT (SELECT min(m.slot) FROM bus_messages m
            WHERE m.topic = %(topic)s AND m.consumer_group = %(group)s AND m.slot > slots.slot)
    FROM slots WHERE slots.slot <= %(high)s
), busy AS MATERIALIZED (
    SELECT slot FROM bus_messages
    WHERE topic = %(topic)s AND consumer_group = %(group)s AND claimed_until > now()
        AND slot IS NOT NULL
), first AS (
    SELECT head.ctid FROM slots CROSS JOIN LATERAL (
        SELECT m.ctid, m.available_at FROM bus_messages m
        WHERE m.topic = %(topic)s AND m.consumer_group = %(group)s AND m.slot = slots.slot
        ORDER BY m.seq LIMIT 1
    ) head
    WHERE slots.slot <= %(high)s AND head.available_at <= now()
        AND slots.slot NOT IN (SELECT slot FROM busy)
    LIMIT %(limit)s
), chosen AS (
    SELECT ctid FROM bus_messages
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM first))
        AND available_at <= now() AND (claimed_until IS NULL OR claimed_until <= now())
    FOR UPDATE SKIP LOCKED
)
{CLAIM}
"""

EXTEND = f"UPDATE bus_messages m SET claimed_until = now() + %(visibility)s {MINE}"

RETRY = f"""
WITH returned AS (
    UPDATE bus_messages m
    SET claimed_until = NULL, available_at = now() + %(delay)s,
        failures = failures + %(count)s::int,
        history = CASE WHEN %(count)s THEN history || jsonb_build_object(
            'time', now(), 'consumer', claimed_by, 'error', %(error)s::text) ELSE history END
    {MINE}
    RETURNING m.topic
)
SELECT pg_notify(%(channel)s, topic) FROM returned WHERE %(delay)s = interval '0'
"""

DEAD_LETTER = f"""
WITH gone AS (
    DELETE FROM bus_messages m USING {MINE.strip().removeprefix("FROM")} RETURNING m.*
)
INSERT INTO dead_letters
    (message_id, topic, consumer_group, key, payload, headers, cause, history, enqueued_at)
SELECT message_id, topic, consumer_group, key, payload, headers, %(cause)s,
       history || jsonb_build_object(
           'time', now(), 'consumer', claimed_by, 'error', %(cause)s::text),
       enqueued_at
FROM gone
"""

RELEASE = """
WITH released AS (
    UPDATE bus_messages
    SET claimed_until = NULL, available_at = enqueued_at, lost = lost + 1,
        history = history || jsonb_build_object(
            'time', now(), 'consumer', claimed_by, 'error', 'the consumer was restarted')
    WHERE claimed_by = %(consumer)s AND claimed_until IS NOT NULL
    RETURNING topic
)
SELECT pg_notify(%(channel)s, topic) FROM (SELECT DISTINCT topic FROM released) AS topics
"""


class PostgresTransport:
    """The `Transport` on the tables of the bus, in the database of everything else."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._connection = _Connection(db.url)
        self._listener = Listener(db.url, CHANNEL)
        self._ordered: dict[tuple[str, str], bool] = {}

    async def subscribe(self, topic: str, group: str, *, ordered: bool = False) -> None:
        await self._run(SUBSCRIBE, topic=topic, group=group, ordered=ordered)
        self._ordered[topic, group] = ordered

    async def send(self, messages: Sequence[Message]) -> None:
        if not messages:
            return
        await self._run(
            SEND,
            channel=CHANNEL,
            ids=[m.id for m in messages],
            topics=[m.topic for m in messages],
            keys=[m.key for m in messages],
            payloads=[Jsonb(m.payload) for m in messages],
            headers=[Jsonb(dict(m.headers)) for m in messages],
        )

    async def claim(
        self,
        topic: str,
        group: str,
        limit: int,
        *,
        consumer: str,
        visibility: timedelta,
        done: Sequence[Delivery] = (),
    ) -> list[Delivery]:
        terms = {"topic": topic, "group": group, "consumer": consumer, "visibility": visibility}
        if await self._is_ordered(topic, group):
            await self.ack(done)  # first: it is what sets the next ones of their keys free
            rows = await self._claim_ordered(terms, limit)
        else:
            rows = await self._run(CLAIM_ANY, **terms, limit=limit, **_mine(done))
        return [_delivery(topic, group, row) for row in sorted(rows, key=lambda row: row[0])]

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        if deliveries:
            await self._run(ACK, **_mine(deliveries))

    async def retry(
        self, delivery: Delivery, *, delay: timedelta, error: str, count: bool = True
    ) -> None:
        words = storable(error)
        terms = {"delay": delay, "error": words, "count": count, "channel": CHANNEL}
        await self._run(RETRY, **terms, **_mine([delivery]))

    async def dead_letter(self, delivery: Delivery, cause: str) -> None:
        await self._run(DEAD_LETTER, cause=storable(cause), **_mine([delivery]))

    async def extend(self, deliveries: Sequence[Delivery], visibility: timedelta) -> None:
        if deliveries:
            await self._run(EXTEND, visibility=visibility, **_mine(deliveries))

    async def release(self, consumer: str) -> None:
        await self._run(RELEASE, consumer=consumer, channel=CHANNEL)

    async def wait(self, topics: Collection[str], within: timedelta) -> Collection[str]:
        return await self._listener.wait(topics, within)

    async def depth(self, topic: str | None = None) -> list[Depth]:
        with _explained():
            async with self._db.transaction() as session:
                return await queries.depths(session, topic)

    async def close(self) -> None:
        await self._listener.close()
        await self._connection.close()

    async def _claim_ordered(self, terms: dict[str, Any], limit: int) -> list[Row]:
        start = random.randint(LOWEST_SLOT + 1, HIGHEST_SLOT)
        rows = await self._run(CLAIM_ORDERED, **terms, limit=limit, low=start, high=HIGHEST_SLOT)
        if len(rows) < limit:
            before = {"low": LOWEST_SLOT, "high": start - 1, "limit": limit - len(rows)}
            rows += await self._run(CLAIM_ORDERED, **terms, **before)
        return rows

    async def _is_ordered(self, topic: str, group: str) -> bool:
        """What the group asked for; that of a group of another process is read once."""
        if (topic, group) not in self._ordered:
            query = "SELECT ordered FROM bus_subscriptions"
            query += " WHERE topic = %(topic)s AND consumer_group = %(group)s"
            rows = await self._run(query, topic=topic, group=group)
            if not rows:
                return False
            self._ordered[topic, group] = rows[0][0]
        return self._ordered[topic, group]

    async def _run(self, query: str, **values: Any) -> list[Row]:
        with _explained():
            return await self._connection.run(query, values)


class _Connection:
    """One connection for all statements, opened when needed and again when it broke.

    Its plans are made once, and must be those for a long queue however short it is then: along
    the indexes.
    """

    PLANNING = """
        SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off;
        SET plan_cache_mode = force_generic_plan
    """

    def __init__(self, url: str) -> None:
        self._target = connection_string(url)
        self._connection: psycopg.AsyncConnection[Row] | None = None
        self._one_at_a_time = asyncio.Lock()

    async def run(self, query: str, values: dict[str, Any]) -> list[Row]:
        async with self._one_at_a_time:
            if self._connection is None or self._connection.closed:
                self._connection = await self._open()
            cursor = await self._connection.execute(query, values)
            return await cursor.fetchall() if cursor.description else []

    async def _open(self) -> psycopg.AsyncConnection[Row]:
        connection = await psycopg.AsyncConnection.connect(self._target, autocommit=True)
        await connection.execute(self.PLANNING)
        return connection

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()


@contextmanager
def _explained() -> Iterator[None]:
    """Tell a database that is away from one that refuses."""
    try:
        yield
    except (psycopg.Error, DBAPIError, OSError) as error:
        if isinstance(error, OSError) or is_outage(error):
            raise TransportError(f"cannot reach the database: {error}".strip()) from error
        raise


def _mine(deliveries: Sequence[Delivery]) -> dict[str, Any]:
    ids: list[UUID] = [d.id for d in deliveries]
    return {
        "ids": ids,
        "groups": [d.group for d in deliveries],
        "claims": [d.receipt for d in deliveries],
    }


def _delivery(topic: str, group: str, row: Row) -> Delivery:
    _, id, key, payload, headers, failures, lost, claim, enqueued_at = row
    return Delivery(
        topic=topic,
        group=group,
        key=key,
        payload=payload,
        id=id,
        headers=headers,
        attempt=failures + 1,
        lost=lost,
        receipt=claim,
        enqueued_at=enqueued_at,
    )
