"""Persons and the vectors that follow from their faces."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql
from kaleidoscope.people.queries.search import to_sql

CHANGED = "version = (pg_current_xact_id()::text)::bigint"
# To enter a mean into the search index costs milliseconds, many times what all else of a face that
# joins does; where many faces were before, one more hardly moves it. So it follows once it is this
# far away: those who are looked for are still among the first few that the index finds.
DRIFT = 0.03
FOLLOWED = (
    "CASE WHEN vector_dims(o.indexed) = vector_dims({mean}) AND (o.indexed <-> {mean}) <="
    f" {DRIFT} THEN o.indexed ELSE {{mean}} END"
)
# A picture counts once: copies of it add nothing to who is in it.
COUNTED = "f.person_id IS DISTINCT FROM (SELECT o.person_id FROM faces o WHERE o.id = f.copy_of)"


async def found_persons(
    session: AsyncSession,
    names: Sequence[str | None],
    standing_for: Sequence[int | None] | None = None,
) -> list[int]:
    """New persons, one a name; their ids resolve to `standing_for` until they live themselves."""
    rows = await session.execute(
        sql(
            "INSERT INTO persons (display_name, merged_into)"
            " SELECT name, into_id FROM unnest(CAST(:names AS text[]), CAST(:into AS bigint[]))"
            "   WITH ORDINALITY AS u (name, into_id, i) ORDER BY i RETURNING id"
        ),
        {"names": list(names), "into": list(standing_for or [None] * len(names))},
    )
    return sorted(rows.scalars())


@dataclass(frozen=True)
class Joining:
    """Faces that a person has gained: their number, the sum of their vectors, the best of them."""

    person_id: int
    count: int
    sum: NDArray[np.float32]
    vector_id: int
    quality: float


async def add_to_persons(session: AsyncSession, pack: str, joining: Sequence[Joining]) -> None:
    """Add gained faces to their persons, in the order of ids."""
    if not joining:
        return
    joining = sorted(joining, key=lambda j: j.person_id)
    await session.execute(
        sql(
            "WITH held AS (SELECT id FROM persons WHERE id = ANY(:ids) ORDER BY id"
            "   FOR NO KEY UPDATE)"
            f" UPDATE persons p SET {CHANGED}, primary_embedding_id = CASE"
            "   WHEN u.quality > coalesce((SELECT coalesce(f.quality, 0) FROM face_vectors v"
            "     JOIN faces f ON f.id = v.face_id WHERE v.id = p.primary_embedding_id), -1)"
            "   THEN u.vector_id ELSE p.primary_embedding_id END"
            " FROM held, unnest(CAST(:ids AS bigint[]), CAST(:vector_ids AS bigint[]),"
            "   CAST(:qualities AS real[])) AS u (id, vector_id, quality)"
            " WHERE p.id = held.id AND u.id = held.id"
        ),
        {
            "ids": [j.person_id for j in joining],
            "vector_ids": [j.vector_id for j in joining],
            "qualities": [j.quality for j in joining],
        },
    )
    joined = (
        "((o.sum + excluded.sum) * array_fill((1.0 / (o.count + excluded.count))::real,"
        " ARRAY[:dimension])::vector)"
    )
    await session.execute(
        sql(
            "INSERT INTO person_vectors AS o (person_id, pack, count, sum, mean, indexed)"
            " SELECT id, :pack, n, v, m, m"
            " FROM unnest(CAST(:ids AS bigint[]), CAST(:counts AS int[]), CAST(:sums AS vector[]))"
            "   AS u (id, n, v), LATERAL (SELECT v * array_fill((1.0 / n)::real,"
            "     ARRAY[:dimension])::vector AS m) AS w ORDER BY id"
            " ON CONFLICT (person_id, pack) DO UPDATE SET count = o.count + excluded.count,"
            f"   sum = o.sum + excluded.sum, mean = {joined},"
            f"   indexed = {FOLLOWED.format(mean=joined)}"
        ),
        {
            "pack": pack,
            "dimension": int(joining[0].sum.shape[0]),
            "ids": [j.person_id for j in joining],
            "counts": [j.count for j in joining],
            "sums": to_sql(j.sum for j in joining),
        },
    )


async def hold_persons(session: AsyncSession, person_ids: Collection[int]) -> None:
    """Lock the persons, in the order of ids, as everybody who changes several does."""
    await session.execute(
        sql("SELECT FROM persons WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE"),
        {"ids": sorted(person_ids)},
    )


async def recount_persons(session: AsyncSession, person_ids: Collection[int]) -> None:
    """Make the persons' vectors and representative anew from their faces."""
    await hold_persons(session, person_ids)
    ids = {"ids": sorted(person_ids)}
    # Statements of their own: what others committed while the rows were waited for counts too.
    await session.execute(
        sql(
            "DELETE FROM person_vectors x WHERE person_id = ANY(:ids) AND NOT EXISTS"
            " (SELECT FROM faces f JOIN face_vectors v ON v.face_id = f.id"
            f"  WHERE f.person_id = x.person_id AND v.pack = x.pack AND {COUNTED})"
        ),
        ids,
    )
    await session.execute(
        sql(
            "INSERT INTO person_vectors AS o (person_id, pack, count, sum, mean, indexed)"
            " SELECT f.person_id, v.pack, count(*), sum(v.embedding), avg(v.embedding),"
            "   avg(v.embedding)"
            f" FROM faces f JOIN face_vectors v ON v.face_id = f.id WHERE {COUNTED}"
            " AND f.person_id = ANY(:ids) GROUP BY 1, 2 ORDER BY 1, 2"
            " ON CONFLICT (person_id, pack) DO UPDATE SET count = excluded.count,"
            "   sum = excluded.sum, mean = excluded.mean,"
            f"   indexed = {FOLLOWED.format(mean='excluded.mean')}"
        ),
        ids,
    )
    await session.execute(
        sql(
            f"UPDATE persons p SET {CHANGED}, primary_embedding_id = (SELECT v.id FROM faces f"
            "   JOIN face_vectors v ON v.face_id = f.id WHERE f.person_id = p.id"
            "   ORDER BY coalesce(f.quality, 0) DESC, v.id LIMIT 1)"
            " WHERE p.id = ANY(:ids)"
        ),
        ids,
    )


async def resolve(session: AsyncSession, person_ids: Collection[int]) -> dict[int, int]:
    """The living person of each id, merged or not; ids that never were are left out."""
    rows = await session.execute(
        sql("SELECT id, coalesce(merged_into, id) AS lives_as FROM persons WHERE id = ANY(:ids)"),
        {"ids": list(person_ids)},
    )
    return {row.id: row.lives_as for row in rows}


async def ids_after(session: AsyncSession, after: int, limit: int) -> list[int]:
    """Living persons above an id, in order."""
    rows = await session.execute(
        sql(
            "SELECT id FROM persons WHERE id > :after AND merged_into IS NULL"
            " ORDER BY id LIMIT :limit"
        ),
        {"after": after, "limit": limit},
    )
    return list(rows.scalars())
