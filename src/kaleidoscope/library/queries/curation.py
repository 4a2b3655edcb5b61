"""What a person has looked through."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession


async def curate(session: AsyncSession, photo_ids: Sequence[int], curated: bool) -> list[int]:
    """Set or clear the flag and its time together; answers those whose flag was another."""
    rows = await session.execute(
        text(
            "UPDATE media_assets SET is_curated = :curated,"
            " curated_at = CASE WHEN :curated THEN now() END"
            " WHERE photo_id = ANY(:ids) AND is_curated <> :curated RETURNING photo_id"
        ),
        {"ids": list(photo_ids), "curated": curated},
    )
    return list(rows.scalars())
