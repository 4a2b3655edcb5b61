"""A second copy of every original, and of what is kept beside them: made, read back, put back.

A content is copied once, under a name that is settled in the ledger before its first byte is
written; re-filing or renaming an original copies nothing again. A copy counts when it has been read
back and had its hash.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import Conflict, NotFound, SettingsError, Unavailable
from kaleidoscope.kernel.secrets import service_secret
from kaleidoscope.kernel.settings import config_file, load
from kaleidoscope.kernel.store import Store, StoreProblem, open_store
from kaleidoscope.library.outside import originals as disk
from kaleidoscope.library.outside.files import FileProblem
from kaleidoscope.library.queries import copies as rows
from kaleidoscope.library.queries import kept
from kaleidoscope.library.queries.copies import Copy, Pending
from kaleidoscope.library.queries.kept import Known
from kaleidoscope.library.rules.places import copy_location
from kaleidoscope.library.schemas import Photo
from kaleidoscope.library.service.history import Happened, note
from kaleidoscope.library.settings import BackupSettings

AT_ONCE = 100
INVENTORY_AT_ONCE = 1000
MARK = "kaleidoscope-backup.json"
LOST = "`kaleidoscope backup verify` reads all copies back; is there another backup?"

Progress = Callable[[int, int, str], None]
"""Told how many files and bytes more are done, and of which file."""

Following = Callable[[AsyncSession, int, int], Awaitable[list[Pending]]]
"""The next files to be copied after a number, so many at the most."""


@dataclass(frozen=True)
class Target:
    """The second location, and the id that its mark gives it."""

    store: Store
    target_id: UUID


@dataclass(frozen=True)
class Original:
    """One asset in the inventory of the backup; `location`: where its copy lies, if it has one."""

    photo_id: int
    path: str
    original_name: str
    size: int
    file_hash: str | None
    modified_at: Any
    captured_at: Any
    person_ids: list[int]
    location: str | None

    @property
    def number(self) -> int:
        """What they are read in the order of."""
        return self.photo_id


@dataclass(frozen=True)
class KeptCopy:
    """A file that is kept beside the originals, and where its copy lies, if it has one."""

    number: int
    path: str
    original_name: str
    size: int
    file_hash: str
    modified_at: datetime
    location: str | None


def no_progress(files: int, size: int, name: str) -> None:
    """Tell nobody."""


def store() -> Store:
    """The second location of the settings. Raises `SettingsError` where there is none."""
    settings = load(BackupSettings)
    if not settings.target:
        raise SettingsError(
            "no backup is set up",
            hint=f'in {config_file()}: [backup] target = "/a/folder/on/another/disk"',
        )
    return open_store(settings.target, settings.options)


def mark_of(place: Store) -> UUID | None:
    """The id of a backup; None: there is none at that place."""
    try:
        return UUID(json.loads(place.get(MARK))["backup_id"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise StoreProblem(
            f"{place.url}/{MARK} cannot be read", hint="is it a backup of Kaleidoscope's?"
        ) from None


async def use_target(db: Database, *, new: bool = False) -> Target:
    """The second location, which is the one it was: told by the mark that lies in it.

    One that was used before and has lost its mark is refused: its disk is not mounted, and copying
    would fill another one. So is one with the mark of another installation. `new`, a person's
    word: it is ours from now on, and everything is copied that is not in it.
    """
    place = store()
    found = await asyncio.to_thread(mark_of, place)
    async with db.transaction() as session:
        known = await rows.targets(session)
    # The same in every try: a first run that was killed after the mark knows it again.
    ours = uuid5(NAMESPACE_URL, f"{service_secret()} {place.url}")
    if found is None:
        is_known = any(target.url == place.url for target in known)
        if is_known and not new:
            raise Conflict(
                f"the backup in {place.url} is gone: is its disk not mounted?",
                hint="mount it; or, for a new disk, `kaleidoscope backup run --new-target`",
            )
        found = uuid4() if is_known else ours
        told = {"backup_id": str(found), "made_by": "Kaleidoscope", "see": "README.txt"}
        await asyncio.to_thread(place.put, MARK, json.dumps(told, indent=1).encode())
    elif not new and found != ours and found not in {target.target_id for target in known}:
        raise Conflict(
            f"{place.url} is the backup of another installation",
            hint="choose another target; to go on with it, `kaleidoscope backup run --new-target`",
        )
    if not any(t.target_id == found and t.is_current and t.url == place.url for t in known):
        async with db.transaction() as session:
            await rows.use_target(session, found, place.url)
    return Target(place, found)


async def count_pending(session: AsyncSession) -> tuple[int, int]:
    """How many originals, and files kept beside them, are still to be copied, and their bytes."""
    (originals, size), (files, more) = (
        await rows.count_pending(session),
        await kept.count_pending(session),
    )
    return originals + files, size + more


async def has_pending(session: AsyncSession) -> bool:
    """Whether a file can be copied now."""
    return bool(await rows.pending(session, 0, 1) or await kept.pending(session, 0, 1))


async def copy_pending(
    db: Database, target: Target, progress: Progress = no_progress
) -> dict[str, int]:
    """Copy what is not in the backup; answers how many files and bytes, and how many failed.

    Raises `StoreProblem` when the second location gives way; what is done until then is done.
    """
    done = {"copied": 0, "bytes": 0, "known": 0, "failed": 0}
    for following in (rows.pending, kept.pending):
        await _copy_all(db, target, following, done, progress)
    return done


async def _copy_all(
    db: Database, target: Target, following: Following, done: dict[str, int], progress: Progress
) -> None:
    after = 0
    while True:
        async with db.transaction() as session:
            assets = await following(session, after, AT_ONCE)
            if not assets:
                return
            wanted = {
                a.file_hash: (a.file_hash, copy_location(a.file_hash, a.name, _day(a)), a.size)
                for a in assets
            }
            planned = await rows.plan(session, target.target_id, list(wanted.values()))
        after = assets[-1].number
        await _copy_some(db, target, assets, planned, done, progress)


async def _copy_some(
    db: Database,
    target: Target,
    assets: Sequence[Pending],
    planned: dict[str, Copy],
    done: dict[str, int],
    progress: Progress,
) -> None:
    """Each content once, some at a time; every one that is safe is noted before the next ones."""
    threads = load(BackupSettings).threads
    first: dict[str, Pending] = {}
    for asset in assets:
        first.setdefault(asset.file_hash, asset)
    contents = list(first.values())
    for i in range(0, len(contents), threads):
        portion = contents[i : i + threads]
        began = time.monotonic()
        outcomes = await asyncio.gather(
            *[_copy(target.store, asset, planned[asset.file_hash]) for asset in portion],
            return_exceptions=True,
        )
        took = round((time.monotonic() - began) * 1000)
        safe = [a for a, o in zip(portion, outcomes, strict=True) if not isinstance(o, Exception)]
        failed = [(a, o) for a, o in zip(portion, outcomes, strict=True) if _is_own_fault(o)]
        async with db.transaction() as session:
            ids = await rows.made(session, target.target_id, [a.file_hash for a in safe])
            events = [Happened(photo_id, "backed-up", duration_ms=took) for photo_id in ids]
            events += [
                Happened(a.number, "backed-up", "failed", error=str(o))
                for a, o in failed
                if a.is_asset
            ]
            await note(session, events)
            if causes := {a.number: str(o) for a, o in failed if not a.is_asset}:
                await kept.set_failed(session, causes)
        for asset, outcome in zip(portion, outcomes, strict=True):
            if isinstance(outcome, BaseException) and not _is_own_fault(outcome):
                raise outcome
            done["failed"] += isinstance(outcome, BaseException)
            if outcome is True:
                done["copied"] += 1
                done["bytes"] += asset.size
            elif outcome is False:
                done["known"] += 1
            progress(1, asset.size, asset.path)
        progress(0, 0, "")


def _is_own_fault(outcome: object) -> bool:
    """Whether a file could not be copied, and others can."""
    if isinstance(outcome, StoreProblem):
        return bool(outcome.fields.get("of_the_name"))
    return isinstance(outcome, FileProblem)


async def _copy(place: Store, asset: Pending, copy: Copy) -> bool:
    """Have one content in the backup, read back; False: it was there."""
    return await asyncio.to_thread(_copy_now, place, asset, copy)


def _copy_now(place: Store, asset: Pending, copy: Copy) -> bool:
    if copy.is_made:
        return False
    # Of a run that was killed between the copy and its row: it is read back like any other.
    if place.size(copy.location) == copy.size and _is_right(place, copy):
        return False
    place.write(copy.location, disk.read_checked(asset.path, asset.file_hash))
    if not _is_right(place, copy):
        raise StoreProblem(
            f"{place.url} does not give back what was written to it ({copy.location})",
            hint="its disk or its share is not to be trusted",
        )
    return True


def _is_right(place: Store, copy: Copy) -> bool:
    try:
        return disk.hash_of(place.read(copy.location)) == copy.file_hash
    except FileNotFoundError:
        return False
    except StoreProblem as problem:
        if not problem.fields.get("unreadable") or mark_of(place) is None:
            raise
        return False  # a bad sector under this one copy, not a disk that is gone


def _day(asset: Pending) -> str | None:
    return None if asset.day is None else asset.day.isoformat()


async def verify_copies(
    db: Database,
    target: Target,
    share: float = 1.0,
    age: timedelta | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Read back so large a share of the copies' bytes; a damaged one will be made anew.

    First those that were not for the longest time, so that a tenth a day is all of them in ten
    days; and all that were not within `age`. Answers how many were read, their bytes, and the
    places of those that are damaged.
    """
    read, size = 0, 0
    damaged: list[str] = []
    async with db.transaction() as session:
        began = await rows.moment(session)
        most = await rows.to_be_verified(session, target.target_id, share, age)
    while True:
        async with db.transaction() as session:
            portion = await rows.to_verify(session, target.target_id, began, AT_ONCE)
        portion = portion if share >= 1 else _up_to(portion, most)
        most -= sum(max(copy.size, 1) for copy in portion)
        if not portion:
            return {"read": read, "bytes": size, "damaged": damaged}
        wrong: list[Copy] = []
        for copy in portion:
            if not await asyncio.to_thread(_is_right, target.store, copy):
                wrong.append(copy)
            progress(1, copy.size, copy.location)
        right = [copy.file_hash for copy in portion if copy not in wrong]
        async with db.transaction() as session:
            await rows.verified(session, target.target_id, right)
            hashes = [c.file_hash for c in wrong]
            ids = await rows.damaged(session, target.target_id, hashes) if wrong else []
            error = "its copy in the backup was damaged, and is made anew"
            await note(session, [Happened(i, "backed-up", "failed", error=error) for i in ids])
        read += len(portion)
        size += sum(copy.size for copy in portion)
        damaged += [copy.location for copy in wrong]


def _up_to(copies: Sequence[Copy], size: float) -> list[Copy]:
    """The first of them, as many as `size` bytes hold, the last one where the half of it fits."""
    chosen: list[Copy] = []
    for copy in copies:
        if size < max(copy.size, 1) / 2:
            break
        chosen.append(copy)
        size -= max(copy.size, 1)
    return chosen


async def copies_total(session: AsyncSession, target_id: UUID) -> dict[str, Any]:
    """copies, bytes, damaged ones, and when the one was read back that was so longest ago."""
    return dict((await rows.totals(session, target_id))._mapping)


async def current_target(session: AsyncSession) -> tuple[UUID, str] | None:
    """Id and place of the second location that the ledger speaks of."""
    for target in await rows.targets(session):
        if target.is_current:
            return target.target_id, target.url
    return None


async def inventory(
    session: AsyncSession, target_id: UUID | None, after: int = 0
) -> list[Original]:
    """The next originals with where their copies lie, in the order of their numbers."""
    return [
        Original(**{**row._mapping, "person_ids": row.person_ids or []})
        for row in await rows.inventory(session, target_id, after, INVENTORY_AT_ONCE)
    ]


async def kept_inventory(
    session: AsyncSession, target_id: UUID | None, after: int = 0
) -> list[KeptCopy]:
    """The same of the files that are kept beside the originals."""
    found = await kept.inventory(session, target_id, after, INVENTORY_AT_ONCE)
    return [KeptCopy(**row._mapping) for row in found]


@asynccontextmanager
async def brought(
    db: Database, whose: str, file: Photo | Known, **fields: Any
) -> AsyncIterator[Path]:
    """A file's copy, hashed, beside the place it is for, as a draft that is gone afterwards.

    Nobody has to wait for a large file from far away. Raises `NotFound`, in which `whose` tells of
    it, where there is no copy, and `Unavailable`; both with `fields`.
    """
    async with db.transaction() as session:
        copy = await rows.of_content(session, file.file_hash or "")
    if copy is None or file.file_hash is None:
        raise NotFound(
            f"{whose} has no copy in the backup",
            hint="`kaleidoscope backup status` tells where the copies are",
            **fields,
        )
    place = await asyncio.to_thread(store)
    try:
        draft = await asyncio.to_thread(
            disk.bring, place, copy.location, file.path, file.file_hash, file.modified_at
        )
    except FileProblem as problem:
        hint = _hint(file.path) if isinstance(problem, disk.Unwritable) else LOST
        raise Unavailable(f"{file.path}: {problem}", hint=hint, **fields) from problem
    try:
        yield draft
    finally:
        await asyncio.to_thread(_drop, draft)


async def swapped_in(draft: Path, path: str, /, **fields: Any) -> str | None:
    """Put what was brought in its place; where the damaged file lies now, if there was one.

    Raises `Unavailable` with `fields` where the folder cannot be written; all is as it was then.
    """
    try:
        return await asyncio.to_thread(disk.swap_in, draft, path)
    except OSError as error:
        cause = f"{path}: it cannot be written: {error.strerror or error}"
        raise Unavailable(cause, hint=_hint(path), **fields) from error


def _drop(draft: Path) -> None:
    with suppress(OSError):  # a folder that cannot be written any more
        draft.unlink(missing_ok=True)


def _hint(path: str) -> str:
    folder = path.rpartition("/")[0] or "/"
    return f"let this user write to {folder}, on a disk that has room, then heal it again"


async def unwanted_copies(
    session: AsyncSession, target_id: UUID, before: datetime | None = None
) -> list[Copy]:
    """Copies of contents that nothing has any more, made before a moment (None: whenever)."""
    return await rows.unwanted(session, target_id, before)


async def forget_copies(session: AsyncSession, target_id: UUID, hashes: Sequence[str]) -> None:
    """Copies that are being removed: nobody counts on them any more."""
    await rows.forget(session, target_id, hashes)


Listed = Callable[[AsyncSession, UUID, int], Awaitable[Sequence[Original | KeptCopy]]]
"""The next files of the inventory of a target after a number."""


async def put_back(
    db: Database, target: Target, progress: Progress = no_progress
) -> dict[str, Any]:
    """Every original that has a copy, where it was; what lies there already is left alone.

    Answers how many `originals` there are, how many were restored, were there, and why others
    could not be; and how many of the files kept `beside` them lie there now.
    """
    done: dict[str, Any] = {"restored": 0, "there": 0, "without_copy": [], "failed": {}}
    await _put_back_all(db, target, inventory, done, progress)
    there, lost = done["restored"] + done["there"], len(done["without_copy"]) + len(done["failed"])
    done |= {"originals": there + lost, "beside": 0}
    await _put_back_all(db, target, kept_inventory, done, progress)
    return done


async def _put_back_all(
    db: Database, target: Target, following: Listed, done: dict[str, Any], progress: Progress
) -> None:
    after = 0
    while True:
        async with db.transaction() as session:
            files = await following(session, target.target_id, after)
        if not files:
            return
        after = files[-1].number
        for file in files:
            outcome = await asyncio.to_thread(_put_back, target.store, file)
            beside = isinstance(file, KeptCopy) and outcome in ("restored", "there")
            _count(done, file.path, "beside" if beside else outcome)
            progress(1, file.size, file.path)


def _count(done: dict[str, Any], path: str, outcome: str) -> None:
    if outcome in ("restored", "there", "beside"):
        done[outcome] += 1
    elif outcome == "without copy":
        done["without_copy"].append(path)
    else:
        done["failed"][path] = outcome


def _put_back(place: Store, original: Original | KeptCopy) -> str:
    """`restored`, `there`, `without copy`, or why it could not be put back."""
    try:
        if disk.content_hash(original.path) == original.file_hash or original.file_hash is None:
            return "there"
        return "another file lies there"
    except OSError:
        pass
    if original.location is None or original.file_hash is None:
        return "without copy"
    try:
        disk.fetch(
            place, original.location, original.path, original.file_hash, original.modified_at
        )
    except FileProblem as problem:
        return str(problem)
    except StoreProblem as problem:
        if not problem.fields.get("unreadable"):
            raise
        return problem.message  # the others are to come back all the same
    return "restored"


async def forget_machine(session: AsyncSession) -> None:
    """After a restore: thumbnails, which are not in the backup, are made anew, and the disks that
    places are on may be others."""
    await rows.forget_machine(session)


async def relocate(session: AsyncSession, old: str, new: str) -> int:
    """The ledger's paths below one folder are below another from now on; how many there were."""
    return await rows.relocate(session, old, new)
