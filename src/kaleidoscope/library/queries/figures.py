"""How much the ledger holds, and what came last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql

FIGURES = sql("""
    SELECT count(*) AS total,
           count(*) FILTER (WHERE media_type = 'photo') AS photos,
           count(*) FILTER (WHERE media_type = 'video') AS videos,
           coalesce(sum(size_bytes), 0)::bigint AS bytes,
           count(*) FILTER (WHERE is_backed_up) AS backed_up,
           count(*) FILTER (WHERE is_thumbnailed) AS thumbnailed,
           count(*) FILTER (WHERE missing_since IS NOT NULL) AS missing,
           count(*) FILTER (WHERE has_errors) AS with_errors,
           count(*) FILTER (WHERE status IN ('READY', 'PROCESSING') AND duplicate_of IS NULL)
               AS waiting,
           (SELECT count(*) FROM media_assets
            WHERE ingested_at > now() - interval '1 hour') AS filed_last_hour,
           (SELECT count(*) FROM processing_attempts WHERE outcome = 'PROCESSED'
                AND finished_at > now() - interval '1 hour') AS processed_last_hour
    FROM media_assets
""")

LATEST = sql("""
    SELECT photo_id, filename, file_hash, media_type::text, width, height, ingested_at, captured_at,
           is_thumbnailed, has_errors
    FROM media_assets ORDER BY ingested_at DESC, photo_id DESC LIMIT :limit
""")


async def figures(session: AsyncSession) -> Row[Any]:
    """The counters."""
    return (await session.execute(FIGURES)).one()


async def latest(session: AsyncSession, limit: int) -> Sequence[Row[Any]]:
    """The assets that entered the ledger last, the youngest first (seed 002)."""
    return (await session.execute(LATEST, {"limit": limit})).all()
