"""What follows from the faces, made anew: persons' vectors and the search index."""

from __future__ import annotations

from kaleidoscope.kernel.db import Database
from kaleidoscope.ml.catalog import Pack
from kaleidoscope.people.queries import locks, persons, search
from kaleidoscope.people.service import matching

PERSONS_AT_ONCE = 500


async def reindex(db: Database) -> int:
    """Recompute every person's vectors from the faces and rebuild the search index; how many."""
    count, last = 0, 0
    while True:
        async with db.transaction() as session:
            await locks.lock_identity(session, alone=True)
            ids = await persons.ids_after(session, last, PERSONS_AT_ONCE)
            await persons.recount_persons(session, ids)
        if not ids:
            break
        count, last = count + len(ids), ids[-1]
    pack = matching.find_pack(None)
    async with db.transaction() as session:
        has_index = await search.has_index(session, pack.name)
    if has_index:
        await build_index(db, pack)
    return count


async def build_index(db: Database, pack: Pack) -> None:
    """Build the pack's search index anew, beside running work."""
    async with db.engine.connect() as connection:
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await search.build_index(connection, pack.name, pack.dimension)
