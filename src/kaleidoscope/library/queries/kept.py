"""Files that are kept beside the assets: sidecars, duplicates, what was set aside."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql
from kaleidoscope.library.queries.copies import Pending
from kaleidoscope.library.queries.places import OUTSIDE_FROZEN

AGAIN = timedelta(hours=1)  # until one that could not be copied is tried again
# Still to be copied.
PENDING = f"NOT m.is_backed_up AND m.missing_since IS NULL AND {OUTSIDE_FROZEN}"


@dataclass(frozen=True)
class Kept:
    """A file that is kept, as it lies on the disk."""

    kind: str
    path: str
    size: int
    modified_at: datetime
    file_hash: str
    photo_id: int | None = None


@dataclass(frozen=True)
class Known:
    """One that the ledger has."""

    file_id: int
    kind: str
    path: str
    size: int
    modified_at: datetime
    file_hash: str
    missing: bool


COLUMNS = (
    "m.file_id, m.kind, m.final_path AS path, m.size_bytes AS size, m.modified_at, m.file_hash,"
    " m.missing_since IS NOT NULL AS missing"
)


async def keep(session: AsyncSession, files: Sequence[Kept]) -> None:
    """These lie at their paths now, with their contents; whatever was there before is forgotten.

    A content that is in the backup already is backed up.
    """
    await session.execute(
        sql(
            "INSERT INTO kept_files AS k (kind, photo_id, final_path, size_bytes, modified_at,"
            "  file_hash, is_backed_up, backed_up_at)"
            " SELECT DISTINCT ON (g.path) g.kind, a.photo_id, g.path, g.size, g.modified, g.hash,"
            "  c.copied_at IS NOT NULL, c.copied_at"
            " FROM unnest(CAST(:kinds AS text[]), CAST(:photos AS bigint[]),"
            "  CAST(:paths AS text[]), CAST(:sizes AS bigint[]), CAST(:times AS timestamptz[]),"
            "  CAST(:hashes AS text[])) AS g (kind, photo, path, size, modified, hash)"
            " LEFT JOIN media_assets a ON a.photo_id = g.photo"
            " LEFT JOIN backup_copies c ON c.file_hash = g.hash AND c.target_id ="
            "  (SELECT target_id FROM backup_targets WHERE is_current)"
            " ON CONFLICT (final_path) DO UPDATE SET kind = excluded.kind,"
            "  photo_id = coalesce(excluded.photo_id, k.photo_id),"
            "  size_bytes = excluded.size_bytes, modified_at = excluded.modified_at,"
            "  file_hash = excluded.file_hash, is_backed_up = excluded.is_backed_up,"
            "  backed_up_at = excluded.backed_up_at, scrubbed_at = NULL, missing_since = NULL,"
            "  error_code = NULL, error = NULL, failed_at = NULL"
        ),
        {
            "kinds": [f.kind for f in files],
            "photos": [f.photo_id for f in files],
            "paths": [f.path for f in files],
            "sizes": [f.size for f in files],
            "times": [f.modified_at for f in files],
            "hashes": [f.file_hash for f in files],
        },
    )


async def forget(session: AsyncSession, paths: Collection[str]) -> None:
    """What lay at these paths lies elsewhere now."""
    await session.execute(
        sql("DELETE FROM kept_files WHERE final_path = ANY(:paths)"), {"paths": list(paths)}
    )


async def known(session: AsyncSession, paths: Collection[str]) -> dict[str, Known]:
    """Those of these paths at which something is kept."""
    rows = await session.execute(
        sql(f"SELECT {COLUMNS} FROM kept_files m WHERE m.final_path = ANY(:paths)"),
        {"paths": list(paths)},
    )
    return {row.path: Known(**row._mapping) for row in rows}


async def following(session: AsyncSession, after: int, limit: int) -> list[Known]:
    """The next ones in the order of their numbers, without those in frozen places."""
    rows = await session.execute(
        sql(
            f"SELECT {COLUMNS} FROM kept_files m WHERE m.file_id > :after AND {OUTSIDE_FROZEN}"
            " ORDER BY m.file_id LIMIT :limit"
        ),
        {"after": after, "limit": limit},
    )
    return [Known(**row._mapping) for row in rows]


async def set_gone(session: AsyncSession, causes: Mapping[int, tuple[str, str]]) -> None:
    """These are gone, each with its path and cause; only what still lies there by the ledger."""
    await session.execute(
        sql(
            "UPDATE kept_files m SET missing_since = coalesce(m.missing_since, now()),"
            " error_code = 'missing', error = g.cause, failed_at = now()"
            " FROM unnest(CAST(:ids AS bigint[]), CAST(:paths AS text[]), CAST(:causes AS text[]))"
            "  AS g (id, path, cause)"
            " WHERE m.file_id = g.id AND m.final_path = g.path"
            " AND m.error_code IS DISTINCT FROM 'missing'"
        ),
        {
            "ids": list(causes),
            "paths": [path for path, _ in causes.values()],
            "causes": [cause for _, cause in causes.values()],
        },
    )


async def set_back(session: AsyncSession, paths: Mapping[int, str]) -> None:
    """These are there again, to be read through soon."""
    await session.execute(
        sql(
            "UPDATE kept_files m SET missing_since = NULL, scrubbed_at = NULL, error_code = NULL,"
            " error = NULL, failed_at = NULL"
            " FROM unnest(CAST(:ids AS bigint[]), CAST(:paths AS text[])) AS g (id, path)"
            " WHERE m.file_id = g.id AND m.final_path = g.path"
        ),
        {"ids": list(paths), "paths": list(paths.values())},
    )


async def forget_moved(session: AsyncSession) -> int:
    """What is gone and lies elsewhere, under its name and with its content, was moved: it is kept
    there; answers how many were."""
    rows = await session.execute(
        sql(
            "DELETE FROM kept_files m WHERE m.error_code = 'missing' AND m.error IS NOT NULL"
            f" AND {OUTSIDE_FROZEN} AND EXISTS (SELECT FROM kept_files k"
            "  WHERE k.file_hash = m.file_hash AND k.file_id > m.file_id AND k.kind = m.kind"
            "  AND k.missing_since IS NULL AND regexp_replace(k.final_path, '^.*/', '')"
            "   = regexp_replace(m.final_path, '^.*/', '')) RETURNING 1"
        )
    )
    return len(rows.all())


async def forget_gone(session: AsyncSession, below: str | None) -> list[str]:
    """What is gone is kept no more: at a path and below it, or all; answers where it lay."""
    rows = await session.execute(
        sql(
            "DELETE FROM kept_files WHERE missing_since IS NOT NULL"
            " AND (CAST(:below AS text) IS NULL OR final_path = :below"
            "  OR starts_with(final_path, rtrim(CAST(:below AS text), '/') || '/'))"
            " RETURNING final_path"
        ),
        {"below": below},
    )
    return sorted(rows.scalars())


async def pending(session: AsyncSession, after: int, limit: int) -> list[Pending]:
    """The next ones to be copied whose wait after a failure is over."""
    rows = await session.execute(
        sql(
            "SELECT m.file_id AS number, m.final_path AS path,"
            " regexp_replace(m.final_path, '^.*/', '') AS name, m.size_bytes AS size, m.file_hash,"
            " coalesce(a.captured_at, a.modified_at, m.modified_at)::date AS day,"
            " false AS is_asset"
            " FROM kept_files m LEFT JOIN media_assets a USING (photo_id)"
            f" WHERE {PENDING} AND m.file_id > :after"
            " AND coalesce(m.failed_at < now() - CAST(:again AS interval), true)"
            " ORDER BY m.file_id LIMIT :limit"
        ),
        {"after": after, "limit": limit, "again": AGAIN},
    )
    return [Pending(**row._mapping) for row in rows]


async def count_pending(session: AsyncSession) -> tuple[int, int]:
    """How many are still to be copied, and their bytes."""
    row = (
        await session.execute(
            sql(
                "SELECT count(*), coalesce(sum(m.size_bytes), 0)::bigint FROM kept_files m"
                f" WHERE {PENDING}"
            )
        )
    ).one()
    return row[0], row[1]


async def due(session: AsyncSession, age: timedelta, limit: int) -> list[Known]:
    """Those not read through within `age`: first what never was, then the oldest."""
    rows = await session.execute(
        sql(
            f"SELECT {COLUMNS} FROM kept_files m WHERE m.missing_since IS NULL"
            " AND coalesce(m.scrubbed_at < now() - CAST(:age AS interval), true)"
            f" AND {OUTSIDE_FROZEN} ORDER BY m.scrubbed_at NULLS FIRST, m.file_id LIMIT :limit"
        ),
        {"age": age, "limit": limit},
    )
    return [Known(**row._mapping) for row in rows]


async def set_read(
    session: AsyncSession, files: Sequence[Known], failures: Mapping[int, tuple[str, str]]
) -> None:
    """These were read through now; `failures`: the code and the cause of those that are damaged."""
    told = [failures.get(f.file_id, (None, None)) for f in files]
    await session.execute(
        sql(
            "UPDATE kept_files m SET scrubbed_at = now(), error_code = g.code, error = g.cause,"
            " failed_at = CASE WHEN g.cause IS NOT NULL THEN now() END"
            " FROM unnest(CAST(:ids AS bigint[]), CAST(:paths AS text[]), CAST(:codes AS text[]),"
            "  CAST(:causes AS text[])) AS g (id, path, code, cause)"
            " WHERE m.file_id = g.id AND m.final_path = g.path"
        ),
        {
            "ids": [f.file_id for f in files],
            "paths": [f.path for f in files],
            "codes": [code for code, _ in told],
            "causes": [cause for _, cause in told],
        },
    )


async def set_failed(session: AsyncSession, causes: Mapping[int, str]) -> None:
    """Why these could not be copied; one that is known to be damaged stays that."""
    await session.execute(
        sql(
            "UPDATE kept_files m SET error_code = 'backed-up', error = g.cause, failed_at = now()"
            " FROM unnest(CAST(:ids AS bigint[]), CAST(:causes AS text[])) AS g (id, cause)"
            " WHERE m.file_id = g.id AND coalesce(m.error_code, 'backed-up') = 'backed-up'"
        ),
        {"ids": list(causes), "causes": list(causes.values())},
    )


async def set_healed(session: AsyncSession, file_id: int) -> None:
    """It lies there, with its content."""
    await session.execute(
        sql(
            "UPDATE kept_files SET missing_since = NULL, scrubbed_at = now(), error_code = NULL,"
            " error = NULL, failed_at = NULL WHERE file_id = :id"
        ),
        {"id": file_id},
    )


async def count_damaged(session: AsyncSession) -> int:
    """How many are not what was taken in, or cannot be read."""
    found = await session.execute(
        sql(
            "SELECT count(*) FROM kept_files"
            " WHERE error IS NOT NULL AND error_code NOT IN ('backed-up', 'missing')"
        )
    )
    return int(found.scalar_one())


async def by_message(session: AsyncSession, limit: int) -> Sequence[Row[Any]]:
    """What is wrong with them, by code and message: total, latest_at, and one path."""
    rows = await session.execute(
        sql(
            "SELECT error_code AS code, error AS message, count(*) AS total,"
            " max(failed_at) AS latest_at,"
            " (array_agg(final_path ORDER BY failed_at DESC, file_id))[1] AS path"
            " FROM kept_files WHERE error IS NOT NULL GROUP BY error_code, error"
            " ORDER BY count(*) DESC, max(failed_at) DESC LIMIT :limit"
        ),
        {"limit": limit},
    )
    return rows.all()


async def state(session: AsyncSession) -> tuple[object, ...]:
    """Something that changes when anything about what is wrong with them does."""
    rows = await session.execute(
        sql("SELECT count(*), max(failed_at) FROM kept_files WHERE error IS NOT NULL")
    )
    return tuple(rows.one())


async def with_message(session: AsyncSession, code: str, message: str) -> list[Known]:
    """Those of which that is wrong, with this message."""
    rows = await session.execute(
        sql(
            f"SELECT {COLUMNS} FROM kept_files m WHERE m.error_code = :code AND m.error = :message"
            " ORDER BY m.file_id"
        ),
        {"code": code, "message": message},
    )
    return [Known(**row._mapping) for row in rows]


async def try_soon(session: AsyncSession, file_ids: Collection[int]) -> None:
    """Read these through, and try to copy them, in the next round."""
    await session.execute(
        sql(
            "UPDATE kept_files SET scrubbed_at = NULL, failed_at = now() - CAST(:again AS interval)"
            " WHERE file_id = ANY(:ids)"
        ),
        {"ids": list(file_ids), "again": AGAIN},
    )


async def listed(
    session: AsyncSession, after: int, limit: int, *, unwell: bool = False
) -> Sequence[Row[Any]]:
    """The next ones, all of them or those that are damaged, gone or not to be copied."""
    rows = await session.execute(
        sql(
            "SELECT file_id, kind, photo_id, final_path, size_bytes, file_hash, is_backed_up,"
            " missing_since, error_code, error FROM kept_files WHERE file_id > :after"
            " AND (NOT :unwell OR error IS NOT NULL OR missing_since IS NOT NULL)"
            " ORDER BY file_id LIMIT :limit"
        ),
        {"after": after, "limit": limit, "unwell": unwell},
    )
    return rows.all()


async def inventory(
    session: AsyncSession, target_id: UUID | None, after: int, limit: int
) -> Sequence[Row[Any]]:
    """The next ones with where their copies lie. Duplicates that are gone are left out: their
    content is an asset's."""
    rows = await session.execute(
        sql(
            "SELECT k.file_id AS number, k.final_path AS path,"
            " regexp_replace(k.final_path, '^.*/', '') AS original_name, k.size_bytes AS size,"
            " k.file_hash, k.modified_at,"
            " CASE WHEN c.copied_at IS NOT NULL THEN c.location END AS location"
            " FROM kept_files k LEFT JOIN backup_copies c"
            "  ON c.file_hash = k.file_hash AND c.target_id = :target"
            " WHERE k.file_id > :after AND (k.kind <> 'duplicate' OR k.missing_since IS NULL)"
            " ORDER BY k.file_id LIMIT :limit"
        ),
        {"target": target_id, "after": after, "limit": limit},
    )
    return rows.all()


async def owners(session: AsyncSession, paths: Collection[str]) -> dict[str, int]:
    """The assets at these paths."""
    rows = await session.execute(
        sql("SELECT final_path, photo_id FROM media_assets WHERE final_path = ANY(:paths)"),
        {"paths": list(paths)},
    )
    return {row.final_path: row.photo_id for row in rows}


async def companions(session: AsyncSession, photo_ids: Collection[int]) -> Sequence[Row[Any]]:
    """The sidecars that lie in the folders of these photos: photo_id, path, file_hash."""
    rows = await session.execute(
        sql(
            "SELECT k.photo_id, k.final_path AS path, k.file_hash"
            " FROM kept_files k JOIN media_assets a USING (photo_id)"
            " WHERE k.photo_id = ANY(:ids) AND k.kind = 'sidecar' AND k.missing_since IS NULL"
            " AND regexp_replace(k.final_path, '/[^/]*$', '')"
            "  = regexp_replace(a.final_path, '/[^/]*$', '') ORDER BY k.file_id"
        ),
        {"ids": list(photo_ids)},
    )
    return rows.all()


async def being_filed(session: AsyncSession, paths: Collection[str]) -> set[str]:
    """Those of these paths that custody is laying something down at, right now."""
    rows = await session.execute(
        sql(
            "SELECT target_path FROM custody_moves"
            " WHERE state = 'PLANNED' AND target_path = ANY(:paths)"
        ),
        {"paths": list(paths)},
    )
    return set(rows.scalars())
