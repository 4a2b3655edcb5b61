"""Faces and who is in which photo."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql
from kaleidoscope.people.queries.search import to_sql
from kaleidoscope.people.rules.changes import PERSON


@dataclass(frozen=True)
class StoredFace:
    """A face as the database has it. `seen`: it has a vector of the pack that is asked about."""

    id: int
    person_id: int | None
    bbox: list[float]
    confirmed_by: str
    refused: frozenset[int]
    seen: bool

    @property
    def spoken_of(self) -> bool:
        """Whether a person has said yes or no to it: then it stays, found again or not."""
        return self.confirmed_by == PERSON or bool(self.refused)


async def stored_faces(
    session: AsyncSession, photo_ids: Collection[int], pack: str
) -> dict[int, list[StoredFace]]:
    """The faces of each photo with the persons they are known not to be, and whether the pack has
    a vector of them.
    """
    rows = await session.execute(
        sql(
            "SELECT f.photo_id, f.id, f.person_id, f.bbox, f.confirmed_by,"
            " array(SELECT coalesce(p.merged_into, p.id) FROM face_rejections r"
            "   JOIN persons p ON p.id = r.person_id WHERE r.face_id = f.id) AS refused,"
            " EXISTS (SELECT FROM face_vectors v WHERE v.face_id = f.id AND v.pack = :pack) AS seen"
            " FROM faces f WHERE f.photo_id = ANY(:photos) ORDER BY f.id"
        ),
        {"photos": list(photo_ids), "pack": pack},
    )
    found: dict[int, list[StoredFace]] = {photo_id: [] for photo_id in photo_ids}
    for r in rows:
        refused = frozenset(r.refused)
        face = StoredFace(r.id, r.person_id, r.bbox, r.confirmed_by, refused, r.seen)
        found[r.photo_id].append(face)
    return found


async def delete_faces(session: AsyncSession, face_ids: Collection[int]) -> None:
    """Remove faces with their vectors."""
    await session.execute(sql("DELETE FROM faces WHERE id = ANY(:ids)"), {"ids": list(face_ids)})


async def last_of_named(session: AsyncSession, face_ids: Collection[int]) -> set[int]:
    """Those of the faces without which a person who has a name would have none."""
    rows = await session.execute(
        sql(
            "SELECT f.id FROM faces f JOIN persons p ON p.id = f.person_id"
            " WHERE f.id = ANY(:ids) AND p.display_name IS NOT NULL AND NOT EXISTS"
            " (SELECT FROM faces o WHERE o.person_id = p.id AND o.id <> ALL(:ids))"
        ),
        {"ids": list(face_ids)},
    )
    return set(rows.scalars())


@dataclass(frozen=True)
class NewFace:
    """A face to write; `id` is given when it replaces what the machine knew of a stored one."""

    id: int | None
    photo_id: int
    attempt_id: UUID
    model_version: str | None
    person_id: int | None
    bbox: list[float]
    landmarks: list[float] | None
    suggested_person_id: int | None
    similarity: float | None
    confidence: float | None
    quality: float | None
    measures: dict[str, Any] | None
    vector: NDArray[np.float32]
    copy_of: int | None = None


async def write_faces(session: AsyncSession, faces: Sequence[NewFace], *, pack: str) -> list[int]:
    """Insert or replace faces and their vectors; the vector id of each, in order.

    A stored face keeps its id, and a person's word on it.
    """
    if not faces:
        return []
    rows = await session.execute(
        sql(
            "WITH given AS MATERIALIZED (SELECT *,"
            "   coalesce(known, nextval(pg_get_serial_sequence('faces', 'id'))) AS id"
            "  FROM ROWS FROM (jsonb_to_recordset(CAST(:faces AS jsonb)) AS (id bigint,"
            "    photo_id bigint, attempt_id uuid, model_version text, person_id bigint,"
            "    bbox real[], landmarks real[], suggested_person_id bigint, similarity real,"
            "    confidence real, quality real, measures jsonb, copy_of bigint),"
            "   unnest(CAST(:vectors AS text[]))) WITH ORDINALITY"
            "  AS f (known, photo_id, attempt_id, model_version, person_id, bbox, landmarks,"
            "   suggested_person_id, similarity, confidence, quality, measures, copy_of, vector,"
            "   place)),"
            " written AS (INSERT INTO faces (id, photo_id, person_id, status, bbox, landmarks,"
            "   suggested_person_id, similarity, confidence, quality, measures, model_version,"
            "   attempt_id, copy_of)"
            "  SELECT id, photo_id, person_id,"
            "   CASE WHEN person_id IS NULL THEN 'open' ELSE 'assigned' END, bbox, landmarks,"
            "   suggested_person_id, similarity, confidence, quality,"
            "   measures, model_version, attempt_id, copy_of FROM given"
            "  ON CONFLICT (id) DO UPDATE SET person_id = excluded.person_id,"
            "   status = excluded.status, bbox = excluded.bbox, landmarks = excluded.landmarks,"
            "   suggested_person_id = excluded.suggested_person_id,"
            "   similarity = excluded.similarity, confidence = excluded.confidence,"
            "   quality = excluded.quality, measures = excluded.measures,"
            "   model_version = excluded.model_version, attempt_id = excluded.attempt_id),"
            " seen AS (INSERT INTO face_vectors (face_id, pack, model_version, embedding)"
            "  SELECT id, :pack, model_version, vector::vector FROM given"
            "  ON CONFLICT (face_id, pack) DO UPDATE SET embedding = excluded.embedding,"
            "   model_version = excluded.model_version, created_at = now()"
            "  RETURNING face_id, id)"
            " SELECT seen.id FROM given JOIN seen ON seen.face_id = given.id ORDER BY given.place"
        ),
        {
            "pack": pack,
            "vectors": to_sql(f.vector for f in faces),
            "faces": json.dumps(
                [
                    {
                        "id": f.id,
                        "photo_id": f.photo_id,
                        "attempt_id": str(f.attempt_id),
                        "model_version": f.model_version,
                        "person_id": f.person_id,
                        "bbox": f.bbox,
                        "landmarks": f.landmarks,
                        "suggested_person_id": f.suggested_person_id,
                        "similarity": f.similarity,
                        "confidence": f.confidence,
                        "quality": f.quality,
                        "measures": f.measures,
                        "copy_of": f.copy_of,
                    }
                    for f in faces
                ]
            ),
        },
    )
    return list(rows.scalars())


async def add_photo_persons(
    session: AsyncSession, person_ids: Mapping[int, Collection[int]]
) -> None:
    """Enter the persons of photos that had none."""
    pairs = [(photo, person) for photo, ids in person_ids.items() for person in ids]
    if pairs:
        await session.execute(
            sql(
                "INSERT INTO photo_persons (photo_id, person_id)"
                " SELECT * FROM unnest(CAST(:photos AS bigint[]), CAST(:persons AS bigint[]))"
            ),
            {"photos": [p for p, _ in pairs], "persons": [p for _, p in pairs]},
        )


async def write_photo_persons(
    session: AsyncSession, photo_ids: Collection[int]
) -> dict[int, list[int]]:
    """Bring the join table in line with the faces; the persons of each photo, by id."""
    photos = {"photos": list(photo_ids)}
    await session.execute(
        sql(
            "DELETE FROM photo_persons x WHERE photo_id = ANY(:photos) AND NOT EXISTS"
            " (SELECT FROM faces f WHERE f.photo_id = x.photo_id AND f.person_id = x.person_id)"
        ),
        photos,
    )
    await session.execute(
        sql(
            "INSERT INTO photo_persons (photo_id, person_id)"
            " SELECT DISTINCT photo_id, person_id FROM faces"
            " WHERE photo_id = ANY(:photos) AND person_id IS NOT NULL"
            " ORDER BY 1, 2 ON CONFLICT DO NOTHING"
        ),
        photos,
    )
    rows = await session.execute(
        sql(
            "SELECT u.id, array(SELECT person_id FROM photo_persons x WHERE x.photo_id = u.id"
            "   ORDER BY person_id) AS person_ids FROM unnest(CAST(:photos AS bigint[])) AS u (id)"
        ),
        photos,
    )
    return {row.id: row.person_ids for row in rows}


async def photos_of_faces(session: AsyncSession, face_ids: Collection[int]) -> list[int]:
    """The photos of these faces, by id."""
    rows = await session.execute(
        sql("SELECT DISTINCT photo_id FROM faces WHERE id = ANY(:ids) ORDER BY 1"),
        {"ids": list(face_ids)},
    )
    return list(rows.scalars())
