"""Full hashes, and the duplicates they reveal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql
from kaleidoscope.library.queries.history import WAITING
from kaleidoscope.library.queries.places import OUTSIDE_FROZEN


@dataclass(frozen=True)
class Unhashed:
    """An asset whose content has not been hashed yet, as the ledger knows its file."""

    photo_id: int
    path: str
    size: int
    modified_at: datetime | None


@dataclass(frozen=True)
class Hashed:
    """The hash of an asset's file while it had this size and time."""

    photo_id: int
    size: int
    modified_at: datetime | None
    file_hash: str


GIVEN = (
    " FROM unnest(CAST(:ids AS bigint[]), CAST(:sizes AS bigint[]),"
    "  CAST(:times AS timestamptz[]), CAST(:hashes AS text[]), CAST(:firsts AS bigint[]))"
    "  AS g (id, size, modified_at, file_hash, first)"
    " WHERE m.photo_id = g.id AND m.size_bytes = g.size"
    "  AND m.modified_at IS NOT DISTINCT FROM g.modified_at AND m.file_hash IS NULL"
)


async def unhashed(session: AsyncSession, after: int, limit: int) -> list[Unhashed]:
    """The next assets without a hash, in the order of their ids; failures wait for their time."""
    rows = await session.execute(
        sql(
            "SELECT photo_id, final_path AS path, size_bytes AS size, modified_at"
            " FROM media_assets m WHERE file_hash IS NULL AND photo_id > :after"
            f" AND NOT {WAITING.format('hashed')} AND {OUTSIDE_FROZEN}"
            " ORDER BY photo_id LIMIT :limit"
        ),
        {"after": after, "limit": limit},
    )
    return [Unhashed(**row._mapping) for row in rows]


async def unhashed_one(session: AsyncSession, photo_id: int) -> Unhashed | None:
    """This asset, if it has no hash yet."""
    rows = await session.execute(
        sql(
            "SELECT photo_id, final_path AS path, size_bytes AS size, modified_at"
            " FROM media_assets WHERE file_hash IS NULL AND photo_id = :photo"
        ),
        {"photo": photo_id},
    )
    row = rows.one_or_none()
    return Unhashed(**row._mapping) if row else None


async def lock(session: AsyncSession) -> None:
    """One transaction at a time decides who is whose duplicate."""
    key = "SELECT pg_advisory_xact_lock(hashtextextended('library:hashes', 0))"
    await session.execute(sql(key))


async def firsts(session: AsyncSession, hashes: Iterable[str]) -> dict[str, int]:
    """The first asset of each content that the ledger has, held until the transaction ends."""
    rows = await session.execute(
        sql(
            "SELECT photo_id, file_hash FROM media_assets"
            " WHERE file_hash = ANY(:hashes) AND duplicate_of IS NULL"
            " ORDER BY photo_id FOR NO KEY UPDATE"
        ),
        {"hashes": list(hashes)},
    )
    return {row.file_hash: row.photo_id for row in rows}


async def write(session: AsyncSession, hashed: Sequence[Hashed]) -> list[int]:
    """Hashes of assets that are the first with their content; answers whose were written.

    A file changed since is left out.
    """
    rows = await session.execute(
        sql(f"UPDATE media_assets m SET file_hash = g.file_hash{GIVEN} RETURNING m.photo_id"),
        _given(hashed, {}),
    )
    return list(rows.scalars())


async def write_duplicates(
    session: AsyncSession, hashed: Sequence[Hashed], firsts: Mapping[int, int]
) -> list[int]:
    """Make assets duplicates of `firsts[photo_id]`; answers those that are now.

    What recognition found in one by itself stays shown until the first one's outcome is.
    """
    rows = await session.execute(
        sql(
            f"UPDATE media_assets m SET file_hash = g.file_hash, duplicate_of = g.first,"
            " next_retry_at = NULL, retry_count = 0,"
            " status = CASE WHEN m.status = 'PROCESSED' THEN m.status ELSE 'READY' END"
            f"{GIVEN} RETURNING m.photo_id"
        ),
        _given(hashed, firsts),
    )
    return list(rows.scalars())


async def mirror(session: AsyncSession, firsts: Sequence[int]) -> Sequence[Row[Any]]:
    """Show assets' outcomes on their duplicates: photo_id, attempt_id, duplicate_of of those."""
    rows = await session.execute(
        sql(
            "WITH healed AS (DELETE FROM asset_problems p USING media_assets d"
            "  WHERE d.duplicate_of = ANY(:firsts) AND p.photo_id = d.photo_id"
            "   AND p.what = 'recognised' AND NOT EXISTS (SELECT FROM asset_problems f"
            "    WHERE f.photo_id = d.duplicate_of AND f.what = 'recognised')),"
            " told AS (INSERT INTO asset_problems"
            "   (photo_id, what, error_code, error, failures, since, failed_at, retry_at)"
            "  SELECT d.photo_id, f.what, f.error_code, f.error, f.failures, f.since, f.failed_at,"
            "   f.retry_at FROM asset_problems f JOIN media_assets d ON d.duplicate_of = f.photo_id"
            "  WHERE f.photo_id = ANY(:firsts) AND f.what = 'recognised'"
            "  ON CONFLICT (photo_id, what) DO UPDATE SET error_code = excluded.error_code,"
            "   error = excluded.error, failures = excluded.failures,"
            "   failed_at = excluded.failed_at, retry_at = excluded.retry_at)"
            " UPDATE media_assets d SET status = f.status, next_retry_at = f.next_retry_at,"
            " retry_count = f.retry_count, person_ids = f.person_ids, no_faces = f.no_faces,"
            " width = f.width, height = f.height, mime_type = f.mime_type,"
            " duration_seconds = f.duration_seconds, frame_rate = f.frame_rate"
            " FROM media_assets f WHERE f.photo_id = ANY(:firsts) AND d.duplicate_of = f.photo_id"
            " RETURNING d.photo_id, d.attempt_id, d.duplicate_of"
        ),
        {"firsts": list(firsts)},
    )
    return rows.all()


async def part_from(session: AsyncSession, gone: Sequence[int]) -> list[int]:
    """Give the duplicates of assets with new content a first one among themselves; answers it."""
    rows = await session.execute(
        sql(
            "WITH heirs AS (SELECT duplicate_of AS gone, min(photo_id) AS heir FROM media_assets"
            "  WHERE duplicate_of = ANY(:gone) GROUP BY duplicate_of)"
            " UPDATE media_assets m SET duplicate_of = nullif(h.heir, m.photo_id) FROM heirs h"
            " WHERE m.duplicate_of = h.gone RETURNING m.photo_id, m.duplicate_of"
        ),
        {"gone": list(gone)},
    )
    return [row.photo_id for row in rows if row.duplicate_of is None]


def _given(hashed: Sequence[Hashed], firsts: Mapping[int, int]) -> dict[str, list[Any]]:
    return {
        "ids": [h.photo_id for h in hashed],
        "sizes": [h.size for h in hashed],
        "times": [h.modified_at for h in hashed],
        "hashes": [h.file_hash for h in hashed],
        "firsts": [firsts.get(h.photo_id) for h in hashed],
    }
