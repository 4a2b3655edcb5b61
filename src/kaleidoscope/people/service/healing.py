"""Consolidation: what arrival order split is merged again, without anybody's word being broken.

A round reads what has changed, plans outside of any transaction, and settles group by group, each
looked at again under the identity lock, so that nothing is merged on yesterday's figures.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.settings import load
from kaleidoscope.ml.catalog import Pack
from kaleidoscope.people.queries import healing, ledger, locks, persons, search
from kaleidoscope.people.queries.healing import OpenFace
from kaleidoscope.people.queries.search import Means
from kaleidoscope.people.rules import changes
from kaleidoscope.people.rules.changes import MACHINE
from kaleidoscope.people.rules.clustering import BLOCK, Cluster, Merge, consolidate, near_pairs
from kaleidoscope.people.rules.matching import Limits, Sight, Vectors
from kaleidoscope.people.service import matching
from kaleidoscope.people.service.changes import Event, record
from kaleidoscope.people.settings import PeopleSettings

FEW = 2000  # changed persons whose neighbours are searched for one by one


@dataclass(frozen=True)
class Round:
    """What a round of consolidation has to look at: persons that changed, and those near them."""

    version: int
    changed: list[int]
    means: Means
    names: Mapping[int, str]
    apart: Mapping[int, set[int]]
    limits: Limits
    open_ids: NDArray[np.int64]
    open_qualities: NDArray[np.int32]
    open_vectors: Vectors


@dataclass(frozen=True)
class Plan:
    """Groups of persons of whom some seem to be one, and open faces that may find a person."""

    groups: list[set[int]]
    faces: list[int]


async def look(session: AsyncSession, pack: Pack) -> Round | None:
    """What has changed since the last round, and what it has to be compared with; None: nothing."""
    version = await healing.version(session)
    changed = await healing.changed_persons(session, pack.name)
    if not changed:
        return None
    library = await matching.size(session, pack.name)
    limits = matching.limits(pack, library.persons)
    some: list[int] | None = None  # all: reading a large library is faster than many searches
    if library.persons > load(PeopleSettings).exact_up_to and len(changed) <= FEW:
        some = await _neighbours(session, pack, changed, limits.merge, library)
    means = await search.read_means(session, pack.name, pack.dimension, some)
    ids = means.ids.tolist()
    return Round(
        version,
        changed,
        means,
        await healing.names(session, ids),
        await healing.apart(session, ids),
        limits,
        *await search.read_open_faces(session, pack.name, pack.dimension),
    )


def plan(round_: Round) -> Plan:
    """What seems to be one, and who may be somebody. Pure and slow: not for the event loop."""
    limits, means = round_.limits, round_.means
    changed = np.nonzero(np.isin(means.ids, round_.changed))[0]
    pairs = near_pairs(means.means, changed, limits.merge)
    merges = _merges(means, pairs, round_.names, round_.apart, limits.merge)
    may = round_.open_qualities >= 1000 * limits.found
    for start in range(0, len(may), BLOCK):
        near = round_.open_vectors[start : start + BLOCK] @ means.means[changed].T
        may[start : start + BLOCK] |= (near >= limits.join).any(axis=1)
    return Plan(groups(merges), round_.open_ids[may].tolist())


async def settle(session: AsyncSession, pack: Pack, group: Collection[int]) -> list[Event]:
    """Merge those of a group who still are one, each survivor's gains as one event."""
    await locks.lock_identity(session, alone=True)
    library = await matching.size(session, pack.name)
    least = matching.limits(pack, library.persons).merge
    means = await search.read_means(session, pack.name, pack.dimension, sorted(group))
    ids = means.ids.tolist()
    merges = _merges(
        means,
        near_pairs(means.means, np.arange(len(ids)), least),
        await healing.names(session, ids),
        await healing.apart(session, ids),
        least,
    )
    events = []
    for kept, gone in survivors(merges).items():
        before = await ledger.load_state(session, [kept, *gone])
        after = changes.merge(before, kept, gone)
        events.append(await record(session, "consolidate", MACHINE, before, after, person_id=kept))
    return events


async def overdue_since(session: AsyncSession, pack: Pack) -> datetime | None:
    """Since when there has been something to consolidate; None: there is nothing."""
    return await healing.overdue_since(session, pack.name)


async def place(session: AsyncSession, pack: Pack, face_ids: Sequence[int]) -> Event | None:
    """Give open faces to the persons they are like by now; one of quality founds its own."""
    await locks.lock_identity(session, alone=True)
    faces = await healing.open_faces(session, face_ids, pack.name)
    given: dict[int, tuple[int, float | None]] = {}
    for _, group in groupby(faces, key=lambda face: face.photo_id):
        given |= await _given(session, pack, list(group))
    if not given:
        return None
    before = await ledger.load_faces(session, list(given))
    return await record(session, "consolidate", MACHINE, before, changes.assign(before, given))


async def _given(
    session: AsyncSession, pack: Pack, faces: Sequence[OpenFace]
) -> dict[int, tuple[int, float | None]]:
    """The persons of some open faces of one photo."""
    sights = [Sight(quality=f.quality, refused=f.refused) for f in faces]
    vectors = np.array([f.vector for f in faces], np.float32)
    match = await matching.match(session, pack, vectors, sights, [None] * len(faces))
    new = len({v.founds for v in match.verdicts} - {None})
    founded = await persons.found_persons(session, [None] * new) if new else []
    return {
        face.id: (person_id, verdict.similarity)
        for face, verdict in zip(faces, match.verdicts, strict=True)
        for person_id in [verdict.person_id if verdict.founds is None else founded[verdict.founds]]
        if person_id is not None
    }


async def finish(session: AsyncSession, pack: Pack, round_: Round) -> None:
    """Remember how far consolidation has come."""
    await healing.finish_round(session, pack.name, round_.version)


async def wants_index(session: AsyncSession, pack: Pack) -> bool:
    """Whether the library has outgrown exact search and the pack has no index yet."""
    library = await matching.size(session, pack.name)
    large = library.persons > load(PeopleSettings).exact_up_to
    return large and not await search.has_index(session, pack.name)


def groups(merges: Sequence[Merge]) -> list[set[int]]:
    """The persons that merges connect."""
    return [{kept, *gone} for kept, gone in survivors(merges).items()]


def survivors(merges: Sequence[Merge]) -> dict[int, list[int]]:
    """Each survivor of a series of merges with all that became part of it."""
    found: dict[int, list[int]] = {}
    for merge in merges:
        found.setdefault(merge.kept, []).extend([merge.gone, *found.pop(merge.gone, [])])
    return found


def _merges(
    means: Means,
    pairs: Sequence[tuple[int, int]],
    names: Mapping[int, str],
    apart: Mapping[int, set[int]],
    least: float,
) -> list[Merge]:
    clusters = [
        Cluster(person_id, count, names.get(person_id))
        for person_id, count in zip(means.ids.tolist(), means.counts.tolist(), strict=True)
    ]
    return consolidate(clusters, means.means, pairs, least, apart)


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
