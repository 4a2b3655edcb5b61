"""Which faces are one person: average-link clustering that heeds rivals.

The similarity of two groups of faces is the average cosine between their faces, sum_a · sum_b /
(n_a n_b), the measure by which a face joins a person. Whether it is enough depends on how crowded
the place is: two groups become one when they are more like each other than like anybody else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kaleidoscope.people.rules.matching import Vectors

RIVALS = 2  # the next most similar groups, whose average tells how crowded a place is
WIDTH = 8  # nearest groups of each that are looked at
KEPT = 2 * WIDTH  # ... and that are kept in mind, so that some can become one with others
BLOCK_BYTES = 1 << 21  # of similarities computed at once
SPARSE = 4096  # groups from which on most are too unlike to be sorted
SIDE_BY_SIDE = 1 << 20  # numbers of small sets that are looked at at once
EXACT = 2.0**30  # likenesses in whole parts of it are summed up exactly, in any order

Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    """When two groups of faces are one: their average similarity, plus `rival` times its lead over
    that to the next groups, less `caution` for each doubling of the smaller, reaches `least`.

    Nobody is looked at below `floor`: an unknown rival counts as one that is so similar.
    """

    least: float
    floor: float
    rival: float = 0.0
    caution: float = 0.0


def together(
    means: Vectors,
    counts: Numbers,
    apart: Indices,
    rule: Rule,
    *,
    fresh: Flags | None = None,
    whose: Indices | None = None,
) -> Indices:
    """For each atom (some faces: their mean [n, dimension] and number) the first of its group.

    `apart` [m, 2] are atoms that are different people, and so are the groups they are in; so are
    atoms that are both somebody's by `whose` (0: nobody's) and not the same one's. Only pairs with
    a `fresh` atom are looked at (None: all are). In every round the pairs that are each other's
    best become one; without rivals and caution that is average linkage exactly.
    """
    everything, nobody = np.ones(len(counts), np.bool_), np.zeros(len(counts), np.int64)
    groups = _Groups(
        means,
        counts,
        apart,
        everything if fresh is None else fresh,
        nobody if whose is None else whose,
        rule.floor,
    )
    while len(pairs := groups.best_pairs(rule)):
        groups.merge(pairs)
    return groups.first[groups.of]


def each_together(
    vectors: Vectors, sets: Sequence[Indices], apart: Indices, least: float
) -> Indices:
    """For each row the first of its piece: what of these sets of rows holds together by average
    linkage at `least`, each set for itself. A row in none is a piece of its own.

    As `together` by a plain rule, for many small sets at once: those of about the same size are
    grown side by side. `apart` [m, 2] are rows that are in different pieces.
    """
    first = np.arange(len(vectors))
    sizes = np.array([len(rows) for rows in sets], np.int64)
    members = np.concatenate([np.zeros(0, np.int64), *sets])
    of, at = np.full(len(vectors), -1), np.zeros(len(vectors), np.int64)  # its set, where in it
    of[members] = np.repeat(np.arange(len(sets)), sizes)
    at[members] = np.arange(len(members)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    apart = apart[(of[apart[:, 0]] == of[apart[:, 1]]) & (of[apart[:, 0]] >= 0)]
    widths = 1 << np.ceil(np.log2(np.maximum(sizes, 1))).astype(np.int64)
    for width in np.unique(widths[sizes > 1]).tolist():
        these = np.nonzero((widths == width) & (sizes > 1))[0]
        room = width * max(width, vectors.shape[1])
        for some in np.array_split(these, len(these) * room // SIDE_BY_SIDE + 1):
            line = np.full(len(sets), -1)
            line[some] = np.arange(len(some))
            here = members[line[of[members]] >= 0]
            rows = np.full((len(some), width), -1)
            rows[line[of[here]], at[here]] = here
            barred = (rows < 0)[:, :, None] | (rows < 0)[:, None, :] | np.eye(width, dtype=np.bool_)
            one, other = apart[line[of[apart[:, 0]]] >= 0].T
            barred[line[of[one]], at[one], at[other]] = True
            barred[line[of[one]], at[other], at[one]] = True
            found = _side_by_side(vectors[rows], barred, least)
            first[here] = rows[line[of[here]], found[line[of[here]], at[here]]]
    return first


def _side_by_side(vectors: Vectors, barred: Flags, least: float) -> Indices:
    """For each place [sets, places] the first of its piece; `barred` [sets, places, places] are
    pairs that are not one.
    """
    likeness = (vectors @ vectors.transpose(0, 2, 1)).astype(np.float64)
    # Exact sums are symmetric, and that of a pair is the greatest of both its rows or of neither.
    sums = np.rint((likeness + likeness.transpose(0, 2, 1)) * (EXACT / 2)) / EXACT
    sets, wide = barred.shape[:2]
    counts, places = np.ones((sets, wide)), np.tile(np.arange(wide), (sets, 1))
    found, growing = places.copy(), np.arange(sets)
    while len(growing):
        average = np.where(barred, -np.inf, sums / (counts[:, :, None] * counts[:, None, :]))
        best = average.max(axis=2)
        mutual = (average >= least) & (average == best[:, :, None]) & (average == best[:, None, :])
        line, kept, gone = _disjoint(*np.nonzero(np.triu(mutual, 1)))
        sums[line, kept] += sums[line, gone]
        sums[line, :, kept] += sums[line, :, gone]
        counts[line, kept] += counts[line, gone]
        barred[line, kept] |= barred[line, gone]
        barred[line, :, kept] |= barred[line, :, gone]
        barred[line, gone] = True
        barred[line, :, gone] = True
        became = places[: len(growing)].copy()
        became[line, gone] = kept
        found[growing] = np.take_along_axis(became, found[growing], axis=1)
        grown = np.unique(line)
        if len(grown) < len(growing):
            growing, sums, counts = growing[grown], sums[grown], counts[grown]
            barred = barred[grown]
    return found


def _disjoint(line: Indices, one: Indices, other: Indices) -> tuple[Indices, Indices, Indices]:
    """Of pairs in lines that are equally good and share a place, the first."""
    taken: set[tuple[int, int]] = set()
    chosen = []
    for number, (i, a, b) in enumerate(zip(*(x.tolist() for x in (line, one, other)), strict=True)):
        if (i, a) not in taken and (i, b) not in taken:
            taken |= {(i, a), (i, b)}
            chosen.append(number)
    return line[chosen], one[chosen], other[chosen]


class _Groups:
    """Groups of atoms as they grow; a row is a group, and rows are numbered anew in each round."""

    def __init__(
        self,
        means: Vectors,
        counts: Numbers,
        apart: Indices,
        fresh: Flags,
        whose: Indices,
        floor: float,
    ) -> None:
        n = len(counts)
        self.of = np.arange(n)  # the row that each atom is in
        self.first = np.arange(n)  # the first atom of each row
        self.counts = counts.astype(np.float64)
        self.sums = means.astype(np.float64) * self.counts[:, None]
        self.means = means.astype(np.float32)
        self.fresh, self.whose = fresh.copy(), whose.copy()
        self.floor = floor
        self.apart = np.sort(apart.reshape(-1, 2).astype(np.int64), axis=1)
        self.near = np.full((n, KEPT), -1, np.int64)  # rows, the most similar first
        self.likeness = np.full((n, KEPT), floor, np.float32)
        self.bound = np.full(n, floor, np.float32)  # nobody else is more similar
        self.known = np.zeros(n, np.bool_)  # whether those three hold

    def best_pairs(self, rule: Rule) -> Indices:
        """The pairs [m, 2] that each pass and are each other's best; each row in one at most."""
        n = len(self.counts)
        self._look(np.nonzero(self.fresh & ~self.known)[0])
        rows = np.nonzero(self.fresh)[0]
        one, place = np.nonzero(self.near[rows, :WIDTH] >= 0)
        one = rows[one]
        other, value = self.near[one, place], self.likeness[one, place].astype(np.float64)
        keys, at = np.unique(np.minimum(one, other) * n + np.maximum(one, other), return_index=True)
        one, other, value = keys // n, keys % n, value[at]
        possible = ~np.isin(keys, self.apart[:, 0] * n + self.apart[:, 1])
        possible &= (
            (self.whose[one] == self.whose[other])
            | (self.whose[one] == 0)
            | (self.whose[other] == 0)
        )
        possible &= value + rule.rival * (value - self.floor) >= rule.least
        one, other, value = one[possible], other[possible], value[possible]
        if rule.rival:
            partners = np.unique(np.concatenate([one, other]))
            self._look(partners[~self.known[partners]])
            lead = value - np.maximum(self._rivals(one, value), self._rivals(other, value))
            score = value + rule.rival * lead
        else:
            score = value
        if rule.caution:
            score = score - rule.caution * np.log2(np.minimum(self.counts[one], self.counts[other]))
        passes = np.nonzero(score >= rule.least)[0]
        one, other, score = one[passes], other[passes], score[passes]
        best = np.full(n, -np.inf)
        np.maximum.at(best, one, score)
        np.maximum.at(best, other, score)
        mutual = np.nonzero((score == best[one]) & (score == best[other]))[0]
        return self._disjoint(np.stack([one[mutual], other[mutual]], axis=1))

    def merge(self, pairs: Indices) -> None:
        """Make the second of each pair part of the first."""
        kept, gone = pairs[:, 0], pairs[:, 1]
        parts = np.concatenate([self.near[kept], self.near[gone]], axis=1)
        bound = np.maximum(self.bound[kept], self.bound[gone])
        known = self.known[kept] & self.known[gone]
        self.sums[kept] += self.sums[gone]
        self.counts[kept] += self.counts[gone]
        self.means[kept] = (self.sums[kept] / self.counts[kept][:, None]).astype(np.float32)
        self.first[kept] = np.minimum(self.first[kept], self.first[gone])
        self.fresh[kept] = True
        self.whose[kept] = np.maximum(self.whose[kept], self.whose[gone])
        changed = np.zeros(len(self.counts) + 1, np.bool_)  # the last one stands for "nobody", -1
        changed[kept] = changed[gone] = True
        self.known &= ~changed[:-1]
        behind = self.known & changed[self.near].any(axis=1)
        alive = np.ones(len(self.counts), np.bool_)
        alive[gone] = False
        row = np.append(np.cumsum(alive) - 1, -1)
        row[gone] = row[kept]
        self.of, self.near = row[self.of], row[self.near][alive]
        self.sums, self.counts, self.means = self.sums[alive], self.counts[alive], self.means[alive]
        self.first, self.fresh, self.known = self.first[alive], self.fresh[alive], self.known[alive]
        self.likeness, self.whose = self.likeness[alive], self.whose[alive]
        self.bound, late = self.bound[alive], np.nonzero(behind[alive])[0]
        self.apart = distinct(row[self.apart])
        # A group that has grown is no nearer to anybody than the nearer of its parts was: it is
        # near those whom a part had in mind, and only who had a part in mind can be near it.
        grown, known_parts = row[kept][known], row[parts[known]]
        self._bear_in_mind(grown, known_parts, np.full(known_parts.shape, np.nan), bound[known])
        has_grown = np.zeros(len(self.counts) + 1, np.bool_)
        has_grown[row[kept]] = True
        near = self.near[late]
        likeness = np.where(has_grown[near], np.nan, self.likeness[late])
        self._bear_in_mind(late, near, likeness, self.bound[late])

    def _bear_in_mind(
        self, rows: Indices, near: Indices, likeness: Vectors | Numbers, bound: Vectors
    ) -> None:
        """Keep of these groups the nearest, if they are enough: else the rows must look again.

        A likeness that is not a number is not known; nobody else is nearer than `bound`.
        """
        line, place = np.nonzero(np.isnan(likeness) & (near >= 0))
        likeness[line, place] = pairwise(self.means, rows[line], near[line, place])
        order = np.argsort(near, axis=1, kind="stable")
        ordered = np.take_along_axis(near, order, axis=1)
        again = np.zeros(near.shape, np.bool_)
        np.put_along_axis(again, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
        out = again | (near < 0) | (near == rows[:, None])
        out |= ~((likeness > self.floor) & (likeness >= bound[:, None]))
        likeness = np.where(out, self.floor, likeness).astype(np.float32)
        order = np.argsort(-likeness, axis=1, kind="stable")
        likeness = np.take_along_axis(likeness, order, axis=1)
        near = np.take_along_axis(np.where(out, -1, near), order, axis=1)
        if near.shape[1] > KEPT:
            bound = np.maximum(bound, likeness[:, KEPT])
        self.near[rows], self.likeness[rows] = near[:, :KEPT], likeness[:, :KEPT]
        self.bound[rows] = bound
        self.known[rows] = (near[:, WIDTH - 1] >= 0) | (bound <= np.float32(self.floor))

    def _look(self, rows: Indices) -> None:
        """Find the nearest of these rows."""
        n = len(self.counts)
        step = max(1, BLOCK_BYTES // (4 * n)) if n else 1
        for start in range(0, len(rows), step):
            block = rows[start : start + step]
            likeness = self.means[block] @ self.means.T
            likeness[np.arange(len(block)), block] = -np.inf
            near, value = _top(likeness, self.floor)
            self.near[block], self.likeness[block] = near, value
            self.bound[block] = value[:, -1]
        self.known[rows] = True

    def _rivals(self, rows: Indices, value: Numbers) -> Numbers:
        """How similar the rows are to their next `RIVALS`, besides one that is `value` alike."""
        likeness = self.likeness[rows, : RIVALS + 1].astype(np.float64)
        among = value >= likeness[:, RIVALS]
        others: Numbers = likeness.sum(axis=1) - np.where(among, value, likeness[:, RIVALS])
        return others / RIVALS

    def _disjoint(self, pairs: Indices) -> Indices:
        """Of pairs equally good that share a row, the first."""
        taken: set[int] = set()
        chosen = []
        for one, other in pairs.tolist():
            if one not in taken and other not in taken:
                taken |= {one, other}
                chosen.append((one, other))
        return np.array(chosen, np.int64).reshape(-1, 2)


def pairwise(vectors: Vectors, one: Indices, other: Indices) -> Vectors:
    """How similar the vectors of some rows are to those of others, pair by pair."""
    step = max(1, BLOCK_BYTES // (4 * vectors.shape[1]))
    blocks = [slice(start, start + step) for start in range(0, len(one), step)]
    found = [np.einsum("ij,ij->i", vectors[one[b]], vectors[other[b]]) for b in blocks]
    return np.concatenate([np.zeros(0, np.float32), *found])


def distinct(pairs: Indices) -> Indices:
    """Pairs of rows [m, 2], the lesser first, each once and in order."""
    n = int(pairs.max(initial=0)) + 1
    keys = np.unique(pairs.min(axis=1, initial=n) * n + pairs.max(axis=1, initial=0))
    return np.stack([keys // n, keys % n], axis=1)


def _top(likeness: Vectors, floor: float) -> tuple[Indices, Vectors]:
    """The columns [rows, KEPT] of the greatest values above the floor, and those; -1: no more."""
    rows, n = likeness.shape
    near = np.full((rows, KEPT), -1, np.int64)
    value = np.full((rows, KEPT), floor, np.float32)
    if n > SPARSE:
        row, column = np.divmod(np.flatnonzero(likeness > floor), n)
        if len(row) <= rows * n // 16:
            found = likeness[row, column]
            order = np.lexsort((-found, row))
            row, column, found = row[order], column[order], found[order]
            rank = np.arange(len(row)) - np.searchsorted(row, row)
            first = rank < KEPT
            near[row[first], rank[first]] = column[first]
            value[row[first], rank[first]] = found[first]
            return near, value
    width = min(KEPT, n)
    part = np.argpartition(-likeness, width - 1, axis=1)[:, :width]
    found = np.take_along_axis(likeness, part, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")
    part, found = np.take_along_axis(part, order, axis=1), np.take_along_axis(found, order, axis=1)
    near[:, :width] = np.where(found > floor, part, -1)
    value[:, :width] = np.maximum(found, floor)
    return near, value
