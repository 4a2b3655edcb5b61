"""Maintenance of the database (seed 003): VACUUM ANALYZE, REINDEX, and how much is air."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import Database
from kaleidoscope.upkeep import queries
from kaleidoscope.upkeep.schemas import Bloat
from kaleidoscope.upkeep.service.runs import noted

Progress = Callable[[str, int], None]
"""Told the table that is next, and how many there are."""


def tell_nobody(table: str, of: int) -> None:
    """No progress is shown."""


async def vacuum(db: Database, progress: Progress = tell_nobody) -> dict[str, Any]:
    """VACUUM ANALYZE every table of ours; nobody has to wait for it."""
    return await _each(db, "vacuum", "VACUUM (ANALYZE) {}", progress)


async def reindex(db: Database, progress: Progress = tell_nobody) -> dict[str, Any]:
    """Build every index anew beside the old one, and what an interrupted round has left away."""
    async with db.transaction() as session:
        left = await queries.left_indexes(session)
    await _outside_transactions(
        db, [f'DROP INDEX CONCURRENTLY IF EXISTS "{name}"' for name in left]
    )
    return await _each(db, "reindex", "REINDEX TABLE CONCURRENTLY {}", progress)


async def _each(db: Database, kind: str, statement: str, progress: Progress) -> dict[str, Any]:
    async with noted(db, "maintenance_runs", kind) as figures:
        async with db.transaction() as session:
            tables = await queries.tables(session)
        figures["bytes_before"] = sum(row.bytes + row.index_bytes for row in await bloat_of(db))
        for table in tables:
            progress(table, len(tables))
            await _outside_transactions(db, [statement.format(f'"{table}"')])
        figures["tables"] = len(tables)
        figures["bytes_after"] = sum(row.bytes + row.index_bytes for row in await bloat_of(db))
    return figures


async def bloat_of(db: Database) -> list[Bloat]:
    """`bloat`, in a transaction of its own."""
    async with db.transaction() as session:
        return await bloat(session)


async def bloat(session: AsyncSession) -> list[Bloat]:
    """Each table with its size and how much of it is air, the most wasteful first."""
    return [
        Bloat(
            **row._mapping,
            wasted_share=round(row.wasted_bytes / row.bytes, 3) if row.bytes else 0.0,
        )
        for row in await queries.bloat(session)
    ]


async def _outside_transactions(db: Database, statements: Sequence[str]) -> None:
    async with db.engine.connect() as connection:
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        for statement in statements:
            await connection.execute(text(statement))
