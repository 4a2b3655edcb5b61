"""Everything back from the backup: the database, then every original to where it was."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import tomlkit

from kaleidoscope.ingest import service as ingest
from kaleidoscope.kernel import migrate, postgres_copies
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.embedded_postgres import NAME, EmbeddedPostgres
from kaleidoscope.kernel.errors import Conflict, Invalid, NotFound, Unavailable
from kaleidoscope.kernel.paths import to_bytes, to_text
from kaleidoscope.kernel.postgres_programs import User
from kaleidoscope.kernel.settings import KernelSettings, config_file, data_dir, load
from kaleidoscope.kernel.store import Store, open_store
from kaleidoscope.library import service as library
from kaleidoscope.library.service import Target
from kaleidoscope.people import service as people
from kaleidoscope.upkeep.schemas import Manifest, Restored
from kaleidoscope.upkeep.service import databases

UNFINISHED = "restoring.json"
"""In the data folder while a restore is under way: one that was killed may be taken up again."""

HARMLESS = {
    UNFINISHED,
    "kaleidoscope.toml",
    "backup-staging",
    "logs",
    "run",
    "secrets",
    "lost+found",
}

Tell = Callable[[str], None]
Progress = Callable[[int, int, str], None]


async def restore(
    url: str,
    options: Mapping[str, Any],
    *,
    name: str | None = None,
    until: datetime | None = None,
    dry_run: bool = False,
    tell: Tell = lambda step: None,
    progress: Progress = lambda files, size, path: None,
) -> Restored | Manifest:
    """Library and database from the backup at `url` into this empty data folder.

    `name`: not from the newest copy of the database; `until`: as it was at that moment. Paths in
    the data folder that was copied become paths in this one; others stay what they were, and what
    lies there is left alone. Killed, it goes on when it is started again. Raises `Conflict` for a
    data folder that is not empty. `dry_run`: answers only what would be restored.
    """
    store = await asyncio.to_thread(open_store, url, options)
    target_id = await asyncio.to_thread(library.mark_of, store)
    if target_id is None:
        raise NotFound(f"there is no backup in {store.url}", hint="is its disk mounted?")
    manifest = await asyncio.to_thread(databases.newest, store, name)
    if until is not None and manifest.kind == "dump":
        raise Invalid("a dump is of one moment only: leave --at out, or name a copy by --database")
    _refuse_used(store, manifest)
    if dry_run:
        return manifest
    tell(f"the database of {manifest.made_at:%Y-%m-%d %H:%M} UTC")
    async with _database(store, manifest, until) as address:
        await asyncio.to_thread(migrate.upgrade, address)
        db = Database(address)
        try:
            here = to_text(data_dir())
            async with db.transaction() as session:
                await library.forget_machine(session)
                if here != manifest.data_dir:
                    await library.relocate(session, manifest.data_dir, here)
                    await ingest.relocate(session, manifest.data_dir, here)
            tell("the originals")
            done = await library.put_back(db, Target(store, target_id), progress)
            async with db.transaction() as session:
                counts = await people.counts(session)
        finally:
            await db.close()
    await asyncio.to_thread(_restore_settings, store, manifest)
    (data_dir() / UNFINISHED).unlink(missing_ok=True)
    return Restored.model_validate({"database": manifest.name, **counts, **done})


def fill_cluster(
    store: Store, manifest: Manifest, until: datetime | None = None
) -> Callable[[Path, User, str], None]:
    """What makes a cluster of a base backup and its log in an empty folder."""

    def fill(cluster: Path, user: User, password: str) -> None:
        fetched = cluster.with_name("fetched")
        shutil.rmtree(fetched, ignore_errors=True)
        fetched.mkdir(mode=0o700)
        base = databases.fetch(store, manifest, databases.BASE, fetched)
        postgres_copies.unpack_base(base, cluster)
        base.unlink()
        log = databases.fetch_log(store, manifest, fetched)
        postgres_copies.recover(cluster, log, user, role=NAME, password=password, until=until)
        shutil.rmtree(fetched)

    return fill


def load_into(store: Store, manifest: Manifest, address: str, folder: Path) -> None:
    """Fill an empty database from a dump."""
    folder.mkdir(parents=True, exist_ok=True)
    file = databases.fetch(store, manifest, databases.DUMP, folder)
    try:
        postgres_copies.load_dump(address, file)
    finally:
        file.unlink()


@asynccontextmanager
async def _database(store: Store, manifest: Manifest, until: datetime | None) -> AsyncIterator[str]:
    """The restored database; one that an earlier try has restored is taken as it is."""
    mark = data_dir() / UNFINISHED
    is_there = mark.exists() and json.loads(mark.read_text())["database_is_there"]
    told = {"from": store.url, "database": manifest.name}
    if not is_there:
        try:
            data_dir().mkdir(parents=True, exist_ok=True)
            mark.write_text(json.dumps({**told, "database_is_there": False}))
        except OSError as error:
            raise Unavailable(
                f"the data folder {data_dir()} cannot be written: {error.strerror or error}",
                hint="let this user write there, or choose another one: KALEIDOSCOPE_DATA_DIR",
            ) from error
    address = load(KernelSettings).database_url
    staging = data_dir() / "backup-staging"
    if address:
        if not is_there:
            await asyncio.to_thread(_refuse_filled, address, manifest)
            await asyncio.to_thread(load_into, store, manifest, address, staging)
            mark.write_text(json.dumps({**told, "database_is_there": True}))
        yield address
        return
    embedded = EmbeddedPostgres(data_dir() / "postgres")
    if not is_there:
        if manifest.kind == "base":
            if not (embedded.root / "cluster" / "PG_VERSION").exists():
                await asyncio.to_thread(embedded.restore, fill_cluster(store, manifest, until))
        else:
            await asyncio.to_thread(embedded.destroy)  # what an earlier try has left
    try:
        address = await asyncio.to_thread(embedded.start)
        if not is_there and manifest.kind == "dump":
            await asyncio.to_thread(load_into, store, manifest, address, staging)
        mark.write_text(json.dumps({**told, "database_is_there": True}))
        yield address
    finally:
        await asyncio.to_thread(embedded.stop)


def _refuse_used(store: Store, manifest: Manifest) -> None:
    """Raise `Conflict` where the data folder holds anything."""
    found = {path.name for path in data_dir().iterdir()} if data_dir().is_dir() else set()
    mark = data_dir() / UNFINISHED
    if mark.exists():
        begun = json.loads(mark.read_text())
        if (begun["from"], begun["database"]) == (store.url, manifest.name):
            return
    if found - HARMLESS:
        raise Conflict(
            f"the data folder {data_dir()} is not empty: {', '.join(sorted(found - HARMLESS)[:5])}",
            hint="move it away, or choose another one: KALEIDOSCOPE_DATA_DIR=/an/empty/folder",
        )


def _refuse_filled(address: str, manifest: Manifest) -> None:
    if manifest.kind == "base":
        raise Conflict(
            "this backup is of the embedded PostgreSQL and cannot go into another server",
            hint="restore without database_url; then pg_dump and pg_restore move it",
        )
    with psycopg.connect(address) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_class WHERE relkind = 'r'"
            " AND relnamespace = current_schema()::regnamespace"
        ).fetchone()
    if row is not None and row[0]:
        raise Conflict(
            f"the database of the settings is not empty: it has {row[0]} tables",
            hint="create an empty one and set database_url to it",
        )


def _restore_settings(store: Store, manifest: Manifest) -> None:
    """The settings file, if there is none: with the folders of this place, and its database."""
    if config_file().exists() or all(f.name != "kaleidoscope.toml" for f in manifest.files):
        return
    content = store.get(f"database/{manifest.name}/kaleidoscope.toml").decode()
    content = _settings_of_here(content, manifest.data_dir)
    descriptor = os.open(config_file(), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content.encode())


def _settings_of_here(content: str, old: str) -> str:
    """The file as it was written, without what leads to the place that was copied."""
    document = tomlkit.parse(content)
    there, here = os.fsdecode(to_bytes(old)), str(data_dir())

    def moved(value: Any) -> Any:
        if isinstance(value, str) and "://" not in value:
            path = str(Path(value).expanduser())
            if path == there or path.startswith(there + "/"):
                return here + path[len(there) :]
        return value

    def move(table: Any, keys: Iterable[Any]) -> None:
        for key in keys:
            value = table[key]
            if isinstance(value, dict):
                move(value, list(value))
            elif isinstance(value, list):
                move(value, range(len(value)))
            elif (now := moved(value)) != value:
                table[key] = now

    move(document, list(document))
    address = load(KernelSettings).database_url
    if "database_url" in document and document["database_url"] != address:
        if address:
            document["database_url"] = address
        else:
            del document["database_url"]
    return tomlkit.dumps(document)
