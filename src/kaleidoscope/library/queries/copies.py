"""Second locations, and which content lies in them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql
from kaleidoscope.kernel.paths import to_bytes
from kaleidoscope.library.queries.places import OUTSIDE_FROZEN


@dataclass(frozen=True)
class Pending:
    """An asset, or a file kept beside them, whose content is not known to be in the backup.

    `number`: its photo_id, or its number among the kept files.
    """

    number: int
    path: str
    name: str
    size: int
    file_hash: str
    day: date | None
    is_asset: bool


@dataclass(frozen=True)
class Copy:
    """The copy of a content, made or to be made."""

    file_hash: str
    location: str
    size: int
    is_made: bool


PENDING = (
    "NOT m.is_backed_up AND m.file_hash IS NOT NULL AND m.missing_since IS NULL"
    f" AND {OUTSIDE_FROZEN}"
)


async def targets(session: AsyncSession) -> Sequence[Row[Any]]:
    """Every second location there was: target_id, url, is_current."""
    return (
        await session.execute(sql("SELECT target_id, url, is_current FROM backup_targets"))
    ).all()


async def use_target(session: AsyncSession, target_id: UUID, url: str) -> None:
    """From now on `is_backed_up` speaks of this one."""
    await session.execute(
        sql("UPDATE backup_targets SET is_current = false WHERE target_id <> :id AND is_current"),
        {"id": target_id},
    )
    await session.execute(
        sql(
            "INSERT INTO backup_targets (target_id, url, is_current) VALUES (:id, :url, true)"
            " ON CONFLICT (target_id) DO UPDATE SET url = excluded.url, is_current = true"
        ),
        {"id": target_id, "url": url},
    )
    await session.execute(
        sql(
            "UPDATE media_assets m SET is_backed_up = c.copied_at IS NOT NULL,"
            " backed_up_at = c.copied_at"
            " FROM media_assets a LEFT JOIN backup_copies c"
            "  ON c.target_id = :id AND c.file_hash = a.file_hash"
            " WHERE a.id = m.id AND m.is_backed_up <> (c.copied_at IS NOT NULL)"
        ),
        {"id": target_id},
    )
    await session.execute(
        sql(
            "UPDATE kept_files m SET is_backed_up = c.copied_at IS NOT NULL,"
            " backed_up_at = c.copied_at"
            " FROM kept_files k LEFT JOIN backup_copies c"
            "  ON c.target_id = :id AND c.file_hash = k.file_hash"
            " WHERE k.file_id = m.file_id AND m.is_backed_up <> (c.copied_at IS NOT NULL)"
        ),
        {"id": target_id},
    )


async def pending(session: AsyncSession, after: int, limit: int) -> list[Pending]:
    """The next assets to be copied whose wait after a failure is over, in the order of ids."""
    rows = await session.execute(
        sql(
            "SELECT m.photo_id AS number, m.final_path AS path, m.original_name AS name,"
            " m.size_bytes AS size, m.file_hash,"
            " coalesce(m.captured_at, m.modified_at)::date AS day, true AS is_asset"
            f" FROM media_assets m WHERE {PENDING} AND m.photo_id > :after"
            " AND NOT EXISTS (SELECT FROM asset_problems p WHERE p.photo_id = m.photo_id"
            "  AND p.what = 'backed-up' AND coalesce(p.retry_at, 'infinity') > now())"
            " ORDER BY m.photo_id LIMIT :limit"
        ),
        {"after": after, "limit": limit},
    )
    return [Pending(**row._mapping) for row in rows]


async def count_pending(session: AsyncSession) -> tuple[int, int]:
    """How many assets are still to be copied, and their bytes."""
    row = (
        await session.execute(
            sql(
                "SELECT count(*), coalesce(sum(m.size_bytes), 0)::bigint"
                f" FROM media_assets m WHERE {PENDING}"
            )
        )
    ).one()
    return row[0], row[1]


async def plan(
    session: AsyncSession, target_id: UUID, wanted: Sequence[tuple[str, str, int]]
) -> dict[str, Copy]:
    """Where these contents are or will be, by hash; `wanted`: hash, location for a new one, size.

    What was settled once stays, so that nothing is copied twice.
    """
    given = {
        "target": target_id,
        "hashes": [w[0] for w in wanted],
        "locations": [w[1] for w in wanted],
        "sizes": [w[2] for w in wanted],
    }
    await session.execute(
        sql(
            "INSERT INTO backup_copies (target_id, file_hash, location, size_bytes)"
            " SELECT :target, * FROM unnest(CAST(:hashes AS text[]), CAST(:locations AS text[]),"
            "  CAST(:sizes AS bigint[])) ON CONFLICT (target_id, file_hash) DO NOTHING"
        ),
        given,
    )
    rows = await session.execute(
        sql(
            "SELECT file_hash, location, size_bytes AS size, copied_at IS NOT NULL AS is_made"
            " FROM backup_copies WHERE target_id = :target AND file_hash = ANY(:hashes)"
        ),
        given,
    )
    return {row.file_hash: Copy(**row._mapping) for row in rows}


async def made(session: AsyncSession, target_id: UUID, hashes: Collection[str]) -> list[int]:
    """These contents are there, read back when they were made; whose are backed up now."""
    given = {"target": target_id, "hashes": list(hashes)}
    await session.execute(
        sql(
            # One that was made before was not read again: its turn to be verified stays.
            "UPDATE backup_copies SET copied_at = now(), verified_at = now(), damaged_since = NULL"
            " WHERE target_id = :target AND file_hash = ANY(:hashes) AND copied_at IS NULL"
        ),
        given,
    )
    await session.execute(
        sql(
            "UPDATE kept_files SET is_backed_up = true, backed_up_at = now(), error_code = CASE"
            "  WHEN error_code <> 'backed-up' THEN error_code END, error = CASE"
            "  WHEN error_code <> 'backed-up' THEN error END, failed_at = CASE"
            "  WHEN error_code <> 'backed-up' THEN failed_at END"
            " WHERE file_hash = ANY(:hashes) AND NOT is_backed_up"
        ),
        given,
    )
    rows = await session.execute(
        sql(
            "UPDATE media_assets SET is_backed_up = true, backed_up_at = now()"
            " WHERE file_hash = ANY(:hashes) AND NOT is_backed_up RETURNING photo_id"
        ),
        given,
    )
    return sorted(rows.scalars())


async def damaged(session: AsyncSession, target_id: UUID, hashes: Collection[str]) -> list[int]:
    """These copies are gone or are something else: to be made anew; whose they were."""
    given = {"target": target_id, "hashes": list(hashes)}
    await session.execute(
        sql(
            "UPDATE backup_copies SET copied_at = NULL, verified_at = NULL,"
            " damaged_since = coalesce(damaged_since, now())"
            " WHERE target_id = :target AND file_hash = ANY(:hashes)"
        ),
        given,
    )
    await session.execute(
        sql(
            "UPDATE kept_files SET is_backed_up = false, backed_up_at = NULL"
            " WHERE file_hash = ANY(:hashes) AND is_backed_up"
        ),
        given,
    )
    rows = await session.execute(
        sql(
            "UPDATE media_assets SET is_backed_up = false, backed_up_at = NULL"
            " WHERE file_hash = ANY(:hashes) AND is_backed_up RETURNING photo_id"
        ),
        given,
    )
    return sorted(rows.scalars())


async def verified(session: AsyncSession, target_id: UUID, hashes: Collection[str]) -> None:
    """These copies were read back and are what they should be."""
    await session.execute(
        sql(
            "UPDATE backup_copies SET verified_at = now(), damaged_since = NULL"
            " WHERE target_id = :target AND file_hash = ANY(:hashes)"
        ),
        {"target": target_id, "hashes": list(hashes)},
    )


async def to_verify(
    session: AsyncSession, target_id: UUID, before: datetime, limit: int
) -> list[Copy]:
    """Copies that were not read back since `before`, the longest first."""
    rows = await session.execute(
        sql(
            "SELECT file_hash, location, size_bytes AS size, true AS is_made FROM backup_copies"
            " WHERE target_id = :target AND copied_at IS NOT NULL"
            "  AND verified_at <= :before"
            " ORDER BY verified_at, file_hash LIMIT :limit"
        ),
        {"target": target_id, "before": before, "limit": limit},
    )
    return [Copy(**row._mapping) for row in rows]


async def moment(session: AsyncSession) -> datetime:
    """Now, by the database's clock."""
    found: datetime = (await session.execute(sql("SELECT now()"))).scalar_one()
    return found


async def to_be_verified(
    session: AsyncSession, target_id: UUID, share: float, age: timedelta | None
) -> float:
    """Bytes of that share of the copies, or of those not read back within `age`, if these are
    more. An empty file counts as a byte."""
    found = await session.execute(
        sql(
            "SELECT coalesce(greatest(:share * sum(greatest(size_bytes, 1)),"
            "  sum(greatest(size_bytes, 1)) FILTER"
            "   (WHERE verified_at < now() - CAST(:age AS interval))), 0)::float"
            " FROM backup_copies WHERE target_id = :target AND copied_at IS NOT NULL"
        ),
        {"target": target_id, "share": share, "age": age},
    )
    return float(found.scalar_one())


async def totals(session: AsyncSession, target_id: UUID) -> Row[Any]:
    """copies, bytes, damaged, oldest (verified_at) of a second location."""
    return (
        await session.execute(
            sql(
                "SELECT count(*) FILTER (WHERE copied_at IS NOT NULL) AS copies,"
                " coalesce(sum(size_bytes) FILTER (WHERE copied_at IS NOT NULL), 0)::bigint"
                "  AS bytes,"
                " count(*) FILTER (WHERE damaged_since IS NOT NULL) AS damaged,"
                " min(verified_at) AS oldest FROM backup_copies WHERE target_id = :target"
            ),
            {"target": target_id},
        )
    ).one()


async def of_content(session: AsyncSession, file_hash: str) -> Copy | None:
    """The copy of a content in the current second location."""
    rows = await session.execute(
        sql(
            "SELECT c.file_hash, c.location, c.size_bytes AS size, true AS is_made"
            " FROM backup_copies c JOIN backup_targets t USING (target_id)"
            " WHERE t.is_current AND c.file_hash = :hash AND c.copied_at IS NOT NULL"
        ),
        {"hash": file_hash},
    )
    row = rows.one_or_none()
    return None if row is None else Copy(**row._mapping)


async def unwanted(session: AsyncSession, target_id: UUID, before: datetime | None) -> list[Copy]:
    """Copies of contents that nothing has any more, made before a moment (None: whenever)."""
    rows = await session.execute(
        sql(
            "SELECT c.file_hash, c.location, c.size_bytes AS size,"
            " c.copied_at IS NOT NULL AS is_made"
            " FROM backup_copies c WHERE c.target_id = :target AND NOT EXISTS"
            "  (SELECT FROM media_assets m WHERE m.file_hash = c.file_hash) AND NOT EXISTS"
            "  (SELECT FROM kept_files k WHERE k.file_hash = c.file_hash)"
            " AND (CAST(:before AS timestamptz) IS NULL OR coalesce(c.copied_at < :before, true))"
            " ORDER BY c.location"
        ),
        {"target": target_id, "before": before},
    )
    return [Copy(**row._mapping) for row in rows]


async def forget(session: AsyncSession, target_id: UUID, hashes: Collection[str]) -> None:
    """Copies that were removed."""
    await session.execute(
        sql("DELETE FROM backup_copies WHERE target_id = :target AND file_hash = ANY(:hashes)"),
        {"target": target_id, "hashes": list(hashes)},
    )


async def inventory(
    session: AsyncSession, target_id: UUID | None, after: int, limit: int
) -> Sequence[Row[Any]]:
    """The next assets with where their copies lie, in the order of ids."""
    rows = await session.execute(
        sql(
            "SELECT m.photo_id, m.final_path AS path, m.original_name, m.size_bytes AS size,"
            " m.file_hash, m.modified_at, m.captured_at, m.person_ids,"
            " CASE WHEN c.copied_at IS NOT NULL THEN c.location END AS location"
            " FROM media_assets m LEFT JOIN backup_copies c"
            "  ON c.file_hash = m.file_hash AND c.target_id = :target"
            " WHERE m.photo_id > :after ORDER BY m.photo_id LIMIT :limit"
        ),
        {"target": target_id, "after": after, "limit": limit},
    )
    return rows.all()


async def forget_machine(session: AsyncSession) -> None:
    """No thumbnail is there any more, and no disk is the one it was."""
    await session.execute(
        sql(
            "UPDATE media_assets SET is_thumbnailed = false, thumbnailed_at = NULL"
            " WHERE is_thumbnailed"
        )
    )
    await session.execute(
        sql(
            "UPDATE known_places SET device = NULL, counted_at = NULL, frozen_at = NULL,"
            " frozen_because = NULL, decision = NULL, decided_at = NULL"
        )
    )


async def relocate(session: AsyncSession, old: str, new: str) -> int:
    """Paths below `old` are below `new` from now on; answers how many assets that were.

    So are custody's moves: one that has not ended would be taken up in the other folder, which may
    still be another installation's. `original_path` stays what was received.
    """
    for column in ("source_path", "target_path", "inbox"):
        await session.execute(
            sql(
                f"UPDATE custody_moves SET {column} = :new || substr({column}, length(:old) + 1)"
                f" WHERE {column} = :old OR starts_with({column}, :old || '/')"
            ),
            {"old": old, "new": new},
        )
    await session.execute(
        sql(
            "UPDATE kept_files SET final_path = :new || substr(final_path, length(:old) + 1)"
            " WHERE starts_with(final_path, :old || '/')"
        ),
        {"old": old, "new": new},
    )
    await session.execute(
        sql(
            "UPDATE known_places SET path = :new || substr(path, length(:old) + 1), device = NULL"
            " WHERE path = :old OR starts_with(path, :old || '/')"
        ),
        {"old": old, "new": new},
    )
    rows = await session.execute(
        sql(
            "UPDATE media_assets SET final_path = :new || substr(final_path, length(:old) + 1),"
            " path_bytes = CASE WHEN path_bytes IS NOT NULL THEN"
            "  CAST(:raw AS bytea) || substr(path_bytes, octet_length(CAST(:old_raw AS bytea)) + 1)"
            "  END WHERE starts_with(final_path, :old || '/') RETURNING 1"
        ),
        {"old": old, "new": new, "raw": to_bytes(new), "old_raw": to_bytes(old)},
    )
    return len(rows.all())
