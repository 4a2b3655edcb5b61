"""Known places, and the files in them that are there or gone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql


@dataclass(frozen=True)
class Place:
    """A known place as the ledger has it."""

    place_id: int
    path: str
    kind: str
    device: str | None
    last_seen_at: datetime | None
    counted_at: datetime | None
    frozen_at: datetime | None
    frozen_because: str | None
    decision: str | None


@dataclass(frozen=True)
class Held:
    """A file of a place. `missing`: it was gone when it was last looked for."""

    photo_id: int
    path: str
    missing: bool


@dataclass(frozen=True)
class Lost:
    """An asset whose file is gone from its path, and what its content is known by."""

    photo_id: int
    path: str
    size: int
    sample_hash: str
    file_hash: str


COLUMNS = (
    "p.place_id, p.path, p.kind, p.device, p.last_seen_at, p.counted_at, p.frozen_at,"
    " p.frozen_because, p.decision"
)

# A file belongs to the innermost known place that it lies in.
MINE = (
    "starts_with(m.final_path, rtrim(p.path, '/') || '/')"
    " AND NOT EXISTS (SELECT FROM known_places i WHERE i.place_id <> p.place_id"
    "  AND starts_with(i.path, rtrim(p.path, '/') || '/')"
    "  AND starts_with(m.final_path, i.path || '/'))"
)

OUTSIDE_FROZEN = (
    "NOT EXISTS (SELECT FROM known_places f WHERE f.frozen_at IS NOT NULL"
    " AND starts_with(m.final_path, rtrim(f.path, '/') || '/'))"
)
"""A condition on `media_assets m`: the file lies in no place that is frozen."""


async def know(session: AsyncSession, path: str, kind: str) -> bool:
    """A place is known from now on, unless it lies in one that is; whether it is new.

    A mount point is known beside the place that it lies in.
    """
    rows = await session.execute(
        sql(
            "INSERT INTO known_places (path, kind) SELECT :path, :kind"
            " WHERE :kind = 'mount' OR NOT EXISTS (SELECT FROM known_places o"
            "  WHERE o.kind <> 'mount' AND starts_with(:path || '/', rtrim(o.path, '/') || '/'))"
            " ON CONFLICT (path) DO NOTHING RETURNING 1"
        ),
        {"path": path, "kind": kind},
    )
    return rows.first() is not None


async def all_places(
    session: AsyncSession, place_ids: Collection[int] | None = None
) -> list[Place]:
    """The known places in the order of their paths."""
    rows = await session.execute(
        sql(
            f"SELECT {COLUMNS} FROM known_places p"
            " WHERE CAST(:ids AS bigint[]) IS NULL OR p.place_id = ANY(:ids) ORDER BY p.path"
        ),
        {"ids": None if place_ids is None else list(place_ids)},
    )
    return [Place(**row._mapping) for row in rows]


async def hold(session: AsyncSession, place_id: int) -> Place | None:
    """One place, which nobody else changes until the transaction ends."""
    rows = await session.execute(
        sql(f"SELECT {COLUMNS} FROM known_places p WHERE p.place_id = :id FOR UPDATE"),
        {"id": place_id},
    )
    row = rows.one_or_none()
    return None if row is None else Place(**row._mapping)


async def counts(session: AsyncSession) -> dict[int, tuple[int, int]]:
    """How many files of each place are believed there, and how many are missing."""
    rows = await session.execute(
        sql(
            "SELECT p.place_id, count(*) FILTER (WHERE m.missing_since IS NULL),"
            " count(*) FILTER (WHERE m.missing_since IS NOT NULL)"
            f" FROM known_places p JOIN media_assets m ON {MINE} GROUP BY p.place_id"
        )
    )
    return {place_id: (there, missing) for place_id, there, missing in rows}


async def end_of_portion(session: AsyncSession, after: int, size: int) -> int | None:
    """The number of the last of the next so many assets; None: there are no more."""
    last: int | None = (
        await session.execute(
            sql(
                "SELECT max(photo_id) FROM (SELECT photo_id FROM media_assets"
                " WHERE photo_id > :after ORDER BY photo_id LIMIT :size) portion"
            ),
            {"after": after, "size": size},
        )
    ).scalar_one()
    return last


async def files(
    session: AsyncSession, place_id: int, after: int, last: int, folder: str | None = None
) -> list[Held]:
    """The files of a place among the assets numbered above `after` up to `last`, in their order;
    with a folder only those below it.
    """
    rows = await session.execute(
        sql(
            "SELECT m.photo_id, m.final_path AS path, m.missing_since IS NOT NULL AS missing"
            f" FROM known_places p JOIN media_assets m ON {MINE}"
            " WHERE p.place_id = :place AND m.photo_id > :after AND m.photo_id <= :last"
            " AND (CAST(:folder AS text) IS NULL"
            "  OR starts_with(m.final_path, rtrim(CAST(:folder AS text), '/') || '/'))"
            " ORDER BY m.photo_id"
        ),
        {"place": place_id, "after": after, "last": last, "folder": folder},
    )
    return [Held(**row._mapping) for row in rows]


async def sample(session: AsyncSession, rows_read: int, at_most: int) -> dict[int, list[str]]:
    """Some files of each place that are believed there, chosen at random, by the place.

    `rows_read`: of about so many rows of the ledger, however large it is.
    """
    share = await session.execute(
        sql(
            "SELECT least(100, 100.0 * :rows / greatest(reltuples, 1))::float8 FROM pg_class"
            " WHERE oid = 'media_assets'::regclass"
        ),
        {"rows": rows_read},
    )
    rows = await session.execute(
        sql(
            "SELECT place_id, path FROM (SELECT p.place_id, m.final_path AS path,"
            "  row_number() OVER (PARTITION BY p.place_id ORDER BY random()) AS number"
            "  FROM (SELECT final_path FROM media_assets TABLESAMPLE SYSTEM (:share)"
            "   WHERE missing_since IS NULL) m"
            f"  JOIN known_places p ON {MINE}) AS chosen WHERE number <= :most"
        ),
        {"share": share.scalar_one(), "most": at_most},
    )
    found: dict[int, list[str]] = {}
    for row in rows:
        found.setdefault(row.place_id, []).append(row.path)
    return found


async def has_files(session: AsyncSession, path: str) -> bool:
    """Whether the ledger has files below a folder."""
    found = await session.execute(
        sql(
            "SELECT EXISTS (SELECT FROM media_assets m"
            " WHERE starts_with(m.final_path, rtrim(CAST(:path AS text), '/') || '/'))"
        ),
        {"path": path},
    )
    return bool(found.scalar_one())


async def freeze(session: AsyncSession, place_id: int, because: str, counted: bool) -> None:
    """A place is frozen, since when it first was; what a person said of it before is void.

    `counted`: its files were looked for; if not, they will be as soon as it is well.
    """
    await session.execute(
        sql(
            "UPDATE known_places SET frozen_because = :because,"
            " decision = CASE WHEN frozen_at IS NULL THEN NULL ELSE decision END,"
            " decided_at = CASE WHEN frozen_at IS NULL THEN NULL ELSE decided_at END,"
            " frozen_at = coalesce(frozen_at, now()),"
            " counted_at = CASE WHEN :counted THEN now() END WHERE place_id = :id"
        ),
        {"id": place_id, "because": because, "counted": counted},
    )


async def thaw(session: AsyncSession, place_id: int, device: str | None, counted: bool) -> None:
    """All is well with a place, on this device."""
    await session.execute(
        sql(
            "UPDATE known_places SET frozen_at = NULL, frozen_because = NULL,"
            " device = coalesce(:device, device), last_seen_at = now(),"
            " counted_at = CASE WHEN :counted THEN now() ELSE counted_at END WHERE place_id = :id"
        ),
        {"id": place_id, "device": device, "counted": counted},
    )


async def decide(session: AsyncSession, place_id: int, decision: str) -> None:
    """What a person said of a frozen place."""
    await session.execute(
        sql(
            "UPDATE known_places SET decision = :decision, decided_at = now() WHERE place_id = :id"
        ),
        {"id": place_id, "decision": decision},
    )


async def count_anew(session: AsyncSession, place_ids: Collection[int]) -> None:
    """Have every file of these places looked for in the next round."""
    await session.execute(
        sql("UPDATE known_places SET counted_at = NULL WHERE place_id = ANY(:ids)"),
        {"ids": list(place_ids)},
    )


async def is_frozen(session: AsyncSession, photo_id: int) -> bool:
    """Whether an asset lies in a place that is frozen."""
    found = await session.execute(
        sql(
            "SELECT EXISTS (SELECT FROM media_assets m WHERE m.photo_id = :id"
            f" AND NOT {OUTSIDE_FROZEN})"
        ),
        {"id": photo_id},
    )
    return bool(found.scalar_one())


async def look_soon(session: AsyncSession, photo_ids: Collection[int]) -> None:
    """Have every file of the places that these assets lie in looked for in the next round."""
    await session.execute(
        sql(
            "UPDATE known_places p SET counted_at = NULL WHERE EXISTS (SELECT FROM media_assets m"
            f" WHERE m.photo_id = ANY(:ids) AND {MINE})"
        ),
        {"ids": list(photo_ids)},
    )


async def is_due(session: AsyncSession, place_id: int, age: timedelta) -> bool:
    """Whether a place's files were not looked for within `age`."""
    found = await session.execute(
        sql(
            "SELECT coalesce(counted_at < now() - CAST(:age AS interval), true)"
            " FROM known_places WHERE place_id = :id"
        ),
        {"id": place_id, "age": age},
    )
    return bool(found.scalar_one())


GIVEN = "unnest(CAST(:ids AS bigint[]), CAST(:paths AS text[])) AS g (id, path)"
LOOKED_FOR = "m.photo_id = g.id AND m.final_path = g.path"
"""Only what still lies, by the ledger, where it was looked for: custody moves files meanwhile."""


async def still_at(session: AsyncSession, paths: Mapping[int, str]) -> set[int]:
    """Those of these assets that the ledger has at these paths."""
    rows = await session.execute(
        sql(f"SELECT m.photo_id FROM media_assets m, {GIVEN} WHERE {LOOKED_FOR}"),
        _looked_for(paths),
    )
    return set(rows.scalars())


async def lost(session: AsyncSession, paths: Mapping[int, str]) -> list[Lost]:
    """Those of these assets, gone from these paths, whose content can be told from others."""
    rows = await session.execute(
        sql(
            "SELECT m.photo_id, m.final_path AS path, m.size_bytes AS size, m.sample_hash,"
            f" m.file_hash FROM media_assets m, {GIVEN} WHERE {LOOKED_FOR}"
            " AND m.sample_hash IS NOT NULL AND m.file_hash IS NOT NULL ORDER BY m.photo_id"
        ),
        _looked_for(paths),
    )
    return [Lost(**row._mapping) for row in rows]


async def mark_missing(session: AsyncSession, paths: Mapping[int, str]) -> list[int]:
    """Files are missing since now from these paths; answers those that were not before."""
    rows = await session.execute(
        sql(
            f"UPDATE media_assets m SET missing_since = now() FROM {GIVEN}"
            f" WHERE {LOOKED_FOR} AND m.missing_since IS NULL RETURNING m.photo_id"
        ),
        _looked_for(paths),
    )
    return sorted(rows.scalars())


async def mark_found(session: AsyncSession, paths: Mapping[int, str]) -> list[int]:
    """Files are at these paths again, to be read through soon; answers those that were missing."""
    rows = await session.execute(
        sql(
            f"UPDATE media_assets m SET missing_since = NULL, scrubbed_at = NULL FROM {GIVEN}"
            f" WHERE {LOOKED_FOR} AND m.missing_since IS NOT NULL RETURNING m.photo_id"
        ),
        _looked_for(paths),
    )
    return sorted(rows.scalars())


def _looked_for(paths: Mapping[int, str]) -> dict[str, list[int] | list[str]]:
    return {"ids": list(paths), "paths": list(paths.values())}


async def missing_with_content(
    session: AsyncSession, hashes: Collection[str]
) -> Sequence[Row[Any]]:
    """Missing assets, themselves no duplicates, with these contents, held."""
    rows = await session.execute(
        sql(
            "SELECT m.photo_id, m.file_hash, m.final_path AS path, m.status::text, m.attempt_id"
            " FROM media_assets m WHERE m.file_hash = ANY(:hashes) AND m.duplicate_of IS NULL"
            " AND m.missing_since IS NOT NULL ORDER BY m.photo_id FOR NO KEY UPDATE"
        ),
        {"hashes": list(hashes)},
    )
    return rows.all()


async def move(
    session: AsyncSession, photo_id: int, path: str, raw: bytes | None, modified_at: datetime
) -> None:
    """An asset's file lies elsewhere now, and is not missing."""
    await session.execute(
        sql(
            "UPDATE media_assets SET filename = CASE"
            "  WHEN filename = regexp_replace(final_path, '^.*/', '')"
            "  THEN regexp_replace(CAST(:path AS text), '^.*/', '') ELSE filename END,"
            " final_path = :path, path_bytes = :raw, modified_at = :modified,"
            " missing_since = NULL, scrubbed_at = NULL WHERE photo_id = :id"
        ),
        {"id": photo_id, "path": path, "raw": raw, "modified": modified_at},
    )


async def reunite(session: AsyncSession, limit: int) -> Sequence[Row[Any]]:
    """Missing assets take the file of a duplicate that is there, and it takes their old path.

    Answers photo_id, path now, path before. The ledger keeps both rows: the duplicate is the one
    that is missing now.
    """
    rows = await session.execute(
        sql(
            "SELECT DISTINCT ON (m.photo_id) m.photo_id, d.photo_id AS other,"
            "  m.final_path AS before, d.final_path AS path, m.path_bytes AS raw_before,"
            "  d.path_bytes AS raw, m.modified_at AS modified_before, d.modified_at AS modified_at,"
            "  m.missing_since"
            " FROM media_assets m JOIN media_assets d ON d.duplicate_of = m.photo_id"
            "  AND d.missing_since IS NULL AND d.file_hash = m.file_hash"
            " WHERE m.missing_since IS NOT NULL ORDER BY m.photo_id, d.photo_id LIMIT :limit"
        ),
        {"limit": limit},
    )
    found = rows.all()
    for row in found:
        aside = {"id": row.other, "path": f"/.moving/{row.other}"}  # until the end of this swap
        await session.execute(
            sql("UPDATE media_assets SET final_path = :path WHERE photo_id = :id"), aside
        )
        await move(session, row.photo_id, row.path, row.raw, row.modified_at)
        await move(session, row.other, row.before, row.raw_before, row.modified_before)
        await session.execute(
            sql("UPDATE media_assets SET missing_since = :since WHERE photo_id = :id"),
            {"since": row.missing_since, "id": row.other},
        )
    return found
