"""What the ledger holds and what is wrong in it, for the rooms that tell of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.library.queries import errors, places, scrubs
from kaleidoscope.library.queries import figures as queries
from kaleidoscope.library.service import attempts

MESSAGES = 20_000  # different ones that are looked at, the most frequent first


async def figures(session: AsyncSession) -> Row[Any]:
    """The counters: assets in all and by kind, bytes, flags, and the last hour's."""
    return await queries.figures(session)


async def latest(session: AsyncSession, limit: int) -> Sequence[Row[Any]]:
    """The assets that entered the ledger last, the youngest first."""
    return await queries.latest(session, limit)


async def errors_by_message(session: AsyncSession) -> Sequence[Row[Any]]:
    """What is wrong with assets by `what` and message: count, how many retried, latest ids."""
    return await errors.by_message(session, MESSAGES)


async def errors_state(session: AsyncSession) -> tuple[object, ...]:
    """Something that changes when anything about errors does; cheap to ask for."""
    return await errors.state(session)


async def photos_with_errors(
    session: AsyncSession, what: str, messages: Collection[str]
) -> list[int]:
    """The assets of which that failed with one of these messages."""
    return await errors.with_messages(session, what, messages)


async def try_again(session: AsyncSession, what: str, photo_ids: Sequence[int]) -> int:
    """Try again what failed of these assets, by a person's word; answers how many.

    Recognition at once and with all its retries, other passes at their next round: what is damaged
    is read through again, what is missing is looked for.
    """
    if what == "recognised":
        await attempts.reprocess(session, photo_ids)
        return len(photo_ids)
    await errors.retry_now(session, what, photo_ids)
    if what == "scrubbed":
        await scrubs.read_soon(session, photo_ids)
    elif what == "missing":
        await places.look_soon(session, photo_ids)
    return len(photo_ids)
