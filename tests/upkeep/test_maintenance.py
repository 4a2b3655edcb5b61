"""VACUUM, REINDEX, and figures of what is air."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import DBAPIError

from kaleidoscope.kernel.db import Database
from kaleidoscope.upkeep import jobs, service
from kaleidoscope.upkeep.service import maintenance


async def execute(db: Database, *statements: str) -> list[tuple[object, ...]]:
    await maintenance._outside_transactions(db, statements[:-1])
    async with db.engine.connect() as connection:
        rows = await connection.exec_driver_sql(statements[-1])
        return [tuple(row) for row in rows]


async def fill(db: Database) -> None:
    await execute(
        db,
        "INSERT INTO photos (path, filesize) SELECT '/a/' || n, n FROM generate_series(1, 3000) n",
        "DELETE FROM media_assets WHERE photo_id % 2 = 0",
        "SELECT pg_stat_force_next_flush()",
    )


async def test_vacuum_makes_dead_rows_room(db: Database) -> None:
    await fill(db)
    seen: list[str] = []
    figures = await service.vacuum(db, lambda table, of: seen.append(table))
    assert "media_assets" in seen and figures["tables"] == len(seen)
    async with db.transaction() as session:
        found = {one.table: one for one in await service.bloat(session)}
    assets = found["media_assets"]
    assert (assets.rows, assets.dead_rows) == (1500, 0)
    assert 0.3 < assets.wasted_share < 0.7  # half the rows are gone
    assert assets.last_vacuum is not None and assets.last_analyze is not None


async def test_reindex_makes_indexes_small_and_clears_what_was_left(db: Database) -> None:
    await fill(db)
    await execute(db, "VACUUM media_assets", "SELECT 1")
    with pytest.raises(DBAPIError):  # as an interrupted REINDEX leaves one
        await execute(
            db,
            "CREATE UNIQUE INDEX CONCURRENTLY left_ccnew ON media_assets ((1))",
            "SELECT 1",
        )
    figures = await service.reindex(db)
    assert figures["bytes_after"] < figures["bytes_before"]
    left = await execute(db, "SELECT 1 FROM pg_class WHERE relname = 'left_ccnew'")
    assert left == []
    assert await execute(db, "SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [(0,)]


async def test_weekly_and_monthly(db: Database) -> None:
    assert await jobs.vacuum(db) is None and await jobs.reindex(db) is None
    await execute(
        db, "UPDATE maintenance_runs SET started_at = started_at - interval '8 days'", "SELECT 1"
    )
    assert await jobs.vacuum(db) and await jobs.reindex(db) is None
    await execute(
        db, "UPDATE maintenance_runs SET started_at = started_at - interval '30 days'", "SELECT 1"
    )
    assert await jobs.reindex(db)
    assert await jobs.reindex(db) is None
