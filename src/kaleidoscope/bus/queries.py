"""SQL of the outbox and of the dead letters, in the caller's transaction.

The queue's own SQL is in `transports.postgres`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.bus.messages import DeadLetter, Depth, Message
from kaleidoscope.bus.models import DeadLetterRow, OutboxRow, QueuedMessage, Subscription
from kaleidoscope.kernel.db import sql

OUTBOX_CHANNEL = "kaleidoscope_outbox"
RELAY_LOCK = "bus:relay"


async def add_to_outbox(session: AsyncSession, messages: Sequence[Message]) -> None:
    """Append messages and, on commit, wake the relays."""
    await session.execute(
        sql(
            "WITH added AS (INSERT INTO bus_outbox (message_id, topic, key, payload, headers)"
            "  SELECT id, topic, key, payload, headers FROM unnest(CAST(:ids AS uuid[]),"
            "   CAST(:topics AS text[]), CAST(:keys AS text[]), CAST(:payloads AS jsonb[]),"
            "   CAST(:headers AS jsonb[])) WITH ORDINALITY"
            "   AS m (id, topic, key, payload, headers, place) ORDER BY place)"
            " SELECT pg_notify(:channel, '')"
        ),
        {
            "ids": [m.id for m in messages],
            "topics": [m.topic for m in messages],
            "keys": [m.key for m in messages],
            "payloads": [json.dumps(m.payload) for m in messages],
            "headers": [json.dumps(dict(m.headers)) for m in messages],
            "channel": OUTBOX_CHANNEL,
        },
    )


async def begin_relay(session: AsyncSession) -> bool:
    """Whether this transaction is the one that relays; until it ends no other is."""
    lock = sql("SELECT pg_try_advisory_xact_lock(hashtextextended(:lock, 0))")
    return bool((await session.execute(lock, {"lock": RELAY_LOCK})).scalar_one())


async def take_from_outbox(session: AsyncSession, limit: int) -> list[Message]:
    """Take out the messages that were published first, in their order."""
    rows = await session.execute(
        sql(
            "DELETE FROM bus_outbox WHERE seq IN"
            " (SELECT seq FROM bus_outbox ORDER BY seq LIMIT :limit)"
            " RETURNING seq, message_id, topic, key, payload, headers"
        ),
        {"limit": limit},
    )
    return [
        Message(
            topic=row.topic,
            key=row.key,
            payload=row.payload,
            id=row.message_id,
            headers=row.headers,
        )
        for row in sorted(rows, key=lambda row: row.seq)
    ]


async def outbox_size(session: AsyncSession) -> int:
    """How many published messages the transport does not have yet."""
    return (await session.execute(select(func.count()).select_from(OutboxRow))).scalar_one()


async def depths(session: AsyncSession, topic: str | None = None) -> list[Depth]:
    """How much waits in PostgreSQL's queue, by topic and group."""
    m, s, now = QueuedMessage, Subscription, func.now()
    free = m.claimed_until.is_(None)
    query = (
        select(
            s.topic,
            s.consumer_group,
            func.count().filter((free & (m.available_at <= now)) | (m.claimed_until <= now)),
            func.count().filter(free & (m.available_at > now)),
            func.count().filter(m.claimed_until > now),
            func.min(m.enqueued_at),
        )
        .outerjoin_from(s, m, (m.topic == s.topic) & (m.consumer_group == s.consumer_group))
        .group_by(s.topic, s.consumer_group)
        .order_by(s.topic, s.consumer_group)
    )
    if topic is not None:
        query = query.where(s.topic == topic)
    return [
        Depth(
            topic=name, group=group, waiting=waiting, delayed=delayed, in_flight=claimed, oldest=at
        )
        for name, group, waiting, delayed, claimed, at in await session.execute(query)
    ]


def _chosen(
    ids: Sequence[int] | None, topic: str | None, group: str | None
) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if ids is not None:
        conditions.append(DeadLetterRow.id.in_(ids))
    if topic is not None:
        conditions.append(DeadLetterRow.topic == topic)
    if group is not None:
        conditions.append(DeadLetterRow.consumer_group == group)
    return conditions


async def dead_letters(
    session: AsyncSession,
    *,
    ids: Sequence[int] | None,
    topic: str | None,
    group: str | None,
    before: int | None,
    limit: int,
) -> list[DeadLetter]:
    """Dead letters, the youngest first."""
    query = select(DeadLetterRow).where(*_chosen(ids, topic, group))
    if before is not None:
        query = query.where(DeadLetterRow.id < before)
    rows = await session.scalars(query.order_by(DeadLetterRow.id.desc()).limit(limit))
    return [
        DeadLetter(
            id=row.id,
            message_id=row.message_id,
            topic=row.topic,
            group=row.consumer_group,
            key=row.key,
            payload=row.payload,
            cause=row.cause,
            history=row.history,
            enqueued_at=row.enqueued_at,
            died_at=row.died_at,
        )
        for row in rows
    ]


async def count_dead_letters(session: AsyncSession) -> dict[tuple[str, str | None], int]:
    """How many dead letters there are by topic and group."""
    row = DeadLetterRow
    query = select(row.topic, row.consumer_group, func.count()).group_by(
        row.topic, row.consumer_group
    )
    return {(topic, group): n for topic, group, n in await session.execute(query)}


async def add_dead_letter(session: AsyncSession, **columns: Any) -> int:
    """One dead letter; answers its number."""
    query = insert(DeadLetterRow).values(columns).returning(DeadLetterRow.id)
    return (await session.execute(query)).scalar_one()


async def take_dead_letters(
    session: AsyncSession, *, ids: Sequence[int] | None, topic: str | None, group: str | None
) -> list[DeadLetterRow]:
    """Remove dead letters and answer them, the oldest first."""
    query = delete(DeadLetterRow).where(*_chosen(ids, topic, group)).returning(DeadLetterRow)
    rows = await session.scalars(query, execution_options={"synchronize_session": False})
    return sorted(rows, key=lambda row: row.id)
