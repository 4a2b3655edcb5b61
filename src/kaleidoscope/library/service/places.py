"""The circuit breaker: a place that vanishes is frozen and a person decides; a file that vanishes
is marked missing, and found again wherever it turns up.

Nothing here deletes anything, on the disk or in the ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import Conflict, NotFound
from kaleidoscope.kernel.paths import is_inside, to_text
from kaleidoscope.kernel.settings import load
from kaleidoscope.library.outside import places as disk
from kaleidoscope.library.queries import places as rows
from kaleidoscope.library.queries.places import Place
from kaleidoscope.library.rules import places as rules
from kaleidoscope.library.schemas import Decision, PlaceView
from kaleidoscope.library.service import moving
from kaleidoscope.library.service.history import Happened, note
from kaleidoscope.library.settings import LibrarySettings

log = structlog.get_logger(__name__)

AT_ONCE = 1000
LEDGER_AT_ONCE = 10_000  # rows of the ledger that are walked in one statement
ROWS_SAMPLED, FILES_SAMPLED = 5000, 50  # each minute: read of the ledger, looked for in a place
FROZEN_AGAIN_AFTER = timedelta(minutes=10)  # until a frozen place's files are looked for anew


async def know_place(
    session: AsyncSession, path: str, kind: Literal["folder", "originals"] = "folder"
) -> None:
    """Watch a folder from now on, unless it lies in one that is watched."""
    await rows.know(session, path, kind)


async def places(session: AsyncSession) -> list[PlaceView]:
    """The known places, with how many of the ledger's files are there and missing."""
    counts = await rows.counts(session)
    return [
        PlaceView(
            **{
                name: getattr(place, name)
                for name in PlaceView.model_fields
                if hasattr(place, name)
            },
            assets=sum(counts.get(place.place_id, (0, 0))),
            missing=counts.get(place.place_id, (0, 0))[1],
        )
        for place in await rows.all_places(session)
    ]


async def decide(session: AsyncSession, place_id: int, decision: Decision) -> PlaceView:
    """What a person says of a frozen place.

    `wait`: it will come back, leave everything. `accept-missing`: what is gone is gone, and the
    place is well as it is now; its files are looked for within a minute, and marked missing.
    """
    place = await rows.hold(session, place_id)
    if place is None:
        raise NotFound(
            f"there is no place {place_id}",
            hint="`kaleidoscope places list` has all",
            place_id=place_id,
        )
    if place.frozen_at is None:
        raise Conflict(f"{place.path} is not frozen: there is nothing to decide", path=place.path)
    await rows.decide(session, place_id, decision)
    await rows.count_anew(session, [place_id])
    return next(p for p in await places(session) if p.place_id == place_id)


async def watch(db: Database, passed_over: Collection[str] | None = None) -> dict[str, int]:
    """Look at every known place, and for the files of those whose turn it is, or of which a file
    chosen at random is gone.

    `passed_over`: names of folders that no file was moved to (`moving.follow`); None: files that
    were moved are gone. Answers how many files are newly missing, found again, and moved inside
    their place, and how many places are frozen.
    """
    async with db.transaction() as session:
        known = await rows.all_places(session)
        due = [place for place in known if await rows.is_due(session, place.place_id, _age(place))]
    if due or not known:
        await _know_more(db)
        async with db.transaction() as session:
            known = await rows.all_places(session)
    suspected = await _suspected(db)
    done = {"missing": 0, "found": 0, "moved": 0, "frozen": 0}
    for place in known:
        is_suspected = place.place_id in suspected
        for what, number in (await _look_after(db, place, is_suspected, passed_over)).items():
            done[what] += number
    if due or suspected:
        done["found"] += await _reunite(db)
    return {what: number for what, number in done.items() if number}


@dataclass(frozen=True)
class Frozen:
    """A place that a scan has frozen. `holds`: the scanned folder is it, or lies in it."""

    path: str
    cause: str
    holds: bool

    def __str__(self) -> str:
        return f"{self.path} is frozen: {self.cause}"


async def guard(
    db: Database, folder: str, passed_over: Collection[str] | None = None
) -> list[Frozen]:
    """The places at, around and below a folder that are not themselves: frozen by this.

    A place is not itself when it is gone, empty, on another device, or when too many of the files
    are gone that the ledger has in the folder, and were not moved inside the place. One that holds
    the folder forbids its scan. `passed_over`: as `watch` has it.
    """
    found = []
    for place in await _near(db, folder):
        why = await _unwell(db, place)
        if why is None:
            gone, there = await _gone_below(db, place, folder)
            why, _ = await _too_many(db, place, gone, there, passed_over)
        found += await _frozen(db, place, folder, why)
    return found


async def found_nothing(db: Database, folder: str) -> list[Frozen]:
    """A scan has found no photo in a folder: the places in whose part of it every file is gone.

    They are frozen, however few files that are.
    """
    found = []
    for place in await _near(db, folder):
        gone, there = await _gone_below(db, place, folder)
        why = f"the scan of {folder} finds nothing, where {there} files were"
        found += await _frozen(db, place, folder, why if there and len(gone) == there else None)
    return found


async def _near(db: Database, folder: str) -> list[Place]:
    async with db.transaction() as session:
        known = await rows.all_places(session)
    return [p for p in known if is_inside(folder, p.path) or is_inside(p.path, folder)]


async def _frozen(db: Database, place: Place, folder: str, why: str | None) -> list[Frozen]:
    if why is None or _is_accepted(place):
        return []
    await _freeze(db, place, why, counted=False)
    return [Frozen(place.path, why, holds=is_inside(folder, place.path))]


async def _gone_below(db: Database, place: Place, folder: str) -> tuple[dict[int, str], int]:
    """Which of a place's files below a folder are gone, of how many believed there."""
    gone: dict[int, str] = {}
    there = 0
    async for files in _files(db, place, folder):
        believed = [file for file in files if not file.missing]
        there += len(believed)
        states = await asyncio.to_thread(disk.state_of_files, [file.path for file in believed])
        told = zip(believed, states, strict=True)
        gone |= {file.photo_id: file.path for file, state in told if state == "gone"}
    return gone, there


async def _too_many(
    db: Database,
    place: Place,
    gone: Mapping[int, str],
    there: int,
    passed_over: Collection[str] | None,
) -> tuple[str | None, set[int]]:
    """Why so many files that are gone are not believed, and those of them that were only moved.

    They are looked for elsewhere in the place before it is frozen over them, and only then.
    """
    settings = load(LibrarySettings)
    why = rules.too_many(len(gone), there, settings)
    if why is None or passed_over is None:
        return why, set()
    moved = await moving.follow(db, place, gone, passed_over)
    return rules.too_many(len(gone) - len(moved), there, settings), moved


async def _files(
    db: Database, place: Place, folder: str | None = None
) -> AsyncIterator[list[rows.Held]]:
    """The files of a place (below a folder), some at a time.

    The ledger is walked by numbers: whose file it is can be told of each, and not looked up.
    """
    after = 0
    while True:
        async with db.transaction() as session:
            last = await rows.end_of_portion(session, after, LEDGER_AT_ONCE)
            if last is None:
                return
            files = await rows.files(session, place.place_id, after, last, folder)
        yield files
        after = last


async def count_anew(session: AsyncSession, folder: str) -> None:
    """Have the files at and around a folder looked for within a minute: it was just scanned."""
    near = [
        place.place_id
        for place in await rows.all_places(session)
        if is_inside(folder, place.path) or is_inside(place.path, folder)
    ]
    await rows.count_anew(session, near)


# -- one place


async def _suspected(db: Database) -> set[int]:
    """The places of which one of some files, chosen at random, is gone."""
    async with db.transaction() as session:
        chosen = await rows.sample(session, ROWS_SAMPLED, FILES_SAMPLED)
    states = {
        place_id: await asyncio.to_thread(disk.state_of_files, paths)
        for place_id, paths in chosen.items()
    }
    return {place_id for place_id, found in states.items() if "gone" in found}


async def _look_after(
    db: Database, place: Place, suspected: bool, passed_over: Collection[str] | None
) -> dict[str, int]:
    accepted = _is_accepted(place)
    why = await _unwell(db, place)
    if why is not None and not accepted:
        await _freeze(db, place, why, counted=False)
        return {"frozen": 1}
    async with db.transaction() as session:
        is_due = await rows.is_due(session, place.place_id, _age(place))
        is_due = is_due or (suspected and place.frozen_at is None)
        if not is_due and place.frozen_at is None:
            await rows.thaw(session, place.place_id, await _device(place), counted=False)
    if not is_due:
        return {"frozen": 1} if place.frozen_at is not None else {}
    gone, back, there = await _count(db, place)
    why = await _unwell(db, place)
    moved: set[int] = set()
    if why is None:
        why, moved = await _too_many(db, place, gone, there, passed_over)
    if why is not None and not accepted:
        await _freeze(db, place, why, counted=True)
        return {"frozen": 1, "moved": len(moved)}
    gone = {photo_id: path for photo_id, path in gone.items() if photo_id not in moved}
    return {**await _settle(db, place, gone, back), "moved": len(moved)}


def _is_accepted(place: Place) -> bool:
    """Whether a person said so of this freezing; the word on an earlier one is void."""
    return place.frozen_at is not None and place.decision == "accept-missing"


def _age(place: Place) -> timedelta:
    """After what time a place's files are looked for again."""
    usual = timedelta(hours=load(LibrarySettings).presence_hours)
    return usual if place.frozen_at is None else min(usual, FROZEN_AGAIN_AFTER)


async def _settle(
    db: Database, place: Place, gone: Mapping[int, str], back: Mapping[int, str]
) -> dict[str, int]:
    """What is gone is missing, what is back is not, and the place is well."""
    missing: list[int] = []
    for portion in _portions(gone):
        async with db.transaction() as session:
            marked = await rows.mark_missing(session, portion)
            await note(session, [_is_missing(i, gone[i]) for i in marked])
        missing += marked
    found: list[int] = []
    for portion in _portions(back):
        async with db.transaction() as session:
            marked = await rows.mark_found(session, portion)
            await note(session, [Happened(photo_id, "found-again") for photo_id in marked])
        found += marked
    async with db.transaction() as session:
        await rows.thaw(session, place.place_id, await _device(place), counted=True)
    if place.frozen_at is not None:
        log.info("the place is well again", path=place.path, missing=len(missing))
    return {"missing": len(missing), "found": len(found)}


async def _count(db: Database, place: Place) -> tuple[dict[int, str], dict[int, str], int]:
    """Files that were there and are gone, and that were missing and are there, each with its path;
    and how many were there. A file of which the system does not say is not gone, nor is one that
    custody has filed elsewhere meanwhile."""
    gone: dict[int, str] = {}
    back: dict[int, str] = {}
    there = 0
    async for files in _files(db, place):
        states = await asyncio.to_thread(disk.state_of_files, [file.path for file in files])
        away: dict[int, str] = {}
        for file, state in zip(files, states, strict=True):
            there += not file.missing
            if state == "gone" and not file.missing:
                away[file.photo_id] = file.path
            elif state == "there" and file.missing:
                back[file.photo_id] = file.path
        if away:
            async with db.transaction() as session:
                still = await rows.still_at(session, away)
            gone |= {photo_id: path for photo_id, path in away.items() if photo_id in still}
    return gone, back, there


async def _unwell(db: Database, place: Place) -> str | None:
    """Why a place is not itself; its files are counted only when it looks like that."""
    seen = await asyncio.to_thread(disk.look_at, place.path)
    if rules.unwell(seen, place.device, 1) is None:
        return None
    async with db.transaction() as session:
        counts = await rows.counts(session)
    return rules.unwell(seen, place.device, counts.get(place.place_id, (0, 0))[0])


async def _device(place: Place) -> str | None:
    return (await asyncio.to_thread(disk.look_at, place.path)).device


async def _freeze(db: Database, place: Place, why: str, *, counted: bool) -> None:
    async with db.transaction() as session:
        await rows.freeze(session, place.place_id, why, counted)
    if place.frozen_at is None:
        log.error("frozen: nothing in it is marked missing", path=place.path, because=why)


# -- more than one


async def _know_more(db: Database) -> None:
    """The inbox's originals, and what is mounted below the places that are known."""
    originals = to_text(load(LibrarySettings).originals)
    async with db.transaction() as session:
        if await rows.has_files(session, originals):
            await rows.know(session, originals, "originals")
        known = [place.path for place in await rows.all_places(session) if place.kind != "mount"]
    below = {mount for path in known for mount in await asyncio.to_thread(disk.mounts_below, path)}
    for mount in sorted(below - set(known)):
        async with db.transaction() as session:
            if await rows.has_files(session, mount):
                await rows.know(session, mount, "mount")


async def _reunite(db: Database) -> int:
    """Missing files whose content lies elsewhere: the asset lies there from now on."""
    total = 0
    while True:
        async with db.transaction() as session:
            moved = await rows.reunite(session, AT_ONCE)
            await note(
                session,
                [
                    event
                    for row in moved
                    for event in (
                        _found(row.photo_id, row.before, row.path),
                        _is_missing(row.other, row.before),
                    )
                ],
            )
        total += len(moved)
        if not moved:
            return total


def _found(photo_id: int, before: str, now: str) -> Happened:
    return Happened(photo_id, "found-again", detail={"from": before, "to": now})


def _is_missing(photo_id: int, path: str) -> Happened:
    error = f"the file is gone: {path}"
    return Happened(photo_id, "missing", "failed", error=error, code="missing", permanent=True)


def _portions(paths: Mapping[int, str]) -> list[dict[int, str]]:
    each = list(paths.items())
    return [dict(each[i : i + AT_ONCE]) for i in range(0, len(each), AT_ONCE)]
