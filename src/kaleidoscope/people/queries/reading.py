"""What is shown of people, and the dump that the ML service keeps a copy of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql

CHUNK = 500

FACE = (
    "SELECT f.id AS face_id, f.photo_id, f.bbox, f.landmarks, f.person_id, f.suggested_person_id,"
    " f.similarity, f.confidence, f.quality, f.status, f.confirmed_by, f.model_version FROM faces f"
)


async def faces_of_photo(session: AsyncSession, photo_id: int) -> Sequence[Row[Any]]:
    """The faces of a photo from left to right; those of the first, for a duplicate."""
    rows = await session.execute(
        sql(FACE + " WHERE f.photo_id = :photo ORDER BY f.bbox[1], f.id"), {"photo": photo_id}
    )
    return rows.all()


async def person(session: AsyncSession, person_id: int) -> Row[Any]:
    """One person, who exists, with counts."""
    return (
        await session.execute(
            sql(
                "SELECT p.id AS person_id, p.display_name, p.created_at, p.user_id, p.merged_into,"
                " (SELECT count(*) FROM faces f WHERE f.person_id = p.id) AS faces,"
                " (SELECT count(*) FROM photo_persons x WHERE x.person_id = p.id) AS photos,"
                " array(SELECT m.id FROM persons m WHERE m.merged_into = p.id ORDER BY 1)"
                "   AS merged_from"
                " FROM persons p WHERE p.id = :id"
            ),
            {"id": person_id},
        )
    ).one()


async def mean(session: AsyncSession, person_id: int, pack: str) -> str | None:
    """The average of a person's vectors, as pgvector writes it."""
    found: str | None = (
        await session.execute(
            sql(
                "SELECT mean::text FROM person_vectors"
                " WHERE person_id = :id AND pack = :pack AND count > 0"
            ),
            {"id": person_id, "pack": pack},
        )
    ).scalar_one_or_none()
    return found


async def best_photos(session: AsyncSession, person_id: int, limit: int) -> list[int]:
    """The photos with the person's best faces."""
    rows = await session.execute(
        sql(
            "SELECT photo_id FROM faces WHERE person_id = :id GROUP BY photo_id"
            " ORDER BY max(coalesce(quality, 0)) DESC, photo_id LIMIT :limit"
        ),
        {"id": person_id, "limit": limit},
    )
    return list(rows.scalars())


async def best_faces(session: AsyncSession, person_id: int, limit: int) -> Sequence[Row[Any]]:
    """The person's best faces."""
    rows = await session.execute(
        sql(
            FACE + " WHERE f.person_id = :id"
            " ORDER BY coalesce(f.quality, 0) DESC, f.id LIMIT :limit"
        ),
        {"id": person_id, "limit": limit},
    )
    return rows.all()


async def persons(
    session: AsyncSession, *, named: bool | None, limit: int, offset: int
) -> Sequence[Row[Any]]:
    """Living persons with faces, those with most photos first."""
    rows = await session.execute(
        sql(
            "SELECT p.id AS person_id, p.display_name, p.created_at, c.faces, c.photos"
            " FROM (SELECT person_id, count(*) AS faces, count(DISTINCT photo_id) AS photos"
            "   FROM faces WHERE person_id IS NOT NULL GROUP BY 1) c"
            " JOIN persons p ON p.id = c.person_id"
            " WHERE CAST(:named AS boolean) IS NULL OR (p.display_name IS NOT NULL) = :named"
            " ORDER BY c.photos DESC, p.id LIMIT :limit OFFSET :offset"
        ),
        {"named": named, "limit": limit, "offset": offset},
    )
    return rows.all()


async def faces_of_photos(
    session: AsyncSession, photo_ids: Sequence[int]
) -> dict[int, list[Row[Any]]]:
    """The faces of many photos."""
    rows = await session.execute(
        sql(FACE + " WHERE f.photo_id = ANY(:photos) ORDER BY f.photo_id, f.bbox[1], f.id"),
        {"photos": list(photo_ids)},
    )
    found: dict[int, list[Row[Any]]] = {}
    for row in rows:
        found.setdefault(row.photo_id, []).append(row)
    return found


async def dump(
    session: AsyncSession, pack: str, since_id: int, limit: int, changed_since: int | None
) -> AsyncIterator[Row[Any]]:
    """Persons above `since_id` in the order of ids, all or those changed at a version or later.

    A whole dump leaves out those without vectors; one of changes tells of them (count is null).
    """
    which = "v.count IS NOT NULL" if changed_since is None else "p.version >= :changed"
    rows = await session.stream(
        sql(
            "SELECT p.id, p.version, v.count, v.sum::text AS sum, v.mean::text AS mean,"
            " f.photo_id"
            " FROM persons p"
            " LEFT JOIN person_vectors v ON v.person_id = p.id AND v.pack = :pack AND v.count > 0"
            " LEFT JOIN face_vectors e ON e.id = p.primary_embedding_id"
            " LEFT JOIN faces f ON f.id = e.face_id"
            f" WHERE p.id > :since_id AND {which} ORDER BY p.id LIMIT :limit"
        ).execution_options(yield_per=CHUNK),
        {"pack": pack, "since_id": since_id, "limit": limit, "changed": changed_since},
    )
    async for row in rows:
        yield row


async def counts(session: AsyncSession) -> Row[Any]:
    """How many persons live, how many of them have a name, and how many faces there are."""
    return (
        await session.execute(
            sql(
                "SELECT (SELECT count(*) FROM persons WHERE merged_into IS NULL) AS persons,"
                " (SELECT count(*) FROM persons WHERE merged_into IS NULL"
                "  AND display_name IS NOT NULL) AS names, (SELECT count(*) FROM faces) AS faces"
            )
        )
    ).one()


async def names(session: AsyncSession) -> dict[int, str]:
    """The names of all who have one, by person_id."""
    rows = await session.execute(
        sql("SELECT id, display_name FROM persons WHERE display_name IS NOT NULL")
    )
    return {row.id: row.display_name for row in rows}
