"""What a change of identity does: from the state before to the state after.

A verb here takes the state of all it may touch and answers the state it leaves. The service writes
the difference and keeps both sides in the ledger, so that undoing is the same change backwards.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kaleidoscope.kernel.errors import Conflict, Invalid

MACHINE, PERSON = "machine", "person"
LONGEST_NAME = 255


@dataclass(frozen=True)
class FaceState:
    """Whose a face is and who said so."""

    person_id: int | None
    confirmed_by: str = MACHINE
    similarity: float | None = None


@dataclass(frozen=True)
class PersonState:
    """A person's name, and whether the id now resolves to another."""

    name: str | None = None
    merged_into: int | None = None


@dataclass(frozen=True)
class State:
    """Some faces and persons by id, and the remembered noes (face, person) among them."""

    faces: Mapping[int, FaceState]
    persons: Mapping[int, PersonState]
    noes: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True)
class Change:
    """Both sides of a change, reduced to what differs."""

    before: State
    after: State

    @property
    def faces(self) -> set[int]:
        """Every face that it moved or that a no of it is about."""
        return {*self.after.faces, *(f for f, _ in self.before.noes | self.after.noes)}

    @property
    def touched(self) -> set[object]:
        """Every face, person and no that it changed."""
        noes = self.before.noes | self.after.noes
        faces = {("face", f) for f in self.after.faces}
        return {*faces, *(("person", p) for p in self.after.persons), *noes}


def merge(before: State, kept: int, gone: Collection[int]) -> State:
    """`gone` are the same person as `kept`: their ids resolve to it, their faces become its own.

    `kept` stays named as it is, or takes the first name among `gone`. Noes between them are
    withdrawn: who merges two persons says that those were wrong.
    """
    group = {kept, *gone}
    names = [before.persons[p].name for p in (kept, *sorted(gone))]
    persons = dict(before.persons)
    persons[kept] = PersonState(name=next((n for n in names if n), None))
    for p in gone:
        persons[p] = replace(persons[p], merged_into=kept)
    withdrawn = {
        (f, p) for f, p in before.noes if p in group and before.faces[f].person_id in group
    }
    return _settled(State(before.faces, persons, before.noes - withdrawn))


def split(before: State, person: int, faces: Collection[int], founded: int) -> State:
    """Some faces of a person are another one, `founded`; that they are not `person` is remembered.

    Before the split, the id `founded` stood for `person`: so undoing it leaves no dangling id.
    """
    theirs = {f for f, s in before.faces.items() if s.person_id == person}
    strange = set(faces) - theirs
    if strange:
        raise Invalid(f"faces {sorted(strange)} are not faces of person {person}")
    if not faces or theirs <= set(faces):
        raise Invalid(f"a split takes some faces of person {person}, not none and not all")
    return State(
        {
            **before.faces,
            **{f: replace(before.faces[f], person_id=founded, similarity=None) for f in faces},
        },
        {**before.persons, founded: PersonState()},
        before.noes | {(f, person) for f in faces},
    )


def rename(before: State, person: int, name: str | None) -> State:
    """The person is called so; None or blanks take the name away."""
    name = (name or "").strip() or None
    if name is not None and len(name) > LONGEST_NAME:
        raise Invalid(f"a name has at most {LONGEST_NAME} characters, this one {len(name)}")
    return replace(
        before, persons={**before.persons, person: replace(before.persons[person], name=name)}
    )


def confirm(before: State, face: int, person: int) -> State:
    """A person said that the face is this person: from now on the machine leaves it there."""
    was = before.faces[face]
    similarity = was.similarity if was.person_id == person else None
    state = FaceState(person, PERSON, similarity)
    return replace(before, faces={**before.faces, face: state}, noes=before.noes - {(face, person)})


def reject(before: State, face: int, person: int) -> State:
    """A person said that the face is not this person: the no is remembered, the face is open."""
    faces = dict(before.faces)
    if faces[face].person_id == person:
        faces[face] = FaceState(None)
    return replace(before, faces=faces, noes=before.noes | {(face, person)})


def assign(before: State, faces: Mapping[int, tuple[int, float | None]]) -> State:
    """The machine gives open faces to persons (face: person and similarity)."""
    given = {f: FaceState(p, MACHINE, similarity) for f, (p, similarity) in faces.items()}
    return replace(before, faces={**before.faces, **given})


def regroup(
    before: State,
    faces: Mapping[int, tuple[int | None, float | None]],
    merged: Mapping[int, int],
    founded: Collection[int] = (),
) -> State:
    """The machine gives faces to persons (None: to nobody), with their similarity; of the persons
    `merged` nothing is left: their ids, and whatever faces they still have, are somebody else's.

    Before it, the ids `founded` stood for those whose faces they take, or for nobody.
    """
    after = assign(before, {f: (p, s) for f, (p, s) in faces.items() if p is not None})
    opened = {f: FaceState(None) for f, (p, _) in faces.items() if p is None}
    persons = dict(before.persons)
    for gone, kept in merged.items():
        persons[gone] = replace(persons[gone], merged_into=kept)
    persons |= {p: PersonState() for p in founded}
    return _settled(State({**after.faces, **opened}, persons, before.noes))


def undo(now: State, change: Change) -> State:
    """The state `now` with a change taken back.

    A face that has gone elsewhere since stays there. `now` holds every face of the persons in it.
    """
    before, after = change.before, change.after
    faces = dict(now.faces)
    for f, was in before.faces.items():
        if f in faces and faces[f].person_id == after.faces[f].person_id:
            faces[f] = was
    withdrawn = {(f, p) for f, p in before.noes - after.noes if f in faces}
    noes = (now.noes - (after.noes - before.noes)) | withdrawn
    return _settled(State(faces, {**now.persons, **before.persons}, noes))


def difference(before: State, after: State) -> Change:
    """What differs between two states."""
    faces = [f for f, s in after.faces.items() if before.faces.get(f) != s]
    persons = [p for p, s in after.persons.items() if before.persons.get(p) != s]
    return Change(
        State(
            {f: before.faces[f] for f in faces},
            {p: before.persons[p] for p in persons},
            before.noes - after.noes,
        ),
        State(
            {f: after.faces[f] for f in faces},
            {p: after.persons[p] for p in persons},
            after.noes - before.noes,
        ),
    )


def united(moves: Sequence[Change]) -> Change:
    """Changes that have nothing in common as one."""
    before, after = [m.before for m in moves], [m.after for m in moves]
    return Change(_together(before), _together(after))


def _together(states: Sequence[State]) -> State:
    return State(
        {f: s for state in states for f, s in state.faces.items()},
        {p: s for state in states for p, s in state.persons.items()},
        frozenset(no for state in states for no in state.noes),
    )


def check_undoable(event_id: int, now: State, change: Change, later: Mapping[int, Change]) -> None:
    """Refuse to take back a change when a later one (by event id) changed the same things, or made
    a person part of one who would be part of that person again.
    """
    touched = change.touched | _circle({**now.persons, **change.before.persons})
    for later_id in sorted(later, reverse=True):
        if later[later_id].touched & touched:
            raise Conflict(
                f"event {event_id} cannot be undone before the later event {later_id}",
                hint=f"undo event {later_id} first",
                later_event_id=later_id,
            )


def _circle(persons: Mapping[int, PersonState]) -> set[object]:
    """The persons who would resolve to each other in a circle, as `Change.touched` has them."""
    found: set[object] = set()
    for person in persons:
        way = [person]
        while way[-1] in persons and (into := persons[way[-1]].merged_into) is not None:
            if into in way:
                found |= {("person", p) for p in way[way.index(into) :]}
                break
            way.append(into)
    return found


def refuse(state: State, faces: Collection[int], person: int) -> State:
    """Remember that these faces are not this person."""
    return replace(state, noes=state.noes | {(f, person) for f in faces})


def _settled(state: State) -> State:
    """Merged ids point at the survivor in one step, and faces follow."""

    def root(p: int) -> int:
        while (into := state.persons[p].merged_into if p in state.persons else None) is not None:
            p = into
        return p

    persons = {
        p: s if s.merged_into is None else replace(s, merged_into=root(p))
        for p, s in state.persons.items()
    }
    faces = {
        f: s if s.person_id is None else replace(s, person_id=root(s.person_id))
        for f, s in state.faces.items()
    }
    return State(faces, persons, state.noes)


def to_json(state: State) -> dict[str, Any]:
    """The state as the ledger keeps it."""
    return {
        "faces": {str(f): dict(vars(s)) for f, s in state.faces.items()},
        "persons": {str(p): dict(vars(s)) for p, s in state.persons.items()},
        "noes": sorted(state.noes),
    }


def from_json(document: Mapping[str, Any]) -> State:
    """The state that `to_json` wrote."""
    return State(
        {int(f): FaceState(**s) for f, s in document["faces"].items()},
        {int(p): PersonState(**s) for p, s in document["persons"].items()},
        frozenset((f, p) for f, p in document["noes"]),
    )
