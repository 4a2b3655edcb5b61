"""How long it takes to find and register the files of a large folder.

usage: bench_scan.py [--files 100000] [--at-once 1000]

Generates small JPEG files, each with a content of its own, a hundred to a folder, and times over
the same files, in one run:

* scan + register: the walk with sample hashes, and the ledger's rows (with every index, check and
  trigger), in transactions of `--at-once` files: what a job does before it publishes;
* the whole job: the same with batches of 50, the map of photos, and every message handed to the
  queue in PostgreSQL;
* the same folder again, when every file is known;
* `find -printf`, which reads names, sizes and times, and no content;
* a bare multi-row INSERT of the same columns of the same rows into a table that has no index.

The ratios are against the slower of the last two. `fsync` and the like stay on everywhere.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psycopg
from scratch_database import scratch_database

from kaleidoscope.bus.transports.postgres import PostgresTransport
from kaleidoscope.ingest import jobs, service
from kaleidoscope.ingest.outside.read_ahead import read_ahead
from kaleidoscope.ingest.outside.scan import Filter, scan
from kaleidoscope.ingest.schemas import IngestFolder
from kaleidoscope.ingest.settings import IngestSettings
from kaleidoscope.kernel.db import Database
from kaleidoscope.library import service as library
from kaleidoscope.library.service import ScannedFile

# One grey pixel; a comment behind its first marker makes each file another.
JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQEAYABgAAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQNDAsLDBkSEw8UHRofHh0aHBwgJC4nICIsIxwc"
    "KDcpLDAxNDQ0Hyc5PTgyPC4zNDL/wAALCAABAAEBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAACf/EABQQAQAAAAAAAAAAAA"
    "AAAAAAAAD/2gAIAQEAAD8AVN//2Q=="
)
IN_A_FOLDER = 100
ROWS_AT_ONCE = 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--at-once", type=int, default=jobs.FILES_AT_ONCE)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kaleidoscope-photos-") as folder:
        fill(Path(folder), options.files)
        os.environ["KALEIDOSCOPE_INGEST_BATCHES_IN_FLIGHT"] = str(options.files)
        with scratch_database() as url:
            found = find(folder)
            print(f"find                   {found:7.2f} s", flush=True)
            files = asyncio.run(collect(folder))
            bare = insert(url, files)
            print(f"bare INSERT            {bare:7.2f} s", flush=True)
            against = max(found, bare)
            registered = asyncio.run(scan_and_register(url, folder, options.at_once))
            report("scan + register", registered, against, options.files)
        with scratch_database() as url:
            first, again = asyncio.run(whole_job(url, folder))
            report("whole job", first, against, options.files)
            report("the same folder again", again, against, options.files)


def report(what: str, seconds: float, against: float, files: int) -> None:
    rate = f"{files / seconds:8,.0f} files/s"
    print(f"{what:<22} {seconds:7.2f} s {rate}, ratio {seconds / against:.2f}", flush=True)


def fill(folder: Path, count: int) -> None:
    for number in range(count):
        if number % IN_A_FOLDER == 0:
            shard = folder / f"{number // 10_000:03}" / f"{number // IN_A_FOLDER:05}"
            shard.mkdir(parents=True)
        comment = b"\xff\xfe\x00\x0a%08d" % number
        (shard / f"IMG_{number:06}.jpg").write_bytes(JPEG[:2] + comment + JPEG[2:])


def find(folder: str) -> float:
    began = time.perf_counter()
    subprocess.run(
        ["find", folder, "-type", "f", "-printf", "%s %T@ %p\n"],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - began


async def collect(folder: str) -> list[ScannedFile]:
    items = scan(os.fsencode(folder), Filter.of(IngestSettings()))
    return [item for item in items if isinstance(item, ScannedFile)]


def insert(url: str, files: Sequence[ScannedFile]) -> float:
    """Seconds to insert the rows, `ROWS_AT_ONCE` a statement and transaction."""
    rows = [
        (f.path, f.path.rpartition("/")[2], f.size, f.modified_at, f.sample_hash, f.mime_type)
        for f in files
    ]
    with psycopg.connect(url) as connection:
        connection.execute(
            "CREATE TABLE bare (path text, filename text, size bigint,"
            " modified_at timestamptz, sample_hash text, mime_type text)"
        )
        connection.commit()
        began = time.perf_counter()
        for start in range(0, len(rows), ROWS_AT_ONCE):
            portion = rows[start : start + ROWS_AT_ONCE]
            values = ", ".join(["(%s, %s, %s, %s, %s, %s)"] * len(portion))
            connection.execute(
                f"INSERT INTO bare VALUES {values}",  # type: ignore[arg-type]
                [value for row in portion for value in row],
            )
            connection.commit()
        took = time.perf_counter() - began
        connection.execute("DROP TABLE bare")
    return took


async def scan_and_register(url: str, folder: str, at_once: int) -> float:
    db = Database(url)
    began = time.perf_counter()
    items = scan(os.fsencode(folder), Filter.of(IngestSettings()))
    async with read_ahead(items, at_once) as chunks:
        async for chunk in chunks:
            plan = await library.plan(db, chunk.files)
            async with db.transaction() as session:
                await library.register(session, plan.files)
    took = time.perf_counter() - began
    await db.close()
    return took


async def whole_job(url: str, folder: str) -> tuple[float, float]:
    """Seconds of a first job over the folder, and of a second one."""
    db = Database(url)
    transport = PostgresTransport(db)
    await transport.subscribe("photos-to-process", "people")
    took = []
    for _ in range(2):
        began = time.perf_counter()
        async with db.transaction() as session:
            job_id = await service.order(session, IngestFolder(path=folder), anywhere=True)
        await jobs.run_job(db, transport, job_id)
        took.append(time.perf_counter() - began)
    async with db.transaction() as session:
        status = await service.status(session, job_id, batches=0)
    assert status.status == "COMPLETED", status
    await transport.close()
    await db.close()
    return took[0], took[1]


if __name__ == "__main__":
    main()
