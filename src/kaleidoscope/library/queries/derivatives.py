"""Assets without thumbnails, and those that have them now."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql
from kaleidoscope.library.queries.places import OUTSIDE_FROZEN


@dataclass(frozen=True)
class Plain:
    """An asset whose content is known, as far as its thumbnails are concerned.

    `width`: of the original, where it is known. `waits_for`: why it is not tried at present.
    """

    photo_id: int
    path: str
    size: int
    modified_at: datetime | None
    media_type: str
    file_hash: str
    width: int | None
    failures: int
    waits_for: str | None


@dataclass(frozen=True)
class Made:
    """Derivatives of a content, with the displayed size of the original."""

    photo_id: int
    file_hash: str
    width: int | None = None
    height: int | None = None


COLUMNS = (
    "m.photo_id, m.final_path AS path, m.size_bytes AS size, m.modified_at, m.media_type::text,"
    " m.file_hash, m.width, coalesce(p.failures, 0) AS failures, CASE WHEN p.what IS NOT NULL"
    "  AND (p.retry_at IS NULL OR p.retry_at > now()) THEN p.error END AS waits_for"
)
FROM = (
    "media_assets m LEFT JOIN asset_problems p"
    " ON p.photo_id = m.photo_id AND p.what = 'thumbnailed'"
)


async def pending(session: AsyncSession, after: int, limit: int) -> list[Plain]:
    """The next assets to be thumbnailed, in the order of their ids; failures wait their time."""
    rows = await session.execute(
        sql(
            f"SELECT {COLUMNS} FROM {FROM}"
            " WHERE NOT m.is_thumbnailed AND m.file_hash IS NOT NULL AND m.photo_id > :after"
            f" AND m.missing_since IS NULL AND {OUTSIDE_FROZEN}"
            " AND (p.what IS NULL OR p.retry_at <= now())"
            " ORDER BY m.photo_id LIMIT :limit"
        ),
        {"after": after, "limit": limit},
    )
    return [Plain(**row._mapping) for row in rows]


async def one(session: AsyncSession, photo_id: int) -> Plain | None:
    """The same of one asset, whether or not it is thumbnailed; None: it has no hash yet."""
    rows = await session.execute(
        sql(f"SELECT {COLUMNS} FROM {FROM} WHERE m.photo_id = :photo AND m.file_hash IS NOT NULL"),
        {"photo": photo_id},
    )
    row = rows.one_or_none()
    return Plain(**row._mapping) if row else None


async def done(session: AsyncSession, made: Sequence[Made]) -> list[int]:
    """These are thumbnailed; answers those that were not before.

    One whose content has changed since is left alone.
    """
    rows = await session.execute(
        sql(
            # In the order of the ids, as everybody locks the ledger.
            "WITH held AS (SELECT m.photo_id, g.width, g.height FROM media_assets m"
            "  JOIN unnest(CAST(:ids AS bigint[]), CAST(:hashes AS text[]),"
            "   CAST(:widths AS integer[]), CAST(:heights AS integer[]))"
            "   AS g (id, hash, width, height) ON m.photo_id = g.id AND m.file_hash = g.hash"
            "  WHERE NOT m.is_thumbnailed ORDER BY m.photo_id FOR NO KEY UPDATE OF m)"
            " UPDATE media_assets m SET is_thumbnailed = true, thumbnailed_at = now(),"
            " width = coalesce(m.width, held.width), height = coalesce(m.height, held.height)"
            " FROM held WHERE m.photo_id = held.photo_id RETURNING m.photo_id"
        ),
        {
            "ids": [m.photo_id for m in made],
            "hashes": [m.file_hash for m in made],
            "widths": [m.width for m in made],
            "heights": [m.height for m in made],
        },
    )
    return list(rows.scalars())


async def unknown(session: AsyncSession, hashes: Collection[str]) -> list[str]:
    """Those of these contents that no asset has."""
    rows = await session.execute(
        sql(
            "SELECT hash FROM unnest(CAST(:hashes AS text[])) AS g (hash)"
            " WHERE NOT EXISTS (SELECT FROM media_assets m WHERE m.file_hash = g.hash)"
        ),
        {"hashes": list(hashes)},
    )
    return list(rows.scalars())


async def undo(session: AsyncSession, photo_id: int) -> None:
    """This asset is not thumbnailed."""
    await session.execute(
        sql(
            "UPDATE media_assets SET is_thumbnailed = false, thumbnailed_at = NULL"
            " WHERE photo_id = :photo"
        ),
        {"photo": photo_id},
    )
