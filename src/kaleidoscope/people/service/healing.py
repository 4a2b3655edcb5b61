"""Consolidation: who is one after all, who is not, without anybody's word being broken.

A round reads what has changed, thinks outside of any transaction, and settles group by group, each
looked at again under the identity lock: one that has changed meanwhile waits for the next round.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library
from kaleidoscope.ml.catalog import Pack
from kaleidoscope.people.queries import healing, ledger, locks, naming, persons, search
from kaleidoscope.people.rules import changes
from kaleidoscope.people.rules.ages import years
from kaleidoscope.people.rules.chains import FEW as FEW_DATED
from kaleidoscope.people.rules.changes import Change, State
from kaleidoscope.people.rules.consolidation import (
    NOBODY,
    Faces,
    Regrouping,
    Said,
    Whole,
    regroup,
)
from kaleidoscope.people.rules.matching import Limits
from kaleidoscope.people.service import matching
from kaleidoscope.people.service.ages import cannot_be_one
from kaleidoscope.people.service.changes import record_round
from kaleidoscope.people.settings import PeopleSettings

SMALL = 20_000  # faces up to which everybody is looked at anew
READ_AT_MOST = 200_000  # persons up to which all are read to be compared with, a second
MET = 3  # persons taken as a whole whom each of the others may meet in time
FEW = 2000  # changed persons whose neighbours are searched for one by one
# Faces of a person from which on those of earlier rounds are settled, until a thorough one.
MANY = 16
LONGEST_WRITING = timedelta(minutes=1)  # a face may be committed so long after it was created


@dataclass(frozen=True)
class Round:
    """What a round of consolidation looks at: faces of persons to be taken apart, other persons,
    and the faces of those whom they may meet in time.
    """

    at: datetime
    version: int
    thorough: bool
    changed: list[int]
    versions: dict[int, int]
    faces: Faces
    whole: Whole
    said: Said
    limits: Limits
    met: Faces | None = None


@dataclass(frozen=True)
class Consolidated:
    """What a round did, or would do: faces that get another person, persons that were merged, who
    lost faces to others, and who were founded; confirmed faces are never touched.
    """

    changed: int = 0
    moved: int = 0
    merged: int = 0
    split: int = 0
    placed: int = 0
    founded: int = 0
    opened: int = 0
    confirmed_touched: int = 0
    round: int | None = None

    def __add__(self, other: Consolidated) -> Consolidated:
        mine, theirs = asdict(self), asdict(other)
        counts = {name: mine[name] + theirs[name] for name in mine if name != "round"}
        return Consolidated(**counts, round=self.round or other.round)


async def look(
    session: AsyncSession, pack: Pack, *, everybody: bool = False, thorough: bool = False
) -> Round | None:
    """What has changed since the last round, and what it has to be compared with; None: nothing.

    Of who is in many photos only the new faces are taken apart, unless `thorough`: then all who
    have changed since the last thorough round are, with all their faces. In a small library, or
    when `everybody` is asked for, all persons are.
    """
    at, version = await healing.now(session), await healing.version(session)
    changed = await healing.changed_persons(session, pack.name, thorough=thorough)
    if not changed and not everybody:
        return None
    size = await matching.size(session, pack.name)
    limits = matching.limits(pack, size.regulars)
    everybody = everybody or await healing.faces_known(session, pack.name, SMALL) <= SMALL
    compared: list[int] | None = None
    if not everybody and len(changed) <= FEW:
        known = await search.library(session, pack.name, READ_AT_MOST)
        if known.persons > READ_AT_MOST:
            compared = await _neighbours(session, pack, changed, limits.merge, size)
    whole = await search.read_means(session, pack.name, pack.dimension, compared)
    versions = await healing.versions(session, whole.ids.tolist())
    thorough = thorough or everybody
    settled: set[int] = set()
    if not thorough:
        settled = set(changed) & set(whole.ids[whole.counts > MANY].tolist())
    faces = await search.read_faces(
        session,
        pack.name,
        pack.dimension,
        None if everybody else sorted(set(changed) - settled),
        settled=sorted(settled),
        since=await healing.looked_at(session, pack.name) if settled else None,
    )
    faces = await _dated(session, faces)
    everyone, whole = whole, whole.without(faces, settled)
    said = replace(await _said(session, faces, whole), changed=frozenset(changed))
    if births := await naming.births(session):
        floor = min(limits.lonely, limits.merge)
        early = await _early(session, everyone, whole, births.keys(), floor)
        born = {person: years(day) for person, day in births.items()}
        said = replace(said, person_noes=[*said.person_noes, *early], births=born)
    met = None
    if thorough and (near := _whom_they_may_meet(faces, everyone, whole)):
        found = await search.read_faces(session, pack.name, pack.dimension, near, with_open=False)
        met = await _dated(session, found)
    return Round(at, version, thorough, changed, versions, faces, whole, said, limits, met)


def _whom_they_may_meet(faces: Faces, everyone: Whole, whole: Whole) -> list[int]:
    """The persons taken as a whole who are most like those of `faces` that lie in time: how much
    so on average over all their years does not matter.
    """
    if faces.taken is None or not len(whole.ids):
        return []
    lying, dated = np.unique(faces.persons[~np.isnan(faces.taken)], return_counts=True)
    rows = np.nonzero(np.isin(everyone.ids, lying[dated >= FEW_DATED]))[0]
    found: set[int] = set()
    for some in np.array_split(rows, len(rows) // 256 + 1):
        likeness = everyone.means[some] @ whole.means.T
        nearest = np.argpartition(-likeness, min(MET, len(whole.ids)) - 1, axis=1)[:, :MET]
        found |= set(whole.ids[nearest.ravel()].tolist())
    return sorted(found)


async def _dated(session: AsyncSession, faces: Faces) -> Faces:
    """The faces with when they were taken, if that is known of any."""
    taken = await library.taken(session, np.unique(faces.photos).tolist())
    if not taken:
        return faces
    known = {photo: years(day) for photo, day in taken.items()}
    return replace(
        faces, taken=np.array([known.get(p, np.nan) for p in faces.photos.tolist()], np.float64)
    )


async def _early(
    session: AsyncSession, everyone: Whole, whole: Whole, births: Collection[int], floor: float
) -> set[tuple[int, int]]:
    """Persons with a birth date and persons taken as a whole, of whom one was in a photo before the
    other was born: of those that are alike enough to be looked at.
    """
    born = np.nonzero(np.isin(everyone.ids, list(births)))[0]
    one, other = np.nonzero(whole.means @ everyone.means[born].T > floor)
    pairs = zip(whole.ids[one].tolist(), everyone.ids[born[other]].tolist(), strict=True)
    return await cannot_be_one(session, {pair for pair in pairs if pair[0] != pair[1]})


async def _said(session: AsyncSession, faces: Faces, whole: Whole) -> Said:
    """What is known of these faces and persons besides their vectors."""
    present: list[tuple[int, int]] = []
    apart: list[tuple[int, int]] = []
    others = set(whole.ids.tolist())
    if others:
        photos = np.unique(faces.photos).tolist()
        # Who is in a photo by one of these faces alone need not be there.
        elsewhere = others - set(faces.persons.tolist())
        present = [(x, p) for x, p in await healing.present(session, photos) if p in elsewhere]
        apart = await healing.apart(session, sorted(others))
    face_noes: list[tuple[int, int]] = []
    for face, person, is_not in await healing.noes(session):
        if person is not None and person in others:
            apart.append((person, is_not))
        else:
            face_noes.append((face, is_not))
    return Said(
        await healing.names(session),
        await healing.confirmed_persons(session),
        await healing.held_faces(session),
        face_noes,
        apart,
        present,
    )


def plan(round_: Round) -> list[Regrouping]:
    """What to change. Pure and slow: not for the event loop."""
    return regroup(round_.faces, round_.whole, round_.said, round_.limits, round_.met)


def foreseen(round_: Round, regroupings: Sequence[Regrouping]) -> Consolidated:
    """What a plan would do."""
    confirmed = set(round_.faces.ids[round_.faces.confirmed].tolist())
    total = Consolidated(changed=len(round_.changed))
    for group in regroupings:
        total += _counts(group, len(confirmed & group.faces.keys()))
    return total


def _counts(group: Regrouping, confirmed: int = 0) -> Consolidated:
    open_before = [f for f, person in group.before.items() if person == NOBODY]
    return Consolidated(
        moved=group.weight - len(open_before),
        merged=len(group.merged),
        split=len(group.split),
        placed=len(open_before),
        founded=len(group.founded),
        opened=sum(person is None for person, _ in group.faces.values()),
        confirmed_touched=confirmed,
    )


async def settle(
    session: AsyncSession, round_: Round, groups: Sequence[Regrouping], number: int | None
) -> Consolidated:
    """Make the moves of some groups, each an event, in the round of this number (None: it begins
    with them). A group of which a face or person has changed meanwhile is left as it is.
    """
    await locks.lock_identity(session, alone=True)
    touched = {p for group in groups for p in group.persons}
    now = await healing.versions(session, sorted(touched))
    # Of who remains, only the faces that move: a person may have many thousands.
    gone = {p for group in groups for p in group.merged}
    before = await ledger.load_state(session, gone, {f for g in groups for f in g.before})
    remaining = await ledger.load_persons(session, touched - gone)
    before = replace(before, persons={**before.persons, **remaining.persons})
    groups = [group for group in groups if _as_seen(group, round_, now, before)]
    wanted = [(group, number) for group in groups for number in sorted(group.founded)]
    stood_for = [group.founded[number] or None for group, number in wanted]
    founded = await persons.found_persons(session, [None] * len(wanted), stood_for)
    ids = {number: person for (_, number), person in zip(wanted, founded, strict=True)}
    founding = await ledger.load_persons(session, founded)
    before = replace(before, persons={**before.persons, **founding.persons})
    moves = [_change(group, before, ids) for group in groups]
    events = await record_round(session, moves, number)
    total = Consolidated(round=events[0].round if events else number)
    for group in groups:
        total += _counts(group)
    return total


def _as_seen(group: Regrouping, round_: Round, now: dict[int, int], before: State) -> bool:
    """Whether the faces and persons of a group are as they were when the round looked."""
    known = all(now.get(p) == round_.versions.get(p) for p in group.persons)
    had = {f: before.faces[f].person_id or NOBODY for f in group.before if f in before.faces}
    return known and had == dict(group.before)


def _change(group: Regrouping, before: State, ids: dict[int, int]) -> Change:
    """What a group changes; `ids` are those of the persons that were founded for it."""
    faces = {
        face: (person if person is None else ids.get(person, person), similarity)
        for face, (person, similarity) in group.faces.items()
    }
    persons_ = {*group.persons, *(ids[number] for number in group.founded)}
    of_group = State(
        {f: s for f, s in before.faces.items() if f in faces or s.person_id in persons_},
        {p: s for p, s in before.persons.items() if p in persons_ or s.merged_into in persons_},
    )
    merged = {gone: ids.get(kept, kept) for gone, kept in group.merged.items()}
    after = changes.regroup(of_group, faces, merged, [ids[number] for number in group.founded])
    return changes.difference(of_group, after)


async def overdue_since(session: AsyncSession, pack: Pack) -> datetime | None:
    """Since when there has been something to consolidate; None: there is nothing."""
    return await healing.overdue_since(session, pack.name)


async def finish(session: AsyncSession, pack: Pack, round_: Round) -> None:
    """Remember how far consolidation has come."""
    await healing.finish_round(
        session, pack.name, round_.version, round_.at - LONGEST_WRITING, thorough=round_.thorough
    )


async def wants_index(session: AsyncSession, pack: Pack) -> bool:
    """Whether the library has outgrown exact search and the pack has no index yet.

    A small one has none: entering a face into the graph costs more than all else that is written.
    """
    library = await matching.size(session, pack.name)
    large = library.persons > load(PeopleSettings).exact_up_to
    return large and not await search.has_index(session, pack.name)


async def _neighbours(
    session: AsyncSession,
    pack: Pack,
    changed: Sequence[int],
    least: float,
    library: search.Library,
) -> list[int]:
    """The changed persons and all those whom the index finds near them."""
    found = set(changed)
    own = await search.read_means(session, pack.name, pack.dimension, changed)
    for start in range(0, len(own.ids), 200):
        vectors = own.means[start : start + 200]
        none = [None] * len(vectors)
        for near in await matching.near(session, pack.name, vectors, least, library, none):
            found |= near.keys()
    return sorted(found)
