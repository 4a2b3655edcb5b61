"""How good the machine's word is, by what a person said: shares, and how sure they are.

Two things are judged. What the machine had made of a face before a person first spoke of it; and
each confirmed face matched anew, without itself, which tells what another threshold would give.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kaleidoscope.people.rules.calibration import Integers, Numbers
from kaleidoscope.people.rules.consolidation import Whole
from kaleidoscope.people.rules.matching import Vectors

SURE = 1.959964  # standard deviations: 95 %
STEPS = 10_000  # of thresholds between 0 and 1
BLOCK = 4096  # faces that are compared with everybody at once


@dataclass(frozen=True)
class Share:
    """So many of so many, with Wilson's 95 % interval of the share that they come from."""

    count: int
    of: int
    value: float
    low: float
    high: float


def share(count: int, of: int) -> Share | None:
    """The share with its interval; None: of nothing."""
    if not of:
        return None
    value, z2 = count / of, SURE**2
    middle = value + z2 / (2 * of)
    spread = SURE * math.sqrt(value * (1 - value) / of + z2 / (4 * of * of))
    low, high = ((middle + side * spread) / (1 + z2 / of) for side in (-1, 1))
    return Share(count, of, value, max(0.0, low), min(1.0, high))


@dataclass(frozen=True)
class Spoken:
    """A confirmed face: its person, the one it had when a person first spoke of it (by the id that
    resolves to now; None: it was open), and by which kind of event that was.
    """

    person: int
    had: int | None
    kind: str


@dataclass(frozen=True)
class Outcomes:
    """Of the confirmed faces, those that the machine had given to their person, to their person
    under a second id (a person merged the two), to somebody else, and to nobody.
    """

    right: int = 0
    apart: int = 0
    wrong: int = 0
    open: int = 0

    @property
    def precision(self) -> Share | None:
        """Of the faces given to a person, the share that is theirs."""
        return share(self.right + self.apart, self.right + self.apart + self.wrong)

    @property
    def recall(self) -> Share | None:
        """Of all, the share that was found with its person."""
        return share(self.right, self.right + self.apart + self.wrong + self.open)


def outcomes(faces: Sequence[Spoken]) -> Outcomes:
    """What the machine had made of these faces."""
    found = {"right": 0, "apart": 0, "wrong": 0, "open": 0}
    for face in faces:
        if face.had is None:
            found["open"] += 1
        elif face.had != face.person:
            found["wrong"] += 1
        else:
            found["apart" if face.kind == "merge" else "right"] += 1
    return Outcomes(**found)


@dataclass(frozen=True)
class Matches:
    """Faces matched without themselves: similarity to the most similar person, whether that is
    their own (1.0 or 0.0), and how many have another face of their person to be found by.
    """

    similarity: Numbers
    right: Numbers
    findable: int


def matches(vectors: Vectors, who: Integers, known: Whole) -> Matches:
    """Each of these faces matched against all persons; `known` (in the order of ids) counts it."""
    own = np.searchsorted(known.ids, who)
    counts = known.counts[own].astype(np.float64)
    similarity, right = np.zeros(len(who)), np.zeros(len(who))
    for start in range(0, len(who), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(who)))
        likeness = (vectors[rows] @ known.means.T).astype(np.float64)
        theirs = likeness[np.arange(len(rows)), own[rows]]
        others = counts[rows] - 1
        without = (theirs * counts[rows] - 1) / np.maximum(others, 1)
        likeness[np.arange(len(rows)), own[rows]] = np.where(others > 0, without, -np.inf)
        best = likeness.argmax(axis=1)
        similarity[rows] = likeness[np.arange(len(rows)), best]
        right[rows] = (best == own[rows]) & (others > 0)
    return Matches(similarity, right, int((counts > 1).sum()))


@dataclass(frozen=True)
class Threshold:
    """A similarity, and what joining from it on would have given."""

    similarity: float
    precision: Share
    recall: Share | None


def at(found: Matches, similarity: float) -> Threshold | None:
    """What joining from this similarity on gives; None: no face is so similar to anybody."""
    joined = found.similarity >= similarity
    right = int(found.right[joined].sum())
    precision = share(right, int(joined.sum()))
    if precision is None:
        return None
    return Threshold(round(similarity, 4), precision, share(right, found.findable))


def threshold(found: Matches, wanted: float) -> Threshold | None:
    """The lowest threshold whose precision is surely (by its interval) as high as wanted.

    None: these faces are too few, or too often wrong, to promise so much.
    """
    similarity = np.sort(found.similarity[np.isfinite(found.similarity)])
    right = np.append(0, np.cumsum(found.right[np.argsort(-found.similarity, kind="stable")]))
    steps = np.unique(np.floor(similarity * STEPS)) / STEPS
    joined = len(similarity) - np.searchsorted(similarity, steps)
    for step, count in zip(steps.tolist(), joined.tolist(), strict=True):
        given = share(int(right[count]), count)
        if given is not None and given.low >= wanted:
            return Threshold(step, given, share(given.count, found.findable))
    return None


def least_faces(wanted: float) -> int:
    """How many faces, all of them right, it takes to be sure of a precision."""
    return math.ceil(SURE**2 * wanted / (1 - wanted))
