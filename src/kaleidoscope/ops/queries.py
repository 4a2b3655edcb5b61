"""All SQL of operation."""

from __future__ import annotations

from datetime import datetime, timedelta

import psycopg
from psycopg.rows import dict_row
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql
from kaleidoscope.kernel.errors import DatabaseError
from kaleidoscope.ops.rules import GAP
from kaleidoscope.ops.settings import LONGEST

BEAT = sql("""
    WITH latest AS (
        INSERT INTO system_status (service_name, status, current_task, interval_seconds)
        VALUES (:service, :status, :task, :seconds)
        ON CONFLICT (service_name)
        DO UPDATE SET status = excluded.status, current_task = excluded.current_task,
            interval_seconds = excluded.interval_seconds
    )
    INSERT INTO system_status_history (service_name, status, current_task, interval_seconds)
    VALUES (:service, :status, :task, :seconds)
""")

SERVICES = sql("""
    SELECT service_name, status, current_task, last_heartbeat, updated_at, interval_seconds,
           now() - last_heartbeat AS age
    FROM system_status ORDER BY service_name
""")

FORGET = sql("""
    WITH history AS (DELETE FROM system_status_history WHERE service_name = :service)
    DELETE FROM system_status WHERE service_name = :service RETURNING 1
""")

# A spell: heartbeats of one status and interval, each within three intervals of the last. What a
# service was doing is told only where something was wrong: it splits no spell that is OK.
SPELLS = sql("""
    WITH beats AS (
        SELECT service_name, status, interval_seconds, id, heartbeat_timestamp AS at,
               CASE WHEN status <> 'OK' THEN current_task END AS task
        FROM system_status_history
        WHERE heartbeat_timestamp >= :start - CAST(:reach AS interval)
            AND heartbeat_timestamp <= :end
            AND (CAST(:service AS text) IS NULL OR service_name = :service)
    ), followed AS (
        SELECT *, lag(at) OVER one AS before,
               lag(status) OVER one IS DISTINCT FROM status
                   OR lag(interval_seconds) OVER one IS DISTINCT FROM interval_seconds
                   OR lag(task) OVER one IS DISTINCT FROM task AS differs
        FROM beats WINDOW one AS (PARTITION BY service_name ORDER BY at, id)
    ), numbered AS (
        SELECT *, count(*) FILTER (
            WHERE differs OR at - before > :gap * make_interval(secs => interval_seconds)
        ) OVER (PARTITION BY service_name ORDER BY at, id) AS spell
        FROM followed
    )
    SELECT service_name, status, task, make_interval(secs => interval_seconds) AS interval,
           min(at) AS first, max(at) AS last, count(*) AS beats
    FROM numbered
    GROUP BY service_name, spell, status, task, interval_seconds
    ORDER BY service_name, first, spell
""")

FIRST_HEARD_OF = sql("""
    SELECT service_name, (
        SELECT min(heartbeat_timestamp) FROM system_status_history h
        WHERE h.service_name = s.service_name
    ) AS first
    FROM system_status s
    WHERE CAST(:service AS text) IS NULL OR service_name = :service
    ORDER BY service_name
""")

TRIM = sql("""
    WITH history AS (
        DELETE FROM system_status_history WHERE heartbeat_timestamp < now() - :age RETURNING 1
    ), services AS (
        DELETE FROM system_status WHERE last_heartbeat < now() - :age RETURNING 1
    ), disks AS (
        DELETE FROM disk_usage WHERE measured_at < now() - :age RETURNING 1
    )
    SELECT (SELECT count(*) FROM history) + (SELECT count(*) FROM services)
        + (SELECT count(*) FROM disks)
""")

MEASURED = sql("""
    INSERT INTO disk_usage (folder, total_bytes, used_bytes, free_bytes)
    VALUES (:folder, :total, :used, :free)
""")

# One row an hour is enough to see where it goes.
DISKS = sql("""
    SELECT folder, date_trunc('hour', measured_at) AS hour,
           (array_agg(used_bytes ORDER BY measured_at DESC))[1] AS used_bytes,
           (array_agg(total_bytes ORDER BY measured_at DESC))[1] AS total_bytes,
           (array_agg(free_bytes ORDER BY measured_at DESC))[1] AS free_bytes,
           max(measured_at) AS measured_at
    FROM disk_usage WHERE measured_at > now() - CAST(:age AS interval)
    GROUP BY folder, hour ORDER BY folder, hour
""")

CONNECTIONS = sql("""
    SELECT current_setting('max_connections')::int AS at_most,
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used,
           (SELECT max(age(datfrozenxid)) FROM pg_database) AS oldest_transaction
""")

REVISION = sql("SELECT max(version_num) FROM alembic_version")
HAS_REVISION = sql("SELECT to_regclass('alembic_version') IS NOT NULL")

FACTS = """
    SELECT current_setting('server_version') AS postgresql,
           (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS pgvector,
           current_setting('fsync') AS fsync,
           current_setting('full_page_writes') AS full_page_writes,
           current_setting('synchronous_commit') AS synchronous_commit,
           pg_size_pretty(pg_database_size(current_database())) AS size
"""


async def beat(
    session: AsyncSession, service: str, status: str, task: str | None, interval: timedelta
) -> None:
    """Note what a service says of itself, now and in the history."""
    said = {"service": service, "status": status, "task": task}
    await session.execute(BEAT, {**said, "seconds": interval.total_seconds()})


async def services(session: AsyncSession) -> list[RowMapping]:
    """The latest word of every service, with its `age` by the database's clock."""
    return list((await session.execute(SERVICES)).mappings())


async def forget(session: AsyncSession, service: str) -> bool:
    """Forget a service with its history; whether there was one."""
    return (await session.execute(FORGET, {"service": service})).first() is not None


async def spells(
    session: AsyncSession, start: datetime, end: datetime, service: str | None
) -> list[RowMapping]:
    """The heartbeats that reach into a window, as spells: by service, in their order."""
    reach = timedelta(seconds=GAP * LONGEST)
    window = {"start": start, "end": end, "reach": reach, "gap": GAP, "service": service}
    return list((await session.execute(SPELLS, window)).mappings())


async def first_heard_of(session: AsyncSession, service: str | None) -> dict[str, datetime]:
    """When each service gave its first sign that is still known."""
    rows = await session.execute(FIRST_HEARD_OF, {"service": service})
    return {row.service_name: row.first for row in rows if row.first is not None}


async def note_disk(session: AsyncSession, folder: str, total: int, used: int, free: int) -> None:
    """Note how full a disk is."""
    measured = {"folder": folder, "total": total, "used": used, "free": free}
    await session.execute(MEASURED, measured)


async def disks(session: AsyncSession, age: timedelta) -> list[RowMapping]:
    """How full each disk was, hour by hour, not longer ago than `age`."""
    return list((await session.execute(DISKS, {"age": age})).mappings())


async def connections(session: AsyncSession) -> RowMapping:
    """What tells whether the server has room for more: connections, transaction numbers."""
    return (await session.execute(CONNECTIONS)).mappings().one()


async def moment(session: AsyncSession) -> datetime:
    """The present, by the database's clock."""
    found: datetime = (await session.execute(sql("SELECT now()"))).scalar_one()
    return found


async def trim(session: AsyncSession, age: timedelta) -> int:
    """Forget heartbeats, services and disks' figures older than `age`; how many rows went."""
    return int((await session.execute(TRIM, {"age": age})).scalar_one())


async def revision(session: AsyncSession) -> str | None:
    """The revision that the database is at; None for one that was never migrated."""
    if not (await session.execute(HAS_REVISION)).scalar_one():
        return None
    found: str | None = (await session.execute(REVISION)).scalar_one()
    return found


def facts(url: str) -> dict[str, str]:
    """What the server says of itself. Raises `DatabaseError` when it does not answer."""
    try:
        with psycopg.connect(url, row_factory=dict_row) as connection:
            row = connection.execute(FACTS).fetchone() or {}
    except psycopg.OperationalError as error:
        raise DatabaseError(f"cannot reach the database: {error}") from error
    return {name: str(value) for name, value in row.items()}
