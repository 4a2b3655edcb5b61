"""Publishing: an event goes out when, and only when, its transaction commits."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.bus import queries
from kaleidoscope.bus.messages import Event, Message, message_of
from kaleidoscope.bus.transports import Transport
from kaleidoscope.kernel.db import Database


async def publish(session: AsyncSession, *events: Event) -> None:
    """Publish events with the caller's transaction: if it rolls back, nothing was said."""
    await publish_messages(session, [message_of(event) for event in events])


async def publish_messages(session: AsyncSession, messages: Sequence[Message]) -> None:
    """The same for messages whose id or headers the caller has chosen."""
    if messages:
        await queries.add_to_outbox(session, messages)


async def relay(db: Database, transport: Transport, limit: int = 500) -> int:
    """Hand the oldest published messages to the transport. Answers how many; fewer than `limit`:
    there were no more.

    Killed before what it has taken out is committed, it sends them again with the same ids. One
    relay works at a time, so that messages keep their order; a second one answers 0.
    Raises `TransportError` while the transport is away; the messages stay.
    """
    async with db.transaction() as session:
        if not await queries.begin_relay(session):
            return 0
        messages = await queries.take_from_outbox(session, limit)
        if messages:
            await transport.send(messages)
        return len(messages)
