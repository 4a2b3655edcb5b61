"""What is wrong with assets, by the message that says so."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql

PROBLEMS = sql("""
    SELECT what, error AS message, count(*) AS total, max(failed_at) AS latest_at,
           count(*) FILTER (WHERE retry_at IS NOT NULL) AS retrying,
           (array_agg(photo_id ORDER BY failed_at DESC))[1:6] AS photo_ids
    FROM asset_problems
    GROUP BY what, error ORDER BY count(*) DESC, max(failed_at) DESC
    LIMIT :limit
""")

STATE = sql("SELECT count(*), max(failed_at), count(retry_at), max(retry_at) FROM asset_problems")

WITH_MESSAGES = sql("""
    SELECT photo_id FROM asset_problems WHERE what = :what AND error = ANY(:messages)
    ORDER BY photo_id
""")

RETRY_NOW = sql("""
    UPDATE asset_problems SET retry_at = now() WHERE what = :what AND photo_id = ANY(:ids)
""")


async def by_message(session: AsyncSession, limit: int) -> Sequence[Row[Any]]:
    """Open problems by what failed and its message, the most frequent first."""
    return (await session.execute(PROBLEMS, {"limit": limit})).all()


async def state(session: AsyncSession) -> tuple[object, ...]:
    """Something that changes when anything about problems does."""
    return tuple((await session.execute(STATE)).one())


async def with_messages(session: AsyncSession, what: str, messages: Collection[str]) -> list[int]:
    """The assets of which that failed with one of these messages."""
    said = {"what": what, "messages": list(messages)}
    return list((await session.execute(WITH_MESSAGES, said)).scalars())


async def retry_now(session: AsyncSession, what: str, photo_ids: Collection[int]) -> None:
    """Let the pass take these up again at its next round."""
    await session.execute(RETRY_NOW, {"what": what, "ids": list(photo_ids)})
