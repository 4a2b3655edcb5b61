"""The restore drill: a database made of the backup on the side, looked through, and thrown away."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import random
from collections.abc import Sequence
from typing import Any

import psycopg

from kaleidoscope.kernel import migrate, postgres_copies
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.embedded_postgres import EmbeddedPostgres
from kaleidoscope.kernel.errors import KaleidoscopeError
from kaleidoscope.kernel.settings import data_dir
from kaleidoscope.kernel.store import Store
from kaleidoscope.library import service as library
from kaleidoscope.upkeep import queries
from kaleidoscope.upkeep.schemas import Drill, Manifest
from kaleidoscope.upkeep.service import databases
from kaleidoscope.upkeep.service.restoring import fill_cluster, load_into

SAMPLE = 20  # originals that are read back

COUNTS = {
    "originals": "SELECT count(*) FROM media_assets",
    "persons": "SELECT count(*) FROM persons WHERE merged_into IS NULL",
    "names": "SELECT count(*) FROM persons WHERE merged_into IS NULL AND display_name IS NOT NULL",
    "faces": "SELECT count(*) FROM faces",
}


async def drill(db: Database) -> Drill:
    """Restore the newest copy of the database into a server of its own, and look through it.

    Green: it recovers, every row of it can be read, it holds what its manifest says, and a sample
    of the originals has its content. Whatever goes wrong makes it red.
    """
    target = await library.use_target(db)
    store = target.store
    async with db.transaction() as session:
        drill_id = await queries.begin_drill(session, store.url)
    name: str | None = None
    figures: dict[str, Any] = {}
    try:
        manifest = await asyncio.to_thread(databases.newest, store)
        name = manifest.name
        cause = await asyncio.to_thread(_try, store, manifest, figures)
    except KaleidoscopeError as error:
        cause = error.message
    except Exception as error:  # whatever it is: the backup could not be restored
        cause = f"{type(error).__name__}: {error}"
    async with db.transaction() as session:
        await queries.finish_drill(session, drill_id, name, cause, figures)
        found = await queries.last_drill(session)
    return Drill.model_validate(found)


def _try(store: Store, manifest: Manifest, figures: dict[str, Any]) -> str | None:
    """Why the backup could not be restored; None: it could."""
    scratch = EmbeddedPostgres(data_dir() / "drill" / "postgres")
    scratch.destroy()  # of a drill that was killed
    try:
        if manifest.kind == "base":
            scratch.restore(fill_cluster(store, manifest))
        url = scratch.start()
        if manifest.kind == "dump":
            load_into(store, manifest, url, data_dir() / "drill")
        return _look_through(url, manifest, figures) or _sample(store, manifest, figures)
    finally:
        scratch.destroy()


def _look_through(url: str, manifest: Manifest, figures: dict[str, Any]) -> str | None:
    revision = migrate.current(url)
    if revision != manifest.revision:
        return f"it is at revision {revision}, not {manifest.revision}"
    postgres_copies.read_everything(url)
    with psycopg.connect(url) as connection:
        for what, query in COUNTS.items():
            row = connection.execute(query.encode()).fetchone()
            figures[what] = row[0] if row else 0
    if figures["originals"] < manifest.originals:
        return f"it knows {figures['originals']} originals, not {manifest.originals}"
    for what in ("persons", "faces"):
        if getattr(manifest, what) and not figures[what]:
            return f"it has no {what}, where {getattr(manifest, what)} were"
    return None


def _sample(store: Store, manifest: Manifest, figures: dict[str, Any]) -> str | None:
    """Some originals read back, chosen at random."""
    written = store.get(f"database/{manifest.name}/{databases.INVENTORY}").decode()
    rows = [row for row in csv.DictReader(io.StringIO(written, newline="")) if row["copy"]]
    chosen: Sequence[dict[str, str]] = random.sample(rows, min(SAMPLE, len(rows)))
    figures["originals_read"] = len(chosen)
    for row in chosen:
        digest = hashlib.sha256()
        try:
            for piece in store.read(row["copy"]):
                digest.update(piece)
        except FileNotFoundError:
            return f"{row['copy']} is gone"
        if digest.hexdigest() != row["sha256"]:
            return f"{row['copy']} is damaged"
    return None
