"""How many callbacks a second the one write path of faces and persons takes.

usage: bench_callbacks.py [--photos 1500] [--persons 2000] [--writers 1 8]

A library of so many persons; photos of one to three faces arrive, a tenth of them of somebody new.
Each is delivered by the verb behind POST /callback/photo-processed, in a transaction of its own,
from one process. Baseline, in the same run and with as many writers: what writing alone costs, one
transaction a photo with the same rows in single INSERTs and nothing looked up, locked or decided.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np
from scratch_database import scratch_database
from sqlalchemy import text

from kaleidoscope.kernel.db import Database
from kaleidoscope.people import service
from kaleidoscope.people.schemas import Callback, encode_vector

DIMENSION = 128


@dataclass(frozen=True)
class Photo:
    """A photo of the ledger, and whose faces are in it."""

    photo_id: int
    path: str
    attempt_id: UUID
    people: list[int]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=1500, help="photos a measurement")
    parser.add_argument("--persons", type=int, default=2000)
    parser.add_argument("--writers", type=int, nargs="+", default=[1, 8])
    options = parser.parse_args()
    with scratch_database() as url:
        asyncio.run(measure(url, options))


async def measure(url: str, options: argparse.Namespace) -> None:
    db = Database(url, pool_size=max(options.writers))
    rng = np.random.default_rng(0)
    founding = await add_photos(db, [[p] for p in range(options.persons)])
    await timed(db, founding, 4, deliver)
    print(f"library of {options.persons} persons", flush=True)
    newcomers = options.persons
    for writers in options.writers:
        rates = {}
        for name, work in (("deliver", deliver), ("bare", bare)):
            people = [
                rng.integers(0, options.persons, rng.integers(1, 4)).tolist()
                for _ in range(options.photos)
            ]
            for n in range(0, len(people), 10):
                people[n][0], newcomers = newcomers, newcomers + 1
            rates[name] = await timed(db, await add_photos(db, people), writers, work)
        ratio = rates["bare"] / rates["deliver"]
        print(
            f"{writers} writers: {rates['deliver']:.0f} callbacks/s; bare inserts"
            f" {rates['bare']:.0f} photos/s; ratio {ratio:.2f}",
            flush=True,
        )
    await db.close()


async def add_photos(db: Database, people: Sequence[list[int]]) -> list[Photo]:
    """A photo of the ledger for each list of people."""
    async with db.transaction() as session:
        rows = await session.execute(
            text(
                "INSERT INTO media_assets (original_name, original_path, final_path, filename,"
                " size_bytes) SELECT n, p, p, n, 1 FROM (SELECT gen_random_uuid()::text AS n"
                " FROM generate_series(1, :count)) x, LATERAL (SELECT '/bench/' || n AS p) y"
                " RETURNING photo_id, final_path, attempt_id"
            ),
            {"count": len(people)},
        )
        return [Photo(*row, who) for row, who in zip(rows, people, strict=True)]


async def timed(
    db: Database,
    photos: Sequence[Photo],
    writers: int,
    work: Callable[[Database, Photo, Callback], Awaitable[None]],
) -> float:
    """Photos a second by so many writers at once."""
    rng = np.random.default_rng(photos[0].photo_id)
    callbacks = [(photo, callback(photo, rng)) for photo in photos]

    async def writer(mine: Sequence[tuple[Photo, Callback]]) -> None:
        for photo, document in mine:
            await work(db, photo, document)

    began = time.perf_counter()
    await asyncio.gather(*(writer(callbacks[n::writers]) for n in range(writers)))
    return len(photos) / (time.perf_counter() - began)


def callback(photo: Photo, rng: np.random.Generator) -> Callback:
    """What the ML service sends: a face is its person's direction with noise, .97 alike."""
    faces = []
    for place, person in enumerate(photo.people):
        own = np.random.default_rng(person).normal(size=DIMENSION)
        other = rng.normal(size=DIMENSION)
        vector = own / np.linalg.norm(own) + 0.15 * other / np.linalg.norm(other)
        vector = (vector / np.linalg.norm(vector)).astype(np.float32)
        box = [100.0 * place, 0.0, 100.0 * place + 80, 80.0]
        faces.append({"bbox": box, "embedding": encode_vector(vector), "quality": {"score": 0.9}})
    return Callback.model_validate(
        {
            "photo_id": photo.photo_id,
            "path": photo.path,
            "attempt_id": photo.attempt_id,
            "status": "PROCESSED",
            "detections": faces,
            "meta": {"pack": "builtin", "model_version": "bench"},
        }
    )


async def deliver(db: Database, photo: Photo, document: Callback) -> None:
    async with db.transaction() as session:
        await service.deliver(session, document)


async def bare(db: Database, photo: Photo, document: Callback) -> None:
    """The rows alone: faces, their vectors, the photo's status."""
    async with db.transaction() as session:
        for face in document.detections:
            face_id = (
                await session.execute(
                    text(
                        "INSERT INTO faces (photo_id, bbox, attempt_id, measures)"
                        " VALUES (:photo, :box, :attempt, CAST(:measures AS jsonb)) RETURNING id"
                    ),
                    {
                        "photo": photo.photo_id,
                        "box": face.bbox,
                        "attempt": photo.attempt_id,
                        "measures": json.dumps(face.quality),
                    },
                )
            ).scalar_one()
            vector = np.random.default_rng(face_id).normal(size=DIMENSION).tolist()
            await session.execute(
                text(
                    "INSERT INTO face_vectors (face_id, pack, embedding)"
                    " VALUES (:face, 'bare', CAST(:vector AS vector))"
                ),
                {"face": face_id, "vector": str(vector)},
            )
        await session.execute(
            text("UPDATE media_assets SET status = 'PROCESSED' WHERE photo_id = :photo"),
            {"photo": photo.photo_id},
        )


if __name__ == "__main__":
    main()
