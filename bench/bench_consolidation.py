"""Consolidation of a large library, and of one new job in it.

usage: bench_consolidation.py [FACES] [--faces 100000] [--job 1000]

Faces are made from real ones: embeddings of FACES (a folder of photos, one folder a person; by
default the labelled photographs), each person a real one moved by part of what people differ by,
each face moved by what faces of one person differ by. Sizes of persons fall like 1/rank, as in an
album: one is in a tenth of the photos, most in one or two. Arrival order is played by splitting
every person of some size in two ids, and by giving one face in fifty to a wrong person.

Measured through the product's own job, in PostgreSQL: everybody at once, then rounds until nothing
moves, then a job of new photos, of known people and strangers. Baseline, in the same run: comparing
all pairs of faces once, in memory, which average linkage from scratch would have to begin with.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
import psycopg
from bench_match import noise, real_embeddings, unit
from scratch_database import scratch_database

from kaleidoscope.kernel.db import Database
from kaleidoscope.ml.catalog import BUILTIN
from kaleidoscope.people import jobs

SHARED = Path(os.environ.get("KALEIDOSCOPE_SHARED") or Path(__file__).parents[2] / "shared")
HEAD = np.array([BUILTIN.dimension, 0], ">i2").tobytes()
PER_PHOTO = 1.3  # faces in a photo with faces
Array = np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "folder", type=Path, nargs="?", default=SHARED / "faces" / "photos" / "lfw250"
    )
    parser.add_argument("--faces", type=int, default=100_000)
    parser.add_argument("--job", type=int, default=1000, help="photos of the new job")
    parser.add_argument("--real", type=int, default=1200, help="photos to take embeddings of")
    options = parser.parse_args()
    if not options.folder.is_dir():
        sys.exit(f"no folder of faces at {options.folder}: name one")
    with scratch_database() as url:
        between, within = real_embeddings(options.folder, options.real)
        asyncio.run(measure(url, options.faces, options.job, between, within))


def sizes(faces: int) -> Array:
    """How many faces each person has: one person to six faces, falling like 1/rank."""
    rank = np.arange(1, max(2, faces // 6))
    low, high = 1.0, float(faces)
    while high - low > 1:
        top = (low + high) / 2
        low, high = (top, high) if np.maximum(1, top // rank).sum() < faces else (low, top)
    found: Array = np.maximum(1, low // rank).astype(int)
    return found


async def measure(url: str, count: int, job: int, between: Array, within: Array) -> None:
    rng = np.random.default_rng(7)
    size = sizes(count)
    people = np.repeat(np.arange(len(size)), size)
    base = between[rng.integers(0, len(between), len(size))]
    one, other = (between[rng.integers(0, len(between), len(size))] for _ in range(2))
    share = rng.uniform(0.2, 0.8, (len(size), 1)).astype(np.float32)
    directions = unit(base + share * (one - other))
    vectors = unit(directions[people] + noise(len(people), within, rng))
    # As arrival order leaves it: persons of eight faces and more under two ids, some faces astray.
    ids = 2 * people + 1 + (rng.random(len(people)) < 0.4) * (size[people] >= 8)
    astray = rng.random(len(people)) < 0.02
    ids[astray] = rng.permutation(ids[astray])
    photos = 1 + np.arange(len(people)) * 10 // round(10 * PER_PHOTO)
    shuffled = rng.permutation(len(people))
    await asyncio.to_thread(store, url, 1, ids[shuffled], photos, vectors[shuffled], "1 day")
    began = time.perf_counter()
    for start in range(0, len(vectors), 2048):
        (vectors[start : start + 2048] @ vectors.T).max(axis=1)
    compared = time.perf_counter() - began
    db = Database(url)
    began, busy = time.perf_counter(), time.process_time()
    done = await jobs.consolidate(db, everybody=True)
    spent, busy = time.perf_counter() - began, time.process_time() - busy
    print(
        f"{len(people)} faces of {len(size)} people under {len(np.unique(ids))} ids: {spent:.1f} s,"
        f" {busy:.1f} s of them this process's processor time ({done});"
        f" ratio to comparing all pairs once ({compared:.1f} s) {spent / compared:.2f}",
        flush=True,
    )
    while (again := await jobs.consolidate(db)) is not None and again.moved:
        print(f"once more: {again}", flush=True)
    fresh = round(job * PER_PHOTO)
    strangers = round(0.3 * fresh)
    again = people[rng.integers(0, len(people), fresh - strangers)]
    known = await asyncio.to_thread(persons_of, url)
    new = unit(directions[again] + noise(len(again), within, rng))
    living, means = known
    joined = living[
        np.concatenate([np.argmax(v @ means.T, axis=1) for v in np.array_split(new, 9)])
    ]
    unknown = unit(
        between[rng.integers(0, len(between), strangers)] + noise(strangers, within, rng)
    )
    founded = living.max() + 1 + np.arange(strangers)
    first = int(photos.max()) + 1
    numbers = first + np.arange(fresh) * 10 // round(10 * PER_PHOTO)
    who, faces = np.concatenate([joined, founded]), np.concatenate([new, unknown])
    await asyncio.to_thread(store, url, len(people) + 1, who, numbers, faces)
    began, busy = time.perf_counter(), time.process_time()
    done = await jobs.consolidate(db)
    spent, busy = time.perf_counter() - began, time.process_time() - busy
    print(
        f"a job of {job} photos, {fresh} faces: {spent:.2f} s, {busy:.2f} s of them this"
        f" process's processor time ({done})"
    )
    print(f"memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MB")
    await db.close()


def store(
    url: str, first: int, ids: Array, photos: Array, vectors: Array, age: str = "0 days"
) -> None:
    """Write faces `first`, `first` + 1, … of these persons in these photos, so long ago."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        if first == 1:  # what stands by the time of the job need not be built beside filling it
            connection.execute("DROP INDEX IF EXISTS ix_person_vectors_indexed_builtin")
        persons = [int(i) for i in np.unique(ids)]
        connection.execute(
            "INSERT INTO persons (id) SELECT unnest(%s::bigint[]) ON CONFLICT (id) DO UPDATE"
            " SET version = (pg_current_xact_id()::text)::bigint",
            [persons],
        )
        connection.execute(
            "SELECT setval(pg_get_serial_sequence('persons', 'id'), (SELECT max(id) FROM persons))"
        )
        connection.execute(
            "INSERT INTO media_assets (photo_id, original_name, original_path, final_path,"
            " filename, size_bytes, status) SELECT n, n || '.jpg', '/a/' || n, '/a/' || n,"
            " n || '.jpg', 1, 'PROCESSED' FROM unnest(%s::bigint[]) AS u (n)",
            [[int(p) for p in np.unique(photos)]],
        )
        with connection.cursor() as cursor:
            with cursor.copy(
                "COPY faces (id, photo_id, person_id, status, bbox, quality, attempt_id) FROM STDIN"
            ) as copy:
                for n, (person, photo) in enumerate(
                    zip(ids.tolist(), photos.tolist(), strict=True)
                ):
                    copy.write_row(
                        (first + n, photo, person, "assigned", [0, 0, 1, 1], 1.0, str(UUID))
                    )
            with cursor.copy(
                "COPY face_vectors (face_id, pack, embedding) FROM STDIN (FORMAT BINARY)"
            ) as copy:
                copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
                for n, vector in enumerate(vectors):
                    values = (
                        (first + n).to_bytes(8),
                        b"builtin",
                        HEAD + vector.astype(">f4").tobytes(),
                    )
                    parts = (part for v in values for part in (len(v).to_bytes(4), v))
                    copy.write(b"".join([(3).to_bytes(2), *parts]))
                copy.write(b"\xff\xff")
        connection.execute(
            "INSERT INTO photo_persons (photo_id, person_id) SELECT DISTINCT photo_id, person_id"
            " FROM faces WHERE id >= %s",
            [first],
        )
        connection.execute(
            "INSERT INTO person_vectors (person_id, pack, count, sum, mean, indexed)"
            " SELECT f.person_id, 'builtin', count(*), sum(v.embedding), avg(v.embedding),"
            " avg(v.embedding)"
            " FROM faces f JOIN face_vectors v ON v.face_id = f.id"
            " WHERE f.person_id = ANY(%s) GROUP BY 1"
            " ON CONFLICT (person_id, pack) DO UPDATE SET count = excluded.count,"
            " sum = excluded.sum, mean = excluded.mean, indexed = excluded.indexed",
            [persons],
        )
        connection.execute(
            "UPDATE faces SET created_at = now() - %s::interval WHERE id >= %s", [age, first]
        )
        connection.execute("VACUUM ANALYZE")


UUID = "00000000-0000-0000-0000-000000000001"


def persons_of(url: str) -> tuple[Array, Array]:
    """The living persons and their means."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT v.person_id, v.mean::text FROM person_vectors v JOIN persons p"
            " ON p.id = v.person_id AND p.merged_into IS NULL WHERE v.count > 0 ORDER BY 1"
        ).fetchall()
    means = np.array([np.fromstring(mean[1:-1], np.float32, sep=",") for _, mean in rows])
    return np.array([person for person, _ in rows]), means


if __name__ == "__main__":
    main()
