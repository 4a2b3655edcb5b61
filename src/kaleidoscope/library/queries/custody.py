"""Moves of originals: planned, recorded with their assets, released."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql


@dataclass(frozen=True)
class Plan:
    """A move that is to be made; see `models.CustodyMove`."""

    kind: str
    how: str
    inbox: str | None
    source: str
    identity: str
    size: int
    file_hash: str
    target: str | None
    group: UUID | None = None
    photo_id: int | None = None
    cause: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Move:
    """A move as its row has it."""

    move_id: int
    kind: str
    state: str
    how: str
    inbox: str | None
    source: str
    identity: str
    size: int
    file_hash: str
    target: str | None
    target_identity: str | None
    group: UUID | None
    photo_id: int | None
    facts: Mapping[str, Any] | None
    cause: str | None
    planned_at: datetime
    recorded_at: datetime | None
    released_at: datetime | None


@dataclass(frozen=True)
class First:
    """The first asset with a content, and where it lies."""

    photo_id: int
    file_hash: str
    path: str
    size: int


@dataclass(frozen=True)
class Laid:
    """A file that lies safely at its target. `path_bytes` where that is no UTF-8."""

    move_id: int
    name: str
    path_bytes: bytes | None
    identity: str | None
    photo_id: int | None = None


COLUMNS = (
    "m.move_id, m.kind, m.state, m.how, m.inbox, m.source_path AS source,"
    " m.source_identity AS identity, m.size_bytes AS size, m.file_hash, m.target_path AS target,"
    ' m.target_identity, m.group_id AS "group", m.photo_id, m.facts, m.cause, m.planned_at,'
    " m.recorded_at, m.released_at"
)

# The facts travel as one document: as an array of documents every quote would be escaped.
INSERT = sql(
    "INSERT INTO custody_moves AS m (kind, how, inbox, source_path, source_identity, size_bytes,"
    "  file_hash, target_path, group_id, photo_id, cause, facts)"
    " SELECT g.kind, g.how, g.inbox, g.source, g.identity, g.size, g.hash, g.target, g.together,"
    "  g.photo, g.cause, CAST(:facts AS jsonb) -> (g.nth - 1)::int"
    " FROM unnest(CAST(:kinds AS text[]), CAST(:hows AS text[]),"
    "  CAST(:inboxes AS text[]), CAST(:sources AS text[]), CAST(:identities AS text[]),"
    "  CAST(:sizes AS bigint[]), CAST(:hashes AS text[]), CAST(:targets AS text[]),"
    "  CAST(:groups AS uuid[]), CAST(:photos AS bigint[]), CAST(:causes AS text[]))"
    "  WITH ORDINALITY AS g (kind, how, inbox, source, identity, size, hash, target, together,"
    "   photo, cause, nth) ORDER BY g.nth RETURNING m.move_id, m.source_path AS source, planned_at"
)

ASSET_COLUMNS = (
    "INSERT INTO media_assets (file_hash, original_name, original_path, final_path, filename,"
    "  path_bytes, size_bytes, modified_at, sample_hash, mime_type, media_type, width, height,"
    "  duration_seconds, frame_rate, captured_at, captured_offset, captured_at_source,"
    "  captured_at_confidence, camera_make, camera_model, camera_serial, location)"
)
FROM_FACTS = (
    "  CAST(f.modified_at AS timestamptz), f.sample_hash, f.mime_type,"
    "  CAST(f.media_type AS media_type), f.width, f.height, f.duration_seconds, f.frame_rate,"
    "  f.captured_at, make_interval(mins => f.offset_minutes), f.captured_at_source,"
    "  f.captured_at_confidence, f.camera_make, f.camera_model, f.camera_serial,"
    "  nullif(f.location, 'null')"
)
FACTS = (
    " AS f (modified_at text, sample_hash text,"
    "  mime_type text, media_type text, width int, height int, duration_seconds numeric,"
    "  frame_rate numeric, captured_at timestamp, offset_minutes int, captured_at_source text,"
    "  captured_at_confidence text, camera_make text, camera_model text, camera_serial text,"
    "  location jsonb)"
)
ADDED = (
    " ON CONFLICT (final_path) DO NOTHING"
    " RETURNING photo_id, final_path AS path, media_type::text, attempt_id, file_hash"
)
CANDIDATES = (
    "INSERT INTO capture_candidates"
    " (photo_id, source, captured_at, captured_offset, confidence)"
    " SELECT g.photo_id, c.source, c.at, make_interval(mins => c.offset_minutes), c.confidence"
)
EACH_CANDIDATE = (
    " CROSS JOIN LATERAL jsonb_to_recordset(coalesce(nullif({}, 'null'), '[]'))"
    "  AS c (source text, at timestamp, offset_minutes int, confidence text)"
    " ON CONFLICT DO NOTHING"
)

# The facts were written with the plan: recording needs nothing from the file again.
RECORD = sql(
    f"{ASSET_COLUMNS} SELECT CASE WHEN g.first IS NULL THEN m.file_hash END,"
    "  regexp_replace(m.source_path, '^.*/', ''), m.source_path, m.target_path, g.name, g.bytes,"
    f"  m.size_bytes, {FROM_FACTS}"
    " FROM unnest(CAST(:ids AS bigint[]), CAST(:names AS text[]), CAST(:bytes AS bytea[]),"
    "  CAST(:firsts AS bigint[])) AS g (id, name, bytes, first)"
    " JOIN custody_moves m ON m.move_id = g.id"
    f" CROSS JOIN LATERAL jsonb_to_record(m.facts){FACTS} ORDER BY m.move_id{ADDED}"
)

FOUND = sql(
    f"{ASSET_COLUMNS} SELECT CASE WHEN g.first IS NULL THEN g.hash END, g.name, g.path, g.path,"
    f"  g.name, g.bytes, g.size, {FROM_FACTS}"
    " FROM unnest(CAST(:paths AS text[]), CAST(:names AS text[]), CAST(:bytes AS bytea[]),"
    "  CAST(:sizes AS bigint[]), CAST(:hashes AS text[]), CAST(:facts AS jsonb[]),"
    "  CAST(:firsts AS bigint[])) AS g (path, name, bytes, size, hash, facts, first)"
    f" CROSS JOIN LATERAL jsonb_to_record(g.facts){FACTS} ORDER BY g.path{ADDED}"
)


@dataclass(frozen=True)
class Found:
    """A file that lies among the originals and is not in the ledger."""

    path: str
    path_bytes: bytes | None
    size: int
    file_hash: str
    facts: Mapping[str, Any]
    first: int | None = None


async def add(session: AsyncSession, plans: Sequence[Plan]) -> list[Move]:
    """Rows for moves, in the order given; earlier abandoned ones of the same sources go."""
    await session.execute(
        sql("DELETE FROM custody_moves WHERE state = 'ABANDONED' AND source_path = ANY(:sources)"),
        {"sources": [p.source for p in plans]},
    )
    rows = await session.execute(
        INSERT,
        {
            "kinds": [p.kind for p in plans],
            "hows": [p.how for p in plans],
            "inboxes": [p.inbox for p in plans],
            "sources": [p.source for p in plans],
            "identities": [p.identity for p in plans],
            "sizes": [p.size for p in plans],
            "hashes": [p.file_hash for p in plans],
            "targets": [p.target for p in plans],
            "groups": [p.group for p in plans],
            "photos": [p.photo_id for p in plans],
            "causes": [p.cause for p in plans],
            "facts": json.dumps([p.facts for p in plans]),
        },
    )
    found = {row.source: row for row in rows}
    return [_planned(p, found[p.source]) for p in plans]


def _planned(plan: Plan, row: Row[Any]) -> Move:
    return Move(
        move_id=row.move_id,
        kind=plan.kind,
        state="PLANNED",
        how=plan.how,
        inbox=plan.inbox,
        source=plan.source,
        identity=plan.identity,
        size=plan.size,
        file_hash=plan.file_hash,
        target=plan.target,
        target_identity=None,
        group=plan.group,
        photo_id=plan.photo_id,
        facts=plan.facts,
        cause=plan.cause,
        planned_at=row.planned_at,
        recorded_at=None,
        released_at=None,
    )


async def open_moves(session: AsyncSession, limit: int, after: int = 0) -> list[Move]:
    """The next moves that are not at their end, the oldest first."""
    rows = await session.execute(
        sql(
            f"SELECT {COLUMNS} FROM custody_moves m WHERE m.state IN ('PLANNED', 'RECORDED')"
            " AND m.move_id > :after ORDER BY m.move_id LIMIT :limit"
        ),
        {"limit": limit, "after": after},
    )
    return [Move(**row._mapping) for row in rows]


async def open_sources(session: AsyncSession, sources: Collection[str]) -> set[str]:
    """Those of these paths that an open move has as its source."""
    rows = await session.execute(
        sql(
            "SELECT source_path FROM custody_moves WHERE state IN ('PLANNED', 'RECORDED')"
            " AND source_path = ANY(:sources)"
        ),
        {"sources": list(sources)},
    )
    return set(rows.scalars())


async def lay_at(session: AsyncSession, paths: Mapping[int, str]) -> set[int]:
    """Those of these assets that were moved away from the given path, by us or by somebody."""
    rows = await session.execute(
        sql(
            "SELECT g.id"
            " FROM unnest(CAST(:ids AS bigint[]), CAST(:paths AS text[])) AS g (id, path)"
            " WHERE EXISTS (SELECT FROM custody_moves m WHERE m.photo_id = g.id"
            "   AND m.kind IN ('file', 'refile') AND m.state IN ('RECORDED', 'RELEASED')"
            "   AND g.path IN (m.source_path, m.target_path))"
            " OR EXISTS (SELECT FROM asset_events e WHERE e.photo_id = g.id"
            "   AND e.what = 'found-again' AND e.detail ->> 'from' = g.path)"
        ),
        {"ids": list(paths), "paths": list(paths.values())},
    )
    return set(rows.scalars())


async def has_filed_below(session: AsyncSession, root: str) -> bool:
    """Whether anything was ever filed below a folder and should still be there."""
    rows = await session.execute(
        sql(
            "SELECT EXISTS (SELECT FROM custody_moves m JOIN media_assets a USING (photo_id)"
            " WHERE m.kind = 'file' AND m.state = 'RELEASED' AND a.missing_since IS NULL"
            " AND starts_with(a.final_path, :root || '/'))"
        ),
        {"root": root},
    )
    return bool(rows.scalar_one())


async def firsts(session: AsyncSession, hashes: Collection[str]) -> dict[str, First]:
    """The first asset of each content that the ledger has."""
    rows = await session.execute(
        sql(
            "SELECT photo_id, file_hash, final_path AS path, size_bytes AS size"
            " FROM media_assets WHERE file_hash = ANY(:hashes) AND duplicate_of IS NULL"
        ),
        {"hashes": list(hashes)},
    )
    return {row.file_hash: First(**row._mapping) for row in rows}


async def taken(session: AsyncSession, paths: Collection[str]) -> set[str]:
    """Those of these paths that an asset has, or an open move."""
    rows = await session.execute(
        sql(
            "SELECT final_path FROM media_assets WHERE final_path = ANY(:paths)"
            " UNION ALL SELECT target_path FROM custody_moves WHERE target_path = ANY(:paths)"
            " AND state IN ('PLANNED', 'RECORDED')"
        ),
        {"paths": list(paths)},
    )
    return set(rows.scalars())


async def retarget(session: AsyncSession, targets: Mapping[int, str]) -> None:
    """Other targets for planned moves."""
    await session.execute(
        sql(
            "UPDATE custody_moves m SET target_path = g.target"
            " FROM unnest(CAST(:ids AS bigint[]), CAST(:targets AS text[])) AS g (id, target)"
            " WHERE m.move_id = g.id AND m.state = 'PLANNED'"
        ),
        {"ids": list(targets), "targets": list(targets.values())},
    )


async def forget_facts(session: AsyncSession, move_id: int, facts: Mapping[str, Any]) -> None:
    """Replace what was read from a file by less."""
    await session.execute(
        sql("UPDATE custody_moves SET facts = CAST(:facts AS jsonb) WHERE move_id = :id"),
        {"id": move_id, "facts": json.dumps(facts)},
    )


async def insert_assets(
    session: AsyncSession, laid: Sequence[Laid], firsts: Mapping[int, int]
) -> Sequence[Row[Any]]:
    """Assets for filed files: photo_id, path, media_type, attempt_id, file_hash.

    Those with a first one (by move) have no hash yet: it is settled as any late one.
    """
    rows = await session.execute(
        RECORD,
        {
            "ids": [one.move_id for one in laid],
            "names": [one.name for one in laid],
            "bytes": [one.path_bytes for one in laid],
            "firsts": [firsts.get(one.move_id) for one in laid],
        },
    )
    return rows.all()


async def insert_candidates(session: AsyncSession, photos: Mapping[int, int]) -> None:
    """Every date that something tells of filed files, by their moves."""
    await session.execute(
        sql(
            f"{CANDIDATES}"
            " FROM unnest(CAST(:ids AS bigint[]), CAST(:photos AS bigint[])) AS g (id, photo_id)"
            " JOIN custody_moves m ON m.move_id = g.id"
            + EACH_CANDIDATE.format("m.facts -> 'candidates'")
        ),
        {"ids": list(photos), "photos": list(photos.values())},
    )


async def insert_found(session: AsyncSession, files: Sequence[Found]) -> Sequence[Row[Any]]:
    """Assets for files that lie among the originals; answers as `insert_assets`."""
    rows = await session.execute(
        FOUND,
        {
            "paths": [f.path for f in files],
            "names": [f.path.rpartition("/")[2] for f in files],
            "bytes": [f.path_bytes for f in files],
            "sizes": [f.size for f in files],
            "hashes": [f.file_hash for f in files],
            "facts": [json.dumps(f.facts) for f in files],
            "firsts": [f.first for f in files],
        },
    )
    found = rows.all()
    photos = {row.path: row.photo_id for row in found}
    told = [f for f in files if f.path in photos]
    await session.execute(
        sql(
            f"{CANDIDATES} FROM unnest(CAST(:photos AS bigint[]), CAST(:facts AS jsonb[]))"
            " AS g (photo_id, facts)" + EACH_CANDIDATE.format("g.facts -> 'candidates'")
        ),
        {
            "photos": [photos[f.path] for f in told],
            "facts": [json.dumps(f.facts) for f in told],
        },
    )
    return found


async def lies_at(
    session: AsyncSession, paths: Mapping[int, tuple[str, bytes | None, datetime]]
) -> None:
    """Assets whose files, of these times, lie at these paths from now on."""
    await session.execute(
        sql(
            "UPDATE media_assets a SET final_path = g.path, path_bytes = g.bytes,"
            " filename = regexp_replace(g.path, '^.*/', ''), missing_since = NULL,"
            " modified_at = g.modified_at, scrubbed_at = NULL"
            " FROM unnest(CAST(:ids AS bigint[]), CAST(:paths AS text[]), CAST(:bytes AS bytea[]),"
            "  CAST(:times AS timestamptz[]))"
            " AS g (id, path, bytes, modified_at) WHERE a.photo_id = g.id"
        ),
        {
            "ids": list(paths),
            "paths": [path for path, _, _ in paths.values()],
            "bytes": [exact for _, exact, _ in paths.values()],
            "times": [modified for _, _, modified in paths.values()],
        },
    )


async def relocate(session: AsyncSession, laid: Sequence[Laid]) -> list[int]:
    """Assets whose file lies at their move's target from now on; answers the moves."""
    rows = await session.execute(
        sql(
            "UPDATE media_assets a SET final_path = m.target_path, filename = g.name,"
            " path_bytes = g.bytes, missing_since = NULL,"
            # Another file with the content that is known; one that is filed again has no facts.
            " modified_at = coalesce(CAST(m.facts ->> 'modified_at' AS timestamptz),"
            "  a.modified_at),"
            " scrubbed_at = CASE WHEN m.kind = 'refile' THEN a.scrubbed_at END"
            " FROM unnest(CAST(:ids AS bigint[]), CAST(:names AS text[]),"
            "  CAST(:bytes AS bytea[])) AS g (id, name, bytes)"
            " JOIN custody_moves m ON m.move_id = g.id"
            " WHERE a.photo_id = m.photo_id AND a.file_hash = m.file_hash"
            " RETURNING m.move_id"
        ),
        {
            "ids": [one.move_id for one in laid],
            "names": [one.name for one in laid],
            "bytes": [one.path_bytes for one in laid],
        },
    )
    return list(rows.scalars())


async def set_recorded(session: AsyncSession, laid: Sequence[Laid]) -> None:
    """RECORDED: they lie at their targets, and the ledger says so."""
    await session.execute(
        sql(
            "UPDATE custody_moves m SET state = 'RECORDED', recorded_at = now(), facts = NULL,"
            " target_identity = g.identity, photo_id = coalesce(g.photo_id, m.photo_id)"
            " FROM unnest(CAST(:ids AS bigint[]), CAST(:identities AS text[]),"
            "  CAST(:photos AS bigint[])) AS g (id, identity, photo_id)"
            " WHERE m.move_id = g.id AND m.state = 'PLANNED'"
        ),
        {
            "ids": [one.move_id for one in laid],
            "identities": [one.identity for one in laid],
            "photos": [one.photo_id for one in laid],
        },
    )


async def set_released(session: AsyncSession, move_ids: Sequence[int]) -> None:
    """RELEASED: the old name is gone."""
    await session.execute(
        sql(
            "UPDATE custody_moves SET state = 'RELEASED', released_at = now(),"
            " cause = CASE WHEN kind = 'set-aside' THEN cause END"
            " WHERE move_id = ANY(:ids) AND state = 'RECORDED'"
        ),
        {"ids": list(move_ids)},
    )


async def hold_planned(session: AsyncSession, move_ids: Collection[int]) -> set[int]:
    """Those of these moves that are PLANNED, and stay so until the transaction ends."""
    rows = await session.execute(
        sql(
            "SELECT move_id FROM custody_moves WHERE move_id = ANY(:ids) AND state = 'PLANNED'"
            " ORDER BY move_id FOR UPDATE"
        ),
        {"ids": list(move_ids)},
    )
    return set(rows.scalars())


async def set_abandoned(session: AsyncSession, causes: Mapping[int, str]) -> None:
    """ABANDONED: the source stays where it is; nothing of it lies anywhere else."""
    await session.execute(
        sql(
            "UPDATE custody_moves m SET state = 'ABANDONED', cause = g.cause, facts = NULL"
            " FROM unnest(CAST(:ids AS bigint[]), CAST(:causes AS text[])) AS g (id, cause)"
            " WHERE m.move_id = g.id"
            "  AND (m.state = 'PLANNED' OR m.state = 'RECORDED' AND m.how = 'remove')"
        ),
        {"ids": list(causes), "causes": list(causes.values())},
    )


async def note_unreleased(session: AsyncSession, causes: Mapping[int, str]) -> None:
    """Why old names are still there."""
    await session.execute(
        sql(
            "UPDATE custody_moves m SET cause = g.cause"
            " FROM unnest(CAST(:ids AS bigint[]), CAST(:causes AS text[])) AS g (id, cause)"
            " WHERE m.move_id = g.id AND m.state = 'RECORDED' AND m.kind <> 'set-aside'"
        ),
        {"ids": list(causes), "causes": list(causes.values())},
    )


async def amend(
    session: AsyncSession, move_id: int, identity: str, size: int, file_hash: str
) -> None:
    """A recorded move whose file was written to since: what it is now."""
    await session.execute(
        sql(
            "UPDATE custody_moves SET source_identity = :identity, target_identity = :identity,"
            " size_bytes = :size, file_hash = :hash WHERE move_id = :id AND state = 'RECORDED'"
        ),
        {"id": move_id, "identity": identity, "size": size, "hash": file_hash},
    )


async def filed_from(session: AsyncSession, sources: Collection[str]) -> dict[str, Row[Any]]:
    """The latest file filed from each of these paths.

    Answers source, photo_id, kind, together (its group), age, path, media_type, at (when it was
    taken) and confidence, by the source.
    """
    rows = await session.execute(
        sql(
            "SELECT DISTINCT ON (m.source_path) m.source_path AS source, m.photo_id, m.kind,"
            " m.group_id AS together, now() - m.recorded_at AS age,"
            " CASE WHEN m.kind = 'duplicate' THEN m.target_path ELSE a.final_path END AS path,"
            " a.media_type::text, a.captured_at AS at, a.captured_at_confidence AS confidence"
            " FROM custody_moves m JOIN media_assets a ON a.photo_id = m.photo_id"
            " WHERE m.source_path = ANY(:sources) AND m.state IN ('RECORDED', 'RELEASED')"
            " AND m.kind IN ('file', 'duplicate') ORDER BY m.source_path, m.move_id DESC"
        ),
        {"sources": list(sources)},
    )
    return {row.source: row for row in rows}


async def put_together(session: AsyncSession, groups: Mapping[int, UUID]) -> None:
    """Filed assets that came alone travel in these groups from now on."""
    await session.execute(
        sql(
            "UPDATE custody_moves m SET group_id = g.together"
            " FROM unnest(CAST(:ids AS bigint[]), CAST(:groups AS uuid[])) AS g (id, together)"
            " WHERE m.photo_id = g.id AND m.kind IN ('file', 'refile') AND m.group_id IS NULL"
        ),
        {"ids": list(groups), "groups": list(groups.values())},
    )


async def filed_assets(
    session: AsyncSession, photo_ids: Collection[int], root: str
) -> Sequence[Row[Any]]:
    """Assets below `root` and those that travel with them: photo_id, leader, path, at, file_hash.

    A companion lies in the folder of its leader, and is led by one of them.
    """
    rows = await session.execute(
        sql(
            "WITH asked AS (SELECT photo_id, final_path, captured_at, file_hash"
            "  FROM media_assets WHERE photo_id = ANY(:ids) AND duplicate_of IS NULL"
            "   AND file_hash IS NOT NULL AND starts_with(final_path, :root || '/')"
            " ), led AS (SELECT a.photo_id, a.final_path, a.file_hash, min(k.photo_id) AS leader"
            "  FROM asked k JOIN custody_moves km ON km.photo_id = k.photo_id"
            "  JOIN custody_moves m ON m.group_id = km.group_id AND m.photo_id <> k.photo_id"
            "  JOIN media_assets a ON a.photo_id = m.photo_id"
            "  WHERE km.kind IN ('file', 'refile') AND m.kind IN ('file', 'refile')"
            "   AND a.file_hash IS NOT NULL AND NOT EXISTS"
            "    (SELECT 1 FROM asked o WHERE o.photo_id = a.photo_id)"
            "   AND regexp_replace(a.final_path, '/[^/]*$', '')"
            "     = regexp_replace(k.final_path, '/[^/]*$', '') GROUP BY 1, 2, 3)"
            " SELECT photo_id, photo_id AS leader, final_path AS path, captured_at AS at, file_hash"
            " FROM asked UNION ALL"
            " SELECT photo_id, leader, final_path, NULL, file_hash FROM led ORDER BY 2, 1"
        ),
        {"ids": list(photo_ids), "root": root},
    )
    return rows.all()


async def counts_since(session: AsyncSession, day: float, hour: float) -> Sequence[Row[Any]]:
    """How many moves of each inbox and kind were recorded in so many last seconds: in the longer
    time `number`, in the shorter one `lately`."""
    rows = await session.execute(
        sql(
            "SELECT inbox, kind, count(*) AS number, count(*) FILTER"
            "  (WHERE recorded_at > now() - make_interval(secs => :hour)) AS lately"
            " FROM custody_moves"
            " WHERE recorded_at > now() - make_interval(secs => :day) AND inbox IS NOT NULL"
            " GROUP BY inbox, kind"
        ),
        {"day": day, "hour": hour},
    )
    return rows.all()


async def doubled(
    session: AsyncSession, inbox: str, seconds: float, limit: int
) -> Sequence[Row[Any]]:
    """What of an inbox were duplicates in the last seconds, the latest first: source, path (null:
    it was removed), of (where the first copy lies now), since."""
    rows = await session.execute(
        sql(
            "SELECT m.source_path AS source, m.target_path AS path, a.final_path AS of,"
            " m.recorded_at AS since"
            " FROM custody_moves m LEFT JOIN media_assets a USING (photo_id)"
            " WHERE m.kind = 'duplicate' AND m.state IN ('RECORDED', 'RELEASED')"
            " AND m.recorded_at > now() - make_interval(secs => :seconds) AND m.inbox = :inbox"
            " ORDER BY m.move_id DESC LIMIT :limit"
        ),
        {"inbox": inbox, "seconds": seconds, "limit": limit},
    )
    return rows.all()


async def set_aside(session: AsyncSession, inbox: str, limit: int) -> Sequence[Row[Any]]:
    """What of an inbox was set aside, the latest first: source, path, cause, since."""
    rows = await session.execute(
        sql(
            "SELECT source_path AS source, target_path AS path, cause, recorded_at AS since"
            " FROM custody_moves WHERE kind = 'set-aside' AND state IN ('RECORDED', 'RELEASED')"
            " AND inbox = :inbox ORDER BY move_id DESC LIMIT :limit"
        ),
        {"inbox": inbox, "limit": limit},
    )
    return rows.all()
