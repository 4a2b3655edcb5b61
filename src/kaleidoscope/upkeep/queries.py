"""SQL of upkeep: its runs, and what the database says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql

Table = Literal["backup_runs", "maintenance_runs"]

COLUMNS = "kind, started_at, finished_at, error, figures"


async def begin(session: AsyncSession, table: Table, kind: str, target: str | None) -> int:
    """A run begins; its number."""
    rows = await session.execute(
        sql(
            f"INSERT INTO {table} (kind, target) VALUES (:kind, :target) RETURNING run_id"
            if table == "backup_runs"
            else f"INSERT INTO {table} (kind) VALUES (:kind) RETURNING run_id"
        ),
        {"kind": kind} | ({"target": target} if table == "backup_runs" else {}),
    )
    return int(rows.scalar_one())


async def finish(
    session: AsyncSession, table: Table, run_id: int, figures: Mapping[str, Any], error: str | None
) -> None:
    """A run has ended."""
    await session.execute(
        sql(
            f"UPDATE {table} SET finished_at = now(), figures = CAST(:figures AS jsonb),"
            " error = :error WHERE run_id = :id"
        ),
        {"id": run_id, "figures": json.dumps(dict(figures)), "error": error},
    )


async def is_due(
    session: AsyncSession, table: Table, kinds: Sequence[str], age: timedelta, again: timedelta
) -> bool:
    """Whether the last good run of these kinds began at least `age` ago, and the last one at least
    `again`."""
    found = await session.execute(
        sql(
            "SELECT coalesce(max(started_at) FILTER (WHERE finished_at IS NOT NULL"
            "  AND error IS NULL) <= now() - CAST(:age AS interval), true)"
            " AND coalesce(max(started_at) <= now() - CAST(:again AS interval), true)"
            f" FROM {table} WHERE kind = ANY(:kinds)"
        ),
        {"kinds": list(kinds), "age": age, "again": min(age, again)},
    )
    return bool(found.scalar_one())


async def since_last(session: AsyncSession, kind: str) -> timedelta | None:
    """How long ago the last good backup run of this kind began; None: there was none."""
    found = await session.execute(
        sql(
            "SELECT now() - max(started_at) FROM backup_runs WHERE kind = :kind"
            " AND finished_at IS NOT NULL AND error IS NULL"
        ),
        {"kind": kind},
    )
    passed: timedelta | None = found.scalar_one()
    return passed


async def is_overdue(session: AsyncSession, kind: str, age: timedelta) -> bool:
    """Whether backups are made, and the last good run of this kind began longer ago than `age`."""
    found = await session.execute(
        sql(
            "SELECT coalesce(max(started_at) FILTER (WHERE kind = :kind AND error IS NULL"
            "  AND finished_at IS NOT NULL), min(started_at)) < now() - CAST(:age AS interval)"
            " FROM backup_runs"
        ),
        {"kind": kind, "age": age},
    )
    return bool(found.scalar_one())


async def latest(session: AsyncSession, table: Table) -> Sequence[Row[Any]]:
    """The latest run of each kind."""
    rows = await session.execute(
        sql(f"SELECT DISTINCT ON (kind) {COLUMNS} FROM {table} ORDER BY kind, started_at DESC")
    )
    return rows.all()


async def begin_drill(session: AsyncSession, target: str) -> int:
    """A drill begins; its number."""
    rows = await session.execute(
        sql("INSERT INTO restore_drills (target) VALUES (:target) RETURNING drill_id"),
        {"target": target},
    )
    return int(rows.scalar_one())


async def finish_drill(
    session: AsyncSession,
    drill_id: int,
    database: str | None,
    cause: str | None,
    figures: Mapping[str, Any],
) -> None:
    """A drill has ended: green, or red for that cause."""
    await session.execute(
        sql(
            "UPDATE restore_drills SET finished_at = now(), database = :database, cause = :cause,"
            " is_green = :green, figures = CAST(:figures AS jsonb) WHERE drill_id = :id"
        ),
        {
            "id": drill_id,
            "database": database,
            "cause": cause,
            "green": cause is None,
            "figures": json.dumps(dict(figures)),
        },
    )


async def drill_is_due(session: AsyncSession, age: timedelta, again: timedelta) -> bool:
    """Whether the last green drill was at least `age` ago, and the last one at least `again`."""
    found = await session.execute(
        sql(
            "SELECT coalesce(max(started_at) FILTER (WHERE is_green)"
            "  <= now() - CAST(:age AS interval), true)"
            " AND coalesce(max(started_at) <= now() - CAST(:again AS interval), true)"
            " FROM restore_drills"
        ),
        {"age": age, "again": min(age, again)},
    )
    return bool(found.scalar_one())


async def last_drill(session: AsyncSession) -> Row[Any] | None:
    """The latest drill."""
    rows = await session.execute(
        sql(
            "SELECT drill_id, target, database, started_at, finished_at, cause, figures,"
            " CASE WHEN is_green THEN 'green' WHEN NOT is_green THEN 'red' END AS colour"
            " FROM restore_drills ORDER BY started_at DESC LIMIT 1"
        )
    )
    return rows.one_or_none()


async def server_version(session: AsyncSession) -> int:
    """Major version of the server."""
    found = await session.execute(sql("SELECT current_setting('server_version_num')::int / 10000"))
    return int(found.scalar_one())


async def drop_slot(session: AsyncSession, name: str) -> int:
    """Let the server keep no log for a receiver that comes no more; how many there were."""
    rows = await session.execute(
        sql(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
            " WHERE slot_name = :name AND NOT active"
        ),
        {"name": name},
    )
    return len(rows.all())


async def tables(session: AsyncSession) -> list[str]:
    """Our tables."""
    rows = await session.execute(
        sql(
            "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace"
            " AND relkind = 'r' ORDER BY 1"
        )
    )
    return list(rows.scalars())


async def left_indexes(session: AsyncSession) -> list[str]:
    """What an interrupted REINDEX CONCURRENTLY left behind."""
    rows = await session.execute(
        sql(
            "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
            " WHERE NOT i.indisvalid AND c.relnamespace = current_schema()::regnamespace"
            " AND c.relname ~ '_cc(new|old)[0-9]*$'"
        )
    )
    return list(rows.scalars())


async def bloat(session: AsyncSession) -> Sequence[Row[Any]]:
    """Each table with its size, dead rows and estimated air, the most wasteful first.

    The estimate: how many pages the rows would need by their average width in the statistics.
    """
    rows = await session.execute(
        sql(
            "WITH widths AS (SELECT tablename, sum((1 - null_frac) * avg_width) AS width"
            "  FROM pg_stats WHERE schemaname = current_schema() GROUP BY tablename)"
            " SELECT c.relname AS table, greatest(c.reltuples, 0)::bigint AS rows,"
            "  coalesce(s.n_dead_tup, 0) AS dead_rows, pg_relation_size(c.oid) AS bytes,"
            "  pg_indexes_size(c.oid) AS index_bytes,"
            "  greatest(0, pg_relation_size(c.oid) - ceil(greatest(c.reltuples, 0)"
            "   * (coalesce(w.width, 0) + 28) / 8168) * 8192)::bigint AS wasted_bytes,"
            "  greatest(s.last_vacuum, s.last_autovacuum) AS last_vacuum,"
            "  greatest(s.last_analyze, s.last_autoanalyze) AS last_analyze"
            " FROM pg_class c LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid"
            " LEFT JOIN widths w ON w.tablename = c.relname"
            " WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'"
            " ORDER BY wasted_bytes DESC, c.relname"
        )
    )
    return rows.all()
