"""All SQL of operation."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncSession

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

HISTORY = text("""
    SELECT service_name, status, current_task, heartbeat_timestamp
    FROM system_status_history
    WHERE service_name = :service AND heartbeat_timestamp >= now() - :since
    ORDER BY heartbeat_timestamp DESC LIMIT :limit
""")

TRIM = text("""
    WITH history AS (
        DELETE FROM system_status_history WHERE heartbeat_timestamp < now() - :age RETURNING 1
    ), services AS (
        DELETE FROM system_status WHERE last_heartbeat < now() - :age RETURNING 1
    )
    SELECT (SELECT count(*) FROM history) + (SELECT count(*) FROM services)
""")


async def beat(session: AsyncSession, service: str, status: str, task: str | None) -> None:
    """Note what a service says of itself, now and in the history."""
    await session.execute(BEAT, {"service": service, "status": status, "task": task})


async def services(session: AsyncSession) -> list[RowMapping]:
    """The latest word of every service, with its `age` by the database's clock."""
    return list((await session.execute(SERVICES)).mappings())


async def history(
    session: AsyncSession, service: str, since: timedelta, limit: int
) -> list[RowMapping]:
    """The heartbeats of one service, newest first."""
    bound = {"service": service, "since": since, "limit": limit}
    return list((await session.execute(HISTORY, bound)).mappings())


async def trim(session: AsyncSession, age: timedelta) -> int:
    """Forget heartbeats, and services, older than `age`; how many rows went."""
    return int((await session.execute(TRIM, {"age": age})).scalar_one())
