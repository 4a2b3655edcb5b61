"""An album for tests: photos in the ledger, people as directions, callbacks as the ML sends them.

A person is a random unit vector; each of their faces is that vector with a little noise, so that
faces of one person are .97 alike and strangers hardly at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import numpy as np
from sqlalchemy import text

from kaleidoscope.kernel.db import Database
from kaleidoscope.people import service
from kaleidoscope.people.schemas import Callback, CallbackAnswer, encode_vector

DIMENSION = 128


def face(person: int, view: int = 0, noise: float = 0.15) -> np.ndarray:
    """A view of a person's face: a unit vector."""
    own = np.random.default_rng(person).normal(size=DIMENSION)
    other = np.random.default_rng([person, view, 7]).normal(size=DIMENSION)
    vector = own / np.linalg.norm(own) + noise * other / np.linalg.norm(other)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def detection(vector: np.ndarray, place: int = 0, **more: Any) -> dict[str, Any]:
    """A detection as the ML service sends it; `place` moves the box to the right."""
    left = 100.0 * place
    return {
        "bbox": [left, 10.0, left + 80.0, 90.0],
        "embedding": encode_vector(vector),
        "confidence": 0.99,
        "quality": {"score": 0.9},
        **more,
    }


class Album:
    """Photos in a database, and what is delivered for them."""

    def __init__(self, db: Database) -> None:
        self.db = db

    async def add(self, name: str | None = None) -> tuple[int, str, UUID]:
        """A photo of the ledger: its id, path, and current attempt."""
        path = f"/photos/{name or uuid4().hex}.jpg"
        async with self.db.transaction() as session:
            row = (
                await session.execute(
                    text(
                        "INSERT INTO media_assets (original_name, original_path, final_path,"
                        " filename, size_bytes) VALUES (:name, :path, :path, :name, 1)"
                        " RETURNING photo_id, attempt_id"
                    ),
                    {"name": path.rsplit("/", 1)[1], "path": path},
                )
            ).one()
        return row.photo_id, path, row.attempt_id

    def callback(
        self, photo: tuple[int, str, UUID], detections: Sequence[dict[str, Any]], **more: Any
    ) -> Callback:
        """The callback of a photo's attempt."""
        photo_id, path, attempt_id = photo
        return Callback.model_validate(
            {
                "photo_id": photo_id,
                "path": path,
                "status": "PROCESSED",
                "attempt_id": attempt_id,
                "detections": detections,
                "meta": {"pack": "builtin", "model_version": "builtin/test"},
                **more,
            }
        )

    async def deliver(self, callback: Callback) -> CallbackAnswer:
        """Deliver a callback as the HTTP edge does: one transaction."""
        async with self.db.transaction() as session:
            return await service.deliver(session, callback)

    async def shoot(self, *people: int, view: int = 0, **more: Any) -> tuple[int, list[int | None]]:
        """A new photo of these people: its id, and the person of each face from left to right."""
        photo = await self.add()
        faces = [detection(face(p, view + 100 * i), i) for i, p in enumerate(people)]
        await self.deliver(self.callback(photo, faces, **more))
        return photo[0], await self.persons(photo[0])

    async def again(self, photo_id: int, detections: Sequence[dict[str, Any]], **more: Any) -> None:
        """The photo is processed again, and this is found."""
        from kaleidoscope.library import service as library

        async with self.db.transaction() as session:
            attempt_id = await library.new_attempt(session, photo_id)
            path = (await library.get(session, photo_id)).path
        await self.deliver(self.callback((photo_id, path, attempt_id), detections, **more))

    async def rows(self, statement: str, **values: Any) -> list[Any]:
        """The rows of a statement."""
        async with self.db.transaction() as session:
            found = await session.execute(text(statement), values)
            return list(found.all()) if found.returns_rows else []

    async def value(self, statement: str, **values: Any) -> Any:
        """The only value of a statement."""
        return (await self.rows(statement, **values))[0][0]

    async def persons(self, photo_id: int) -> list[int | None]:
        """The person of each face of a photo, from left to right."""
        rows = await self.rows(
            "SELECT person_id FROM faces WHERE photo_id = :photo ORDER BY bbox[1], id",
            photo=photo_id,
        )
        return [row.person_id for row in rows]

    async def face_ids(self, photo_id: int) -> list[int]:
        """The faces of a photo, from left to right."""
        rows = await self.rows(
            "SELECT id FROM faces WHERE photo_id = :photo ORDER BY bbox[1], id", photo=photo_id
        )
        return [row.id for row in rows]

    async def check(self) -> None:
        """What must hold whatever has happened: everything that follows from the faces does."""
        wrong_vectors = await self.rows(
            "WITH made AS (SELECT f.person_id, v.pack, count(*) AS n, sum(v.embedding) AS s"
            "   FROM faces f JOIN face_vectors v ON v.face_id = f.id"
            "   WHERE f.person_id IS NOT NULL AND NOT EXISTS (SELECT FROM faces o"
            "     WHERE o.id = f.copy_of AND o.person_id = f.person_id) GROUP BY 1, 2)"
            " SELECT coalesce(m.person_id, p.person_id), m.n, p.count, m.s <-> p.sum,"
            "   p.mean <-> (m.s * array_fill((1.0 / m.n)::real, ARRAY[vector_dims(m.s)])::vector)"
            " FROM made m FULL JOIN person_vectors p USING (person_id, pack)"
            " WHERE m.n IS DISTINCT FROM p.count OR (m.s <-> p.sum) > 1e-3"
            "   OR (p.mean <-> (m.s * array_fill((1.0 / m.n)::real,"
            "       ARRAY[vector_dims(m.s)])::vector)) > 1e-4 OR (p.mean <-> p.indexed) > .031"
        )
        assert not wrong_vectors
        wrong_persons = await self.rows(
            "WITH made AS (SELECT photo_id, array_agg(DISTINCT person_id ORDER BY person_id)"
            "   FILTER (WHERE person_id IS NOT NULL) AS ids FROM faces GROUP BY 1),"
            " joined AS (SELECT photo_id, array_agg(person_id ORDER BY person_id) AS ids"
            "   FROM photo_persons GROUP BY 1)"
            " SELECT a.photo_id, made.ids, joined.ids, a.person_ids FROM media_assets a"
            " LEFT JOIN made USING (photo_id) LEFT JOIN joined USING (photo_id)"
            " WHERE a.status = 'PROCESSED' AND (made.ids IS DISTINCT FROM joined.ids"
            "   OR to_jsonb(coalesce(made.ids, '{}')) <> coalesce(a.person_ids, '[]'))"
        )
        assert not wrong_persons
        assert not await self.rows(
            "SELECT p.id FROM persons p JOIN persons q ON q.id = p.merged_into"
            " WHERE q.merged_into IS NOT NULL"
        ), "a merged id resolves in more than one step"
        assert not await self.rows(
            "SELECT f.id FROM faces f JOIN persons p ON p.id = f.person_id"
            " WHERE p.merged_into IS NOT NULL"
        ), "a face belongs to a person who was merged away"
        wrong_representative = await self.rows(
            "SELECT p.id FROM persons p LEFT JOIN face_vectors v ON v.id = p.primary_embedding_id"
            " LEFT JOIN faces f ON f.id = v.face_id"
            " WHERE f.person_id IS DISTINCT FROM p.id"
            "   AND EXISTS (SELECT FROM faces g WHERE g.person_id = p.id)"
        )
        assert not wrong_representative
