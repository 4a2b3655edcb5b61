"""What names from elsewhere (sidecars, an exported library) make of the persons here."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from kaleidoscope.people.rules.changes import LONGEST_NAME, PERSON, State
from kaleidoscope.people.rules.changes import confirm as confirmed


@dataclass(frozen=True)
class Claim:
    """Somebody has said elsewhere that a face is called so; `is_word`: of this very face, so that
    it is confirmed, and not only of the person that the machine had given it to.
    """

    face_id: int
    name: str
    is_word: bool = True


@dataclass(frozen=True)
class Conflict:
    """A claim against what a person said here; theirs stands."""

    face_id: int
    claimed: str
    here: str


@dataclass
class Outcome:
    """The state with the claims heeded, and what that was."""

    state: State
    confirmed: int = 0
    moved: int = 0
    named: set[int] = field(default_factory=set)
    conflicts: list[Conflict] = field(default_factory=list)


def spelled(name: str) -> str:
    """A name as it is compared and kept: composed, without blanks around it, not too long."""
    return " ".join(unicodedata.normalize("NFC", name).split())[:LONGEST_NAME].strip()


def homes(
    claims: Iterable[Claim],
    persons_of: Mapping[int, int | None],
    names: Mapping[int, str],
    sizes: Mapping[int, int],
) -> dict[str, int]:
    """The person that each claimed name is: who has the name (of several the largest), or the
    unnamed person most of whose claimed faces are called so. Other names are nobody's yet.
    """
    found: dict[str, int] = {}
    for person in sorted(names, key=lambda p: (-sizes.get(p, 0), p)):
        found.setdefault(spelled(names[person]), person)
    votes: dict[int, Counter[str]] = defaultdict(Counter)
    for claim in claims:
        person_id = persons_of.get(claim.face_id)
        if person_id is not None and person_id not in names:
            votes[person_id][claim.name] += 1
    ranked = sorted(
        ((count, -person, name) for person, of in votes.items() for name, count in of.items()),
        reverse=True,
    )
    taken = set(found.values())
    for _, negative, name in ranked:
        most = votes[-negative].most_common(1)[0][1]
        if name not in found and -negative not in taken and votes[-negative][name] == most:
            found[name] = -negative
            taken.add(-negative)
    return found


def heed(
    before: State,
    claims: Sequence[Claim],
    homes_: Mapping[str, int],
    refused: Collection[tuple[int, int]],
) -> Outcome:
    """Name persons and confirm faces as claimed; what a person said here is never overruled.

    `before` holds every claimed face and its person, and every home; `refused` are the remembered
    noes, of a face and a living person.
    """
    done = Outcome(before)
    for claim in claims:
        home = homes_[claim.name]
        face = done.state.faces[claim.face_id]
        person = done.state.persons[home]
        theirs = None if face.person_id is None else done.state.persons[face.person_id].name
        if face.confirmed_by == PERSON and face.person_id != home:
            # Confirmed as somebody who has the same name is no contradiction.
            if theirs is None or spelled(theirs) != claim.name:
                here = theirs or f"person {face.person_id}"
                done.conflicts.append(Conflict(claim.face_id, claim.name, here))
            continue
        if (claim.face_id, home) in refused:
            done.conflicts.append(Conflict(claim.face_id, claim.name, f"not {claim.name}"))
            continue
        if person.name is None:
            persons = {**done.state.persons, home: replace(person, name=claim.name)}
            done.state = replace(done.state, persons=persons)
            done.named.add(home)
        if claim.is_word and not (face.confirmed_by == PERSON and face.person_id == home):
            done.state = confirmed(done.state, claim.face_id, home)
            done.confirmed += 1
            done.moved += face.person_id != home
    return done
