"""What happened to assets, and what is wrong with them now."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql


class Event(Protocol):
    """What is noted of an asset."""

    @property
    def photo_id(self) -> int: ...
    @property
    def what(self) -> str: ...
    @property
    def outcome(self) -> str: ...
    @property
    def duration_ms(self) -> int | None: ...
    @property
    def error(self) -> str | None: ...
    @property
    def detail(self) -> Mapping[str, Any] | None: ...
    @property
    def code(self) -> str: ...
    @property
    def permanent(self) -> bool: ...


GIVEN = (
    "unnest(CAST(:ids AS bigint[]), CAST(:whats AS text[]), CAST(:outcomes AS text[]),"
    " CAST(:durations AS integer[]), CAST(:codes AS text[]), CAST(:errors AS text[]),"
    " CAST(:details AS jsonb[])) WITH ORDINALITY"
    " AS g (photo_id, what, outcome, duration_ms, error_code, error, detail, nth)"
)

# A failure that stands already, with the same words, is counted and not told again.
INSERT = sql(
    "INSERT INTO asset_events (photo_id, what, outcome, duration_ms, error_code, error, detail)"
    f" SELECT photo_id, what, outcome, duration_ms, error_code, error, detail FROM {GIVEN}"
    " WHERE EXISTS (SELECT FROM media_assets m WHERE m.photo_id = g.photo_id)"
    "  AND NOT EXISTS (SELECT FROM asset_problems p WHERE p.photo_id = g.photo_id"
    "   AND p.what = g.what AND p.error = g.error) ORDER BY nth"
)

OPEN = sql(
    "INSERT INTO asset_problems AS p (photo_id, what, error_code, error, retry_at)"
    " SELECT g.photo_id, what, code, error,"
    "  CASE WHEN NOT permanent THEN now() + CAST(:wait AS interval) END"
    " FROM unnest(CAST(:ids AS bigint[]), CAST(:whats AS text[]), CAST(:codes AS text[]),"
    "  CAST(:errors AS text[]), CAST(:permanents AS boolean[]))"
    "  AS g (photo_id, what, code, error, permanent)"
    " WHERE EXISTS (SELECT FROM media_assets m WHERE m.photo_id = g.photo_id)"
    " ORDER BY photo_id, what"
    " ON CONFLICT (photo_id, what) DO UPDATE SET error_code = excluded.error_code,"
    "  error = excluded.error, failures = p.failures + 1, failed_at = now(),"
    "  retry_at = CASE WHEN excluded.retry_at IS NOT NULL THEN"
    "   now() + least(CAST(:wait AS interval) * power(2, least(p.failures, 30)),"
    "    CAST(:most AS interval)) END"
)

CLOSE = sql(
    "DELETE FROM asset_problems p"
    " USING unnest(CAST(:ids AS bigint[]), CAST(:whats AS text[])) AS g (photo_id, what)"
    " WHERE p.photo_id = g.photo_id AND p.what = g.what"
)


WAITING = (
    "EXISTS (SELECT FROM asset_problems p WHERE p.photo_id = m.photo_id AND p.what = '{}'"
    " AND (p.retry_at IS NULL OR p.retry_at > now()))"
)
"""Whether what failed of asset `m` is not to be tried again yet."""


async def insert(session: AsyncSession, events: Sequence[Event]) -> None:
    """One row an event, but for failures that are known; unknown assets are left out."""
    await session.execute(
        INSERT,
        {
            "ids": [e.photo_id for e in events],
            "whats": [e.what for e in events],
            "outcomes": [e.outcome for e in events],
            "durations": [e.duration_ms for e in events],
            "codes": [e.code if e.error is not None else None for e in events],
            "errors": [e.error for e in events],
            "details": [None if e.detail is None else json.dumps(e.detail) for e in events],
        },
    )


async def open_problems(
    session: AsyncSession, events: Collection[Event], wait: timedelta, most: timedelta
) -> None:
    """Failures stand from now on; each further one doubles the wait before it is tried again."""
    await session.execute(
        OPEN,
        {
            "ids": [e.photo_id for e in events],
            "whats": [e.what for e in events],
            "codes": [e.code for e in events],
            "errors": [e.error for e in events],
            "permanents": [e.permanent for e in events],
            "wait": wait,
            "most": most,
        },
    )


async def close_problems(session: AsyncSession, healed: Collection[tuple[int, str]]) -> None:
    """What failed of these assets, each with its `what`, stands no more."""
    await session.execute(
        CLOSE, {"ids": [i for i, _ in healed], "whats": [what for _, what in healed]}
    )


async def problems(session: AsyncSession, photo_id: int) -> Sequence[Row[Any]]:
    """What is wrong with an asset."""
    rows = await session.execute(
        sql(
            "SELECT what, error_code, error, failures, since, failed_at, retry_at"
            " FROM asset_problems WHERE photo_id = :photo ORDER BY since, what"
        ),
        {"photo": photo_id},
    )
    return rows.all()


async def events(session: AsyncSession, photo_id: int) -> Sequence[Row[Any]]:
    """What was noted of an asset, the oldest first."""
    rows = await session.execute(
        sql(
            "SELECT happened_at AS at, what, outcome, duration_ms, error, detail"
            " FROM asset_events WHERE photo_id = :photo ORDER BY event_id"
        ),
        {"photo": photo_id},
    )
    return rows.all()


async def recognitions(session: AsyncSession, photo_id: int) -> Sequence[Row[Any]]:
    """The attempts at an asset that began or ended, the oldest first."""
    rows = await session.execute(
        sql(
            "SELECT coalesce(finished_at, started_at, created_at) AS at, 'recognised' AS what,"
            " CASE outcome WHEN 'PROCESSED' THEN 'ok' WHEN 'FAILED' THEN 'failed'"
            "  WHEN 'SUPERSEDED' THEN 'skipped' ELSE 'running' END AS outcome,"
            " coalesce(duration_ms, 1000 * extract(epoch FROM finished_at - started_at))::integer"
            "  AS duration_ms, model_version,"
            " CASE outcome WHEN 'FAILED' THEN coalesce(error_message, error_code) END AS error,"
            " CASE WHEN worker IS NOT NULL THEN jsonb_build_object('worker', worker) END AS detail"
            " FROM processing_attempts WHERE photo_id = :photo"
            "  AND (started_at IS NOT NULL OR outcome IS DISTINCT FROM 'SUPERSEDED')"
            " ORDER BY 1"
        ),
        {"photo": photo_id},
    )
    return rows.all()


async def moves(session: AsyncSession, photo_id: int) -> Sequence[Row[Any]]:
    """The moves of an asset's file by custody, the oldest first."""
    rows = await session.execute(
        sql(
            "SELECT planned_at, coalesce(recorded_at, planned_at) AS at,"
            " CASE WHEN kind IN ('duplicate', 'set-aside') THEN 'set-aside' ELSE 'filed' END"
            "  AS what,"
            " CASE state WHEN 'ABANDONED' THEN 'failed' WHEN 'PLANNED' THEN 'running' ELSE 'ok' END"
            "  AS outcome,"
            " (1000 * extract(epoch FROM recorded_at - planned_at))::integer AS duration_ms,"
            " CASE state WHEN 'ABANDONED' THEN coalesce(cause, 'abandoned') END AS error,"
            " jsonb_strip_nulls(jsonb_build_object('kind', kind, 'from', source_path,"
            "  'to', target_path, 'how', how, 'cause', cause)) AS detail"
            " FROM custody_moves WHERE photo_id = :photo ORDER BY move_id"
        ),
        {"photo": photo_id},
    )
    return rows.all()


async def due_now(session: AsyncSession, photo_id: int, what: str) -> bool:
    """Let what failed be tried again in the next round; False: it has not failed."""
    rows = await session.execute(
        sql(
            "UPDATE asset_problems SET retry_at = now(), failures = 1"
            " WHERE photo_id = :photo AND what = :what RETURNING 1"
        ),
        {"photo": photo_id, "what": what},
    )
    return rows.one_or_none() is not None
