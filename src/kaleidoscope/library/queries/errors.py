"""What is wrong with assets, by the message that says so."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

ERRORS = text("""
    SELECT error_message AS message, count(*) AS total, max(updated_at) AS latest_at,
           count(*) FILTER (WHERE next_retry_at IS NOT NULL) AS retrying,
           (array_agg(photo_id ORDER BY updated_at DESC))[1:6] AS photo_ids
    FROM media_assets WHERE has_errors
    GROUP BY error_message ORDER BY count(*) DESC, max(updated_at) DESC
    LIMIT :limit
""")

STATE = text("SELECT count(*), max(updated_at) FROM media_assets WHERE has_errors")

WITH_MESSAGES = text("""
    SELECT photo_id FROM media_assets
    WHERE has_errors AND (error_message = ANY(:messages) OR (:unsaid AND error_message IS NULL))
    ORDER BY photo_id
""")


async def by_message(session: AsyncSession, limit: int) -> Sequence[Row[Any]]:
    """Assets with errors by their message, the most frequent first."""
    return (await session.execute(ERRORS, {"limit": limit})).all()


async def state(session: AsyncSession) -> tuple[object, ...]:
    """Something that changes when anything about errors does."""
    return tuple((await session.execute(STATE)).one())


async def with_messages(session: AsyncSession, messages: Collection[str | None]) -> list[int]:
    """The assets whose error is one of these messages."""
    said = {"messages": [m for m in messages if m is not None], "unsaid": None in messages}
    return list((await session.execute(WITH_MESSAGES, said)).scalars())
