"""A child and the teenager it became: groups that are one because they are alike where they meet.

Faces change with the years, and over enough of them the average likeness of one person's faces
falls below what makes two groups one. Then it is not the average over all pairs of faces that
tells, but that over pairs taken within a few years of each other: who was somebody's neighbour in
time and looks like nobody else is that somebody, a few years older. Link by link a chain reaches
from the cradle to old age.

A link rests on fewer faces than an average over all, and siblings are alike: so more is asked of
it. Only what lies apart in time is looked at. Of two groups of the same years the average over all
pairs is the fair measure, and it has spoken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kaleidoscope.people.rules.clustering import (
    BLOCK_BYTES,
    RIVALS,
    WIDTH,
    Flags,
    Indices,
    Numbers,
    Rule,
)
from kaleidoscope.people.rules.matching import Vectors

WINDOW = 3.0  # years within which two faces tell something of each other
CHILDHOOD = 16.0  # years of age up to which a face changes fast
CHILD_WINDOW = 1.5  # ... and two faces tell something of each other, where a birth date is known
STEP = 0.25  # years: faces so near in time are summed up
SAME_BIRTH = 1.0  # years by which two birth dates of one person differ at most
FEW = 3  # faces within the window that either side must have
STRICT = 0.1  # of what is between a threshold and 1: so much more is asked of a link
LOOSE = 0.2  # of what is between a threshold and 1: so far below it ends are still looked at


@dataclass(frozen=True)
class Dated:
    """Faces with a date, in rows: the group that each is in, when it was taken (years), vectors;
    and when those groups were born of which that is known.
    """

    groups: Indices
    taken: Numbers
    vectors: Vectors
    births: Mapping[int, float]


def chained(
    means: Vectors,
    counts: Numbers,
    apart: Indices,
    rule: Rule,
    dated: Dated,
    *,
    fresh: Flags,
    whose: Indices,
) -> Indices:
    """For each group the first of those that it makes one person with, as `together` does, but by
    the likeness within the years in which two groups meet.
    """
    chain = _Chain(means, counts, apart, dated, fresh, whose)
    while pairs := chain.best_pairs(rule):
        chain.join(pairs)
    return chain.first


@dataclass(frozen=True)
class Life:
    """A group's dated faces, in steps of time: when, how many, and the sums of their vectors."""

    when: Numbers
    counts: Numbers
    sums: Numbers
    born: float

    @cached_property
    def middle(self) -> float:
        """Before it lie as many faces as behind it."""
        half = np.searchsorted(np.cumsum(self.counts), self.counts.sum() / 2)
        return float(self.when[half])

    @cached_property
    def ends(self) -> tuple[Numbers, Numbers]:
        """The means of the first and of the last quarter of the faces."""
        quarter = max(FEW, self.counts.sum() / 4)
        early = slice(int(np.searchsorted(np.cumsum(self.counts), quarter)) + 1)
        late = slice(-1 - int(np.searchsorted(np.cumsum(self.counts[::-1]), quarter)), None)
        return self._mean(early), self._mean(late)

    def _mean(self, steps: slice) -> Numbers:
        mean: Numbers = self.sums[steps].sum(axis=0) / self.counts[steps].sum()
        return mean


def life(taken: Numbers, vectors: Vectors, born: float = np.nan) -> Life:
    """The life of some faces."""
    steps = np.floor(taken / STEP) * STEP
    return _summed(steps, np.ones(len(steps)), vectors.astype(np.float64), born)


def joined(one: Life, other: Life) -> Life:
    """Two lives that are one."""
    return _summed(
        np.concatenate([one.when, other.when]),
        np.concatenate([one.counts, other.counts]),
        np.concatenate([one.sums, other.sums]),
        float(np.fmin(one.born, other.born)),
    )


def _summed(when: Numbers, counts: Numbers, sums: Numbers, born: float) -> Life:
    """A life of what lies at these steps of time, each step once and in order."""
    order = np.argsort(when, kind="stable")
    when = when[order]
    starts = np.flatnonzero(np.append(True, np.diff(when) > 0))
    return Life(
        when[starts],
        np.add.reduceat(counts[order], starts),
        np.add.reduceat(sums[order], starts, axis=0),
        born,
    )


def link(one: Life, other: Life) -> float | None:
    """The average likeness of faces of two lives within the window, the nearer in time the more it
    counts; None: too few of them meet.
    """
    earlier = np.minimum(one.when[:, None], other.when)
    young = earlier - np.fmin(one.born, other.born) < CHILDHOOD  # never, where it is not known
    gap = np.abs(one.when[:, None] - other.when)
    weight = np.maximum(0.0, 1 - gap / np.where(young, CHILD_WINDOW, WINDOW))
    meet = weight > 0
    mine, theirs = one.counts[meet.any(axis=1)].sum(), other.counts[meet.any(axis=0)].sum()
    if min(mine, theirs) < FEW:
        return None
    pairs = (weight * one.counts[:, None] * other.counts).sum()
    return float((weight * (one.sums @ other.sums.T)).sum() / pairs)


class _Chain:
    """Groups as chains make them fewer; who has become part of another is no more."""

    def __init__(
        self,
        means: Vectors,
        counts: Numbers,
        apart: Indices,
        dated: Dated,
        fresh: Flags,
        whose: Indices,
    ) -> None:
        self.first = np.arange(len(counts))
        self.means, self.counts = means.copy(), counts.copy()
        self.fresh, self.whose = fresh.copy(), whose.copy()
        self.lives = _lives(dated)
        rows = np.fromiter(self.lives, np.int64, len(self.lives))
        self.foes: dict[int, set[int]] = {row: set() for row in self.lives}
        for one, other in apart[np.isin(apart, rows).all(axis=1)].tolist():
            self.foes[one].add(other)
            self.foes[other].add(one)
        self.scores: dict[tuple[int, int], float] = {}
        self.changed = set(self.lives)

    def best_pairs(self, rule: Rule) -> list[tuple[int, int]]:
        """The pairs that each pass and are each other's best; each group in one at most."""
        least = rule.least + STRICT * (1 - rule.least)
        for pair in self._meeting(rule):
            score = self._score(*pair, rule)
            if score >= least:
                self.scores[pair] = score
        self.changed = set()
        taken: set[int] = set()
        chosen = []
        for pair in sorted(self.scores, key=lambda pair: (-self.scores[pair], pair)):
            if not taken & set(pair):
                chosen.append(pair)
            taken |= set(pair)
        return chosen

    def join(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Make the second of each pair part of the first."""
        for kept, gone in pairs:
            sums = [self.means[row] * self.counts[row] for row in (kept, gone)]
            self.counts[kept] += self.counts[gone]
            self.means[kept] = (sums[0] + sums[1]) / self.counts[kept]
            self.means[gone] = 0
            self.first[self.first == gone] = kept
            self.lives[kept] = joined(self.lives[kept], self.lives.pop(gone))
            self.foes[kept] |= self.foes.pop(gone)
            for foe in self.foes[kept]:
                self.foes[foe] = (self.foes[foe] - {gone}) | {kept}
            self.fresh[kept] |= self.fresh[gone]
            self.whose[kept] = max(self.whose[kept], self.whose[gone])
            self.changed.add(kept)
        touched = {row for pair in pairs for row in pair}
        self.scores = {p: s for p, s in self.scores.items() if not touched & set(p)}

    def _meeting(self, rule: Rule) -> set[tuple[int, int]]:
        """Pairs with a group that has changed, one of which begins where the other ends, alike
        enough there to be worth a look; none that cannot be one.
        """
        if not self.changed:
            return set()
        rows = np.array(sorted(self.lives), np.int64)
        lives = [self.lives[row] for row in rows.tolist()]
        ends = np.array([life.ends for life in lives], np.float32)  # [groups, 2, dimension]
        ends = ends.transpose(1, 0, 2).copy()  # the first ones of all, the last ones of all
        first, last = (np.array([life.when[i] for life in lives]) for i in (0, -1))
        middle = np.array([life.middle for life in lives])
        changed = np.nonzero(np.isin(rows, list(self.changed)))[0]
        least = (rule.least + rule.rival * rule.floor) / (1 + rule.rival)
        least -= LOOSE * (1 - rule.least)
        found: set[tuple[int, int]] = set()
        step = max(1, BLOCK_BYTES // (8 * len(rows)))
        for start in range(0, len(changed), step):
            some = changed[start : start + step]
            before = (ends[0, some] @ ends[1].T > least) & (first[some, None] - last < WINDOW)
            before &= middle[some, None] - middle > WINDOW
            after = (ends[1, some] @ ends[0].T > least) & (first - last[some, None] < WINDOW)
            after &= middle - middle[some, None] > WINDOW
            one, other = np.nonzero(before | after)
            found |= set(zip(rows[some[one]].tolist(), rows[other].tolist(), strict=True))
        return {(min(p), max(p)) for p in found if self._may(*p)}

    def _may(self, one: int, other: int) -> bool:
        if other in self.foes[one] or not (self.fresh[one] or self.fresh[other]):
            return False
        if abs(self.lives[one].born - self.lives[other].born) > SAME_BIRTH:
            return False
        whose = self.whose[one], self.whose[other]
        return 0 in whose or whose[0] == whose[1]

    def _score(self, one: int, other: int, rule: Rule) -> float:
        """How alike two groups are where they meet, by the measure of `Rule`."""
        value = link(self.lives[one], self.lives[other])
        if value is None:
            return -np.inf
        score = value
        if rule.rival and value + rule.rival * (value - rule.floor) >= rule.least:
            rivals = max(self._rivals(*pair, rule) for pair in ((one, other), (other, one)))
            score += rule.rival * (value - rivals)
        return score - rule.caution * float(np.log2(min(self.counts[one], self.counts[other])))

    def _rivals(self, row: int, but: int, rule: Rule) -> float:
        """How alike a group is to the next ones, on average or where they meet."""
        likeness = self.means @ self.means[row]
        likeness[[row, but]] = -np.inf
        values = [rule.floor] * RIVALS
        width = min(WIDTH, len(likeness)) - 1
        nearest = np.argpartition(-likeness, width)[: width + 1]
        for other in nearest[likeness[nearest] > -np.inf].tolist():
            met = link(self.lives[row], self.lives[other]) if other in self.lives else None
            values.append(max(float(likeness[other]), -np.inf if met is None else met))
        return sum(sorted(values)[-RIVALS:]) / RIVALS


def _lives(dated: Dated) -> dict[int, Life]:
    """The lives of groups that have enough faces with a date."""
    order = np.argsort(dated.groups, kind="stable")
    ends = np.nonzero(np.diff(dated.groups[order]))[0] + 1
    found = {}
    for rows in np.split(order, ends):
        if len(rows) >= FEW:
            group = int(dated.groups[rows[0]])
            born = dated.births.get(group, np.nan)
            found[group] = life(dated.taken[rows], dated.vectors[rows], born)
    return found
