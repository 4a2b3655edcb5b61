"""What the ledger holds and what is wrong in it, for the rooms that tell of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.library.queries import errors
from kaleidoscope.library.queries import figures as queries

MESSAGES = 20_000  # different ones that are looked at, the most frequent first


async def figures(session: AsyncSession) -> Row[Any]:
    """The counters: assets in all and by kind, bytes, flags, and the last hour's."""
    return await queries.figures(session)


async def latest(session: AsyncSession, limit: int) -> Sequence[Row[Any]]:
    """The assets that entered the ledger last, the youngest first."""
    return await queries.latest(session, limit)


async def errors_by_message(session: AsyncSession) -> Sequence[Row[Any]]:
    """Assets with errors by their message: count, how many are retried, the latest ids."""
    return await errors.by_message(session, MESSAGES)


async def errors_state(session: AsyncSession) -> tuple[object, ...]:
    """Something that changes when anything about errors does; cheap to ask for."""
    return await errors.state(session)


async def photos_with_errors(session: AsyncSession, messages: Collection[str | None]) -> list[int]:
    """The assets whose error is one of these messages."""
    return await errors.with_messages(session, messages)
