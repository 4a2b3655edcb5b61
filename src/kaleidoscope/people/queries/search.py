"""Searching persons by vectors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from kaleidoscope.kernel.db import sql
from kaleidoscope.ml.catalog import REGULAR
from kaleidoscope.people.rules.consolidation import Faces, Whole
from kaleidoscope.people.rules.matching import Vectors

GRAPH_BYTES = 600  # of the search graph beside a vector
MOST_MEMORY = 4 * 1024 * 1024  # kilobytes that building an index may take
MEAN = ("id", "count")
FACE = ("id", "person", "photo", "quality", "confirmed", "copy_of")
COPY_HEAD, COPY_TAIL = 19, -2  # signature, flags and extension length; the closing mark


def to_sql(vectors: Iterable[NDArray[np.float32]]) -> str:
    """Vectors as one array of texts, each as pgvector reads it: a list of texts would be looked
    through for quotes. Single precision has nine digits at most.
    """
    rows = [vector.tolist() for vector in vectors]
    return "{" + ",".join(_layout(len(row)) % tuple(row) for row in rows) + "}"


@cache
def _layout(dimension: int) -> str:
    return '"[' + ",".join(["%.9g"] * dimension) + ']"'


def from_sql(written: str) -> NDArray[np.float32]:
    """A vector as pgvector writes it."""
    return np.asarray(json.loads(written), np.float32)


@dataclass(frozen=True)
class Library:
    """How many persons a pack knows (counted up to a limit), how many of them are regulars, and
    the last person there is.
    """

    persons: int
    regulars: int
    last_id: int


async def library(session: AsyncSession, pack: str, at_most: int) -> Library:
    """The size of the library, counted no further than `at_most` + 1."""
    row = (
        await session.execute(
            sql(
                "SELECT count(*), count(*) FILTER (WHERE count >= :regular),"
                " (SELECT coalesce(max(id), 0) FROM persons)"
                " FROM (SELECT count FROM person_vectors"
                "   WHERE pack = :pack AND count > 0 LIMIT :most) counted"
            ),
            {"pack": pack, "most": at_most + 1, "regular": REGULAR},
        )
    ).one()
    return Library(*row)


async def near_exact(
    session: AsyncSession, pack: str, vectors: Vectors, least: float, after: int = 0
) -> list[dict[int, float]]:
    """Per vector, every person (with an id above `after`) at least that similar on average."""
    rows = await session.execute(
        sql(
            "WITH q AS MATERIALIZED (SELECT i, v::vector AS v"
            "   FROM unnest(CAST(:vectors AS text[])) WITH ORDINALITY AS u (v, i))"
            " SELECT q.i - 1 AS i, p.person_id, -(p.mean <#> q.v) AS similarity"
            " FROM person_vectors p"
            " JOIN q ON (p.mean <#> q.v) <= :least"
            " WHERE p.pack = :pack AND p.count > 0 AND p.person_id > :after"
        ),
        {
            "vectors": to_sql(vectors),
            "least": -least,
            "pack": pack,
            "after": after,
        },
    )
    return _per_vector(len(vectors), rows.all())


async def near_indexed(
    session: AsyncSession, pack: str, vectors: Vectors, least: float, best: int, effort: int
) -> list[dict[int, float]]:
    """Per vector, the `best` most similar persons by the pack's index, if similar enough.

    The index may lag a little behind the means, by which the similarity is told.
    """
    kind = f"vector({int(vectors.shape[1])})"
    await session.execute(
        sql("SELECT set_config('hnsw.ef_search', :effort, true)"), {"effort": str(effort)}
    )
    rows = await session.execute(
        sql(
            f"WITH q AS MATERIALIZED (SELECT i, v::{kind} AS v"
            "   FROM unnest(CAST(:vectors AS text[])) WITH ORDINALITY AS u (v, i))"
            " SELECT q.i - 1 AS i, n.person_id, -(n.mean <#> q.v) AS similarity"
            " FROM q CROSS JOIN LATERAL (SELECT p.person_id, p.mean FROM person_vectors p"
            # The name stands in the statement: a partial index is chosen by a constant alone.
            f"  WHERE p.pack = {_literal(pack)} AND p.count > 0"
            f"  ORDER BY p.indexed::{kind} <#> q.v LIMIT :best) n"
            " WHERE (n.mean <#> q.v) <= :least"
        ),
        {"vectors": to_sql(vectors), "least": -least, "best": best},
    )
    return _per_vector(len(vectors), rows.all())


async def near_faces(
    session: AsyncSession, pack: str, vectors: Vectors, least: float, best: int
) -> list[dict[int, float]]:
    """Per vector, which of the `best` most similar persons have a face at least that similar."""
    kind = f"vector({int(vectors.shape[1])})"
    rows = await session.execute(
        sql(
            f"WITH q AS MATERIALIZED (SELECT i, v::{kind} AS v"
            "   FROM unnest(CAST(:vectors AS text[])) WITH ORDINALITY AS u (v, i))"
            " SELECT q.i - 1 AS i, n.person_id, max(-(e.embedding <#> q.v)) AS similarity"
            " FROM q CROSS JOIN LATERAL (SELECT p.person_id FROM person_vectors p"
            f"  WHERE p.pack = {_literal(pack)} AND p.count > 0"
            f"  ORDER BY p.indexed::{kind} <#> q.v LIMIT :best) n"
            " JOIN faces f ON f.person_id = n.person_id"
            " JOIN face_vectors e ON e.face_id = f.id AND e.pack = :pack"
            " GROUP BY 1, 2 HAVING min(e.embedding <#> q.v) <= :least"
        ),
        {"vectors": to_sql(vectors), "least": -least, "best": best, "pack": pack},
    )
    return _per_vector(len(vectors), rows.all())


async def totals(
    session: AsyncSession, pack: str, person_ids: Sequence[int]
) -> dict[int, tuple[int, NDArray[np.float32]]]:
    """Number and sum of the vectors of these persons' faces."""
    rows = await session.execute(
        sql(
            "SELECT person_id, count, sum::text FROM person_vectors"
            " WHERE pack = :pack AND person_id = ANY(:ids)"
        ),
        {"pack": pack, "ids": list(person_ids)},
    )
    return {person: (count, from_sql(total)) for person, count, total in rows}


async def similar_to(
    session: AsyncSession, pack: str, pairs: Sequence[tuple[int, NDArray[np.float32]]]
) -> list[tuple[int, float] | None]:
    """For each (person id, vector): the living person the id resolves to and its similarity."""
    if not pairs:
        return []
    rows = await session.execute(
        sql(
            "SELECT u.i - 1 AS i, v.person_id, -(v.mean <#> u.v::vector) AS similarity"
            " FROM unnest(CAST(:ids AS bigint[]), CAST(:vectors AS text[]))"
            "   WITH ORDINALITY AS u (id, v, i)"
            " JOIN persons p ON p.id = u.id"
            " JOIN person_vectors v ON v.person_id = coalesce(p.merged_into, p.id)"
            " WHERE v.pack = :pack AND v.count > 0"
        ),
        {"ids": [p for p, _ in pairs], "vectors": to_sql(v for _, v in pairs), "pack": pack},
    )
    found = {row.i: (row.person_id, float(row.similarity)) for row in rows}
    return [found.get(i) for i in range(len(pairs))]


def _per_vector(n: int, rows: Sequence[Row[Any]]) -> list[dict[int, float]]:
    found: list[dict[int, float]] = [{} for _ in range(n)]
    for row in rows:
        found[row.i][row.person_id] = float(row.similarity)
    return found


def _literal(name: str) -> str:
    """A pack's name as an SQL string that no bind parameter is looked for in."""
    return "'" + name.replace("'", "''").replace(":", "\\:") + "'"


def index_name(pack: str) -> str:
    """The name of a pack's search index."""
    return f"ix_person_vectors_indexed_{pack}"[:63]


async def has_index(session: AsyncSession, pack: str) -> bool:
    """Whether the pack's search index stands and is complete."""
    valid = await session.execute(
        sql(
            "SELECT i.indisvalid FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid"
            " WHERE c.relname = :name AND c.relnamespace = current_schema()::regnamespace"
        ),
        {"name": index_name(pack)},
    )
    return bool(valid.scalar_one_or_none())


def _quoted(name: str) -> str:
    """A name as an SQL identifier that no bind parameter is looked for in."""
    return '"' + name.replace('"', '""').replace(":", "\\:") + '"'


async def drop_index(connection: AsyncConnection, pack: str) -> None:
    """Remove the pack's search index, beside running work (outside any transaction)."""
    name = _quoted(index_name(pack))
    await connection.execute(sql(f"DROP INDEX CONCURRENTLY IF EXISTS {name}"))


async def build_index(connection: AsyncConnection, pack: str, dimension: int) -> None:
    """Build the pack's search index anew, beside running work (outside any transaction)."""
    name = _quoted(index_name(pack))
    count = await connection.execute(
        sql("SELECT count(*) FROM person_vectors WHERE pack = :pack AND count > 0"),
        {"pack": pack},
    )
    # A graph that outgrows this memory is finished on disk, many times more slowly.
    kilobytes = int(count.scalar_one() * (4 * dimension + GRAPH_BYTES) * 1.2) // 1024
    memory = min(max(kilobytes, 64 * 1024), MOST_MEMORY)
    await connection.execute(sql(f"SET maintenance_work_mem = {memory}"))
    await connection.execute(sql(f"DROP INDEX CONCURRENTLY IF EXISTS {name}"))
    await connection.execute(
        sql(
            f"CREATE INDEX CONCURRENTLY {name} ON person_vectors"
            f" USING hnsw ((indexed::vector({int(dimension)})) vector_ip_ops)"
            " WITH (m = 24, ef_construction = 128)"
            f" WHERE pack = {_literal(pack)}"
        )
    )
    await connection.execute(sql("RESET maintenance_work_mem"))


async def read_means(
    session: AsyncSession, pack: str, dimension: int, person_ids: Sequence[int] | None = None
) -> Whole:
    """The means of these persons or of all, in the order of ids."""
    rows = await _copied(
        session,
        MEAN,
        dimension,
        "SELECT person_id, count::bigint, mean FROM person_vectors WHERE pack = %s AND count > 0"
        " AND vector_dims(mean) = %s AND (%s::bigint[] IS NULL OR person_id = ANY(%s))"
        " ORDER BY person_id",
        [pack, dimension, person_ids, person_ids],
    )
    return Whole(rows["id"].astype(np.int64), rows["count"].astype(np.int64), _vectors(rows))


async def read_faces(
    session: AsyncSession,
    pack: str,
    dimension: int,
    person_ids: Sequence[int] | None,
    *,
    settled: Sequence[int] = (),
    since: datetime | None = None,
    with_open: bool = True,
) -> Faces:
    """The faces of these persons (None: of all), and every face without a person; of those in
    `settled` the faces that came later than `since`, without copies of what they had before.
    """
    open_too = "f.status = 'open' OR " if with_open else ""
    vectors = (
        "JOIN LATERAL (SELECT embedding FROM face_vectors e WHERE e.face_id = f.id"
        " AND e.pack = %s AND vector_dims(e.embedding) = %s{}) e ON true"
        # The vectors of some are looked up one by one: how few they are cannot be foreseen.
    ).format("" if person_ids is None else " OFFSET 0")
    rows = await _copied(
        session,
        FACE,
        dimension,
        "SELECT f.id, coalesce(f.person_id, 0), f.photo_id,"
        " (1000 * coalesce(f.quality, 1))::bigint, (f.confirmed_by = 'person')::int::bigint,"
        f" coalesce(f.copy_of, 0), e.embedding FROM faces f {vectors} WHERE {open_too}"
        "   %s::bigint[] IS NULL OR f.person_id = ANY(%s::bigint[])"
        "   OR f.person_id = ANY(%s::bigint[]) AND coalesce((SELECT o.created_at FROM faces o"
        "     WHERE o.id = f.copy_of AND o.person_id = f.person_id), f.created_at) >= %s"
        " ORDER BY f.id",
        [pack, dimension, person_ids, person_ids, list(settled), since],
    )
    ids, persons, photos, qualities, confirmed, copies = (
        rows[name].astype(np.int64) for name in FACE
    )
    return Faces(ids, persons, photos, qualities / 1000, confirmed == 1, copies, _vectors(rows))


async def _copied(
    session: AsyncSession,
    names: Sequence[str],
    dimension: int,
    query: str,
    values: Sequence[Any],
) -> NDArray[np.void]:
    """The rows (bigints of these names, vector) of a query, read as binary: fast."""
    raw = await (await session.connection()).get_raw_connection()
    connection: Any = raw.driver_connection
    chunks = []
    copying = f"COPY ({query}) TO STDOUT (FORMAT BINARY)"
    async with connection.cursor() as cursor, cursor.copy(copying, values) as copy:
        async for chunk in copy:
            chunks.append(bytes(chunk))
    return np.frombuffer(b"".join(chunks)[COPY_HEAD:COPY_TAIL], _record(names, dimension))


def _vectors(rows: NDArray[np.void]) -> Vectors:
    vectors: Vectors = rows["vector"].astype(np.float32)
    return vectors


def _record(names: Sequence[str], dimension: int) -> np.dtype[np.void]:
    """A row of PostgreSQL's binary COPY: each value behind its length, a vector behind 4 bytes."""
    numbers = [field for name in names for field in ((f"{name}_length", ">i4"), (name, ">i8"))]
    vector = [("vector_length", ">i4"), ("vector_head", "V4"), ("vector", ">f4", (dimension,))]
    return np.dtype([("fields", ">i2"), *numbers, *vector])
