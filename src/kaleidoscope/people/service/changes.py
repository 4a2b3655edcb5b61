"""Merging, splitting, naming, confirming, rejecting, and taking it all back."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.errors import Conflict, Invalid, NotFound
from kaleidoscope.library import service as library
from kaleidoscope.people.queries import faces as face_rows
from kaleidoscope.people.queries import ledger, locks, persons, review
from kaleidoscope.people.rules import changes
from kaleidoscope.people.rules.changes import MACHINE, PERSON, Change, State


@dataclass(frozen=True)
class Event:
    """A change of identity as the ledger tells it. `person_id` remains or began with it; `round`:
    the consolidation that it was part of, by the number of its first event.
    """

    event_id: int
    kind: str
    made_by: str
    created_at: datetime | None
    person_ids: list[int]
    faces_moved: int
    person_id: int | None = None
    undoes: int | None = None
    undone_by: int | None = None
    round: int | None = None


async def merge(session: AsyncSession, kept: int, gone: Collection[int]) -> Event:
    """The persons `gone` are the person `kept`: their faces become its, their ids resolve to it.

    Ids that were merged before stand for who they resolve to. Raises `NotFound`, and `Invalid`
    when that leaves nobody to merge.
    """
    await locks.lock_identity(session, alone=True)
    living = await _living(session, [kept, *gone])
    kept, others = living[kept], {living[p] for p in gone} - {living[kept]}
    if not others:
        raise Invalid(f"person {kept} is merged with itself")
    before = await ledger.load_state(session, [kept, *others])
    after = changes.merge(before, kept, sorted(others))
    return await record(session, "merge", PERSON, before, after, person_id=kept)


async def split(
    session: AsyncSession, person: int, face_ids: Collection[int], name: str | None = None
) -> Event:
    """These faces of a person are somebody else, who gets an id of their own."""
    await locks.lock_identity(session, alone=True)
    person = (await _living(session, [person]))[person]
    # Checked against the state first, so that a refused split founds nobody.
    changes.split(await ledger.load_state(session, [person]), person, face_ids, founded=0)
    founded = (await persons.found_persons(session, [None], [person]))[0]
    before = await ledger.load_state(session, [person])
    after = changes.split(before, person, face_ids, founded)
    after = changes.rename(after, founded, name)
    return await record(session, "split", PERSON, before, after, person_id=founded)


async def rename(session: AsyncSession, person: int, name: str | None) -> Event:
    """Call a person so; None or blanks take the name away."""
    await locks.lock_identity(session, alone=True)
    person = (await _living(session, [person]))[person]
    before = await ledger.load_persons(session, [person])
    after = changes.rename(before, person, name)
    return await record(session, "rename", PERSON, before, after, person_id=person)


async def confirm(session: AsyncSession, face: int, person: int | None = None) -> Event:
    """The face is this person (without one: the person it has); the machine leaves it there."""
    await locks.lock_identity(session, alone=True)
    before, person = await _face_and_person(session, face, person)
    after = changes.confirm(before, face, person)
    return await record(session, "confirm", PERSON, before, after, person_id=person)


async def reject(session: AsyncSession, face: int, person: int | None = None) -> Event:
    """The face is not this person (without one: not the person it has), now and later."""
    await locks.lock_identity(session, alone=True)
    before, person = await _face_and_person(session, face, person)
    after = changes.reject(before, face, person)
    return await record(session, "reject", PERSON, before, after, person_id=person)


async def undo(session: AsyncSession, event_id: int | None = None) -> Event:
    """Take a change back, exactly: without an id the last one that a person made.

    Raises `NotFound`, or `Conflict` for a change that is undone already or that a later one,
    named in the error, builds upon.
    """
    await locks.lock_identity(session, alone=True)
    row = await (
        ledger.last_event(session) if event_id is None else ledger.event(session, event_id)
    )
    if row is None:
        wanted = "nothing is left to undo" if event_id is None else f"there is no event {event_id}"
        raise NotFound(wanted, hint="`kaleidoscope people history` has all")
    if row.undoes is not None or row.undone_by is not None:
        raise Conflict(f"event {row.id} is " + ("an undoing" if row.undoes else "undone already"))
    change = _change(row)
    concerned = await _concerned(session, row, change)
    now = await ledger.load_state(session, concerned, change.faces)
    later = await ledger.later_events(session, row)
    changes.check_undoable(row.id, now, change, {e.id: _change(e) for e in later})
    after = changes.undo(now, change)
    if row.made_by == MACHINE:
        after = _not_again(after, change)
    await review.reopen(session, row.id)
    return await record(session, "undo", PERSON, now, after, undoes=row.id)


async def undo_round(session: AsyncSession, number: int) -> list[Event]:
    """Take back all that a consolidation did and nobody has taken back, the last event first.

    The number is the one that the round's events tell, or any of these events. Raises as `undo`.
    """
    await locks.lock_identity(session, alone=True)
    event_ids = await ledger.events_of_round(session, number)
    if not event_ids:
        raise NotFound(
            f"no consolidation {number} is in force",
            hint="`kaleidoscope people history` has all",
            round=number,
        )
    return [await undo(session, event_id) for event_id in event_ids]


def _not_again(after: State, change: Change) -> State:
    """What a person takes back of the machine's doings is a no: it must not do it again."""
    for face, was in change.before.faces.items():
        given = change.after.faces[face].person_id
        if given is not None and face in after.faces and after.faces[face] == was:
            after = changes.refuse(after, [face], given)
    return after


async def record(
    session: AsyncSession,
    kind: str,
    made_by: str,
    before: State,
    after: State,
    *,
    person_id: int | None = None,
    undoes: int | None = None,
) -> Event:
    """Write what differs between two states, all that follows from it, and the ledger's entry.

    To be called with the identity lock held alone.
    """
    change = changes.difference(before, after)
    told = await _write(session, [change])
    [event] = await _enter(
        session, kind, made_by, [change], told, person_id=person_id, undoes=undoes
    )
    return event


async def record_round(
    session: AsyncSession, moves: Sequence[Change], number: int | None
) -> list[Event]:
    """Write what the machine changes in a round of consolidation: changes that have nothing in
    common, each an event of its own, in the round of this number (None: it begins with them).

    To be called with the identity lock held alone.
    """
    told = await _write(session, moves)
    return await _enter(session, "consolidate", MACHINE, moves, told, number=number, in_round=True)


async def _write(session: AsyncSession, moves: Sequence[Change]) -> list[list[int]]:
    """Write changes and all that follows from them; of each the faces that went to another."""
    change = changes.united(moves)
    await ledger.write_difference(session, change)
    moved = [_moved(m) for m in moves]
    states = (change.before.faces, change.after.faces)
    changed = {faces[f].person_id for faces in states for some in moved for f in some}
    await persons.recount_persons(session, {p for p in changed if p is not None})
    photos = await face_rows.photos_of_faces(session, [f for some in moved for f in some])
    if photos:
        await library.set_person_ids(session, await face_rows.write_photo_persons(session, photos))
    return moved


async def _enter(
    session: AsyncSession,
    kind: str,
    made_by: str,
    moves: Sequence[Change],
    moved: Sequence[Sequence[int]],
    *,
    person_id: int | None = None,
    undoes: int | None = None,
    number: int | None = None,
    in_round: bool = False,
) -> list[Event]:
    """Enter changes into the ledger."""
    extra = set() if person_id is None else {person_id}
    entries = [
        ledger.Entry(
            _mentioned(change) | extra,
            change.faces,
            changes.to_json(change.before),
            changes.to_json(change.after),
        )
        for change in moves
    ]
    ids = await ledger.add_events(
        session, kind, made_by, entries, undoes, number, in_round=in_round
    )
    if in_round and number is None and ids:
        number = ids[0]
    return [
        Event(
            event_id,
            kind,
            made_by,
            None,
            sorted(entry.person_ids),
            len(faces),
            person_id,
            undoes,
            round=number,
        )
        for event_id, entry, faces in zip(ids, entries, moved, strict=True)
    ]


async def history(
    session: AsyncSession, person: int | None = None, before: int | None = None, limit: int = 50
) -> list[Event]:
    """The latest changes, of one person or of all, newest first."""
    return [_event(row) for row in await ledger.events(session, person, before, limit)]


async def resolve(session: AsyncSession, person: int) -> int:
    """The living person an id stands for; raises `NotFound`."""
    return (await _living(session, [person]))[person]


def _event(row: Row[Any]) -> Event:
    return Event(
        row.id,
        row.kind,
        row.made_by,
        row.created_at,
        row.person_ids,
        len(_moved(_change(row))),
        undoes=row.undoes,
        undone_by=row.undone_by,
        round=row.round,
    )


def _change(row: Row[Any]) -> Change:
    return Change(changes.from_json(row.before), changes.from_json(row.after))


def _moved(change: Change) -> list[int]:
    """The faces that went from one person to another."""
    was, now = change.before.faces, change.after.faces
    return [f for f in now if now[f].person_id != was[f].person_id]


async def _living(session: AsyncSession, person_ids: Sequence[int]) -> dict[int, int]:
    living = await persons.resolve(session, person_ids)
    for person_id in person_ids:
        if person_id not in living:
            raise NotFound(
                f"there is no person {person_id}",
                hint="`kaleidoscope people list` has all",
                person_id=person_id,
            )
    return living


async def _face_and_person(
    session: AsyncSession, face: int, person: int | None
) -> tuple[State, int]:
    """The face as it is, and the person meant: the one named, or the one it has."""
    state = await ledger.load_faces(session, [face])
    if face not in state.faces:
        raise NotFound(
            f"there is no face {face}",
            hint="`kaleidoscope people show PERSON` lists a person's faces",
            face_id=face,
        )
    if person is None:
        person = state.faces[face].person_id
        if person is None:
            raise Invalid(f"face {face} has no person; say which one is meant", face_id=face)
    return state, (await _living(session, [person]))[person]


async def _concerned(session: AsyncSession, row: Row[Any], change: Change) -> set[int]:
    """The persons that undoing may touch: those of the change, and whom they resolve to now."""
    named = set(row.person_ids) | _mentioned(change)
    return named | set((await persons.resolve(session, named)).values())


def _mentioned(change: Change) -> set[int]:
    """Every person that a change speaks of."""
    found: set[int] = set()
    for state in (change.before, change.after):
        found |= state.persons.keys() | {p for _, p in state.noes}
        found |= {s.merged_into for s in state.persons.values() if s.merged_into is not None}
        found |= {s.person_id for s in state.faces.values() if s.person_id is not None}
    return found
