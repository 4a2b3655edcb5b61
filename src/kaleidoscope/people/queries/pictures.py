"""How pictures look, and the faces in those that look the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql
from kaleidoscope.people.queries.search import from_sql
from kaleidoscope.people.rules.copies import Known

DIFFERENT = 3  # bits of a hash that copies differ in at most
MOST = 200  # faces looked at for one photo: the oldest
BANDS = 4
# Pictures that are named by parameters, as rows.
LOOKS = (
    "SELECT photo_id, hash, bands::int[] AS bands, width, height"
    " FROM unnest(CAST(:photos AS bigint[]), CAST(:hashes AS bigint[]), CAST(:bands AS text[]),"
    "   CAST(:widths AS int[]), CAST(:heights AS int[]))"
    "   AS u (photo_id, hash, bands, width, height)"
)


@dataclass(frozen=True)
class Picture:
    """How a photo looks: its perceptual hash in hexadecimal, and its displayed size."""

    photo_id: int
    hash: str
    width: int
    height: int

    @property
    def bits(self) -> int:
        """The hash as PostgreSQL's bigint has it."""
        return int.from_bytes(bytes.fromhex(self.hash), "big", signed=True)

    @property
    def bands(self) -> list[int]:
        """The hash in parts, numbered: who differs in three bits of 64 has one in common."""
        whole = int(self.hash, 16)
        return [(band << 16) + (whole >> (16 * band) & 0xFFFF) for band in range(BANDS)]


async def remember(session: AsyncSession, pictures: Sequence[Picture]) -> None:
    """Write how photos look."""
    await session.execute(
        sql(
            "INSERT INTO pictures (photo_id, hash, bands, width, height)"
            f" {LOOKS}"
            " ON CONFLICT (photo_id) DO UPDATE SET hash = excluded.hash, bands = excluded.bands,"
            "   width = excluded.width, height = excluded.height"
        ),
        _values(pictures),
    )


async def faces_alike(
    session: AsyncSession, pack: str, pictures: Sequence[Picture]
) -> dict[int, list[Known]]:
    """For each photo the faces, with a person, in other photos that look the same."""
    rows = await session.execute(
        sql(
            f"WITH q AS MATERIALIZED ({LOOKS})"
            " SELECT q.photo_id AS looks_like, n.* FROM q CROSS JOIN LATERAL ("
            "   SELECT f.id, f.person_id, f.bbox, p.width, p.height, v.embedding::text AS vector,"
            "     coalesce(f.quality, 1) AS quality"
            "   FROM pictures p JOIN faces f ON f.photo_id = p.photo_id"
            "   JOIN face_vectors v ON v.face_id = f.id AND v.pack = :pack"
            "   WHERE p.bands && q.bands AND p.photo_id <> q.photo_id"
            "     AND bit_count((p.hash # q.hash)::bit(64)) <= :different"
            "     AND f.person_id IS NOT NULL AND f.copy_of IS NULL"
            "   ORDER BY f.id LIMIT :most) n"
        ),
        {**_values(pictures), "pack": pack, "different": DIFFERENT, "most": MOST},
    )
    found: dict[int, list[Known]] = defaultdict(list)
    for row in rows:
        found[row.looks_like].append(
            Known(
                row.id,
                row.person_id,
                row.bbox,
                (row.width, row.height),
                row.quality,
                from_sql(row.vector),
            )
        )
    return found


def _values(pictures: Sequence[Picture]) -> dict[str, list[int] | list[str]]:
    return {
        "photos": [p.photo_id for p in pictures],
        "hashes": [p.bits for p in pictures],
        "bands": ["{" + ",".join(map(str, p.bands)) + "}" for p in pictures],
        "widths": [p.width for p in pictures],
        "heights": [p.height for p in pictures],
    }
