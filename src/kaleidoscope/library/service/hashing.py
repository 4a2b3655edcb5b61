"""Full hashes: of files indexed in place, in the background, and what they say of duplicates."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import NotFound
from kaleidoscope.kernel.settings import load
from kaleidoscope.library.events import PhotoProcessed
from kaleidoscope.library.outside.files import FileProblem, hash_file
from kaleidoscope.library.queries import hashes
from kaleidoscope.library.queries.hashes import Hashed
from kaleidoscope.library.service.attempts import announce_duplicates
from kaleidoscope.library.service.history import Happened, note
from kaleidoscope.library.service.ledger import get
from kaleidoscope.library.settings import LibrarySettings

AT_ONCE = 200


async def hash_pending(db: Database) -> dict[str, int]:
    """Hash every file that has no hash yet, some at a time; answers how many, and how it went.

    A file that cannot be read is noted, and looked at again when its time has come.
    """
    done = {"hashed": 0, "duplicates": 0, "failed": 0}
    after = 0
    while True:
        async with db.transaction() as session:
            files = await hashes.unhashed(session, after, AT_ONCE)
        if not files:
            return {what: number for what, number in done.items() if number}
        after = files[-1].photo_id
        digests = await hash_all(files)
        hashed = [
            Hashed(f.photo_id, f.size, f.modified_at, digest)
            for f, digest in zip(files, digests, strict=True)
            if isinstance(digest, str)
        ]
        failures = [
            Happened(f.photo_id, "hashed", "failed", error=str(problem), code="file-problem")
            for f, problem in zip(files, digests, strict=True)
            if isinstance(problem, FileProblem)
        ]
        async with db.transaction() as session:
            duplicates = await settle(session, hashed)
            await note(session, failures)
        done["failed"] += len(failures)
        done["hashed"] += len(hashed)
        done["duplicates"] += len(duplicates)


async def hash_one(db: Database, photo_id: int) -> None:
    """Hash an asset that has no hash yet, now. Raises `NotFound` with the cause where it cannot."""
    async with db.transaction() as session:
        file = await hashes.unhashed_one(session, photo_id)
    if file is None:  # somebody was quicker
        return
    (digest,) = await hash_all([file])
    if isinstance(digest, FileProblem):
        raise NotFound(str(digest), photo_id=photo_id)
    async with db.transaction() as session:
        await settle(session, [Hashed(file.photo_id, file.size, file.modified_at, digest)])


class Sized(Protocol):
    """A file, and what it was like when it was scanned."""

    @property
    def path(self) -> str: ...
    @property
    def size(self) -> int: ...


async def hash_all(files: Sequence[Sized]) -> list[str | FileProblem]:
    """SHA-256 of each file, or why there is none; `library.hash_threads` files at a time."""
    threads = asyncio.Semaphore(load(LibrarySettings).hash_threads)

    async def one(file: Sized) -> str | FileProblem:
        async with threads:
            modified = getattr(file, "modified_at", None)
            try:
                return await asyncio.to_thread(hash_file, file.path, file.size, modified)
            except FileProblem as problem:
                return problem

    return await asyncio.gather(*[one(file) for file in files])


async def settle(session: AsyncSession, hashed: Sequence[Hashed]) -> set[int]:
    """Write hashes into rows that have none; answers the photo_ids that are duplicates now.

    The first asset with a content stays what it is; later ones show its outcome. A row whose file
    has changed since it was hashed is left alone.
    """
    if not hashed:
        return set()
    await hashes.lock(session)
    firsts = await hashes.firsts(session, {h.file_hash for h in hashed})
    own: list[Hashed] = []
    later: dict[int, int] = {}
    for one in sorted(hashed, key=lambda h: h.photo_id):
        first = firsts.setdefault(one.file_hash, one.photo_id)
        if first == one.photo_id:
            own.append(one)
        else:
            later[one.photo_id] = first
    written = await hashes.write(session, own)
    duplicates = (
        await _follow(session, [h for h in hashed if h.photo_id in later], later)
        if later
        else set()
    )
    await note(session, [Happened(photo_id, "hashed") for photo_id in (*written, *duplicates)])
    return duplicates


async def _follow(
    session: AsyncSession, hashed: Sequence[Hashed], firsts: Mapping[int, int]
) -> set[int]:
    """Make assets duplicates; those whose first one has ended show its outcome at once."""
    duplicates = set(await hashes.write_duplicates(session, hashed, firsts))
    for first in sorted({firsts[photo_id] for photo_id in duplicates}):
        photo = await get(session, first)
        if photo.status not in ("PROCESSED", "FAILED"):
            continue
        event = PhotoProcessed(
            photo_id=photo.photo_id,
            attempt_id=photo.attempt_id,
            outcome="DUPLICATE",
            final=photo.status == "PROCESSED" or photo.next_retry_at is None,
            person_ids=tuple(photo.person_ids or ()),
            error=photo.error_message,
        )
        await announce_duplicates(session, [event])
    return duplicates
