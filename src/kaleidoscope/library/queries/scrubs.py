"""Originals that are read through for rot."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql
from kaleidoscope.library.queries.places import OUTSIDE_FROZEN


@dataclass(frozen=True)
class Content:
    """An original as it should be. `is_news`: that it is whole was never told, or not since it
    was damaged."""

    photo_id: int
    path: str
    size: int
    modified_at: datetime | None
    file_hash: str
    is_news: bool = True


COLUMNS = "m.photo_id, m.final_path AS path, m.size_bytes AS size, m.modified_at, m.file_hash"


async def due(session: AsyncSession, age: timedelta, limit: int) -> list[Content]:
    """Originals not read through within `age`: first those that never were, then the oldest."""
    found: list[Content] = []
    for condition, order in (
        ("m.scrubbed_at IS NULL", "m.photo_id"),
        ("m.scrubbed_at < now() - CAST(:age AS interval)", "m.scrubbed_at"),
    ):
        rows = await session.execute(
            sql(
                f"SELECT {COLUMNS}, m.scrubbed_at IS NULL OR EXISTS (SELECT FROM asset_problems p"
                "  WHERE p.photo_id = m.photo_id AND p.what = 'scrubbed') AS is_news"
                " FROM media_assets m WHERE m.file_hash IS NOT NULL"
                f" AND m.missing_since IS NULL AND {condition} AND {OUTSIDE_FROZEN}"
                f" ORDER BY {order} LIMIT :limit"
            ),
            {"age": age, "limit": limit - len(found)},
        )
        found += [Content(**row._mapping) for row in rows]
        if len(found) >= limit:
            break
    return found


async def note_read(session: AsyncSession, contents: Sequence[Content]) -> None:
    """These were read through now, whatever came of it; one that lies elsewhere now was not."""
    await session.execute(
        sql(
            "UPDATE media_assets m SET scrubbed_at = now()"
            " FROM unnest(CAST(:ids AS bigint[]), CAST(:paths AS text[])) AS g (id, path)"
            " WHERE m.photo_id = g.id AND m.final_path = g.path"
        ),
        {"ids": [c.photo_id for c in contents], "paths": [c.path for c in contents]},
    )


async def read_soon(session: AsyncSession, photo_ids: Collection[int]) -> None:
    """These are read through in the next round."""
    await session.execute(
        sql("UPDATE media_assets SET scrubbed_at = NULL WHERE photo_id = ANY(:ids)"),
        {"ids": list(photo_ids)},
    )


async def damaged(session: AsyncSession) -> list[Content]:
    """Originals that are not what was taken in."""
    rows = await session.execute(
        sql(
            f"SELECT {COLUMNS} FROM media_assets m JOIN asset_problems p USING (photo_id)"
            " WHERE p.what = 'scrubbed' ORDER BY m.photo_id"
        )
    )
    return [Content(**row._mapping) for row in rows]


async def count_damaged(session: AsyncSession) -> int:
    """How many originals are not what was taken in."""
    found = await session.execute(
        sql("SELECT count(*) FROM asset_problems WHERE what = 'scrubbed'")
    )
    return int(found.scalar_one())


async def set_healed(session: AsyncSession, photo_id: int) -> None:
    """The file is there, with its content."""
    await session.execute(
        sql(
            "UPDATE media_assets SET missing_since = NULL, scrubbed_at = now() WHERE photo_id = :id"
        ),
        {"id": photo_id},
    )
