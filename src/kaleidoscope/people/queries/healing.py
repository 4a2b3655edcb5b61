"""What consolidation reads: who has changed, who cannot be the same, which faces are open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.people.queries.search import from_sql
from kaleidoscope.people.rules.matching import Vector


async def version(session: AsyncSession) -> int:
    """The oldest transaction still running: every change by an earlier one is visible.

    Who has read all up to here asks next for what changed at this version or later, and misses
    nothing, whatever the order in which transactions commit.
    """
    found: int = (
        await session.execute(
            text("SELECT (pg_snapshot_xmin(pg_current_snapshot())::text)::bigint")
        )
    ).scalar_one()
    return found


async def changed_persons(session: AsyncSession, pack: str) -> list[int]:
    """Living persons changed since the pack's last round of consolidation."""
    rows = await session.execute(
        text(
            "SELECT p.id FROM persons p JOIN person_vectors v ON v.person_id = p.id"
            " WHERE v.pack = :pack AND v.count > 0 AND p.merged_into IS NULL AND p.version >="
            "   coalesce((SELECT version FROM consolidations WHERE pack = :pack), 0)"
            " ORDER BY p.id"
        ),
        {"pack": pack},
    )
    return list(rows.scalars())


async def overdue_since(session: AsyncSession, pack: str) -> datetime | None:
    """When the last round ended, or the first person was founded; None: nothing has changed."""
    since: datetime | None = (
        await session.execute(
            text(
                "SELECT coalesce((SELECT finished_at FROM consolidations WHERE pack = :pack),"
                "   (SELECT created_at FROM persons ORDER BY id LIMIT 1))"
                " WHERE EXISTS (SELECT FROM persons WHERE version >="
                "   coalesce((SELECT version FROM consolidations WHERE pack = :pack), 0))"
            ),
            {"pack": pack},
        )
    ).scalar_one_or_none()
    return since


async def finish_round(session: AsyncSession, pack: str, version: int) -> None:
    """Remember that everything before `version` has been consolidated."""
    await session.execute(
        text(
            "INSERT INTO consolidations (pack, version) VALUES (:pack, :version)"
            " ON CONFLICT (pack) DO UPDATE SET version = excluded.version, finished_at = now()"
        ),
        {"pack": pack, "version": version},
    )


async def names(session: AsyncSession, person_ids: Sequence[int]) -> dict[int, str]:
    """The names of those that have one."""
    rows = await session.execute(
        text(
            "SELECT id, display_name FROM persons WHERE id = ANY(:ids) AND display_name IS NOT NULL"
        ),
        {"ids": list(person_ids)},
    )
    return {row.id: row.display_name for row in rows}


async def apart(session: AsyncSession, person_ids: Sequence[int]) -> dict[int, set[int]]:
    """For each person, those among these who are known to be somebody else.

    Two in one photo are two people; and a face of one of them was said not to be the other.
    """
    rows = await session.execute(
        text(
            "SELECT a.person_id AS one, b.person_id AS other FROM photo_persons a"
            " JOIN photo_persons b ON b.photo_id = a.photo_id AND b.person_id <> a.person_id"
            " WHERE a.person_id = ANY(:ids) AND b.person_id = ANY(:ids)"
            " UNION SELECT f.person_id, coalesce(p.merged_into, p.id) FROM face_rejections r"
            " JOIN faces f ON f.id = r.face_id JOIN persons p ON p.id = r.person_id"
            " WHERE f.person_id = ANY(:ids)"
        ),
        {"ids": list(person_ids)},
    )
    found: dict[int, set[int]] = {}
    for one, other in rows:
        if one != other:
            found.setdefault(one, set()).add(other)
            found.setdefault(other, set()).add(one)
    return found


@dataclass(frozen=True)
class OpenFace:
    """A face without a person."""

    id: int
    photo_id: int
    quality: float
    vector: Vector
    refused: frozenset[int]


async def open_faces(session: AsyncSession, face_ids: Sequence[int], pack: str) -> list[OpenFace]:
    """Those of these faces that have no person, with the persons they are known not to be."""
    rows = await session.execute(
        text(
            "SELECT f.id, f.photo_id, coalesce(f.quality, 1) AS quality, e.embedding::text AS v,"
            " array(SELECT coalesce(p.merged_into, p.id) FROM face_rejections r"
            "   JOIN persons p ON p.id = r.person_id WHERE r.face_id = f.id)"
            " || array(SELECT person_id FROM photo_persons x WHERE x.photo_id = f.photo_id)"
            "   AS refused"
            " FROM faces f JOIN face_vectors e ON e.face_id = f.id AND e.pack = :pack"
            " WHERE f.id = ANY(:ids) AND f.status = 'open' ORDER BY f.photo_id, f.id"
        ),
        {"ids": list(face_ids), "pack": pack},
    )
    return [
        OpenFace(r.id, r.photo_id, r.quality, from_sql(r.v), frozenset(r.refused)) for r in rows
    ]
