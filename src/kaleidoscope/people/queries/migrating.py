"""Vectors of a pack in place of those of the packs before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql

# Vectors that nobody needs any more: the pack in use has seen the face, too.
REPLACED = (
    "v.pack <> :pack AND EXISTS"
    " (SELECT FROM face_vectors n WHERE n.face_id = v.face_id AND n.pack = :pack)"
)


async def packs_before(session: AsyncSession, pack: str) -> list[str]:
    """The packs that this one takes the place of: those still in the book of consolidations."""
    rows = await session.execute(
        sql("SELECT pack FROM consolidations WHERE pack <> :pack ORDER BY finished_at"),
        {"pack": pack},
    )
    return list(rows.scalars())


async def note_packs(session: AsyncSession, pack: str) -> None:
    """Enter every other pack that has vectors into that book, until they have been replaced."""
    await session.execute(
        sql(
            "INSERT INTO consolidations (pack, version)"
            " SELECT DISTINCT pack, 0 FROM face_vectors WHERE pack <> :pack"
            " ON CONFLICT DO NOTHING"
        ),
        {"pack": pack},
    )


async def forget_packs(session: AsyncSession, pack: str) -> None:
    """Strike every other pack out of the books, and drop what it would have asked."""
    for statement in (
        "DELETE FROM review_questions WHERE pack <> :pack AND event_id IS NULL",
        "DELETE FROM review_progress WHERE pack <> :pack",
        "DELETE FROM consolidations WHERE pack <> :pack",
    ):
        await session.execute(sql(statement), {"pack": pack})


async def drop_replaced(session: AsyncSession, pack: str, person_ids: Sequence[int]) -> None:
    """Remove other packs' vectors of these persons' faces, where the pack has its own."""
    await session.execute(
        sql(
            "DELETE FROM face_vectors v USING faces f WHERE f.id = v.face_id"
            f" AND f.person_id = ANY(:ids) AND {REPLACED}"
        ),
        {"pack": pack, "ids": list(person_ids)},
    )


async def drop_replaced_open(session: AsyncSession, pack: str) -> None:
    """The same for faces that have nobody."""
    await session.execute(
        sql(
            "DELETE FROM face_vectors v USING faces f WHERE f.id = v.face_id"
            f" AND f.status = 'open' AND {REPLACED}"
        ),
        {"pack": pack},
    )


async def measure(session: AsyncSession, pack: str, person_ids: Sequence[int]) -> None:
    """State how similar these persons' faces are to the others of their person, where nobody has:
    faces that were carried over from another pack.
    """
    await session.execute(
        sql(
            "UPDATE faces f SET similarity ="
            "   (x.count * -(x.mean <#> v.embedding) - 1) / (x.count - 1)"
            " FROM face_vectors v, person_vectors x WHERE f.person_id = ANY(:ids)"
            " AND f.similarity IS NULL AND f.copy_of IS NULL AND v.face_id = f.id"
            " AND v.pack = :pack AND x.person_id = f.person_id AND x.pack = :pack AND x.count > 1"
        ),
        {"pack": pack, "ids": list(person_ids)},
    )


async def figures(session: AsyncSession, pack: str) -> Row[Any]:
    """How many faces there are, confirmed ones, confirmed ones that the pack has no vector of, and
    persons with a name.
    """
    rows = await session.execute(
        sql(
            "SELECT count(*) AS faces,"
            " count(*) FILTER (WHERE confirmed_by = 'person') AS confirmed,"
            " count(*) FILTER (WHERE confirmed_by = 'person' AND NOT EXISTS (SELECT"
            "   FROM face_vectors v WHERE v.face_id = f.id AND v.pack = :pack)) AS unseen,"
            " (SELECT count(*) FROM persons WHERE merged_into IS NULL"
            "   AND display_name IS NOT NULL) AS named FROM faces f"
        ),
        {"pack": pack},
    )
    return rows.one()


async def count_persons(session: AsyncSession, at_most: int) -> int:
    """How many persons live, counted no further than `at_most` + 1."""
    counted = await session.execute(
        sql("SELECT count(*) FROM (SELECT FROM persons WHERE merged_into IS NULL LIMIT :most) c"),
        {"most": at_most + 1},
    )
    return int(counted.scalar_one())
