"""All SQL of operation."""

from __future__ import annotations

from datetime import timedelta

import psycopg
from psycopg.rows import dict_row
from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.errors import DatabaseError

BEAT = text("""
    WITH latest AS (
        INSERT INTO system_status (service_name, status, current_task)
        VALUES (:service, :status, :task)
        ON CONFLICT (service_name)
        DO UPDATE SET status = excluded.status, current_task = excluded.current_task
    )
    INSERT INTO system_status_history (service_name, status, current_task)
    VALUES (:service, :status, :task)
""")

SERVICES = text("""
    SELECT service_name, status, current_task, last_heartbeat, updated_at,
           now() - last_heartbeat AS age
    FROM system_status ORDER BY service_name
""")

TRIM = text("""
    WITH history AS (
        DELETE FROM system_status_history WHERE heartbeat_timestamp < now() - :age RETURNING 1
    ), services AS (
        DELETE FROM system_status WHERE last_heartbeat < now() - :age RETURNING 1
    )
    SELECT (SELECT count(*) FROM history) + (SELECT count(*) FROM services)
""")

REVISION = text("SELECT max(version_num) FROM alembic_version")
HAS_REVISION = text("SELECT to_regclass('alembic_version') IS NOT NULL")

FACTS = """
    SELECT current_setting('server_version') AS postgresql,
           (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS pgvector,
           current_setting('fsync') AS fsync,
           current_setting('full_page_writes') AS full_page_writes,
           current_setting('synchronous_commit') AS synchronous_commit,
           pg_size_pretty(pg_database_size(current_database())) AS size
"""


async def beat(session: AsyncSession, service: str, status: str, task: str | None) -> None:
    """Note what a service says of itself, now and in the history."""
    await session.execute(BEAT, {"service": service, "status": status, "task": task})


async def services(session: AsyncSession) -> list[RowMapping]:
    """The latest word of every service, with its `age` by the database's clock."""
    return list((await session.execute(SERVICES)).mappings())


async def trim(session: AsyncSession, age: timedelta) -> int:
    """Forget heartbeats, and services, older than `age`; how many rows went."""
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
