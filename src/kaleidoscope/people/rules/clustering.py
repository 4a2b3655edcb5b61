"""Which persons are one: average-link clustering of what arrival order split.

The similarity of two persons is the average cosine between their faces, sum_a · sum_b / (n_a n_b):
the measure by which a face joins a person, so that the two agree about who is who.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kaleidoscope.people.rules.matching import Vectors

CAUTION = 0.02
"""How much of the way to identity two persons must come nearer for each doubling of the smaller.

A wrong merge of two persons with many faces costs more than that of a stray face, and the average
of many pairs can be relied on more: what passes for a stray face is too little for them. On
150 people in six arrival orders: pairwise precision .97 instead of .95 at equal consistency.
"""

BLOCK = 2048  # rows compared at once: 2048 × 100 000 similarities are 800 MB of float32


@dataclass(frozen=True)
class Cluster:
    """A person as consolidation sees them."""

    person_id: int
    count: int
    name: str | None = None


@dataclass(frozen=True)
class Merge:
    """`gone` is the same person as `kept`, by this average similarity."""

    kept: int
    gone: int
    similarity: float


def near_pairs(means: Vectors, changed: NDArray[np.intp], least: float) -> list[tuple[int, int]]:
    """Index pairs (i < j) of persons at least that similar, one of each pair among `changed`.

    `means` is [persons, dimension], sum / count.
    """
    found = [np.zeros((0, 2), np.intp)]
    step = max(1, min(BLOCK, 200_000_000 // max(1, len(means))))
    for start in range(0, len(changed), step):
        rows = changed[start : start + step]
        one, other = np.nonzero(means[rows] @ means.T >= least)
        found.append(np.sort(np.stack([rows[one], other], axis=1), axis=1))
    pairs = np.concatenate(found)
    pairs = np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)
    return [(i, j) for i, j in pairs.tolist()]


def consolidate(
    clusters: Sequence[Cluster],
    means: Vectors,
    pairs: Iterable[tuple[int, int]],
    least: float,
    apart: Mapping[int, set[int]],
) -> list[Merge]:
    """The merges that average linkage makes, first the pair that passes by most.

    `pairs` are indices into `clusters`, as `near_pairs` gives them; `apart` says which person ids
    are known to be different people (seen in one photo, or a remembered no), both ways. Two
    differently named persons are never merged. Of two, the named one survives, then the one with
    more faces, then the older id.
    """
    pairs = list(pairs)
    rows = sorted({i for pair in pairs for i in pair})
    place = {row: i for i, row in enumerate(rows)}
    who = [clusters[row] for row in rows]
    index = {c.person_id: i for i, c in enumerate(who)}
    foes = [{index[p] for p in apart.get(c.person_id, ()) if p in index} for c in who]
    names = [c.name for c in who]
    counts = np.array([c.count for c in who], np.float64)
    sums = means[rows].astype(np.float64) * counts[:, None]
    alive = np.ones(len(rows), bool)
    near: list[set[int]] = [set() for _ in rows]
    grown = [0] * len(rows)
    heap: list[tuple[float, int, int, int]] = []

    def offer(a: int, others: Sequence[int]) -> None:
        """Keep those of `others` that may be one with `a`.

        The rest need not be looked at again: an average reaches `least` only where one of its
        parts does, and that part has links of its own.
        """
        values = sums[others] @ sums[a] / (counts[others] * counts[a])
        for b, value in zip(others, values.tolist(), strict=True):
            if value >= least and b not in foes[a] and not _differ(names[a], names[b]):
                near[a].add(b)
                near[b].add(a)
                heapq.heappush(heap, (-value, a, b, grown[a] + grown[b]))
            else:
                near[a].discard(b)
                near[b].discard(a)

    linked: dict[int, list[int]] = {}
    for one, other in pairs:
        linked.setdefault(place[one], []).append(place[other])
    for a, others in linked.items():
        offer(a, others)
    merges: list[Merge] = []
    while heap:
        value, a, b, then = heapq.heappop(heap)
        if not (alive[a] and alive[b] and b in near[a]) or then != grown[a] + grown[b]:
            continue  # one has gone, or grown: then a newer offer stands further down
        kept, gone = sorted((a, b), key=lambda i: (names[i] is None, -counts[i], who[i].person_id))
        merges.append(Merge(who[kept].person_id, who[gone].person_id, -value))
        sums[kept] += sums[gone]
        counts[kept] += counts[gone]
        names[kept] = names[kept] or names[gone]
        alive[gone] = False
        grown[kept] += 1
        for foe in foes[gone]:
            foes[foe].discard(gone)
            foes[foe].add(kept)
            foes[kept].add(foe)
        around = (near[kept] | near[gone]) - {kept, gone}
        for other in near[gone]:
            near[other].discard(gone)
        offer(kept, sorted(around))
    return merges


def _differ(a: str | None, b: str | None) -> bool:
    return a is not None and b is not None and a != b
