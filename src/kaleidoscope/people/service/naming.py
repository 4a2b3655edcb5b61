"""Names that come from elsewhere, and go there: XMP files beside photos, and libraries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.batches import batched
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import Invalid
from kaleidoscope.library import service as library
from kaleidoscope.library.schemas import Photo
from kaleidoscope.library.service import NamedRegion
from kaleidoscope.people.queries import ledger, locks, naming, persons
from kaleidoscope.people.rules import naming as rules
from kaleidoscope.people.rules.changes import PERSON, PersonState, State
from kaleidoscope.people.rules.naming import Claim, Conflict
from kaleidoscope.people.service.ages import drop_questions, early_faces
from kaleidoscope.people.service.changes import record, resolve

AT_ONCE = 500  # claims that are settled in one transaction


@dataclass
class Heeded:
    """What names from elsewhere did, or would do. `elsewhere`: places where no face is here;
    `events` are those that can be undone.
    """

    photos: int = 0
    claims: int = 0
    named: int = 0
    founded: int = 0
    confirmed: int = 0
    moved: int = 0
    births: int = 0
    elsewhere: int = 0
    conflicts: list[Conflict] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    events: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """A face of a photo and where it is; `region` has the name of its person, or none."""

    face_id: int
    is_assigned: bool
    is_confirmed: bool
    region: NamedRegion


async def places(session: AsyncSession, photos: Sequence[Photo]) -> dict[int, list[Place]]:
    """The faces of photos, by photo_id; a duplicate shows those of the first."""
    first: dict[int, int] = {p.photo_id: p.duplicate_of or p.photo_id for p in photos}
    found: dict[int, list[Row[Any]]] = {}
    for row in await naming.faces_of(session, sorted(set(first.values()))):
        found.setdefault(row.photo_id, []).append(row)
    return {
        photo.photo_id: [
            Place(
                row.face_id,
                row.person_id is not None,
                row.confirmed_by == PERSON,
                region(row.bbox, photo.width, photo.height, row.name or ""),
            )
            for row in found.get(first[photo.photo_id], [])
        ]
        for photo in photos
        if photo.width and photo.height
    }


def region(box: Sequence[float], width: int, height: int, name: str = "") -> NamedRegion:
    """A box in pixels as a part of the picture, as far as it lies in it."""
    sides = (width, height, width, height)
    x1, y1, x2, y2 = (min(max(v / s, 0.0), 1.0) for v, s in zip(box, sides, strict=True))
    return NamedRegion(name, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)


def claims_of(regions: Sequence[NamedRegion], faces: Sequence[Place]) -> list[Claim]:
    """Which faces are called so by the regions of a photo."""
    places = library.pair_regions(regions, [face.region for face in faces])
    found = [Claim(faces[j].face_id, rules.spelled(regions[i].name)) for i, j in places.items()]
    return [claim for claim in found if claim.name]


async def find_homes(session: AsyncSession, claims: Sequence[Claim]) -> dict[str, int]:
    """The person here that each claimed name is; names that nobody is yet are left out."""
    named = await naming.named_persons(session)
    known: dict[int, int | None] = {}
    for some in batched(claims, 10_000):
        known |= await naming.persons_of(session, [claim.face_id for claim in some])
    return rules.homes(
        claims,
        known,
        {row.id: row.name for row in named},
        {row.id: row.photos for row in named},
    )


async def heed(
    session: AsyncSession,
    claims: Sequence[Claim],
    homes: dict[str, int],
    done: Heeded,
) -> None:
    """Name persons and confirm faces as some claims say, as one event; add to what was done.

    Who is nobody yet is founded, and entered into `homes`. What a person said here stands.
    """
    await locks.lock_identity(session, alone=True)
    before = await ledger.load_faces(session, [claim.face_id for claim in claims])
    claims = [claim for claim in claims if claim.face_id in before.faces]
    living = await persons.resolve(session, sorted(set(homes.values())))
    here = {name: living[person] for name, person in homes.items() if person in living}
    known = {s.person_id for s in before.faces.values() if s.person_id is not None}
    people = await ledger.load_persons(session, sorted(known | set(here.values())))
    stands = await persons.resolve(session, {person for _, person in before.noes})
    refused = {(face, stands[person]) for face, person in before.noes}
    # Only who is found to be called so is founded: a claim that is refused founds nobody.
    new = dict.fromkeys(c.name for c in claims if c.is_word and c.name not in here)
    drafts = {name: -number for number, name in enumerate(new, 1)}
    claims = [claim for claim in claims if claim.name in here or claim.name in drafts]
    draft = replace(
        before, persons={**people.persons, **dict.fromkeys(drafts.values(), PersonState())}
    )
    outcome = rules.heed(draft, claims, here | drafts, refused)
    done.claims += len(claims)
    done.conflicts += outcome.conflicts
    if outcome.state == draft:
        return
    wanted = [name for name, number in drafts.items() if number in outcome.named]
    founded = await persons.found_persons(session, [None] * len(wanted))
    ids = dict(zip((drafts[name] for name in wanted), founded, strict=True))
    homes |= here | {name: ids[drafts[name]] for name in wanted}
    before = replace(before, persons={**people.persons, **dict.fromkeys(founded, PersonState())})
    after = _with_ids(outcome.state, ids, before)
    done.founded += len(founded)
    done.named += len(outcome.named) - len(founded)
    done.confirmed += outcome.confirmed
    done.moved += outcome.moved
    event = await record(session, "names", PERSON, before, after)
    done.events.append(event.event_id)


def _with_ids(after: State, ids: Mapping[int, int], before: State) -> State:
    """The state with the persons that were founded for drafts of them."""
    faces = {
        f: replace(s, person_id=ids.get(s.person_id, s.person_id)) if s.person_id else s
        for f, s in after.faces.items()
    }
    named = {ids.get(p, p): s for p, s in after.persons.items()}
    return replace(after, faces=faces, persons={p: named[p] for p in before.persons})


async def lay_on(
    db: Database, claims: Sequence[Claim], done: Heeded, homes: Mapping[str, int], dry_run: bool
) -> None:
    """Heed claims, some at a time, each time in a transaction of its own.

    A dry run does it all in one, which is taken back: what it tells is what would be.
    """
    known = dict(homes)
    if not dry_run:
        for some in batched(claims, AT_ONCE):
            async with db.transaction() as session:
                await heed(session, some, known, done)
        return
    with suppress(_OnlyTried):
        async with db.transaction() as session:
            for some in batched(claims, AT_ONCE):
                await heed(session, some, known, done)
            done.events.clear()
            raise _OnlyTried


class _OnlyTried(Exception):
    """Ends a transaction that leaves nothing."""


@dataclass(frozen=True)
class Born:
    """What a birth date says of a person's faces in photos from before it: the next consolidation
    looks anew at those that the machine gave (`reopened`), and those that somebody's word keeps
    there stay (`kept`).
    """

    person_id: int
    reopened: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)


async def set_birth_date(session: AsyncSession, person_id: int, born: date | None) -> Born:
    """A person was born then (None: it is not known); the living person's id, and what follows.

    Raises `NotFound`, and `Invalid` for a day that has not come.
    """
    if born is not None and born > date.today():
        raise Invalid(f"nobody was born on {born} yet", field="birth_date")
    await locks.lock_identity(session, alone=True)
    person = await resolve(session, person_id)
    await naming.set_birth_date(session, person, born)
    await drop_questions(session, person)
    return Born(person, *await early_faces(session, person))
