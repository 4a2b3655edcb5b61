"""The bus's verbs for other rooms: what died, and how much waits. None commits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.bus import queries
from kaleidoscope.bus.messages import GROUP, HISTORY, DeadLetter, Depth, Message
from kaleidoscope.bus.publish import publish_messages
from kaleidoscope.bus.rules import storable
from kaleidoscope.kernel.errors import Invalid

DLQ = "-dlq"


async def dead_letter(
    session: AsyncSession,
    topic: str,
    key: str,
    payload: Mapping[str, Any],
    cause: str,
    history: Sequence[Mapping[str, Any]] = (),
    *,
    message_id: UUID | None = None,
) -> int:
    """Lay down a message that a room gave up by rules of its own; answers the dead letter's id.

    `history`: [{time, consumer, error}] of the attempts. Revived, it goes to every group. A copy
    with the cause goes out on the topic `<topic>-dlq`, for whoever wants to hear of it.
    """
    copy = {**payload, "cause": storable(cause)}
    await publish_messages(session, [Message(topic=topic + DLQ, key=key, payload=copy)])
    return await queries.add_dead_letter(
        session,
        message_id=message_id or uuid4(),
        topic=topic,
        key=key,
        payload=dict(payload),
        headers={},
        cause=storable(cause),
        history=[dict(entry) for entry in history],
    )


async def list_dead(
    session: AsyncSession,
    *,
    ids: Sequence[int] | None = None,
    topic: str | None = None,
    group: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> list[DeadLetter]:
    """Dead letters, the youngest first; `before` is the last id of the page before."""
    return await queries.dead_letters(
        session, ids=ids, topic=topic, group=group, before=before, limit=limit
    )


async def count_dead(session: AsyncSession) -> dict[tuple[str, str | None], int]:
    """How many dead letters there are by topic and group."""
    return await queries.count_dead_letters(session)


async def revive(
    session: AsyncSession,
    *,
    ids: Sequence[int] | None = None,
    topic: str | None = None,
    group: str | None = None,
) -> list[int]:
    """Send dead letters again, with fresh attempts and their history; answers their ids.

    Each goes to the group that gave it up. Say which: `Invalid` is raised where nothing is chosen.
    """
    if ids is None and topic is None and group is None:
        raise Invalid("nothing says which dead letters to revive", hint="name ids or a topic")
    rows = await queries.take_dead_letters(session, ids=ids, topic=topic, group=group)
    messages = []
    for row in rows:
        addressed = {} if row.consumer_group is None else {GROUP: row.consumer_group}
        headers = {**row.headers, **addressed, HISTORY: row.history}
        messages.append(
            Message(
                topic=row.topic,
                key=row.key,
                payload=row.payload,
                id=row.message_id,
                headers=headers,
            )
        )
    await publish_messages(session, messages)
    return [row.id for row in rows]


async def topic_depths(session: AsyncSession) -> list[Depth]:
    """How much waits in PostgreSQL's queue, by topic and group; idle subscriptions say 0."""
    return await queries.depths(session)


async def outbox_size(session: AsyncSession) -> int:
    """How many published messages the transport does not have yet."""
    return await queries.outbox_size(session)
