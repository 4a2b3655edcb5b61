"""Copies of the database in the backup: `database/WHEN/`, each with a manifest written last."""

from __future__ import annotations

import asyncio
import csv
import gzip
import hashlib
import io
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel import migrate, postgres_copies
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.embedded_postgres import EmbeddedPostgres
from kaleidoscope.kernel.errors import NotFound
from kaleidoscope.kernel.paths import to_text
from kaleidoscope.kernel.settings import config_file, data_dir
from kaleidoscope.kernel.store import CHUNK, FolderStore, Store, StoreProblem
from kaleidoscope.library import service as library
from kaleidoscope.people import service as people
from kaleidoscope.upkeep import queries
from kaleidoscope.upkeep.schemas import Manifest, StoredFile

MANIFEST = "manifest.json"
INVENTORY = "originals.csv"
SUMS = "SHA256SUMS"
README = "README.txt"
DAMAGED = (OSError, EOFError, zlib.error)  # what a broken gzip file raises
BASE = "base.tar.gz"
DUMP = "kaleidoscope.dump"
AT_ONCE = 3  # base backups that a segment of the log may belong to

EXPLANATION = """\
This folder is a backup made by Kaleidoscope.

originals/      Every photo and video, under the day it was taken: open them with anything.
                The sixteen letters before the ending of a name are the begin of its SHA-256.
originals.csv   Where each lay, what it was called, and who is in it. Opens in any spreadsheet.
SHA256SUMS      Check them all without Kaleidoscope: sha256sum --quiet -c SHA256SUMS
database/       Who is who, and everything else that Kaleidoscope knows.

To have it all back: install Kaleidoscope, and

    KALEIDOSCOPE_DATA_DIR=/an/empty/folder kaleidoscope backup restore "{url}"
"""


def is_our_own(url: str) -> bool:
    """Whether a database is the embedded server's: then its whole cluster can be copied."""
    return EmbeddedPostgres(data_dir() / "postgres").running_url() == url


def complete(store: Store, at_most: int | None = None) -> list[Manifest]:
    """The copies that are whole, or so many of the newest; the newest last."""
    found: list[Manifest] = []
    for name in reversed(store.folders("database")):
        if at_most is not None and len(found) >= at_most:
            break
        try:
            manifest = store.get(f"database/{name}/{MANIFEST}")
            found.insert(0, Manifest.model_validate_json(manifest))
        except (ValidationError, FileNotFoundError):
            continue  # half copied, or damaged
    return found


def newest(store: Store, name: str | None = None) -> Manifest:
    """The newest copy, or the one of that name. Raises `NotFound`."""
    found = complete(store, None if name else 1)
    found = [manifest for manifest in found if name in (None, manifest.name)]
    if not found:
        which = f"copy of the database named {name}" if name else "copy of the database"
        raise NotFound(f"there is no {which} in {store.url}", hint="is this the backup's folder?")
    return found[-1]


async def copy(db: Database, store: Store, target_id: UUID) -> Manifest:
    """Copy the database, with an inventory of all originals; whole or not at all."""
    staging = await asyncio.to_thread(_new_folder, data_dir() / "backup-staging" / "database")
    made_at = datetime.now(UTC)
    name = f"{made_at:%Y%m%dT%H%M%SZ}"
    own = await asyncio.to_thread(is_our_own, db.url)
    config = config_file()
    async with db.transaction() as session:
        counts = await people.counts(session)
        postgresql = await queries.server_version(session)
        originals = await _write_inventory(session, target_id, staging)
    first_segment = None
    if own:
        await asyncio.to_thread(postgres_copies.keep_log, db.url)
        first_segment = await asyncio.to_thread(_base_backup, db.url, staging)
    else:
        await asyncio.to_thread(postgres_copies.dump, db.url, staging / DUMP)
    if isinstance(store, FolderStore) and config.is_file():
        # Not to where others may read it: it may hold passwords.
        shutil.copyfile(config, staging / "kaleidoscope.toml")
    sums = staging / SUMS
    for paper in (INVENTORY, SUMS):
        await asyncio.to_thread(store.write, paper, _pieces(staging / paper), private=True)
    await asyncio.to_thread(store.put, README, EXPLANATION.format(url=store.url).encode())
    sums.unlink()
    files = [
        await asyncio.to_thread(_put, store, f"database/{name}", path)
        for path in sorted(staging.iterdir())
    ]
    revision: str | None = await asyncio.to_thread(migrate.current, db.url)
    manifest = Manifest(
        name=name,
        kind="base" if own else "dump",
        made_at=made_at,
        kaleidoscope=version("kaleidoscope"),
        postgresql=postgresql,
        revision=revision or "",
        data_dir=to_text(data_dir()),
        first_segment=first_segment,
        originals=originals,
        files=files,
        **counts,
    )
    written = manifest.model_dump_json(indent=1).encode()
    await asyncio.to_thread(store.put, f"database/{name}/{MANIFEST}", written, private=True)
    await asyncio.to_thread(shutil.rmtree, staging)
    return manifest


async def copy_log(db: Database, store: Store) -> int | None:
    """What has been written to our own server since: so many segments.

    None: some of it is lost, or there is no base backup that it could follow; a new one is needed.
    """
    newest = await asyncio.to_thread(complete, store, AT_ONCE)
    bases = [manifest for manifest in newest if manifest.kind == "base"]
    if not await asyncio.to_thread(postgres_copies.keep_log, db.url) or not bases:
        return None
    outgoing = data_dir() / "backup-staging" / "log"
    segments = await asyncio.to_thread(postgres_copies.receive_log, db.url, outgoing)
    return await asyncio.to_thread(_put_log, db.url, store, bases, segments)


def log_of(store: Store, manifest: Manifest) -> list[tuple[str, str]]:
    """The segments that follow a base backup, in their order: their names, and where they are."""
    folder = f"database/{manifest.name}/log"
    found = sorted(name for name, _ in store.names(folder) if name.endswith(".gz"))
    return [(name.rpartition("/")[2].removesuffix(".gz"), name) for name in found]


def fetch(store: Store, manifest: Manifest, name: str, folder: Path) -> Path:
    """A file of a copy, hashed on its way. Raises `StoreProblem` where it is damaged."""
    (told,) = [file for file in manifest.files if file.name == name]
    digest = hashlib.sha256()
    path = folder / name
    try:
        with path.open("wb") as file:
            for piece in store.read(f"database/{manifest.name}/{name}"):
                digest.update(piece)
                file.write(piece)
    except FileNotFoundError:
        raise StoreProblem(f"{store.url}: database/{manifest.name}/{name} is gone") from None
    if digest.hexdigest() != told.sha256:
        raise StoreProblem(f"{store.url}: database/{manifest.name}/{name} is damaged")
    return path


def fetch_log(store: Store, manifest: Manifest, folder: Path) -> list[Path]:
    """The log that follows a base backup; what comes after a damaged segment is of no use."""
    found = []
    for segment, name in log_of(store, manifest):
        try:
            content = gzip.decompress(store.get(name))
        except DAMAGED:
            break
        (folder / segment).write_bytes(content)
        found.append(folder / segment)
    return found


def damaged_files(store: Store, manifest: Manifest) -> list[str]:
    """Files of a copy that are gone or are not what was written, and damaged pieces of its log."""
    wrong = []
    for file in manifest.files:
        name = f"database/{manifest.name}/{file.name}"
        digest = hashlib.sha256()
        try:
            for piece in store.read(name):
                digest.update(piece)
        except FileNotFoundError:
            pass
        if digest.hexdigest() != file.sha256:
            wrong.append(name)
    for _, name in log_of(store, manifest):
        try:
            gzip.decompress(store.get(name))
        except DAMAGED:
            wrong.append(name)
    return wrong


def locations(store: Store, manifests: Sequence[Manifest]) -> set[str]:
    """Where the copies lie that these copies of the database count on, by their inventories.

    Raises `StoreProblem` where one of these is damaged: then nobody knows.
    """
    found: set[str] = set()
    for manifest in manifests:
        with tempfile.TemporaryDirectory() as folder:
            inventory = fetch(store, manifest, INVENTORY, Path(folder))
            with inventory.open(encoding="utf-8", newline="") as table:
                found.update(row["copy"] for row in csv.DictReader(table))
    return found


async def _write_inventory(session: AsyncSession, target_id: UUID, folder: Path) -> int:
    """Every original, and what is kept beside them, for plain eyes: originals.csv, and the sums
    that `sha256sum -c` takes."""
    names = await people.names(session)
    number = 0
    with (
        (folder / INVENTORY).open("w", encoding="utf-8", newline="") as table,
        (folder / SUMS).open("w", encoding="utf-8", newline="") as sums,
    ):
        writer = csv.writer(table)
        writer.writerow(
            ["path", "sha256", "copy", "bytes", "original_name", "captured_at", "people"]
        )
        summed: set[str] = set()

        def tell(file: library.Original | library.KeptCopy, captured: object, shown: str) -> None:
            writer.writerow(
                [
                    *(file.path, file.file_hash or "", file.location or ""),
                    *(file.size, file.original_name, captured, shown),
                ]
            )
            if file.location and file.location not in summed:
                summed.add(file.location)
                sums.write(f"{file.file_hash}  {file.location}\n")

        after = 0
        while originals := await library.inventory(session, target_id, after):
            after = originals[-1].number
            number += len(originals)
            for original in originals:
                shown = "; ".join(names[i] for i in original.person_ids if i in names)
                tell(original, original.captured_at or "", shown)
        after = 0
        while files := await library.kept_inventory(session, target_id, after):
            after = files[-1].number
            for file in files:
                tell(file, "", "")
    return number


def _base_backup(url: str, folder: Path) -> str:
    """A base backup's files into a folder; where its log begins."""
    empty = folder / "base"
    empty.mkdir()
    postgres_copies.base_backup(url, empty)
    for path in empty.iterdir():
        path.rename(folder / path.name)
    empty.rmdir()
    return postgres_copies.first_segment((folder / "backup_manifest").read_text())


def _put(store: Store, folder: str, path: Path) -> StoredFile:
    """One file, read back after it was written."""
    digest, size = hashlib.sha256(), 0
    for piece in _pieces(path):
        digest.update(piece)
        size += len(piece)
    name = f"{folder}/{path.name}"
    store.write(name, _pieces(path), private=True)
    back = hashlib.sha256()
    for piece in store.read(name):
        back.update(piece)
    if back.digest() != digest.digest():
        raise StoreProblem(f"{store.url} does not give back what was written to it ({name})")
    return StoredFile(name=path.name, size=size, sha256=digest.hexdigest())


def _put_log(
    url: str, store: Store, bases: Sequence[Manifest], segments: Sequence[Path]
) -> int | None:
    """Segments to the base backup that they follow; then the server may throw them away."""
    kept = {base.name: [n for n, _ in log_of(store, base)] for base in bases}
    newest, done, is_whole = bases[-1], 0, True
    for path in segments:
        is_segment = len(path.name) == postgres_copies.SEGMENT_NAME
        whose = [b for b in bases if (b.first_segment or "") <= path.name] if is_segment else []
        base = (whose or [newest])[-1]
        before = [n for n in kept[base.name] if len(n) == postgres_copies.SEGMENT_NAME]
        follows = not before or path.name == postgres_copies.next_segment(before[-1])
        if path.name not in kept[base.name] and (follows or not is_segment):
            _put_segment(store, f"database/{base.name}/log/{path.name}.gz", path.read_bytes())
            kept[base.name].append(path.name)
            done += 1
        elif path.name not in kept[base.name] and base is newest:
            is_whole = False  # what follows a gap could never be replayed
        if is_segment:
            postgres_copies.release_log(url, path.name)
        path.unlink()
    return done if is_whole else None


def _put_segment(store: Store, name: str, content: bytes) -> None:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=6, mtime=0) as file:
        file.write(content)
    store.put(name, packed.getvalue(), private=True)
    if store.get(name) != packed.getvalue():
        raise StoreProblem(f"{store.url} does not give back what was written to it ({name})")


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            yield piece


def _new_folder(parent: Path) -> Path:
    """A new folder; those of runs that were killed are deleted.

    Never one of these again: a program that such a run has started may still write into it.
    """
    shutil.rmtree(parent, ignore_errors=True)
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Path(tempfile.mkdtemp(dir=parent))
