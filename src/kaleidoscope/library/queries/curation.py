"""What a person has looked through."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql


async def curate(session: AsyncSession, photo_ids: Sequence[int], curated: bool) -> list[int]:
    """Set or clear the flag and its time together; answers those whose flag was another."""
    rows = await session.execute(
        sql(
            "WITH held AS (SELECT photo_id FROM media_assets"
            "  WHERE photo_id = ANY(:ids) AND is_curated <> :curated"
            "  ORDER BY photo_id FOR NO KEY UPDATE)"
            " UPDATE media_assets m SET is_curated = :curated,"
            " curated_at = CASE WHEN :curated THEN now() END"
            " FROM held WHERE m.photo_id = held.photo_id RETURNING m.photo_id"
        ),
        {"ids": list(photo_ids), "curated": curated},
    )
    return list(rows.scalars())
