"""The second copy as a whole: made, read back, pruned, and how it stands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import KaleidoscopeError
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library
from kaleidoscope.library.service import Alarm
from kaleidoscope.library.settings import BackupSettings
from kaleidoscope.upkeep import queries
from kaleidoscope.upkeep.schemas import BackupStatus, Drill, Manifest, Run
from kaleidoscope.upkeep.service import databases
from kaleidoscope.upkeep.service.runs import noted

Progress = Callable[[int, int, str], None]
AGAIN = timedelta(minutes=10)  # after a run that failed
EVERYTHING = timedelta(0)
LATE = 2  # times the interval: then a run is overdue


def tell_nobody(files: int, size: int, name: str) -> None:
    """No progress is shown."""


async def back_up(
    db: Database, *, new_target: bool = False, full: bool = False, progress: Progress = tell_nobody
) -> dict[str, Any]:
    """Everything: the originals, and the database, or what was written to it since.

    Of a server of our own the whole is copied when that is due, or with `full`.
    """
    await library.find_kept(db)
    originals = await copy_originals(db, new_target=new_target, progress=progress)
    async with db.transaction() as session:
        is_due = await queries.is_due(session, "backup_runs", ("database",), _hours(), EVERYTHING)
    if full or is_due or not await asyncio.to_thread(databases.is_our_own, db.url):
        return {"originals": originals, "database": await copy_database(db)}
    return {"originals": originals, "database": await copy_log(db)}


async def copy_originals(
    db: Database, *, new_target: bool = False, progress: Progress = tell_nobody
) -> dict[str, Any]:
    """Copy the originals that are not in the backup."""
    async with noted(db, "backup_runs", "originals", load(BackupSettings).target) as figures:
        target = await library.use_target(db, new=new_target)
        figures.update(await library.copy_pending(db, target, progress))
    return figures


async def copy_database(db: Database) -> dict[str, Any]:
    """Copy the whole database, and of our own server what was written to it meanwhile."""
    async with noted(db, "backup_runs", "database", load(BackupSettings).target) as figures:
        target = await library.use_target(db)
        manifest = await databases.copy(db, target.store, target.target_id)
        figures["name"] = manifest.name
        figures["bytes"] = sum(file.size for file in manifest.files)
        figures["originals"] = manifest.originals
        if manifest.kind == "base":
            figures["segments"] = await databases.copy_log(db, target.store) or 0
    return figures


async def copy_log(db: Database) -> dict[str, Any]:
    """Copy what was written to our own server since; where some is lost, copy it all anew."""
    async with noted(db, "backup_runs", "log", load(BackupSettings).target) as figures:
        target = await library.use_target(db)
        segments = await databases.copy_log(db, target.store)
        figures["segments"] = segments
    return figures if segments is not None else await copy_database(db)


async def verify(
    db: Database,
    share: float = 1.0,
    age: timedelta | None = None,
    progress: Progress = tell_nobody,
) -> dict[str, Any]:
    """Read back so large a share of the originals' copies, those first that were not for longest,
    and all that were not within `age`; and the copies of the database: all of them, or with a
    share the newest one and another in its turn."""
    async with noted(db, "backup_runs", "verify", load(BackupSettings).target) as figures:
        target = await library.use_target(db)
        figures.update(await library.verify_copies(db, target, share, age, progress))
        manifests = await asyncio.to_thread(databases.complete, target.store)
        wrong = []
        for manifest in manifests if share >= 1 else _in_turn(manifests, datetime.now(UTC)):
            wrong += await asyncio.to_thread(databases.damaged_files, target.store, manifest)
            progress(0, sum(file.size for file in manifest.files), manifest.name)
        figures["databases"] = len(manifests)
        figures["damaged_database_files"] = wrong
    return figures


def _in_turn(manifests: Sequence[Manifest], today: datetime) -> list[Manifest]:
    """The newest, and of the others the one whose day it is."""
    older = manifests[:-1]
    turn = [older[today.toordinal() % len(older)]] if older else []
    return [*turn, *manifests[-1:]]


async def verify_part(db: Database) -> dict[str, Any]:
    """Read back the part of a day: in `backup.verify_days` days it is everything.

    The share of as many days as have passed since the last time, where it was missed.
    """
    days = load(BackupSettings).verify_days
    async with db.transaction() as session:
        passed = await queries.since_last(session, "verify")
    since = 1.0 if passed is None else max(1.0, passed / timedelta(days=1))
    return await verify(db, min(1.0, since / days), timedelta(days=days))


async def prune(db: Database, *, dry_run: bool = False) -> dict[str, Any]:
    """Remove the copies of the database beyond `backup.keep_databases`, leftovers of copies that
    were interrupted, and copies of contents that nothing has any more: neither the library as it
    is, nor as any copy of the database that stays would bring it back."""
    target = await library.use_target(db)
    store = target.store
    manifests = await asyncio.to_thread(databases.complete, store)
    staying = manifests[-load(BackupSettings).keep_databases :]
    kept = {m.name for m in staying}
    files = [
        (name, size)
        for name, size in await asyncio.to_thread(lambda: list(store.names("database")))
        if name.split("/")[1] not in kept
    ]
    # What was copied later than the oldest of them, its log may bring back as well.
    oldest = min((m.made_at for m in staying if m.kind == "base"), default=None)
    async with db.transaction() as session:
        unwanted = await library.unwanted_copies(session, target.target_id, oldest)
    if unwanted:
        wanted = await asyncio.to_thread(databases.locations, store, staying)
        unwanted = [copy for copy in unwanted if copy.location not in wanted]
    figures = {
        "databases": sorted({name.split("/")[1] for name, _ in files}),
        "originals": [copy.location for copy in unwanted],
        "bytes": sum(size for _, size in files) + sum(copy.size for copy in unwanted),
    }
    if dry_run:
        return figures
    async with noted(db, "backup_runs", "prune", store.url) as told:
        told.update(figures)
        async with db.transaction() as session:
            hashes = [copy.file_hash for copy in unwanted]
            await library.forget_copies(session, target.target_id, hashes)
        # A manifest goes first: without it what is left is no copy.
        for name, _ in sorted(files, key=lambda f: not f[0].endswith(databases.MANIFEST)):
            await asyncio.to_thread(store.delete, name)
        for copy in unwanted:
            await asyncio.to_thread(store.delete, copy.location)
    return figures


async def status(db: Database) -> BackupStatus:
    """How the second copy stands."""
    async with db.transaction() as session:
        pending, pending_bytes = await library.count_pending(session)
        current = await library.current_target(session)
        totals = await library.copies_total(session, current[0]) if current else {}
        runs = await queries.latest(session, "backup_runs")
        drill = await queries.last_drill(session)
    trouble, names = await asyncio.to_thread(_look, current)
    return BackupStatus(
        target=load(BackupSettings).target or None,
        trouble=trouble,
        pending=pending,
        pending_bytes=pending_bytes,
        copies=totals.get("copies", 0),
        bytes=totals.get("bytes", 0),
        damaged=totals.get("damaged", 0),
        oldest_verified_at=totals.get("oldest"),
        databases=names,
        runs=[Run.model_validate(run) for run in runs],
        drill=None if drill is None else Drill.model_validate(drill),
    )


def _look(current: Any) -> tuple[str | None, list[str]]:
    try:
        store = library.store()
        found = library.mark_of(store)
        names = [m.name for m in databases.complete(store)]
    except KaleidoscopeError as problem:
        return problem.message, []
    if current is not None and found is None and current[1] == store.url:
        return f"the backup in {store.url} is gone: is its disk not mounted?", names
    return None, names


async def alarms(session: AsyncSession) -> list[Alarm]:
    """A backup that fails or is overdue, and a drill that is red."""
    if not load(BackupSettings).target:
        return []
    runs = {run.kind: run for run in await queries.latest(session, "backup_runs")}
    found = [
        Alarm("WARNING", f"the backup fails ({run.kind}): {run.error}")
        for run in runs.values()
        if run.error is not None
    ]
    if await queries.is_overdue(session, "database", LATE * _hours()):
        hint = "`kaleidoscope backup run --full` makes one"
        found.append(Alarm("WARNING", f"the copy of the database is overdue ({hint})"))
    if wrong := _damaged_since(runs.get("verify"), runs.get("database")):
        found.append(Alarm("WARNING", f"the copy of the database is damaged: {', '.join(wrong)}"))
    drill = await queries.last_drill(session)
    if drill is not None and drill.colour == "red":
        found.append(Alarm("ERROR", f"the restore drill is red: {drill.cause}"))
    current = await library.current_target(session)
    totals = await library.copies_total(session, current[0]) if current else {}
    if totals.get("damaged"):
        found.append(Alarm("WARNING", f"damaged copies in the backup: {totals['damaged']}"))
    return found


def _damaged_since(verified: Any, copied: Any) -> list[str]:
    """Damaged files of the database's copy, as long as no new one has been made."""
    if verified is None:
        return []
    is_new = copied is not None and copied.started_at > verified.started_at
    if is_new and copied.finished_at is not None and copied.error is None:
        return []
    return list(verified.figures.get("damaged_database_files", []))


def _hours() -> timedelta:
    return timedelta(hours=load(BackupSettings).database_hours)
