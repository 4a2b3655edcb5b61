"""What names from elsewhere are laid on: faces by photo or content, persons by name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import date
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql
from kaleidoscope.people.queries.persons import CHANGED

FACE = (
    "SELECT f.id AS face_id, f.photo_id, f.person_id, f.bbox, f.confirmed_by,"
    " p.display_name AS name FROM faces f LEFT JOIN persons p ON p.id = f.person_id"
)


async def faces_of(session: AsyncSession, photo_ids: Collection[int]) -> Sequence[Row[Any]]:
    """The faces of photos with the names of their persons."""
    rows = await session.execute(
        sql(FACE + " WHERE f.photo_id = ANY(:ids) ORDER BY f.id"), {"ids": list(photo_ids)}
    )
    return rows.all()


async def named_persons(session: AsyncSession) -> Sequence[Row[Any]]:
    """Living persons with a name: id, name, and in how many photos they are."""
    rows = await session.execute(
        sql(
            "SELECT p.id, p.display_name AS name,"
            " (SELECT count(*) FROM photo_persons x WHERE x.person_id = p.id) AS photos"
            " FROM persons p WHERE merged_into IS NULL AND display_name IS NOT NULL"
        )
    )
    return rows.all()


async def persons_of(session: AsyncSession, face_ids: Sequence[int]) -> dict[int, int | None]:
    """The person that each face has."""
    rows = await session.execute(
        sql("SELECT id, person_id FROM faces WHERE id = ANY(:ids)"), {"ids": list(face_ids)}
    )
    return {row.id: row.person_id for row in rows}


async def photos_of_faces(session: AsyncSession, person_id: int) -> dict[int, int]:
    """The faces of a person, and the photo of each."""
    rows = await session.execute(
        sql("SELECT id, photo_id FROM faces WHERE person_id = :person ORDER BY id"),
        {"person": person_id},
    )
    return {row.id: row.photo_id for row in rows}


async def confirmed(session: AsyncSession, face_ids: Sequence[int]) -> frozenset[int]:
    """Of these faces those that a person confirmed."""
    rows = await session.execute(
        sql("SELECT id FROM faces WHERE id = ANY(:ids) AND confirmed_by = 'person'"),
        {"ids": list(face_ids)},
    )
    return frozenset(rows.scalars())


async def exported_persons(session: AsyncSession, *, everybody: bool) -> Sequence[Row[Any]]:
    """Living persons who have a name, a birth date or confirmed faces, or all who have faces."""
    rows = await session.execute(
        sql(
            "SELECT p.id, p.display_name AS name, p.birth_date,"
            " array(SELECT m.id FROM persons m WHERE m.merged_into = p.id ORDER BY 1) AS aliases"
            " FROM persons p WHERE merged_into IS NULL AND (display_name IS NOT NULL"
            "   OR birth_date IS NOT NULL OR EXISTS (SELECT FROM faces f WHERE f.person_id = p.id"
            "     AND (f.confirmed_by = 'person' OR :everybody)))"
            " ORDER BY p.id"
        ),
        {"everybody": everybody},
    )
    return rows.all()


async def exported_faces(
    session: AsyncSession, person_id: int, pack: str
) -> AsyncIterator[Row[Any]]:
    """A person's faces with their vectors, in the order of ids."""
    rows = await session.stream(
        sql(
            "SELECT f.photo_id, f.bbox, f.confirmed_by, e.embedding::text AS vector FROM faces f"
            " LEFT JOIN face_vectors e ON e.face_id = f.id AND e.pack = :pack"
            " WHERE f.person_id = :person ORDER BY f.id"
        ).execution_options(yield_per=500),
        {"person": person_id, "pack": pack},
    )
    async for row in rows:
        yield row


async def set_birth_date(session: AsyncSession, person_id: int, born: date | None) -> None:
    """When a person was born; None: not known."""
    await session.execute(
        sql(f"UPDATE persons SET birth_date = :born, {CHANGED} WHERE id = :id"),
        {"id": person_id, "born": born},
    )


async def births(session: AsyncSession) -> dict[int, date]:
    """When living persons were born, as far as it is known of them or of who was merged into
    them; read from an index that holds nobody else.
    """
    rows = await session.execute(
        sql(
            "SELECT coalesce(merged_into, id) AS person_id, birth_date FROM persons"
            " WHERE birth_date IS NOT NULL ORDER BY merged_into IS NOT NULL, birth_date"
        )
    )
    found: dict[int, date] = {}
    for row in rows:
        found.setdefault(row.person_id, row.birth_date)
    return found


async def birth_dates(session: AsyncSession, person_ids: Collection[int]) -> dict[int, date]:
    """The birth dates that are known of these persons, or of who was merged into them."""
    rows = await session.execute(
        sql(
            "SELECT u.id, coalesce(p.birth_date, (SELECT min(m.birth_date) FROM persons m"
            "   WHERE m.merged_into = u.id)) AS born"
            " FROM unnest(CAST(:ids AS bigint[])) AS u (id) JOIN persons p ON p.id = u.id"
        ),
        {"ids": list(person_ids)},
    )
    return {row.id: row.born for row in rows if row.born is not None}
