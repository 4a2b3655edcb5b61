"""What people said of faces, and what the machine had said before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql


async def first_words(session: AsyncSession) -> Sequence[Row[Any]]:
    """Of each confirmed face its person, the kind of the first event in force by which a person
    moved or confirmed it, and the person it had until then, by the id that this resolves to now.
    """
    rows = await session.execute(
        sql(
            "SELECT s.face_id, s.person_id, s.kind, coalesce(p.merged_into, p.id) AS had"
            " FROM (SELECT DISTINCT ON (f.id) f.id AS face_id, f.person_id, e.kind,"
            "     (e.before -> 'faces' -> f.id::text ->> 'person_id')::bigint AS had"
            "   FROM faces f JOIN identity_events e ON e.face_ids @> ARRAY[f.id]"
            "   WHERE f.confirmed_by = 'person' AND e.made_by = 'person'"
            "     AND e.undoes IS NULL AND e.undone_by IS NULL"
            "     AND jsonb_exists(e.before -> 'faces', f.id::text)"
            "   ORDER BY f.id, e.id) s"
            " LEFT JOIN persons p ON p.id = s.had"
        )
    )
    return rows.all()


async def confirmed_faces(session: AsyncSession) -> Sequence[Row[Any]]:
    """The faces that a person confirmed, in the order of ids: id, person, photo, box. Copies of a
    picture tell nothing that the picture does not.
    """
    rows = await session.execute(
        sql(
            "SELECT id, person_id, photo_id, bbox FROM faces WHERE confirmed_by = 'person'"
            " AND person_id IS NOT NULL AND copy_of IS NULL ORDER BY id"
        )
    )
    return rows.all()


async def count_faces(session: AsyncSession) -> int:
    """How many faces the library has."""
    return int((await session.execute(sql("SELECT count(*) FROM faces"))).scalar_one())
