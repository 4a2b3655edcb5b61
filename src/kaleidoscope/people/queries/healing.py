"""What consolidation reads: who has changed, who cannot be the same, what people said."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql


async def now(session: AsyncSession) -> datetime:
    """When the transaction began, by the database's clock."""
    found: datetime = (await session.execute(sql("SELECT now()"))).scalar_one()
    return found


async def version(session: AsyncSession) -> int:
    """The oldest transaction still running: every change by an earlier one is visible.

    Who has read all up to here asks next for what changed at this version or later, and misses
    nothing, whatever the order in which transactions commit.
    """
    found: int = (
        await session.execute(sql("SELECT (pg_snapshot_xmin(pg_current_snapshot())::text)::bigint"))
    ).scalar_one()
    return found


async def changed_persons(session: AsyncSession, pack: str, *, thorough: bool) -> list[int]:
    """Living persons changed since the pack's last round of consolidation, or thorough one."""
    version = "thorough_version" if thorough else "version"
    rows = await session.execute(
        sql(
            "SELECT p.id FROM persons p JOIN person_vectors v ON v.person_id = p.id"
            " WHERE v.pack = :pack AND v.count > 0 AND p.merged_into IS NULL AND p.version >="
            f"   coalesce((SELECT {version} FROM consolidations WHERE pack = :pack), 0)"
            " ORDER BY p.id"
        ),
        {"pack": pack},
    )
    return list(rows.scalars())


async def overdue_since(session: AsyncSession, pack: str) -> datetime | None:
    """When the last round ended, or the first person was founded; None: nothing has changed."""
    since: datetime | None = (
        await session.execute(
            sql(
                "SELECT coalesce((SELECT finished_at FROM consolidations WHERE pack = :pack),"
                "   (SELECT created_at FROM persons ORDER BY id LIMIT 1))"
                " WHERE EXISTS (SELECT FROM persons WHERE version >="
                "   coalesce((SELECT version FROM consolidations WHERE pack = :pack), 0))"
            ),
            {"pack": pack},
        )
    ).scalar_one_or_none()
    return since


async def looked_at(session: AsyncSession, pack: str) -> datetime:
    """Faces created before then were there in the pack's last round; the epoch: there was none."""
    found: datetime = (
        await session.execute(
            sql(
                "SELECT coalesce((SELECT looked_at FROM consolidations WHERE pack = :pack),"
                "   to_timestamp(0))"
            ),
            {"pack": pack},
        )
    ).scalar_one()
    return found


async def finish_round(
    session: AsyncSession, pack: str, version: int, looked_at: datetime, *, thorough: bool
) -> None:
    """Remember that everything before `version` has been consolidated, and every face created
    before `looked_at` been seen.
    """
    await session.execute(
        sql(
            "INSERT INTO consolidations AS c (pack, version, looked_at, thorough_version)"
            " VALUES (:pack, :version, :looked_at, CASE WHEN :thorough THEN :version ELSE 0 END)"
            " ON CONFLICT (pack) DO UPDATE SET version = excluded.version, finished_at = now(),"
            "   looked_at = excluded.looked_at, thorough_version = CASE WHEN :thorough"
            "     THEN excluded.thorough_version ELSE c.thorough_version END"
        ),
        {"pack": pack, "version": version, "looked_at": looked_at, "thorough": thorough},
    )


async def versions(session: AsyncSession, person_ids: Sequence[int]) -> dict[int, int]:
    """The transaction that last changed each of these living persons."""
    rows = await session.execute(
        sql("SELECT id, version FROM persons WHERE id = ANY(:ids) AND merged_into IS NULL"),
        {"ids": list(person_ids)},
    )
    return {row.id: row.version for row in rows}


async def names(session: AsyncSession) -> dict[int, str]:
    """The name of each living person who has one."""
    rows = await session.execute(
        sql(
            "SELECT id, display_name FROM persons"
            " WHERE merged_into IS NULL AND display_name IS NOT NULL"
        )
    )
    return {row.id: row.display_name for row in rows}


async def confirmed_persons(session: AsyncSession) -> frozenset[int]:
    """Persons who have a face that a person confirmed."""
    rows = await session.execute(
        sql("SELECT DISTINCT person_id FROM faces WHERE confirmed_by = 'person'")
    )
    return frozenset(rows.scalars())


async def held_faces(session: AsyncSession) -> frozenset[int]:
    """Faces that a person's word keeps with the person they have.

    Those of who was merged or split by a person, or put back by undoing what the machine did, as
    far as they were there then.
    """
    rows = await session.execute(
        sql(
            "SELECT f.id FROM identity_events e"
            " LEFT JOIN identity_events back ON back.id = e.undone_by"
            " CROSS JOIN unnest(e.person_ids) AS u (id) JOIN persons p ON p.id = u.id"
            " JOIN faces f ON f.person_id = coalesce(p.merged_into, p.id)"
            "   AND f.created_at <= coalesce(back.created_at, e.created_at)"
            " WHERE e.undoes IS NULL AND (e.kind IN ('merge', 'split') AND e.made_by = 'person'"
            "   AND e.undone_by IS NULL OR e.made_by = 'machine' AND e.undone_by IS NOT NULL)"
        )
    )
    return frozenset(rows.scalars())


async def noes(session: AsyncSession) -> list[tuple[int, int | None, int]]:
    """Every remembered no: a face, the person it has, and one that it is not."""
    rows = await session.execute(
        sql(
            "SELECT r.face_id, f.person_id, coalesce(p.merged_into, p.id) AS is_not"
            " FROM face_rejections r JOIN faces f ON f.id = r.face_id"
            " JOIN persons p ON p.id = r.person_id"
        )
    )
    return [(row.face_id, row.person_id, row.is_not) for row in rows]


async def present(session: AsyncSession, photo_ids: Sequence[int]) -> list[tuple[int, int]]:
    """Who is in these photos: photo and person."""
    rows = await session.execute(
        sql("SELECT photo_id, person_id FROM photo_persons WHERE photo_id = ANY(:ids)"),
        {"ids": list(photo_ids)},
    )
    return [(row.photo_id, row.person_id) for row in rows]


async def photos_of(session: AsyncSession, person_ids: Collection[int]) -> list[tuple[int, int]]:
    """The photos that these persons are in: photo and person."""
    rows = await session.execute(
        sql("SELECT photo_id, person_id FROM photo_persons WHERE person_id = ANY(:ids)"),
        {"ids": list(person_ids)},
    )
    return [(row.photo_id, row.person_id) for row in rows]


async def apart(session: AsyncSession, person_ids: Sequence[int]) -> list[tuple[int, int]]:
    """Which of these persons are in one photo."""
    rows = await session.execute(
        sql(
            "SELECT DISTINCT a.person_id AS one, b.person_id AS other FROM photo_persons a"
            " JOIN photo_persons b ON b.photo_id = a.photo_id AND b.person_id > a.person_id"
            " WHERE a.person_id = ANY(:ids) AND b.person_id = ANY(:ids)"
        ),
        {"ids": list(person_ids)},
    )
    return [(row.one, row.other) for row in rows]


async def faces_known(session: AsyncSession, pack: str, at_most: int) -> int:
    """How many faces of a pack have a person, counted no further than `at_most` + 1."""
    count: int = (
        await session.execute(
            sql(
                "SELECT count(*) FROM (SELECT FROM faces f JOIN face_vectors e"
                " ON e.face_id = f.id AND e.pack = :pack LIMIT :most) counted"
            ),
            {"pack": pack, "most": at_most + 1},
        )
    ).scalar_one()
    return count
