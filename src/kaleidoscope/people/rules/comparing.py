"""Which of two packs is better on the same faces, and how sure that is.

Both look at the same photos and are judged alike: by faces whose persons are known, each matched
without itself against the others. What differs between the packs is judged face by face, which
tells more than two intervals side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kaleidoscope.people.rules.calibration import Integers
from kaleidoscope.people.rules.consolidation import Whole
from kaleidoscope.people.rules.matching import Vectors
from kaleidoscope.people.rules.quality import Share, Threshold, matches, share, threshold

A_PERSON = 8  # faces of one person that are compared by, at most: breadth tells more than depth

Flags = NDArray[np.bool_]


def sample(persons: Sequence[int], most: int) -> list[int]:
    """Which rows of faces with these persons to compare by: so many at most, in order.

    Persons at random, the same ones each time, with some faces each; then who has one face alone,
    and can only be taken for somebody else; then more faces of the first.
    """
    dice = np.random.default_rng(len(persons))
    rows_of: dict[int, list[int]] = {}
    for row in dice.permutation(len(persons)).tolist():
        rows_of.setdefault(persons[row], []).append(row)
    several = [rows[:A_PERSON] for rows in rows_of.values() if len(rows) > 1]
    alone = [rows for rows in rows_of.values() if len(rows) == 1]
    more = [rows[A_PERSON:] for rows in rows_of.values()]
    chosen = [row for rows in [*several, *alone, *more] for row in rows]
    return sorted(chosen[:most])


@dataclass(frozen=True)
class Judged:
    """What a pack makes of faces whose persons are known.

    `found`: the share in which it sees a face at all. Of each face whether it is given to its
    person (`right`) or to another one (`wrong`) from the similarity `least` on, and what precision
    and recall that gives; `advised`: the lowest threshold that surely gives the precision wanted.
    """

    least: float
    found: Share | None
    precision: Share | None
    recall: Share | None
    advised: Threshold | None
    right: Flags
    wrong: Flags


def judge(vectors: Vectors, found: Flags, who: Integers, least: float, wanted: float) -> Judged:
    """Match each face without itself. `vectors` are those of the faces `found`, all of `who`.

    A face that is not found is missed: recall is of all that have another face to be found by.
    """
    _, counts = np.unique(who, return_counts=True)
    findable = int(counts[counts > 1].sum())
    right, wrong = np.zeros(len(who), bool), np.zeros(len(who), bool)
    advised = None
    if found.any():
        seen = who[found]
        matched = replace(matches(vectors, seen, means(vectors, seen)), findable=findable)
        joined = matched.similarity >= least
        right[found] = joined & (matched.right > 0)
        wrong[found] = joined & (matched.right == 0)
        advised = threshold(matched, wanted)
    rights, wrongs = int(right.sum()), int(wrong.sum())
    return Judged(
        least,
        share(int(found.sum()), len(who)),
        share(rights, rights + wrongs),
        share(rights, findable),
        advised,
        right,
        wrong,
    )


def means(vectors: Vectors, who: Integers) -> Whole:
    """The persons of faces."""
    ids, row, counts = np.unique(who, return_inverse=True, return_counts=True)
    total = np.zeros((len(ids), vectors.shape[1]), np.float32)
    np.add.at(total, row, vectors)
    return Whole(ids, counts, (total / counts[:, None]).astype(np.float32))


@dataclass(frozen=True)
class Difference:
    """How much larger a share is with the other pack: `more` faces have it with the other alone,
    `fewer` with this one alone; with the 95 % interval of the difference.
    """

    more: int
    fewer: int
    of: int
    value: float
    low: float
    high: float


def difference(this: Flags, other: Flags) -> Difference | None:
    """Newcombe's interval for two shares of the same faces (1998, method 10); None: no faces."""
    n = len(this)
    if not n:
        return None
    both, neither = int((this & other).sum()), int((~this & ~other).sum())
    more, fewer = int((other & ~this).sum()), int((this & ~other).sum())
    one, two = share(both + more, n), share(both + fewer, n)
    assert one is not None and two is not None
    link = _correlation(both, more, fewer, neither)
    down = _spread(one.value - one.low, two.high - two.value, link)
    up = _spread(one.high - one.value, two.value - two.low, link)
    value = one.value - two.value
    return Difference(more, fewer, n, value, max(-1.0, value - down), min(1.0, value + up))


def differences(
    this: Judged, other: Judged, who: Integers
) -> tuple[Difference | None, Difference | None]:
    """How much more the other pack has right, of the faces that can be found, and wrong, of all."""
    _, row, counts = np.unique(who, return_inverse=True, return_counts=True)
    findable = counts[row] > 1
    return (
        difference(this.right[findable], other.right[findable]),
        difference(this.wrong, other.wrong),
    )


def _spread(a: float, b: float, link: float) -> float:
    return math.sqrt(max(0.0, a * a - 2 * link * a * b + b * b))


def _correlation(both: int, more: int, fewer: int, neither: int) -> float:
    """How much the two go together, -1 to 1, made smaller where few faces say so."""
    margins = (both + more) * (fewer + neither) * (both + fewer) * (more + neither)
    if not margins:
        return 0.0
    product = float(both * neither - more * fewer)
    if product > 0:
        product = max(0.0, product - (both + more + fewer + neither) / 2)
    return product / math.sqrt(margins)


Verdict = Literal["this", "other", "mixed", "open"]


def verdict(right: Difference | None, wrong: Difference | None) -> Verdict:
    """Which pack is better, as far as the intervals let one say so.

    `open`: these faces do not tell; `mixed`: the one finds more and confuses more.
    """
    if right is None or wrong is None:
        return "open"
    better = right.low > 0 or wrong.high < 0
    worse = right.high < 0 or wrong.low > 0
    if better and worse:
        return "mixed"
    return "other" if better else "this" if worse else "open"
