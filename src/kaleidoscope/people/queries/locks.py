"""The locks on identity."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql

IDENTITY, FOUNDING, REVIEW = "people:identity", "people:founding", "people:review"
LOCK = "SELECT pg_advisory_xact_lock{shared}(hashtextextended('{name}', 0))"


async def lock_identity(session: AsyncSession, *, alone: bool) -> None:
    """Hold identities still: shared by callbacks, alone for whoever moves faces between persons."""
    shared = "" if alone else "_shared"
    await session.execute(sql(LOCK.format(shared=shared, name=IDENTITY)))


async def lock_founding(session: AsyncSession) -> None:
    """Only one transaction at a time founds persons."""
    await session.execute(sql(LOCK.format(shared="", name=FOUNDING)))


async def try_lock_review(session: AsyncSession) -> bool:
    """Be the only one who searches for questions; False: somebody else is at it."""
    taken: bool = (
        await session.execute(
            sql(f"SELECT pg_try_advisory_xact_lock(hashtextextended('{REVIEW}', 0))")
        )
    ).scalar_one()
    return taken
