"""The ledger made anew from the originals: the filesystem is the source of truth (seed 002)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.bus.publish import publish
from kaleidoscope.kernel import clock
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import NotFound
from kaleidoscope.kernel.paths import is_utf8, to_bytes, to_text
from kaleidoscope.kernel.settings import load
from kaleidoscope.library.models import MAX_PATH_BYTES
from kaleidoscope.library.outside.custody import Identity, files_below, look
from kaleidoscope.library.outside.originals import is_damaged_one
from kaleidoscope.library.queries import attempts, hashes
from kaleidoscope.library.queries import custody as rows
from kaleidoscope.library.queries import files as ledger
from kaleidoscope.library.queries.attempts import Requested
from kaleidoscope.library.queries.custody import First, Found
from kaleidoscope.library.queries.files import Known
from kaleidoscope.library.queries.hashes import Hashed
from kaleidoscope.library.service import planning
from kaleidoscope.library.service.attempts import message, request
from kaleidoscope.library.service.claim import alone
from kaleidoscope.library.service.custody import resume
from kaleidoscope.library.service.hashing import settle
from kaleidoscope.library.service.history import Happened, note
from kaleidoscope.library.service.kept import find_kept
from kaleidoscope.library.service.receiving import Candidate, Received, Work, parcels, read
from kaleidoscope.library.settings import LibrarySettings

AT_ONCE = 256


@dataclass(frozen=True)
class Strange:
    """A file among the originals that the ledger cannot take as it is, and why."""

    path: str
    cause: str


@dataclass
class Rebuilt:
    """What came of it: `known` were left alone, `moved` keep all that is known of them."""

    files: int = 0
    known: int = 0
    moved: int = 0
    added: int = 0
    duplicates: int = 0
    sidecars: int = 0
    problems: list[Strange] = field(default_factory=list)


async def rebuild(
    db: Database,
    work: Work,
    *,
    dry_run: bool = False,
    told: Callable[[Rebuilt], None] = lambda _: None,
) -> Rebuilt:
    """Give every original a row again; what the ledger knows at its place is not touched.

    A row whose file lies elsewhere now is linked to it by its content, and keeps names and faces.
    Raises `NotFound` where there are no originals.
    """
    root = load(LibrarySettings).originals
    if not root.is_dir():
        raise NotFound(
            f"there are no originals at {root}", hint="see the setting library.originals"
        )
    if not dry_run:
        await resume(db)
    done = Rebuilt()
    found = await asyncio.to_thread(lambda: list(_originals(root)))
    for portion in _portions(found):
        await _take(db, work, portion, done, dry_run)
        told(done)
    if not dry_run:
        await find_kept(db)
    return done


def _originals(root: Path) -> Iterator[tuple[bytes, Identity]]:
    """The files of the originals, without what was found damaged: healed since, no photo's."""
    found = files_below(os.fsencode(root))
    return (one for one in found if not is_damaged_one(one[0]))


def _portions(found: Sequence[tuple[bytes, Identity]]) -> Iterator[list[Candidate]]:
    """The files some at a time; what travels together is read together, for the dates it tells."""
    portion: list[Candidate] = []
    for _, folder in groupby(found, lambda one: one[0].rpartition(b"/")[0]):
        mine = {to_text(path): identity for path, identity in folder}
        for parcel in parcels([Candidate(path, identity) for path, identity in mine.items()]):
            portion += [Candidate(f.path, f.identity) for f in parcel.files]
            if len(portion) >= AT_ONCE:
                yield portion
                portion = []
    if portion:
        yield portion


async def _take(
    db: Database, work: Work, files: Sequence[Candidate], done: Rebuilt, dry_run: bool
) -> None:
    done.files += len(files)
    async with db.transaction() as session:
        known = {k.path: k for k in await ledger.known(session, [f.path for f in files])}
    fresh = [f for f in files if not _is_known(f, known.get(f.path))]
    done.known += len(files) - len(fresh)
    read_ones = [f for p in await read(work, parcels(fresh)) for f in p.files]
    for one in read_ones:
        if one.trouble:
            done.problems.append(Strange(one.path, one.trouble[1]))
        elif one.named.is_sidecar:
            done.sidecars += 1
        elif one.media_type is None:
            done.problems.append(Strange(one.path, planning.NO_MEDIA))
        elif len(one.path.encode()) > MAX_PATH_BYTES:
            done.problems.append(Strange(one.path, planning.LONG))
    good = [
        f
        for f in read_ones
        if not f.trouble and f.media_type and len(f.path.encode()) <= MAX_PATH_BYTES
    ]
    if good:
        async with alone(db):
            await _settle(db, [f for f in good if look(f.path) == f.identity], done, dry_run)


def _is_known(file: Candidate, known: Known | None) -> bool:
    return (
        known is not None
        and known.file_hash is not None
        and not known.missing
        and known.size == file.identity.size
        and known.modified_at is not None
        and abs(known.modified_at.timestamp() * 1e9 - file.identity.mtime_ns) < 2000
    )


async def _settle(db: Database, files: Sequence[Received], done: Rebuilt, dry_run: bool) -> None:
    async with db.transaction() as session:
        await hashes.lock(session)
        firsts = await rows.firsts(session, {f.file_hash for f in files})
        known = {k.path: k for k in await ledger.known(session, [f.path for f in files])}
        lying = {f.photo_id for f in firsts.values() if _lies(f)}
        touched = [f for f in files if f.path in known]
        await _touched(session, touched, known, done, dry_run)
        moved: dict[int, Received] = {}
        added: list[tuple[Received, int | None]] = []
        claimed: set[str] = set()
        for file in files:
            first = firsts.get(file.file_hash)
            if file.path in known:
                continue
            if first and first.photo_id not in lying and first.photo_id not in moved:
                moved[first.photo_id] = file
            else:
                done.duplicates += first is not None or file.file_hash in claimed
                added.append((file, first.photo_id if first else None))
                claimed.add(file.file_hash)
        done.moved += len(moved)
        done.added += len(added)
        if not dry_run:
            places = {i: (f.path, _exact(f.path), f.modified_at) for i, f in moved.items()}
            if places:
                await rows.lies_at(session, places)
                unended = await attempts.unended(session, list(places))
                await request(session, unended, anew=True)
                found_again = [
                    Happened(i, "found-again", detail={"to": f.path}) for i, f in moved.items()
                ]
                await note(session, found_again)
            await _add(session, added)


async def _touched(
    session: AsyncSession,
    files: Sequence[Received],
    known: dict[str, Known],
    done: Rebuilt,
    dry_run: bool,
) -> None:
    """Files at a place that the ledger knows: the same content, or something to be looked at."""
    same = {}
    for file in files:
        row = known[file.path]
        if row.file_hash is None or row.file_hash == file.file_hash:
            same[row.photo_id] = file
            done.known += 1
        else:
            done.problems.append(Strange(file.path, "its content is not what the ledger says"))
    if same and not dry_run:
        await ledger.refresh(session, {i: _Row(f) for i, f in same.items()})
        back = [row.photo_id for row in known.values() if row.missing and row.photo_id in same]
        await note(session, [Happened(photo_id, "found-again") for photo_id in back])
        unhashed = [i for i, f in same.items() if known[f.path].file_hash is None]
        await settle(session, [_hashed(i, same[i]) for i in unhashed])


class _Row:
    """A received file as the ledger's queries take one."""

    def __init__(self, file: Received) -> None:
        self.path, self.size, self.sample_hash = file.path, file.size, file.sample_hash
        self.modified_at, self.mime_type = file.modified_at, file.mime_type
        self.media_type = file.media_type or "photo"


async def _add(session: AsyncSession, added: Sequence[tuple[Received, int | None]]) -> None:
    """New rows; contents that another one has are settled as any late duplicate."""
    seen: set[str] = set()
    found = []
    for file, first in added:
        again = first or (0 if file.file_hash in seen else None)
        seen.add(file.file_hash)
        facts = planning.facts_of(file)
        found.append(Found(file.path, _exact(file.path), file.size, file.file_hash, facts, again))
    if not found:
        return
    inserted = await rows.insert_found(session, found)
    by_path = {file.path: file for file, _ in added}
    late = [_hashed(row.photo_id, by_path[row.path]) for row in inserted if row.file_hash is None]
    copies = await settle(session, late)
    wanted = [
        Requested(row.photo_id, row.path, row.media_type, row.attempt_id)
        for row in inserted
        if row.photo_id not in copies
    ]
    await publish(session, *[message(one, clock.now()) for one in wanted])


def _hashed(photo_id: int, file: Received) -> Hashed:
    return Hashed(photo_id, file.size, file.modified_at, file.file_hash)


def _lies(first: First) -> bool:
    there = look(first.path)
    return there is not None and there.size == first.size


def _exact(path: str) -> bytes | None:
    return None if is_utf8(path) else to_bytes(path)
