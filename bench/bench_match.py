"""Finding the person a face is most like, in libraries of any size.

usage: bench_match.py [FACES] [--persons 1000 100000 1000000] [--queries 500]

Persons are made from real faces: embeddings of FACES (a folder of photos, one folder a person; by
default the labelled photographs), each person a real one moved by what faces of one person differ
by and by part of what people differ by, with two to twenty faces. A query is such a face of one of
the persons. Measured through the product's own search, as the callback does it: latency of one
face, and recall@1 against exact search in memory. Baseline: PostgreSQL without the index, over the
same rows in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import psycopg
from scratch_database import scratch_database

from kaleidoscope.kernel.db import Database
from kaleidoscope.ml import packs
from kaleidoscope.ml.catalog import BUILTIN
from kaleidoscope.ml.decode import decode
from kaleidoscope.ml.engine import load_engine
from kaleidoscope.people.queries import search
from kaleidoscope.people.service.indexing import build_index
from kaleidoscope.people.settings import PeopleSettings

SHARED = Path(os.environ.get("KALEIDOSCOPE_SHARED") or Path(__file__).parents[2] / "shared")
DIMENSION = BUILTIN.dimension
BASELINE_QUERIES = 10
Array = np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "faces", type=Path, nargs="?", default=SHARED / "faces" / "photos" / "lfw250"
    )
    parser.add_argument("--persons", type=int, nargs="+", default=[1000, 100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--real", type=int, default=600, help="photos to take embeddings of")
    options = parser.parse_args()
    if not options.faces.is_dir():
        sys.exit(f"no folder of faces at {options.faces}: name one")
    with scratch_database() as url:
        between, within = real_embeddings(options.faces, options.real)
        print(f"{len(between)} real persons, {len(within)} real differences", flush=True)
        for count in options.persons:
            asyncio.run(measure(url, count, options.queries, between, within))


def real_embeddings(folder: Path, most: int) -> tuple[Array, Array]:
    """The mean of each real person [n, d], and how single faces differ from it [m, d]."""
    packs.pull(BUILTIN)
    engine = load_engine(BUILTIN.name)
    faces: dict[str, list[Array]] = defaultdict(list)
    for path in sorted(folder.glob("*/*.jpg"))[:most]:
        found = engine.analyse(decode(path, max_side=1024).image)
        if found:
            largest = max(found, key=lambda f: f.bbox[2] - f.bbox[0])
            faces[path.parent.name].append(largest.embedding)
    means = {name: np.mean(theirs, axis=0) for name, theirs in faces.items()}
    within = [v - means[name] for name, theirs in faces.items() if len(theirs) > 2 for v in theirs]
    return np.array(list(means.values()), np.float32), np.array(within, np.float32)


def made_persons(
    count: int, between: Array, within: Array, rng: np.random.Generator
) -> tuple[Array, Array]:
    """So many persons: directions [count, d], and the means of their faces [count, d]."""
    base = between[rng.integers(0, len(between), count)]
    one, other = (between[rng.integers(0, len(between), count)] for _ in range(2))
    share = rng.uniform(0.2, 0.8, (count, 1)).astype(np.float32)
    direction = unit(base + share * (one - other))
    faces = rng.integers(2, 21, (count, 1))
    mean = direction + noise(count, within, rng) / np.sqrt(faces).astype(np.float32)
    return direction, mean.astype(np.float32)


def noise(count: int, within: Array, rng: np.random.Generator) -> Array:
    return within[rng.integers(0, len(within), count)]


def unit(vectors: Array) -> Array:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


async def measure(url: str, count: int, queries: int, between: Array, within: Array) -> None:
    rng = np.random.default_rng(count)
    directions, means = made_persons(count, between, within, rng)
    asked = rng.integers(0, count, queries)
    faces = unit(directions[asked] + noise(queries, within, rng))
    exact = np.concatenate([np.argmax(f @ means.T, axis=1) for f in np.array_split(faces, 50)])
    await asyncio.to_thread(store, url, means)
    db = Database(url)
    began = time.perf_counter()
    await build_index(db, BUILTIN)
    built = time.perf_counter() - began
    async with db.transaction() as session:
        library = await search.library(session, "builtin", PeopleSettings().exact_up_to)
    indexed = library.persons > PeopleSettings().exact_up_to
    right, spent = 0, []
    for n, face in enumerate(faces):
        began = time.perf_counter()
        found = await nearest(db, face, indexed=indexed)
        spent.append(1000 * (time.perf_counter() - began))
        right += max(found, key=found.__getitem__, default=-1) == exact[n] + 1
    plain = []
    for face in faces[:BASELINE_QUERIES]:
        began = time.perf_counter()
        await nearest(db, face, indexed=False)
        plain.append(1000 * (time.perf_counter() - began))
    await db.close()
    p50, p95 = statistics.median(spent), statistics.quantiles(spent, n=20)[-1]
    how = "by the index" if indexed else "exactly"
    print(
        f"{count} persons {how}: p50 {p50:.1f} ms, p95 {p95:.1f} ms, recall@1 {right / queries:.4f}"
        f" (index built in {built:.0f} s); without the index p50 {statistics.median(plain):.1f} ms;"
        f" ratio {statistics.median(plain) / p50:.1f}",
        flush=True,
    )


async def nearest(db: Database, face: Array, *, indexed: bool) -> dict[int, float]:
    """The persons at least .9 alike, as the callback finds them."""
    async with db.transaction() as session:
        if indexed:
            effort = PeopleSettings().search_effort
            return (await search.near_indexed(session, "builtin", face[None], 0.9, 11, effort))[0]
        return (await search.near_exact(session, "builtin", face[None], 0.9))[0]


def store(url: str, means: Array) -> None:
    """Write persons 1..n with these means, the index left for later."""
    head = np.array([DIMENSION, 0], ">i2").tobytes()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("TRUNCATE persons CASCADE")
        connection.execute(f"DROP INDEX IF EXISTS {search.index_name('builtin')}")
        connection.execute("INSERT INTO persons (id) SELECT generate_series(1, %s)", [len(means)])
        copying = (
            "COPY person_vectors (person_id, pack, count, sum, mean, indexed)"
            " FROM STDIN (FORMAT BINARY)"
        )
        with connection.cursor() as cursor, cursor.copy(copying) as copy:
            copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
            for number, mean in enumerate(means, 1):
                vector = head + mean.astype(">f4").tobytes()
                copy.write(b"".join(fields(number, vector)))
            copy.write(b"\xff\xff")
        connection.execute("ANALYZE person_vectors")


def fields(number: int, vector: bytes) -> list[bytes]:
    """A row of PostgreSQL's binary COPY, each value behind its length."""
    values = [number.to_bytes(8), b"builtin", (1).to_bytes(4), vector, vector, vector]
    return [(6).to_bytes(2), *(part for v in values for part in (len(v).to_bytes(4), v))]


if __name__ == "__main__":
    main()
