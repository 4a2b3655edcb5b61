"""What is kept beside the assets: sidecars, duplicates, and what was set aside.

Custody notes what it lays down; a round over the disk finds the sidecars beside files indexed in
place, and what a person has edited, added or taken away. All of it is copied, read back, restored
and read through for rot like originals, by its content.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import chain, islice
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import Conflict, NotFound
from kaleidoscope.kernel.paths import is_inside, to_bytes, to_text
from kaleidoscope.kernel.settings import load
from kaleidoscope.library.models import MAX_PATH_BYTES
from kaleidoscope.library.outside import kept as beside
from kaleidoscope.library.outside import originals as disk
from kaleidoscope.library.outside import places as places_on_disk
from kaleidoscope.library.outside.custody import Identity
from kaleidoscope.library.outside.files import modified_at, moment
from kaleidoscope.library.outside.kept import Beside
from kaleidoscope.library.queries import kept as rows
from kaleidoscope.library.queries import places
from kaleidoscope.library.queries.custody import Laid, Move
from kaleidoscope.library.queries.kept import Kept, Known
from kaleidoscope.library.rules import companions
from kaleidoscope.library.schemas import HealedFile, KeptFile
from kaleidoscope.library.service.claim import alone
from kaleidoscope.library.service.copies import brought, swapped_in
from kaleidoscope.library.settings import LibrarySettings

log = structlog.get_logger(__name__)

AT_ONCE = 1000
READ_AT_ONCE = 50
EDITED = "it was written to"
KINDS = ("sidecar", "duplicate", "set-aside")
LISTED = "(`kaleidoscope library kept --damaged`)"
GONE = {
    "sidecar": f"a sidecar is gone {LISTED}",
    "duplicate": f"a duplicate is gone whose original is kept {LISTED}",
    "set-aside": f"a file that was set aside is gone {LISTED}",
}
MESSAGES = 1000  # of which causes are made


async def keep_laid(session: AsyncSession, laid: Sequence[tuple[Move, Laid]]) -> None:
    """What custody has laid down beside the assets is kept from now on."""
    found = [(m, one) for m, one in laid if m.kind in KINDS and m.target and one.identity]
    if not found:
        return
    moved_on = [m.source for m, _ in found if m.inbox is None]  # filed again with its photo
    if moved_on:
        await rows.forget(session, moved_on)
    await rows.keep(
        session,
        [
            Kept(
                move.kind,
                move.target or "",
                move.size,
                moment(Identity.parse(one.identity or "").mtime_ns),
                move.file_hash,
                one.photo_id or move.photo_id,
            )
            for move, one in found
        ],
    )


async def find_kept(db: Database) -> dict[str, int]:
    """Look through the folders for what is kept; how many are new or edited, gone, and back."""
    done = {"found": 0, "gone": 0, "back": 0}
    async with db.transaction() as session:
        known = await places.all_places(session)
    frozen = [place.path for place in known if place.frozen_at is not None]
    roots = [place.path for place in known if place.kind != "mount"]
    found = _on_disk(roots)
    while portion := await asyncio.to_thread(lambda: list(islice(found, AT_ONCE))):
        fitting = [one for one in portion if not _is_within(one[1].path, frozen)]
        done["found"] += await _keep_found(db, fitting)
    after = 0
    while True:
        async with db.transaction() as session:
            files = await rows.following(session, after, AT_ONCE)
        if not files:
            break
        after = files[-1].file_id
        seen = await asyncio.to_thread(beside.seen, [f.path for f in files])
        told = list(zip(files, seen, strict=True))
        gone = [f for f, one in told if one == "gone"]
        there = [(f, one) for f, one in told if isinstance(one, Beside)]
        back = {f.file_id: f.path for f, _ in there if f.missing}
        async with db.transaction() as session:
            await rows.set_gone(session, {f.file_id: (f.path, GONE[f.kind]) for f in gone})
            await rows.set_back(session, back)
        done["gone"] += sum(not f.missing for f in gone)
        done["back"] += len(back)
        done["found"] += await _keep(db, [(f.kind, one) for f, one in there if _is_news(one, f)])
    async with db.transaction() as session:
        await rows.forget_moved(session)
    return {what: number for what, number in done.items() if number}


def _on_disk(places: Sequence[str]) -> Iterator[tuple[str, Beside]]:
    """Each with what it is taken for, where nobody has said it."""
    settings = load(LibrarySettings)
    aside = {
        "duplicate": os.fsencode(settings.duplicates_folder),
        "set-aside": os.fsencode(settings.set_aside_folder),
    }
    for kind, root in aside.items():
        for one in chain.from_iterable(beside.files(root)):
            is_sidecar = companions.is_sidecar(to_bytes(one.path).rpartition(b"/")[2])
            yield ("sidecar" if is_sidecar and kind == "duplicate" else kind), one
    originals = to_text(settings.originals)
    outer = [path for path in places if not _is_within(path, [originals])]
    for path in dict.fromkeys([originals, *outer]):
        for one in chain.from_iterable(beside.sidecars(to_bytes(path))):
            yield "sidecar", one


async def _keep_found(db: Database, found: Sequence[tuple[str, Beside]]) -> int:
    """Keep those that nobody knows yet; a sidecar only beside an asset."""
    by_path = {one.path: (kind, one) for kind, one in found if _is_short(one.path)}
    async with db.transaction() as session:
        fresh = by_path.keys() - (await rows.known(session, list(by_path))).keys()
        fresh -= await rows.being_filed(session, fresh)
        told_of = {one.owner for _, one in by_path.values() if one.owner}
        owners = await rows.owners(session, told_of) if told_of else {}
    wanted = [by_path[path] for path in sorted(fresh)]
    return await _keep(
        db, [(k, o) for k, o in wanted if o.owner is None or o.owner in owners], owners
    )


async def _keep(
    db: Database, found: Sequence[tuple[str, Beside]], owners: Mapping[str, int] | None = None
) -> int:
    """Read these and keep them as they are now; how many could be read."""
    contents = await asyncio.to_thread(lambda: [beside.content(one.path) for _, one in found])
    files = [
        Kept(kind, one.path, *content, (owners or {}).get(one.owner or ""))
        for (kind, one), content in zip(found, contents, strict=True)
        if content is not None
    ]
    if files:
        async with db.transaction() as session:
            await rows.keep(session, files)
    return len(files)


def _is_news(one: Beside, known: Known) -> bool:
    return (known.size, known.modified_at) != (one.size, one.modified_at)


def _is_short(path: str) -> bool:
    return len(path.encode()) <= MAX_PATH_BYTES


def _is_within(path: str, folders: Sequence[str]) -> bool:
    return any(is_inside(path, folder) for folder in folders)


# -- rot


async def scrub_kept(
    db: Database,
    age: timedelta,
    budget: float,
    progress: Callable[[int, int, str], None] = lambda files, size, path: None,
) -> dict[str, int]:
    """Read through what is kept and was not within `age`, up to so many bytes."""
    done = {"read": 0, "damaged": 0, "bytes": 0}
    seen: set[int] = set()
    while budget > done["bytes"]:
        async with db.transaction() as session:
            found = await rows.due(session, age, READ_AT_ONCE)
        portion = [file for file in found if file.file_id not in seen]
        if not portion:
            break
        read: list[Known] = []
        failures: dict[int, tuple[str, str]] = {}
        for file in portion:
            if done["bytes"] >= budget:
                break
            seen.add(file.file_id)
            done["bytes"] += max(file.size, 1)
            fault = await asyncio.to_thread(_fault_of, file)
            progress(1, file.size, file.path)
            if fault is None or fault[0] != "gone":
                read.append(file)
            if fault is not None and fault[0] != "gone":
                failures[file.file_id] = fault
                log.warning("a file kept beside the originals is damaged", path=file.path)
        async with db.transaction() as session:
            await rows.set_read(session, read, failures)
        done["read"] += len(read)
        done["damaged"] += len(failures)
    return done


def _fault_of(file: Known) -> tuple[str, str] | None:
    """What is wrong with a file, as code and cause. One of another time was edited, or is gone:
    that is for the round over the disk."""
    try:
        status = Path(os.fsdecode(to_bytes(file.path))).stat()
        if modified_at(status) != file.modified_at:
            return "gone", EDITED
        digest = disk.content_hash(file.path)
        if digest != file.file_hash:
            digest = disk.content_hash(file.path)  # memory errs, too
    except OSError as error:
        if error.errno in places_on_disk.GONE:
            return "gone", "it is gone"
        return "unreadable", f"the file cannot be read: {error.strerror or error}"
    if digest == file.file_hash:
        return None
    return "rot", "the file is damaged: its content is not what was kept (SHA-256)"


async def heal_kept(db: Database, path: str) -> HealedFile:
    """Put a damaged or missing file back from the backup, as `heal` does for an original.

    Raises `NotFound` for a path at which nothing is kept, `Unavailable` where it cannot be written.
    """
    file = await _to_be_healed(db, path)
    async with brought(db, path, file, path=path) as draft, alone(db):
        await _to_be_healed(db, path)
        aside = await swapped_in(draft, path, path=path)
        async with db.transaction() as session:
            await rows.set_healed(session, file.file_id)
    return HealedFile(path=path, kept_aside=aside)


async def _to_be_healed(db: Database, path: str) -> Known:
    async with db.transaction() as session:
        file = (await rows.known(session, [path])).get(path)
    if file is None:
        raise NotFound(
            f"nothing is kept at {path}", hint="`kaleidoscope library kept` has all", path=path
        )
    fault = await asyncio.to_thread(_fault_of, file)
    if fault is None:
        raise Conflict(f"{path} is neither damaged nor missing", path=path)
    if fault[1] == EDITED:
        raise Conflict(f"{path} was edited since: it is no damage that is known", path=path)
    return file


async def is_kept(session: AsyncSession, path: str) -> bool:
    """Whether something is kept at a path, as `kernel.paths.to_text` spells it."""
    return bool(await rows.known(session, [path]))


async def kept_files(
    session: AsyncSession, *, after: int = 0, limit: int = 1000, unwell: bool = False
) -> list[KeptFile]:
    """The next of what is kept; `unwell`: what is damaged, gone, or cannot be copied."""
    found = await rows.listed(session, after, limit, unwell=unwell)
    return [KeptFile.model_validate(row) for row in found]


# -- what is wrong with them


async def kept_errors(session: AsyncSession) -> Sequence[Row[Any]]:
    """What is wrong with what is kept, by code and message: total, latest_at, and one path."""
    return await rows.by_message(session, MESSAGES)


async def kept_errors_state(session: AsyncSession) -> tuple[object, ...]:
    """Something that changes when anything about that does; cheap to ask for."""
    return await rows.state(session)


async def try_kept_again(session: AsyncSession, code: str, message: str) -> int:
    """Look again for what is gone, now; read and copy again what is damaged or was not copied, in
    the next round. By a person's word; answers how many."""
    files = await rows.with_message(session, code, message)
    if code == "missing":
        seen = await asyncio.to_thread(beside.seen, [f.path for f in files])
        told = zip(files, seen, strict=True)
        await rows.set_back(
            session, {f.file_id: f.path for f, one in told if isinstance(one, Beside)}
        )
    else:
        await rows.try_soon(session, [f.file_id for f in files])
    return len(files)


async def accept_missing(session: AsyncSession, below: str | None = None) -> list[str]:
    """A person's word that what is gone is gone: it is kept no more, and nobody looks for it.

    `below`: only what lay at this path, or below it. Answers where it lay. What comes back is found
    and kept anew.
    """
    return await rows.forget_gone(session, below)
