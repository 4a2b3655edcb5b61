"""Custody: a received file is filed so that it can be killed between any two steps.

A move is planned and committed; then the disk (`outside.custody`): link or copy, fsync of the file
and of the folders; then the ledger, the message for recognition and the move, RECORDED in one
transaction; only then the old name goes, RELEASED. What was begun is taken up from its row, by
whoever comes next: every step may be done again. One process at a time moves originals.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

import structlog
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.bus.publish import publish
from kaleidoscope.kernel import clock
from kaleidoscope.kernel.db import Database, is_refusal
from kaleidoscope.kernel.errors import KaleidoscopeError
from kaleidoscope.kernel.paths import is_utf8, to_bytes, to_text
from kaleidoscope.kernel.settings import load
from kaleidoscope.library.outside import custody as disk
from kaleidoscope.library.outside import places
from kaleidoscope.library.outside.custody import Identity, Order, Placed, Release, Setback
from kaleidoscope.library.outside.examine import read_content
from kaleidoscope.library.queries import attempts, hashes
from kaleidoscope.library.queries import custody as rows
from kaleidoscope.library.queries import files as ledger
from kaleidoscope.library.queries.attempts import Requested
from kaleidoscope.library.queries.custody import Laid, Move
from kaleidoscope.library.queries.hashes import Hashed
from kaleidoscope.library.rules.custody import numbered, stem_length
from kaleidoscope.library.service import kept, planning
from kaleidoscope.library.service.attempts import message, request
from kaleidoscope.library.service.claim import alone
from kaleidoscope.library.service.hashing import settle
from kaleidoscope.library.service.history import Happened, note
from kaleidoscope.library.service.receiving import Parcel
from kaleidoscope.library.service.registration import ScannedFile
from kaleidoscope.library.settings import LibrarySettings

log = structlog.get_logger(__name__)

What = Literal["filed", "sidecar", "duplicate", "set-aside", "refiled", "left"]
HOUR, DAY = 3600.0, 86_400.0  # seconds
AT_ONCE = 500  # moves taken up together
NAMES_TRIED = 100  # where names are taken between plan and move
OUTCOMES: dict[str, What] = {
    "file": "filed",
    "sidecar": "sidecar",
    "duplicate": "duplicate",
    "set-aside": "set-aside",
    "refile": "refiled",
}
UNRECORDED = {
    "file": "its asset is not what it was: it is looked at again",
    "refile": "its asset is not what it was: it is looked at again",
    "duplicate": "its first copy was not filed: it is looked at again",
    "sidecar": "its photo was not filed: it waits for it",
}


@dataclass(frozen=True)
class Outcome:
    """What became of a file. `kind` and `cause`: why it is `left`, or was set aside.

    With `target` and a cause it lies there safely, and its old name could not be removed.
    """

    path: str
    what: What
    target: str | None = None
    photo_id: int | None = None
    kind: str | None = None
    cause: str | None = None


async def take_in(db: Database, parcels: Sequence[Parcel], inbox: str) -> list[Outcome]:
    """File received files, read by `receiving.read`; what became of each.

    One whose source has an open move already stays for `resume`.
    """
    async with alone(db):
        plans, left = await planning.plan(db, parcels, inbox)
        stays = [Outcome(one.path, "left", kind=one.kind, cause=one.cause) for one in left]
        async with db.transaction() as session:
            begun = await rows.open_sources(session, [plan.source for plan in plans])
            fresh = [plan for plan in plans if plan.source not in begun]
            moves = await rows.add(session, fresh) if fresh else []
        return stays + await _advance(db, moves)


async def resume(db: Database) -> list[Outcome]:
    """Take up every move that is not at its end, the oldest first."""
    done: list[Outcome] = []
    after = 0
    async with alone(db):
        while True:
            async with db.transaction() as session:
                moves = await rows.open_moves(session, AT_ONCE, after)
            if not moves:
                return done
            after = moves[-1].move_id
            done += await _take_up(db, moves)


async def _take_up(db: Database, moves: Sequence[Move]) -> list[Outcome]:
    """Bring moves on; what nobody foresaw costs the one move that it was met with."""
    try:
        return await _advance(db, await _laid_again(db, moves))
    except Exception as error:
        if isinstance(error, SQLAlchemyError | KaleidoscopeError) and not is_refusal(error):
            raise
        log.exception("moves cannot be taken up", moves=len(moves))
        if len(moves) == 1:
            return [_left(moves[0], Setback("unreadable", f"unexpected: {error!r}"))]
    return [outcome for move in moves for outcome in await _take_up(db, [move])]


async def refile(db: Database, photo_ids: Sequence[int]) -> list[Outcome]:
    """Move filed originals to the folders of their dates, with what travels with them.

    By the same steps as any other move. Those that lie in the right folder are left out, and so
    are assets that were indexed in place.
    """
    async with alone(db):
        plans, left = await planning.plan_again(db, photo_ids)
        stays = [Outcome(one.path, "left", kind=one.kind, cause=one.cause) for one in left]
        async with db.transaction() as session:
            begun = await rows.open_sources(session, [plan.source for plan in plans])
            fresh = [plan for plan in plans if plan.source not in begun]
            moves = await rows.add(session, fresh) if fresh else []
        outcomes = stays + await _advance(db, moves)
    await asyncio.to_thread(_tidy, [m.source for m in moves])
    return outcomes


def _tidy(sources: Sequence[str]) -> None:
    """Remove the folders of originals that moving has emptied."""
    root = os.fsencode(load(LibrarySettings).originals)
    for folder in {to_bytes(source).rpartition(b"/")[0] for source in sources}:
        while folder.startswith(root + b"/") and disk.remove_empty(folder):
            folder = os.path.dirname(folder)


async def prepare(db: Database) -> str | None:
    """Make the folder of the originals; why nothing may be filed now, where that is so.

    A disk that is not mounted looks like an empty folder, and must not be filled in its place.
    """
    root = to_text(load(LibrarySettings).originals)
    try:
        if not await asyncio.to_thread(disk.is_empty, root):
            return None
        async with db.transaction() as session:
            if await rows.has_filed_below(session, root):
                return f"the originals at {root} are gone: is their disk mounted?"
        await asyncio.to_thread(disk.make_root, root)
    except OSError as error:
        return f"{root}: {error.strerror or error}"
    return None


def folders() -> list[Path]:
    """Where received files are put: originals, duplicates, and what was set aside."""
    settings = load(LibrarySettings)
    return [settings.originals, settings.duplicates_folder, settings.set_aside_folder]


def circle(inbox: bytes) -> Path | None:
    """The folder of these that an inbox is, holds, or lies in, by whatever path; None: none."""
    return next((f for f in folders() if places.overlap(inbox, os.fsencode(f))), None)


@dataclass
class Taken:
    """What became of the files of an inbox in the last day, and how many were filed in the last
    hour."""

    filed: int = 0
    sidecars: int = 0
    duplicates: int = 0
    set_aside: int = 0
    filed_last_hour: int = 0


async def taken_lately(session: AsyncSession) -> dict[str, Taken]:
    """The same by inbox; one that nothing came from is left out."""
    names = {"file": "filed", "sidecar": "sidecars", "duplicate": "duplicates"}
    found: dict[str, Taken] = {}
    for row in await rows.counts_since(session, DAY, HOUR):
        taken = found.setdefault(row.inbox, Taken())
        setattr(taken, names.get(row.kind, "set_aside"), row.number)
        if row.kind == "file":
            taken.filed_last_hour = row.lately
    return found


@dataclass(frozen=True)
class Doubled:
    """A received file whose content the ledger had: at `of`. `path`: where it lies; None: it was
    removed."""

    source: str
    path: str | None
    of: str | None
    since: datetime


async def doubled_lately(session: AsyncSession, inbox: str, limit: int) -> list[Doubled]:
    """What of an inbox were duplicates in the last day, the latest first."""
    return [Doubled(**row._mapping) for row in await rows.doubled(session, inbox, DAY, limit)]


@dataclass(frozen=True)
class SetAside:
    """A received file that is none for the ledger."""

    source: str
    path: str
    cause: str
    since: datetime


async def set_aside(session: AsyncSession, inbox: str, limit: int) -> list[SetAside]:
    """What of an inbox was set aside, the latest first."""
    return [SetAside(**row._mapping) for row in await rows.set_aside(session, inbox, limit)]


async def begun(db: Database, paths: Sequence[str]) -> set[str]:
    """Those of these paths that an open move has as its source."""
    async with db.transaction() as session:
        return await rows.open_sources(session, paths)


async def lay_at(session: AsyncSession, paths: Mapping[int, str]) -> set[int]:
    """Those of these photos whose file lay at the given path before it lay where it lies now."""
    return await rows.lay_at(session, paths)


# -- from plan to release


async def _advance(db: Database, moves: Sequence[Move]) -> list[Outcome]:
    """Bring moves to their end, or to where they cannot go on."""
    planned = [m for m in moves if m.state == "PLANNED"]
    placed, setbacks = await _place(db, planned)
    recorded, refused = await _record(db, placed)
    failed = setbacks | refused
    await _abandon(db, failed, [(m, None) for m in planned if m.move_id in setbacks] + placed)
    outcomes = [_left(m, failed[m.move_id]) for m in planned if m.move_id in failed]
    releasing = [m for m in moves if m.state == "RECORDED"] + recorded
    return outcomes + await _release(db, releasing)


async def _place(
    db: Database, moves: Sequence[Move]
) -> tuple[list[tuple[Move, Identity | None]], dict[int, Setback]]:
    """Lay files down; where a name was taken since the plan, under another one."""
    done: list[tuple[Move, Identity | None]] = [(m, None) for m in moves if m.target is None]
    setbacks: dict[int, Setback] = {}
    waiting = [m for m in moves if m.target is not None]
    for _ in range(NAMES_TRIED):
        if not waiting:
            break
        answers = await asyncio.to_thread(_lay_down, waiting)
        taken = []
        for move, answer in zip(waiting, answers, strict=True):
            if isinstance(answer, Placed):
                done.append((move, answer.identity))
            elif answer.kind == "taken":
                taken.append(move)
                setbacks[move.move_id] = answer
            else:
                setbacks[move.move_id] = answer
        waiting = await _renamed(db, taken)
        for move in waiting:
            setbacks.pop(move.move_id)
    return done, setbacks


def _lay_down(moves: Sequence[Move]) -> list[Placed | Setback]:
    answers: dict[int, Placed | Setback] = {}
    for root, mine in _by_root(moves).items():
        fitting = []
        there = disk.device(root)
        for move in mine:
            if full := _full(move, there):
                answers[move.move_id] = full
            else:
                fitting.append(_order(move))
        for order, answer in zip(fitting, disk.place(fitting, root), strict=True):
            answers[order.move_id] = answer
    return [answers[m.move_id] for m in moves]


def _full(move: Move, device: int | None) -> Setback | None:
    """Whether there is no room for a copy: said before half of it is written."""
    assert move.target is not None
    if move.how == "link" and Identity.parse(move.identity).device == device:
        return None
    free = disk.room(move.target)
    if free is None or free > move.size:
        return None
    return Setback("target", f"{move.target}: {os.strerror(errno.ENOSPC)}")


def _by_root(moves: Sequence[Move]) -> Mapping[str, list[Move]]:
    """Moves by the tree they go to: up to its root folders are made safe."""
    roots = [to_text(root) for root in folders()]
    found: dict[str, list[Move]] = {}
    for move in moves:
        assert move.target is not None
        root = next((r for r in roots if move.target.startswith(r + "/")), None)
        found.setdefault(root or move.target.rpartition("/")[0], []).append(move)
    return found


def _order(move: Move) -> Order:
    assert move.target is not None
    return Order(
        move.move_id,
        move.source,
        Identity.parse(move.identity),
        move.file_hash,
        move.target,
        copy=move.how == "copy",
    )


async def _renamed(db: Database, moves: Sequence[Move]) -> list[Move]:
    """The moves with other targets, which nobody has."""
    found = []
    for move in moves:
        assert move.target is not None
        folder = to_bytes(move.target).rpartition(b"/")[0]
        name = to_bytes(move.source).rpartition(b"/")[2]
        target = await _free_target(db, folder, name)
        if target is None:
            continue
        async with db.transaction() as session:
            await rows.retarget(session, {move.move_id: target})
        found.append(replace(move, target=target))
    return found


async def _free_target(db: Database, folder: bytes, name: bytes) -> str | None:
    for number in range(1, 10_000):
        target = to_text(folder + b"/" + numbered(name, stem_length(name), number))
        if disk.is_free(target):
            async with db.transaction() as session:
                if not await rows.taken(session, [target]):
                    return target
    return None


async def _abandon(
    db: Database,
    setbacks: Mapping[int, Setback],
    moves: Sequence[tuple[Move, Identity | None]],
) -> None:
    """Give moves up, and take back what they have left half done."""
    if not setbacks:
        return
    async with db.transaction() as session:
        # Held meanwhile: had this process lost its claim, another one might record and release.
        planned = await rows.hold_planned(session, list(setbacks))
        given_up = [(m, placed) for m, placed in moves if m.move_id in planned]
        causes = {m.move_id: setbacks[m.move_id].cause for m, _ in given_up}
        await asyncio.to_thread(_take_back, given_up)
        await rows.set_abandoned(session, causes)
    for move, _ in given_up:
        log.warning("a file stays where it is", path=move.source, cause=causes[move.move_id])


def _take_back(moves: Sequence[tuple[Move, Identity | None]]) -> None:
    for move, placed in moves:
        if move.target is not None:
            disk.discard(move.move_id, move.target)
            disk.take_back(_order(move), placed)


def _left(move: Move, setback: Setback) -> Outcome:
    return Outcome(move.source, "left", kind=setback.kind, cause=setback.cause)


# -- recording


async def _record(
    db: Database, placed: Sequence[tuple[Move, Identity | None]]
) -> tuple[list[Move], dict[int, Setback]]:
    """The ledger's rows, the messages and the moves, in one transaction.

    Where the database refuses what a file tells, each is recorded by itself, and that one bare.
    """
    if not placed:
        return [], {}
    try:
        async with db.transaction() as session:
            return await _write(session, placed)
    except DBAPIError as error:
        if not is_refusal(error):
            raise
        if len(placed) == 1:
            return await _record_bare(db, placed[0], error)
    recorded: list[Move] = []
    refused: dict[int, Setback] = {}
    for one in placed:
        done, setbacks = await _record(db, [one])
        recorded += done
        refused |= setbacks
    return recorded, refused


async def _record_bare(
    db: Database, one: tuple[Move, Identity | None], error: Exception
) -> tuple[list[Move], dict[int, Setback]]:
    move, _ = one
    log.warning("the ledger refuses a file's facts", path=move.source, error=str(error))
    try:
        async with db.transaction() as session:
            await rows.forget_facts(session, move.move_id, planning.bare_facts(move.facts or {}))
            return await _write(session, [one])
    except DBAPIError as again:
        if not is_refusal(again):
            raise
        cause = f"the ledger refuses it: {str(again.orig).splitlines()[0]}"
        return [], {move.move_id: Setback("refused", cause)}


async def _write(
    session: AsyncSession, placed: Sequence[tuple[Move, Identity | None]]
) -> tuple[list[Move], dict[int, Setback]]:
    await hashes.lock(session)
    moves = {move.move_id: move for move, _ in placed}
    laid = {move.move_id: _laid(move, identity) for move, identity in placed}
    photos: dict[int, int] = {}
    photos |= await _write_new(session, moves, laid)
    photos |= await _write_moved(session, moves, laid)
    photos |= await _resolve(session, moves, photos)
    # A duplicate whose first copy did not arrive is none; a sidecar waits for its photo.
    refused = {
        number: Setback("changed", UNRECORDED[move.kind])
        for number, move in moves.items()
        if number not in photos and move.kind in UNRECORDED and not _is_late_sidecar(move)
    }
    done = [replace(laid[n], photo_id=photos.get(n)) for n in moves if n not in refused]
    await rows.set_recorded(session, done)
    await kept.keep_laid(session, [(moves[one.move_id], one) for one in done])
    recorded = [
        replace(
            moves[one.move_id],
            state="RECORDED",
            target_identity=one.identity,
            photo_id=one.photo_id or moves[one.move_id].photo_id,
        )
        for one in done
    ]
    return recorded, refused


def _is_late_sidecar(move: Move) -> bool:
    """Whether a sidecar's photo was in the ledger before the sidecar came."""
    return move.kind == "sidecar" and move.photo_id is not None


def _laid(move: Move, identity: Identity | None) -> Laid:
    name = (move.target or move.source).rpartition("/")[2]
    exact = None
    if move.target is not None and not is_utf8(move.target):
        exact = to_bytes(move.target)
    return Laid(move.move_id, name, exact, str(identity) if identity else None)


async def _write_new(
    session: AsyncSession, moves: Mapping[int, Move], laid: Mapping[int, Laid]
) -> dict[int, int]:
    """Rows for what the ledger has not, each with its message."""
    new = {n: m for n, m in moves.items() if m.kind == "file" and m.photo_id is None}
    if not new:
        return {}
    known = await hashes.firsts(session, {m.file_hash for m in new.values()})
    firsts = {n: known[m.file_hash] for n, m in new.items() if m.file_hash in known}
    found = await rows.insert_assets(session, [laid[n] for n in new], firsts)
    by_path = {m.target: n for n, m in new.items()}
    photos = {by_path[row.path]: row.photo_id for row in found}
    await rows.insert_candidates(session, photos)
    late = [
        Hashed(photos[n], m.size, planning.time_of(m.facts or {}), m.file_hash)
        for n, m in new.items()
        if n in firsts and n in photos
    ]
    copies = await settle(session, late)
    wanted = [
        Requested(row.photo_id, row.path, row.media_type, row.attempt_id)
        for row in found
        if row.photo_id not in copies
    ]
    await publish(session, *[message(one, clock.now()) for one in wanted])
    return photos


async def _write_moved(
    session: AsyncSession, moves: Mapping[int, Move], laid: Mapping[int, Laid]
) -> dict[int, int]:
    """Assets that lie elsewhere now: filed again, or found after they had gone missing."""
    moved = {
        n: m.photo_id
        for n, m in moves.items()
        if m.photo_id is not None and m.kind in ("file", "refile")
    }
    if not moved:
        return {}
    done = await rows.relocate(session, [laid[n] for n in moved])
    again = [n for n in done if moves[n].kind == "file"]
    await note(
        session,
        [Happened(moved[n], "found-again", detail={"to": moves[n].target}) for n in again],
    )
    if again:  # what looked for it at its old place has failed, or will
        unended = await attempts.unended(session, [moved[n] for n in again])
        await request(session, unended, anew=True)
    return {n: photo_id for n, photo_id in moved.items() if n in done}


async def _resolve(
    session: AsyncSession, moves: Mapping[int, Move], photos: Mapping[int, int]
) -> dict[int, int]:
    """The first copies of duplicates, and the photos of sidecars."""
    doubled = {n: m for n, m in moves.items() if m.kind == "duplicate"}
    found: dict[int, int] = {}
    if doubled:
        firsts = await rows.firsts(session, {m.file_hash for m in doubled.values()})
        found = {
            n: firsts[m.file_hash].photo_id for n, m in doubled.items() if m.file_hash in firsts
        }
    owners = {
        n: (m.facts or {}).get("of")
        for n, m in moves.items()
        if m.kind == "sidecar" and m.photo_id is None
    }
    if not owners:
        return found
    by_source = {moves[n].source: p for n, p in [*photos.items(), *found.items()]}
    missing = {o for o in owners.values() if o is not None and o not in by_source}
    if missing:  # filed before the process was killed
        filed = await rows.filed_from(session, missing)
        together = {m.group for n, m in moves.items() if n in owners}
        by_source |= {s: row.photo_id for s, row in filed.items() if row.together in together}
    return found | {n: by_source[o] for n, o in owners.items() if o in by_source}


# -- releasing


async def _release(db: Database, moves: Sequence[Move]) -> list[Outcome]:
    """Remove the old names of what is recorded, each looked at again as it goes."""
    if not moves:
        return []
    firsts = await _first_copies(db, [m for m in moves if m.target is None])
    orders = [_release_order(m, firsts) for m in moves]
    answers = await asyncio.to_thread(disk.release, orders)
    outcomes, released, kept, unproven = [], [], {}, {}
    for move, answer in zip(moves, answers, strict=True):
        if answer is not None and answer.kind == "refused":
            unproven[move.move_id] = answer.cause
            outcomes.append(_left(move, answer))
        elif answer is None or (answer.kind == "changed" and _is_another(move)):
            released.append(move.move_id)
            outcomes.append(_done(move, None))
        else:
            kept[move.move_id] = answer.cause
            outcomes.append(_done(move, answer))
    async with db.transaction() as session:
        if released:
            await rows.set_released(session, released)
        if kept:
            await rows.note_unreleased(session, kept)
        if unproven:  # a duplicate of nothing: it is looked at again, and perhaps filed
            await rows.set_abandoned(session, unproven)
    return outcomes


async def _first_copies(db: Database, moves: Sequence[Move]) -> dict[str, str]:
    if not moves:
        return {}
    async with db.transaction() as session:
        found = await rows.firsts(session, {m.file_hash for m in moves})
    return {file_hash: first.path for file_hash, first in found.items()}


def _release_order(move: Move, firsts: Mapping[str, str]) -> Release:
    return Release(
        move.move_id,
        move.source,
        Identity.parse(move.identity),
        move.file_hash,
        move.target,
        Identity.parse(move.target_identity) if move.target_identity else None,
        firsts.get(move.file_hash),
    )


def _is_another(move: Move) -> bool:
    """Whether what has the source's name now is not what was filed: another's business."""
    if move.target is None:
        return True
    there, kept = disk.look(move.source), disk.look(move.target)
    return there is None or (kept is not None and not there.is_same_file(kept))


def _done(move: Move, setback: Setback | None) -> Outcome:
    return Outcome(
        move.source,
        OUTCOMES[move.kind],
        target=move.target,
        photo_id=move.photo_id,
        kind=setback.kind if setback else None,
        cause=setback.cause if setback else move.cause,
    )


# -- what did not stay as it was


async def _laid_again(db: Database, moves: Sequence[Move]) -> list[Move]:
    """Before moves are taken up: recorded ones whose file is gone or was written to since."""
    return [await _mended(db, m) if m.state == "RECORDED" and m.target else m for m in moves]


async def _mended(db: Database, move: Move) -> Move:
    assert move.target is not None
    there, kept = disk.look(move.source), disk.look(move.target)
    if there is None:
        return move
    if kept is None and there == Identity.parse(move.identity):
        (answer,) = await asyncio.to_thread(_lay_down, [move])
        if isinstance(answer, Placed):
            return replace(move, target_identity=str(answer.identity))
    elif kept is not None and kept.is_same_file(there) and str(there) != move.identity:
        return await _amended(db, move, there)
    return move


async def _amended(db: Database, move: Move, now: Identity) -> Move:
    """Somebody has gone on writing through the old name of a filed original.

    Its row tells of what it has become, as soon as nobody writes any more.
    """
    content = await asyncio.to_thread(read_content, move.source, now)
    if "trouble" in content:
        return move
    async with db.transaction() as session:
        is_new = content["file_hash"] != move.file_hash  # else only the device has another number
        if is_new and move.kind in ("file", "refile") and move.photo_id is not None:
            await _write_amended(session, move, now, content)
        await rows.amend(session, move.move_id, str(now), now.size, content["file_hash"])
        amended = replace(
            move,
            identity=str(now),
            target_identity=str(now),
            size=now.size,
            file_hash=content["file_hash"],
        )
        await kept.keep_laid(session, [(amended, _laid(amended, now))])
    return amended


async def _write_amended(
    session: AsyncSession, move: Move, now: Identity, content: Mapping[str, object]
) -> None:
    assert move.photo_id is not None and move.target is not None
    await hashes.lock(session)
    (known,) = await ledger.hold(session, [move.photo_id])
    when = planning.time_of(content)
    file = ScannedFile(
        path=move.target,
        size=now.size,
        modified_at=when,
        sample_hash=str(content["sample_hash"]),
        media_type="video" if known.media_type == "video" else "photo",
        mime_type=None,
    )
    await ledger.replace(session, {move.photo_id: file})
    await settle(session, [Hashed(move.photo_id, now.size, when, str(content["file_hash"]))])
    requested = await attempts.request(session, [move.photo_id], anew=True)
    await publish(session, *[message(one, clock.now()) for one in requested])
