"""Files that somebody has moved inside a known place: found by their contents, they are followed.

A place is not frozen over files that lie elsewhere in it. Whoever empties it, or does not mount it,
has moved nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from pathlib import Path

import structlog

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.paths import is_utf8, to_bytes
from kaleidoscope.kernel.settings import data_dir, load
from kaleidoscope.library.outside import places as disk
from kaleidoscope.library.outside.places import Lying
from kaleidoscope.library.queries import attempts, hashes, kept, places
from kaleidoscope.library.queries import files as ledger
from kaleidoscope.library.queries.places import Lost, Place
from kaleidoscope.library.service.attempts import request
from kaleidoscope.library.service.hashing import hash_all
from kaleidoscope.library.service.history import Happened, note
from kaleidoscope.library.settings import BackupSettings

log = structlog.get_logger(__name__)

AT_ONCE = 500


async def follow(
    db: Database, place: Place, gone: Mapping[int, str], passed_over: Collection[str]
) -> set[int]:
    """Of files that are gone from their paths, those whose contents lie elsewhere in the place, at
    paths that the ledger does not know: they lie there from now on, with all that is known of them.

    `passed_over`: names of folders in which nothing is looked for, bins above all. A content counts
    when its SHA-256 is the same, and a name with the same extension: one that a scan would take in
    as it did the other. Originals are moved by custody alone.
    """
    if place.kind == "originals":
        return set()
    async with db.transaction() as session:
        lost = await places.lost(session, gone)
    sought = _Sought(lost)
    moved: set[int] = set()
    lying = disk.files_below(to_bytes(place.path), sought.sizes, passed_over, _not_photos())
    while sought and (portion := await asyncio.to_thread(lambda: list(islice(lying, AT_ONCE)))):
        moved |= await _follow(db, sought, portion)
    if moved:
        log.info("files were moved inside a place", path=place.path, files=len(moved))
    return moved


def _not_photos() -> list[Path]:
    """Folders whose files are no photos of their own: ours, and the copies of the backup."""
    backup = load(BackupSettings).target
    return [data_dir(), *([Path(backup)] if backup and "://" not in backup else [])]


class _Sought:
    """What is still to be found, by its looks and by its content."""

    def __init__(self, lost: Sequence[Lost]) -> None:
        self.sizes = frozenset(one.size for one in lost)
        self._sized = {(one.size, _extension(one.path)) for one in lost}
        self._looks = {(one.size, one.sample_hash) for one in lost}
        self._by_hash: dict[str, list[Lost]] = {}
        for one in lost:
            self._by_hash.setdefault(one.file_hash, []).append(one)

    def __bool__(self) -> bool:
        return any(self._by_hash.values())

    def looks_like_one(self, file: Lying) -> bool:
        """Whether a file may be one of them, by its size and parts of its content."""
        is_of_size = (file.size, _extension(file.path)) in self._sized
        return is_of_size and (file.size, disk.sample_of(file)) in self._looks

    def take(self, file: Lying, digest: object) -> Lost | None:
        """One of those with this content, rather the one that had the file's name."""
        left = self._by_hash.get(digest, []) if isinstance(digest, str) else []
        alike = [one for one in left if _extension(one.path) == _extension(file.path)]
        if not alike:
            return None
        name = file.path.rpartition("/")[2]
        chosen = next((one for one in alike if one.path.rpartition("/")[2] == name), alike[0])
        left.remove(chosen)
        return chosen


def _extension(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[2].lower()


async def _follow(db: Database, sought: _Sought, files: Sequence[Lying]) -> set[int]:
    paths = [file.path for file in files]
    async with db.transaction() as session:
        known = {one.path for one in await ledger.known(session, paths)}
        known |= await kept.being_filed(session, paths)
    fresh = [file for file in files if file.path not in known]
    alike = await asyncio.to_thread(lambda: [f for f in fresh if sought.looks_like_one(f)])
    digests = await hash_all(alike)
    found = [(sought.take(f, digest), f) for f, digest in zip(alike, digests, strict=True)]
    return await _move(db, {one.photo_id: (one, file) for one, file in found if one is not None})


async def _move(db: Database, found: Mapping[int, tuple[Lost, Lying]]) -> set[int]:
    """Have the ledger say where they lie; those that it has elsewhere by now are left alone."""
    if not found:
        return set()
    async with db.transaction() as session:
        await hashes.lock(session)  # nobody gives these paths rows of their own meanwhile
        taken = {o.path for o in await ledger.known(session, [f.path for _, f in found.values()])}
        still = await places.still_at(session, {i: one.path for i, (one, _) in found.items()})
        moved = {i: pair for i, pair in found.items() if i in still and pair[1].path not in taken}
        for photo_id, (_, file) in moved.items():
            raw = None if is_utf8(file.path) else to_bytes(file.path)
            await places.move(session, photo_id, file.path, raw, file.modified_at)
        where = {i: {"from": one.path, "to": file.path} for i, (one, file) in moved.items()}
        await note(session, [Happened(i, "found-again", detail=where[i]) for i in moved])
        # What looks for them at their old places has failed, or will.
        unended = await attempts.unended(session, list(moved))
        if unended:
            await request(session, unended, anew=True)
    return set(moved)
