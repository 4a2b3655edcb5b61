"""What a similarity means: the probability that a face is of the person it is most similar to.

Fitted on faces whose persons are known: each face is taken out of the library, and looked at is
whether the person it is then most similar to, on average, is its own. Odds rise exponentially with
the similarity, equally fast everywhere; where they are even depends on the size of the library.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from kaleidoscope.people.rules.matching import Vectors

BINS = 10
FOLDS = 5
STEPS = 50  # of Newton's method, which needs about ten
STRAY = 1e-3  # keeps the fit finite where right and wrong do not overlap

Numbers = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Trials:
    """Faces that were matched: similarity to the most similar person, whether that was right, the
    kind of library (by its size), and the face's own person.
    """

    similarity: Numbers
    right: Numbers
    size: Integers
    who: Integers

    def __add__(self, other: Trials) -> Trials:
        return Trials(
            np.concatenate([self.similarity, other.similarity]),
            np.concatenate([self.right, other.right]),
            np.concatenate([self.size, other.size]),
            np.concatenate([self.who, other.who]),
        )

    def some(self, rows: NDArray[np.bool_]) -> Trials:
        return Trials(self.similarity[rows], self.right[rows], self.size[rows], self.who[rows])


@dataclass(frozen=True)
class Map:
    """odds = exp(slope · (similarity - even)), with an `even` for each size of library."""

    slope: float
    even: tuple[float, ...]

    def probability(self, trials: Trials) -> Numbers:
        above = trials.similarity - np.array(self.even)[trials.size]
        found: Numbers = 1 / (1 + np.exp(-np.clip(self.slope * above, -700, 700)))
        return found


@dataclass(frozen=True)
class Bin:
    """Of the matches that were given about this probability, how many there were and the share
    that was right.
    """

    stated: float
    right: float
    count: int


def trials(vectors: Vectors, who: Integers, size: int) -> Trials:
    """Every face matched against the others; `who` are the persons of the unit rows."""
    persons, row = np.unique(who, return_inverse=True)
    counts = np.bincount(row).astype(np.float64)
    sums = np.zeros((len(persons), vectors.shape[1]))
    np.add.at(sums, row, vectors.astype(np.float64))
    likeness = vectors.astype(np.float64) @ (sums / counts[:, None]).T
    faces = np.arange(len(row))
    own = np.einsum("ij,ij->i", vectors.astype(np.float64), sums[row] - vectors)
    others = counts[row] - 1
    likeness[faces, row] = np.where(others > 0, own / np.maximum(others, 1), -np.inf)
    best = likeness.argmax(axis=1)
    return Trials(
        likeness[faces, best],
        (best == row).astype(np.float64),
        np.full(len(row), size, np.int64),
        persons[row].astype(np.int64),
    )


def libraries(vectors: Vectors, who: Integers, regulars: Sequence[int], regular: int) -> Trials:
    """Trials in libraries of so many regulars each (0: as many as there are), drawn from these.

    A person of `regular` faces or more is a regular. Small libraries are drawn several times, so
    that every size counts about equally; a size that cannot be had is drawn as large as can be.
    """
    persons, row, counts = np.unique(who, return_inverse=True, return_counts=True)
    known = max(1, int((counts >= regular).sum()))
    rng = np.random.default_rng(0)
    found = []
    for size, wanted in enumerate(regulars):
        share = min(1.0, (wanted or known) / known)
        for _ in range(max(1, round(1 / share))):
            drawn = rng.random(len(persons)) < share
            if drawn.sum() > 1:
                inside = drawn[row]
                found.append(trials(vectors[inside], who[inside], size))
    return reduce(operator.add, found)


def fit(known: Trials) -> Map:
    """The likeliest map, by Newton's method. Every size needs a trial."""
    sizes = int(known.size.max()) + 1
    centre = float(known.similarity.mean())
    spread = float(known.similarity.std()) or 1.0
    x = np.zeros((len(known.size), sizes + 1))
    x[:, 0] = (known.similarity - centre) / spread
    x[np.arange(len(x)), known.size + 1] = 1
    weights = np.zeros(sizes + 1)
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -700, 700)))
        gradient = x.T @ (known.right - p) - STRAY * weights
        curvature = (x * (p * (1 - p))[:, None]).T @ x + STRAY * np.eye(sizes + 1)
        step = np.linalg.solve(curvature, gradient)
        weights += np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-9:
            break
    slope = max(float(weights[0]), 1e-6) / spread
    return Map(slope, tuple(centre - float(w) / slope for w in weights[1:]))


def cross_validated(known: Trials) -> Numbers:
    """For each trial the probability by a map that was fitted without anybody of its fold."""
    stated = np.zeros(len(known.who))
    people = np.unique(known.who)
    order = np.random.default_rng(0).permutation(len(people))
    fold_of = dict(
        zip(people[order].tolist(), (np.arange(len(people)) % FOLDS).tolist(), strict=True)
    )
    fold = np.array([fold_of[p] for p in known.who.tolist()])
    for number in range(FOLDS):
        held_out = fold == number
        if held_out.any() and not held_out.all():
            stated[held_out] = fit(known.some(~held_out)).probability(known.some(held_out))
    return stated


def reliability(stated: Numbers, right: Numbers) -> list[Bin]:
    """How right the matches of each tenth of the probabilities were; empty tenths are left out."""
    place = np.minimum((stated * BINS).astype(np.int64), BINS - 1)
    bins = []
    for number in range(BINS):
        inside = place == number
        if inside.any():
            bins.append(
                Bin(float(stated[inside].mean()), float(right[inside].mean()), int(inside.sum()))
            )
    return bins


def calibration_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error: how far stated and right are apart, on average."""
    total = sum(b.count for b in bins)
    return sum(b.count * abs(b.stated - b.right) for b in bins) / total if total else 0.0
