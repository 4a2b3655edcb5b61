"""Attempts at assets, and the status that follows from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql


@dataclass(frozen=True)
class Held:
    """An asset whose row nobody else changes until the transaction ends."""

    photo_id: int
    path: str
    media_type: str
    status: str
    attempt_id: UUID
    retry_count: int
    next_retry_at: datetime | None
    duplicate_of: int | None


@dataclass(frozen=True)
class Requested:
    """An asset with a new attempt."""

    photo_id: int
    path: str
    media_type: str
    attempt_id: UUID


async def hold(session: AsyncSession, photo_ids: Sequence[int]) -> dict[int, Held]:
    """The assets' states by id, their rows locked in the order of ids; unknown ones left out."""
    rows = await session.execute(
        sql(
            "SELECT photo_id, final_path AS path, media_type::text, status::text, attempt_id,"
            " retry_count, next_retry_at, duplicate_of FROM media_assets"
            " WHERE photo_id = ANY(:ids) ORDER BY photo_id FOR NO KEY UPDATE"
        ),
        {"ids": list(photo_ids)},
    )
    return {row.photo_id: Held(**row._mapping) for row in rows}


async def outcomes(session: AsyncSession, attempt_ids: Sequence[UUID]) -> dict[UUID, str | None]:
    """How attempts ended; those that have not, or were never heard of, have none."""
    rows = await session.execute(
        sql("SELECT attempt_id, outcome FROM processing_attempts WHERE attempt_id = ANY(:ids)"),
        {"ids": list(attempt_ids)},
    )
    return {row.attempt_id: row.outcome for row in rows}


async def results(session: AsyncSession, attempt_ids: Sequence[UUID]) -> dict[UUID, dict[str, Any]]:
    """What the callbacks of attempts were answered, where they were."""
    rows = await session.execute(
        sql(
            "SELECT attempt_id, result FROM processing_attempts"
            " WHERE attempt_id = ANY(:ids) AND result IS NOT NULL"
        ),
        {"ids": list(attempt_ids)},
    )
    return {row.attempt_id: row.result for row in rows}


async def begin(session: AsyncSession, begun: Mapping[int, UUID], worker: str | None) -> None:
    """The attempts at these photos run: PROCESSING."""
    terms = {"photos": list(begun), "attempts": list(begun.values())}
    await session.execute(
        sql(
            "INSERT INTO processing_attempts (attempt_id, photo_id, worker, started_at)"
            " SELECT attempt, photo, :worker, now()"
            " FROM unnest(CAST(:attempts AS uuid[]), CAST(:photos AS bigint[]))"
            "  AS begun (attempt, photo) ON CONFLICT (attempt_id)"
            " DO UPDATE SET worker = excluded.worker, started_at = excluded.started_at"
        ),
        terms | {"worker": worker},
    )
    # Failed for good and begun nevertheless: a person revived it, so that the count begins anew.
    await session.execute(
        sql(
            "UPDATE media_assets SET status = 'PROCESSING', processing_since = now(),"
            " retry_count = CASE WHEN status = 'FAILED' AND next_retry_at IS NULL"
            "  THEN 0 ELSE retry_count END, next_retry_at = NULL WHERE photo_id = ANY(:photos)"
        ),
        {"photos": terms["photos"]},
    )


@dataclass(frozen=True)
class End:
    """How an attempt at an asset ended."""

    photo_id: int
    attempt_id: UUID
    outcome: str
    error_code: str | None = None
    error_message: str | None = None
    permanent: bool = False
    model_version: str | None = None
    duration_ms: int | None = None
    result: Mapping[str, Any] | None = None


async def end(session: AsyncSession, ends: Sequence[End]) -> None:
    """The attempts have ended, whether or not anybody said that they began."""
    await session.execute(
        sql(
            "INSERT INTO processing_attempts AS a (attempt_id, photo_id, finished_at, outcome,"
            "  error_code, error_message, permanent, model_version, duration_ms, result)"
            " SELECT attempt_id, photo_id, now(), outcome, error_code, error_message, permanent,"
            "  model_version, duration_ms, result"
            " FROM jsonb_to_recordset(CAST(:ends AS jsonb)) AS e (attempt_id uuid,"
            "  photo_id bigint, outcome text, error_code text, error_message text,"
            "  permanent boolean, model_version text, duration_ms int, result jsonb)"
            " ON CONFLICT (attempt_id) DO UPDATE SET finished_at = excluded.finished_at,"
            "  outcome = excluded.outcome, error_code = excluded.error_code,"
            "  error_message = excluded.error_message, permanent = excluded.permanent,"
            "  model_version = excluded.model_version, duration_ms = excluded.duration_ms,"
            "  result = excluded.result"
        ),
        {"ends": json.dumps([asdict(e) for e in ends], default=str)},
    )


async def set_processed(session: AsyncSession, found: Sequence[Mapping[str, Any]]) -> None:
    """PROCESSED: what was found in each `photo_id`; recognition has no problem any more.

    Nulls leave what is known.
    """
    await session.execute(
        sql(
            "WITH found AS MATERIALIZED (SELECT * FROM jsonb_to_recordset(CAST(:found AS jsonb))"
            "  AS f (photo_id bigint, person_ids jsonb, no_faces boolean, width int, height int,"
            "   mime_type text, duration_seconds numeric, frame_rate numeric)),"
            " healed AS (DELETE FROM asset_problems p USING found f"
            "  WHERE p.photo_id = f.photo_id AND p.what = 'recognised')"
            " UPDATE media_assets m SET status = 'PROCESSED', retry_count = 0,"
            " next_retry_at = NULL,"
            " person_ids = coalesce(f.person_ids, m.person_ids),"
            " no_faces = coalesce(f.no_faces, m.no_faces), width = coalesce(f.width, m.width),"
            " height = coalesce(f.height, m.height),"
            " mime_type = coalesce(f.mime_type, m.mime_type),"
            " duration_seconds = coalesce(f.duration_seconds, m.duration_seconds),"
            " frame_rate = coalesce(f.frame_rate, m.frame_rate)"
            " FROM found f WHERE m.photo_id = f.photo_id"
        ),
        {"found": json.dumps(found)},
    )


async def set_failed(
    session: AsyncSession,
    photo_id: int,
    count: int,
    retry_in: timedelta | None,
    code: str,
    error: str,
) -> None:
    """FAILED, to be tried again after `retry_in`; None: for good.

    Then its next attempt is one that only a person can begin.
    """
    await session.execute(
        sql(
            "UPDATE media_assets SET status = 'FAILED', retry_count = :count,"
            " next_retry_at = now() + CAST(:wait AS interval),"
            " attempt_id = CASE WHEN CAST(:wait AS interval) IS NULL"
            "  THEN gen_random_uuid() ELSE attempt_id END WHERE photo_id = :photo"
        ),
        {"photo": photo_id, "count": count, "wait": retry_in},
    )
    await session.execute(
        sql(
            "INSERT INTO asset_problems"
            "  (photo_id, what, error_code, error, failures, retry_at)"
            " VALUES (:photo, 'recognised', :code, :error, :count, now() + CAST(:wait AS interval))"
            " ON CONFLICT (photo_id, what) DO UPDATE SET error_code = excluded.error_code,"
            "  error = excluded.error, failures = excluded.failures, failed_at = now(),"
            "  retry_at = excluded.retry_at"
        ),
        {"photo": photo_id, "count": count, "wait": retry_in, "code": code, "error": error},
    )


async def adopt(session: AsyncSession, photo_id: int, attempt_id: UUID) -> None:
    """Let an attempt that somebody else began be the one that counts."""
    await _void(session, [photo_id])
    await session.execute(
        sql("UPDATE media_assets SET attempt_id = :attempt WHERE photo_id = :photo"),
        {"photo": photo_id, "attempt": attempt_id},
    )


async def request(
    session: AsyncSession, photo_ids: Sequence[int], *, anew: bool
) -> list[Requested]:
    """READY with a new attempt, which supersedes the one before; `anew`: failures forgotten."""
    await _void(session, photo_ids)
    rows = await session.execute(
        sql(
            "UPDATE media_assets SET status = 'READY', attempt_id = gen_random_uuid(),"
            " next_retry_at = NULL, retry_count = CASE WHEN :anew THEN 0 ELSE retry_count END"
            " WHERE photo_id = ANY(:ids)"
            " RETURNING photo_id, final_path AS path, media_type::text, attempt_id"
        ),
        {"ids": list(photo_ids), "anew": anew},
    )
    return sorted((Requested(**row._mapping) for row in rows), key=lambda r: r.photo_id)


async def _void(session: AsyncSession, photo_ids: Sequence[int]) -> None:
    await session.execute(
        sql(
            "INSERT INTO processing_attempts AS a (attempt_id, photo_id, finished_at, outcome)"
            " SELECT attempt_id, photo_id, now(), 'SUPERSEDED' FROM"
            "  (SELECT attempt_id, photo_id FROM media_assets WHERE photo_id = ANY(:ids)"
            "   ORDER BY photo_id FOR NO KEY UPDATE) AS held"
            " ON CONFLICT (attempt_id) DO UPDATE SET finished_at = excluded.finished_at,"
            "  outcome = excluded.outcome WHERE a.outcome IS NULL"
        ),
        {"ids": list(photo_ids)},
    )


async def unended(session: AsyncSession, photo_ids: Sequence[int]) -> list[int]:
    """Those of these assets that recognition has not ended with; duplicates are left out."""
    rows = await session.execute(
        sql(
            "SELECT photo_id FROM media_assets WHERE photo_id = ANY(:ids)"
            " AND status <> 'PROCESSED' AND duplicate_of IS NULL ORDER BY photo_id"
        ),
        {"ids": list(photo_ids)},
    )
    return list(rows.scalars())


async def first_of(session: AsyncSession, photo_ids: Sequence[int]) -> list[int]:
    """The assets that recognition looks at for these: a duplicate's is its first."""
    rows = await session.execute(
        sql(
            "SELECT DISTINCT coalesce(duplicate_of, photo_id) FROM media_assets"
            " WHERE photo_id = ANY(:ids) ORDER BY 1"
        ),
        {"ids": list(photo_ids)},
    )
    return list(rows.scalars())


async def due(session: AsyncSession, limit: int) -> list[int]:
    """FAILED assets whose time has come, which nobody else is busy with."""
    rows = await session.execute(
        sql(
            "SELECT photo_id FROM media_assets WHERE status = 'FAILED'"
            " AND next_retry_at <= now() AND duplicate_of IS NULL"
            " ORDER BY next_retry_at LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED"
        ),
        {"limit": limit},
    )
    return list(rows.scalars())


async def stuck(session: AsyncSession, age: timedelta, limit: int) -> Sequence[Row[Any]]:
    """Assets that are PROCESSING for longer than `age`: photo_id, attempt_id."""
    rows = await session.execute(
        sql(
            "SELECT photo_id, attempt_id FROM media_assets WHERE status = 'PROCESSING'"
            " AND processing_since < now() - CAST(:age AS interval)"
            " ORDER BY processing_since LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED"
        ),
        {"age": age, "limit": limit},
    )
    return rows.all()


async def failures(session: AsyncSession, photo_id: int) -> Sequence[Row[Any]]:
    """The failed attempts of an asset since it last succeeded, the oldest first."""
    rows = await session.execute(
        sql(
            "SELECT finished_at, worker, error_code, error_message FROM processing_attempts"
            " WHERE photo_id = :photo AND outcome = 'FAILED' AND finished_at > coalesce("
            "  (SELECT max(finished_at) FROM processing_attempts"
            "   WHERE photo_id = :photo AND outcome = 'PROCESSED'), '-infinity')"
            " ORDER BY finished_at"
        ),
        {"photo": photo_id},
    )
    return rows.all()


# How the models of a pack that last looked at a photo begin: see `ml.engine.model_version`.
_LOOKED = (
    " FROM media_assets m LEFT JOIN processing_attempts a ON a.attempt_id = m.attempt_id"
    " WHERE m.media_type = 'photo' AND m.duplicate_of IS NULL"
)
_WITH = "coalesce(starts_with(a.model_version, :models), false)"


async def looked_at_with(session: AsyncSession, models: str) -> Row[Any]:
    """Photos PROCESSED with models whose version begins so (`done`) and with others (`left`), those
    that are on their way (`waiting`), and those that failed for good (`failed`).
    """
    rows = await session.execute(
        sql(
            f"SELECT count(*) FILTER (WHERE m.status = 'PROCESSED' AND {_WITH}) AS done,"
            f" count(*) FILTER (WHERE m.status = 'PROCESSED' AND NOT {_WITH}) AS left,"
            " count(*) FILTER (WHERE m.status IN ('READY', 'PROCESSING')"
            "  OR m.status = 'FAILED' AND m.next_retry_at IS NOT NULL) AS waiting,"
            " count(*) FILTER (WHERE m.status = 'FAILED' AND m.next_retry_at IS NULL) AS failed"
            f"{_LOOKED}"
        ),
        {"models": models},
    )
    return rows.one()


async def not_looked_at_with(
    session: AsyncSession,
    models: str,
    *,
    photo_ids: Sequence[int] | None = None,
    after: int = 0,
    limit: int | None = None,
) -> list[int]:
    """The photos (of these, above an id) that are PROCESSED with other models, in order."""
    rows = await session.execute(
        sql(
            f"SELECT m.photo_id{_LOOKED} AND m.photo_id > :after AND m.status = 'PROCESSED'"
            " AND (CAST(:ids AS bigint[]) IS NULL OR m.photo_id = ANY(CAST(:ids AS bigint[])))"
            f" AND NOT {_WITH} ORDER BY m.photo_id LIMIT :limit"
        ),
        {"models": models, "ids": photo_ids, "after": after, "limit": limit},
    )
    return list(rows.scalars())
