"""Consolidation: what arrival order split is merged again, without anybody's word being broken.

A round reads what has changed, plans outside of any transaction, and settles group by group, each
looked at again under the identity lock, so that nothing is merged on yesterday's figures.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.settings import load
from kaleidoscope.ml.catalog import Pack
from kaleidoscope.people.queries import healing, ledger, locks, search
from kaleidoscope.people.queries.search import Means
from kaleidoscope.people.rules import changes
from kaleidoscope.people.rules.changes import MACHINE
from kaleidoscope.people.rules.clustering import Cluster, Merge, consolidate, near_pairs
from kaleidoscope.people.service import matching
from kaleidoscope.people.service.changes import Event, record
from kaleidoscope.people.settings import PeopleSettings


@dataclass(frozen=True)
class Round:
    """What a round of consolidation has to look at: persons that changed, and those near them."""

    version: int
    changed: list[int]
    means: Means
    names: Mapping[int, str]
    apart: Mapping[int, set[int]]
    least: float


async def look(session: AsyncSession, pack: Pack) -> Round:
    """What has changed since the last round, and what it has to be compared with."""
    version = await healing.version(session)
    changed = await healing.changed_persons(session, pack.name)
    library = await matching.size(session, pack.name)
    least = matching.limits(pack, library.persons).merge
    near = None if not changed or library.persons <= load(PeopleSettings).exact_up_to else changed
    if near is not None:
        near = await _neighbours(session, pack, changed, least, library)
    means = await search.read_means(session, pack.name, pack.dimension, near)
    ids = means.ids.tolist()
    return Round(
        version,
        changed,
        means,
        await healing.names(session, ids),
        await healing.apart(session, ids),
        least,
    )


def plan(round_: Round) -> list[set[int]]:
    """Groups of persons of whom some seem to be one. Pure and slow: keep it off the event loop."""
    ids = round_.means.ids
    changed = np.nonzero(np.isin(ids, round_.changed))[0]
    pairs = near_pairs(round_.means.means, changed, round_.least)
    return groups(_merges(round_.means, pairs, round_.names, round_.apart, round_.least))


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
