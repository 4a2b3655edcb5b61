"""Dates of assets: which have none yet, what tells them, and their corrections."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql
from kaleidoscope.library.queries.history import WAITING
from kaleidoscope.library.queries.places import OUTSIDE_FROZEN
from kaleidoscope.library.rules.dates import UTC_SOURCES, Candidate, Chosen


@dataclass(frozen=True)
class Undated:
    """An asset whose file has not been asked for its date, as the ledger knows it."""

    photo_id: int
    path: str
    name: str
    mime_type: str | None
    media_type: str
    size: int
    modified_at: datetime | None


@dataclass(frozen=True)
class Dated:
    """What was read of an asset's file while it had this size and time."""

    asset: Undated
    chosen: Chosen
    candidates: Sequence[Candidate]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Meant:
    """Whose dates a shift corrects: `since` and `until` (exclusive) by the date they have now."""

    make: str | None
    model: str
    serial: str | None = None
    since: datetime | None = None
    until: datetime | None = None


COLUMNS = (
    "photo_id, final_path AS path, original_name AS name, mime_type,"
    " media_type::text AS media_type, size_bytes AS size, modified_at"
)

# A video that waits for its own reading is dated by that; one that waits in vain, here.
UNDATED = sql(
    f"SELECT {COLUMNS} FROM media_assets m"
    " WHERE captured_at_source IS NULL AND photo_id > :after AND missing_since IS NULL"
    "  AND NOT (media_type = 'video' AND status IN ('READY', 'PROCESSING')"
    "   AND created_at > now() - interval '1 hour')"
    f"  AND NOT {WAITING.format('dated')} AND {OUTSIDE_FROZEN} ORDER BY photo_id LIMIT :limit"
)

# A date that stands already without a source was given by whoever wrote the row.
WRITE = sql(
    "UPDATE media_assets m SET"
    " captured_at = coalesce(m.captured_at, g.at),"
    " captured_offset = CASE WHEN m.captured_at IS NULL THEN g.ahead ELSE m.captured_offset END,"
    " captured_at_source = CASE WHEN m.captured_at IS NULL THEN g.source ELSE 'person' END,"
    " captured_at_confidence = CASE WHEN m.captured_at IS NULL THEN g.confidence ELSE 'high' END,"
    " location = coalesce(m.location, g.location), camera_make = g.make, camera_model = g.model,"
    " camera_serial = g.serial, width = coalesce(m.width, g.width),"
    " height = coalesce(m.height, g.height),"
    " duration_seconds = coalesce(m.duration_seconds, g.duration),"
    " frame_rate = coalesce(m.frame_rate, g.rate)"
    " FROM unnest(CAST(:ids AS bigint[]), CAST(:sizes AS bigint[]), CAST(:times AS timestamptz[]),"
    "  CAST(:ats AS timestamp[]), CAST(:offsets AS interval[]), CAST(:sources AS text[]),"
    "  CAST(:confidences AS text[]), CAST(:locations AS jsonb[]), CAST(:makes AS text[]),"
    "  CAST(:models AS text[]), CAST(:serials AS text[]), CAST(:widths AS integer[]),"
    "  CAST(:heights AS integer[]), CAST(:durations AS numeric[]), CAST(:rates AS numeric[]))"
    "  AS g (id, size, modified_at, at, ahead, source, confidence, location, make, model, serial,"
    "   width, height, duration, rate)"
    " WHERE m.photo_id = g.id AND m.size_bytes = g.size"
    "  AND m.modified_at IS NOT DISTINCT FROM g.modified_at AND m.captured_at_source IS NULL"
    " RETURNING m.photo_id"
)

REVIEW = sql(
    "SELECT m.photo_id, m.final_path AS path, m.captured_at, m.captured_offset,"
    " m.captured_at_source, m.camera_make, m.camera_model,"
    " coalesce((SELECT jsonb_agg(jsonb_build_object('source', c.source,"
    "   'captured_at', c.captured_at, 'captured_offset', extract(epoch FROM c.captured_offset),"
    "   'confidence', c.confidence) ORDER BY c.source)"
    "  FROM capture_candidates c WHERE c.photo_id = m.photo_id), '[]') AS candidates"
    " FROM media_assets m WHERE m.captured_at_confidence = 'low' AND m.photo_id > :after"
    " ORDER BY m.photo_id LIMIT :limit"
)

MATCHING = (
    "m.camera_model = :model AND m.camera_make IS NOT DISTINCT FROM :make"
    " AND (CAST(:serial AS text) IS NULL OR m.camera_serial = :serial)"
    " AND m.captured_at IS NOT NULL"
    " AND (CAST(:since AS timestamp) IS NULL OR m.captured_at >= :since)"
    " AND (CAST(:until AS timestamp) IS NULL OR m.captured_at < :until)"
)

CORRECT = sql(
    "WITH given AS (SELECT * FROM unnest(CAST(:ids AS bigint[]), CAST(:ats AS timestamp[]),"
    "  CAST(:offsets AS interval[])) AS g (photo_id, at, ahead)),"
    " was AS (SELECT m.photo_id, m.captured_at, m.captured_offset, m.captured_at_source,"
    "   m.captured_at_confidence, g.at, g.ahead"
    "  FROM media_assets m JOIN given g USING (photo_id)),"
    " noted AS (INSERT INTO corrected_dates (correction_id, photo_id, at_before, offset_before,"
    "   source_before, confidence_before, at_after, offset_after, is_filed)"
    "  SELECT :correction, photo_id, captured_at, captured_offset, captured_at_source,"
    "   captured_at_confidence, at, ahead, coalesce(captured_at::date = at::date, false)"
    "  FROM was)"
    " UPDATE media_assets m SET captured_at = w.at, captured_offset = w.ahead,"
    "  captured_at_source = 'person', captured_at_confidence = 'high'"
    " FROM was w WHERE m.photo_id = w.photo_id"
)

# Exactly what was; a date that is no longer the corrected one is left alone.
UNDO = sql(
    "WITH back AS (UPDATE media_assets m SET captured_at = c.at_before,"
    "  captured_offset = c.offset_before, captured_at_source = c.source_before,"
    "  captured_at_confidence = c.confidence_before"
    "  FROM corrected_dates c WHERE c.correction_id = :correction AND m.photo_id = c.photo_id"
    "   AND m.captured_at = c.at_after AND m.captured_offset IS NOT DISTINCT FROM c.offset_after"
    "   AND m.captured_at_source = 'person'"
    "  RETURNING m.photo_id)"
    " UPDATE corrected_dates c SET"
    "  is_filed = coalesce(c.at_before::date = c.at_after::date, false)"
    " FROM back WHERE c.correction_id = :correction AND c.photo_id = back.photo_id"
    " RETURNING c.photo_id"
)


async def undated(session: AsyncSession, after: int, limit: int) -> list[Undated]:
    """The next assets to be dated, in the order of their ids; failures wait for their time."""
    rows = await session.execute(UNDATED, {"after": after, "limit": limit})
    return [Undated(**row._mapping) for row in rows]


async def as_undated(session: AsyncSession, photo_id: int) -> Undated | None:
    """One asset for its date to be read, unless it has one."""
    rows = await session.execute(
        sql(
            f"SELECT {COLUMNS} FROM media_assets"
            " WHERE photo_id = :photo_id AND captured_at_source IS NULL"
        ),
        {"photo_id": photo_id},
    )
    row = rows.one_or_none()
    return None if row is None else Undated(**row._mapping)


async def write(session: AsyncSession, dated: Sequence[Dated]) -> set[int]:
    """What was read, into rows that have no date; answers whose it was.

    A row whose file has changed since is left out.
    """
    told = sorted(dated, key=lambda d: d.asset.photo_id)
    rows = await session.execute(
        WRITE,
        {
            "ids": [d.asset.photo_id for d in told],
            "sizes": [d.asset.size for d in told],
            "times": [d.asset.modified_at for d in told],
            "ats": [d.chosen.captured_at for d in told],
            "offsets": [d.chosen.captured_offset for d in told],
            "sources": [d.chosen.source for d in told],
            "confidences": [d.chosen.confidence for d in told],
            "locations": [
                None if d.facts["location"] is None else json.dumps(d.facts["location"])
                for d in told
            ],
            "makes": [d.facts["camera_make"] for d in told],
            "models": [d.facts["camera_model"] for d in told],
            "serials": [d.facts["camera_serial"] for d in told],
            "widths": [d.facts["width"] for d in told],
            "heights": [d.facts["height"] for d in told],
            "durations": [d.facts["duration_seconds"] for d in told],
            "rates": [d.facts["frame_rate"] for d in told],
        },
    )
    written = set(rows.scalars())
    await write_candidates(
        session, {d.asset.photo_id: d.candidates for d in told if d.asset.photo_id in written}
    )
    return written


async def write_candidates(
    session: AsyncSession, candidates: Mapping[int, Sequence[Candidate]]
) -> None:
    """Every date that something tells of these assets, in place of what was told before."""
    if not candidates:
        return
    await session.execute(
        sql("DELETE FROM capture_candidates WHERE photo_id = ANY(:ids)"),
        {"ids": list(candidates)},
    )
    pairs = [(photo_id, c) for photo_id, told in candidates.items() for c in told]
    if pairs:
        await session.execute(
            sql(
                "INSERT INTO capture_candidates"
                " (photo_id, source, captured_at, captured_offset, confidence)"
                " SELECT * FROM unnest(CAST(:ids AS bigint[]), CAST(:sources AS text[]),"
                "  CAST(:ats AS timestamp[]), CAST(:offsets AS interval[]),"
                "  CAST(:confidences AS text[]))"
            ),
            {
                "ids": [photo_id for photo_id, _ in pairs],
                "sources": [c.source for _, c in pairs],
                "ats": [c.at for _, c in pairs],
                "offsets": [c.offset for _, c in pairs],
                "confidences": [c.confidence for _, c in pairs],
            },
        )


async def candidates(session: AsyncSession, photo_id: int) -> Sequence[Row[Any]]:
    """Every date that something tells of an asset."""
    rows = await session.execute(
        sql(
            "SELECT source, captured_at, captured_offset, confidence FROM capture_candidates"
            " WHERE photo_id = :photo_id"
        ),
        {"photo_id": photo_id},
    )
    return rows.all()


async def doubtful(session: AsyncSession, after: int, limit: int) -> Sequence[Row[Any]]:
    """The next assets whose date is of low confidence, each with all that tells one."""
    return (await session.execute(REVIEW, {"after": after, "limit": limit})).all()


async def count_doubtful(session: AsyncSession) -> int:
    """How many assets have a date of low confidence."""
    found = await session.execute(
        sql("SELECT count(*) FROM media_assets WHERE captured_at_confidence = 'low'")
    )
    return int(found.scalar_one())


async def cameras(session: AsyncSession) -> Sequence[Row[Any]]:
    """Every camera with its number of assets, and from when to when."""
    rows = await session.execute(
        sql(
            "SELECT camera_make AS make, camera_model AS model, camera_serial AS serial,"
            " count(*) AS photos, min(captured_at) AS first, max(captured_at) AS last"
            " FROM media_assets WHERE camera_model IS NOT NULL GROUP BY 1, 2, 3"
            " ORDER BY count(*) DESC, model, make, serial"
        )
    )
    return rows.all()


async def matching(session: AsyncSession, meant: Meant, *, held: bool) -> Sequence[Row[Any]]:
    """The assets that a shift means, in the order of their dates; `held`: nobody changes them."""
    rows = await session.execute(
        sql(
            "SELECT photo_id, final_path AS path, captured_at, captured_offset FROM media_assets m"
            f" WHERE {MATCHING} ORDER BY {'photo_id FOR NO KEY UPDATE' if held else 'captured_at'}"
        ),
        {
            "make": meant.make,
            "model": meant.model,
            "serial": meant.serial,
            "since": meant.since,
            "until": meant.until,
        },
    )
    return rows.all()


async def told_in_utc(
    session: AsyncSession, since: datetime | None, until: datetime | None, *, held: bool
) -> Sequence[Row[Any]]:
    """The assets whose date is told in UTC, since nobody knows where they were taken."""
    rows = await session.execute(
        sql(
            "SELECT photo_id, final_path AS path, captured_at, captured_offset FROM media_assets m"
            " WHERE captured_at_confidence = 'low' AND captured_offset = interval '0'"
            "  AND captured_at_source = ANY(:sources)"
            "  AND (CAST(:since AS timestamp) IS NULL OR captured_at >= :since)"
            "  AND (CAST(:until AS timestamp) IS NULL OR captured_at < :until)"
            f" ORDER BY {'photo_id FOR NO KEY UPDATE' if held else 'captured_at'}"
        ),
        {"sources": sorted(UTC_SOURCES | {"name"}), "since": since, "until": until},
    )
    return rows.all()


async def begin_correction(
    session: AsyncSession, kind: str, shifted_by: timedelta | None, criteria: Mapping[str, Any]
) -> Row[Any]:
    """A new correction: its number and when it was made."""
    rows = await session.execute(
        sql(
            "INSERT INTO date_corrections (kind, shifted_by, criteria)"
            " VALUES (:kind, :shifted_by, CAST(:criteria AS jsonb))"
            " RETURNING correction_id, made_at"
        ),
        {"kind": kind, "shifted_by": shifted_by, "criteria": json.dumps(criteria)},
    )
    return rows.one()


async def correct(
    session: AsyncSession,
    correction: int,
    dates: Mapping[int, tuple[datetime, timedelta | None]],
) -> None:
    """The dates that a person gives, with what they were before."""
    await session.execute(
        CORRECT,
        {
            "correction": correction,
            "ids": list(dates),
            "ats": [at for at, _ in dates.values()],
            "offsets": [offset for _, offset in dates.values()],
        },
    )


async def hold(session: AsyncSession, photo_ids: Collection[int]) -> Sequence[Row[Any]]:
    """These assets and their dates, which nobody else changes until the transaction ends."""
    rows = await session.execute(
        sql(
            "SELECT photo_id, captured_at, captured_offset FROM media_assets"
            " WHERE photo_id = ANY(:ids) ORDER BY photo_id FOR NO KEY UPDATE"
        ),
        {"ids": list(photo_ids)},
    )
    return rows.all()


async def correction(session: AsyncSession, correction_id: int) -> Row[Any] | None:
    """A correction, held until the transaction ends."""
    rows = await session.execute(
        sql(
            "SELECT correction_id, undone_at FROM date_corrections"
            " WHERE correction_id = :correction FOR UPDATE"
        ),
        {"correction": correction_id},
    )
    return rows.one_or_none()


async def last_correction(session: AsyncSession) -> int | None:
    """The latest correction that stands."""
    rows = await session.execute(
        sql("SELECT max(correction_id) FROM date_corrections WHERE undone_at IS NULL")
    )
    found: int | None = rows.scalar_one()
    return found


async def built_upon(session: AsyncSession, correction_id: int) -> list[int]:
    """Later corrections, still standing, of photos of this one."""
    rows = await session.execute(
        sql(
            "SELECT DISTINCT later.correction_id FROM corrected_dates c"
            " JOIN corrected_dates later ON later.photo_id = c.photo_id"
            "  AND later.correction_id > c.correction_id"
            " JOIN date_corrections d ON d.correction_id = later.correction_id"
            " WHERE c.correction_id = :correction AND d.undone_at IS NULL ORDER BY 1"
        ),
        {"correction": correction_id},
    )
    return list(rows.scalars())


async def photos_of(session: AsyncSession, correction_id: int) -> list[int]:
    """The photos of a correction."""
    rows = await session.execute(
        sql("SELECT photo_id FROM corrected_dates WHERE correction_id = :correction ORDER BY 1"),
        {"correction": correction_id},
    )
    return list(rows.scalars())


async def undo(session: AsyncSession, correction_id: int) -> list[int]:
    """Take a correction back; answers whose dates are what they were before."""
    rows = await session.execute(UNDO, {"correction": correction_id})
    restored = list(rows.scalars())
    await session.execute(
        sql("UPDATE date_corrections SET undone_at = now() WHERE correction_id = :correction"),
        {"correction": correction_id},
    )
    return restored


async def corrections(session: AsyncSession, before: int | None, limit: int) -> Sequence[Row[Any]]:
    """The latest corrections, the newest first."""
    rows = await session.execute(
        sql(
            "SELECT d.correction_id, d.kind, d.shifted_by, d.criteria, d.made_at, d.undone_at,"
            " count(c.photo_id) AS photos, count(*) FILTER (WHERE NOT c.is_filed) AS to_be_filed"
            " FROM date_corrections d LEFT JOIN corrected_dates c USING (correction_id)"
            " WHERE CAST(:before AS bigint) IS NULL OR d.correction_id < :before"
            " GROUP BY d.correction_id ORDER BY d.correction_id DESC LIMIT :limit"
        ),
        {"before": before, "limit": limit},
    )
    return rows.all()


async def to_be_filed(session: AsyncSession, after: int, limit: int) -> list[int]:
    """The next assets whose day a correction has changed since their originals were filed.

    Failures wait for their time.
    """
    rows = await session.execute(
        sql(
            "SELECT DISTINCT photo_id FROM corrected_dates JOIN media_assets m USING (photo_id)"
            f" WHERE NOT is_filed AND photo_id > :after AND NOT {WAITING.format('filed')}"
            " ORDER BY photo_id LIMIT :limit"
        ),
        {"after": after, "limit": limit},
    )
    return list(rows.scalars())


async def filed(session: AsyncSession, photo_ids: Collection[int]) -> None:
    """The originals of these assets lie where their days say."""
    await session.execute(
        sql("UPDATE corrected_dates SET is_filed = true WHERE photo_id = ANY(:ids)"),
        {"ids": list(photo_ids)},
    )
