"""Who the faces of one photo are: join a known person, found a new one, or stay open.

Vectors are unit length, similarity is the cosine. The similarity of a face to a person is the
average over the person's faces, sum · e / count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from kaleidoscope.kernel.boxes import overlap, paired

Vector = NDArray[np.float32]
Vectors = NDArray[np.float32]  # one a row

SAME_PLACE = 0.4  # intersection over union above which two boxes are one face


@dataclass(frozen=True)
class Limits:
    """The similarities and the quality that decide, for one pack and library size."""

    join: float
    """A face joins a person at this average similarity."""
    merge: float
    """Two persons are one at this average similarity between their faces, in plain company."""
    copy: float
    """A face this similar to one face of a person is that face again: a copy, a burst."""
    same: float
    """Two faces of one photo at this similarity are one face twice: a mirror, a collage."""
    found: float
    """The least quality (0 to 1) of a face that founds a person."""
    rival: float = 0.0
    """How much the lead of two persons over the next most similar ones counts."""
    caution: float = 0.0
    """By how much two persons must be more similar for each doubling of the smaller."""
    lonely: float = 1.0
    """The similarity of the next most similar persons where there is nobody near."""
    legible: float = 0.0
    """The least quality of a face that joins somebody whom it is like on average."""


@dataclass(frozen=True)
class Sight:
    """A face to decide about: what is known of it besides its vector."""

    quality: float = 1.0
    similar: Mapping[int, float] = field(default_factory=dict)
    """Average similarity to each candidate person."""
    refused: frozenset[int] = frozenset()
    """Persons that somebody said this is not, or who were not born when the photo was taken."""
    fixed: int | None = None
    """The person that somebody said this is."""
    held: int | None = None
    """The person it had before it was processed again."""
    copied: int | None = None
    """The person of the same face in a picture of which the photo is a copy."""


@dataclass(frozen=True)
class Verdict:
    """`person_id` of a known person, or `founds` (faces of one new person share the number)."""

    person_id: int | None = None
    founds: int | None = None
    similarity: float | None = None


def decide(sights: Sequence[Sight], vectors: Vectors, limits: Limits) -> list[Verdict]:
    """A verdict for each face of one photo; `vectors` is [faces, dimension], unit rows.

    Two faces of a photo are two people unless they are nearly identical. The best pair of face and
    person is settled first, so that the order of the faces does not matter.
    """
    alike = vectors @ vectors.T >= limits.same
    verdicts: dict[int, Verdict] = {
        i: Verdict(person_id=s.fixed, similarity=s.similar.get(s.fixed))
        for i, s in enumerate(sights)
        if s.fixed is not None
    }
    _copy(sights, verdicts, alike)
    for similarity, i, person_id in _pairs(sights, limits):
        if i not in verdicts and _free(person_id, i, verdicts, alike):
            verdicts[i] = Verdict(person_id=person_id, similarity=similarity)
    _keep(sights, verdicts, alike)
    _found(sights, verdicts, alike, limits.found)
    return [verdicts.get(i, Verdict()) for i in range(len(sights))]


@dataclass(frozen=True)
class Sitting:
    """The faces of one photo: two of them are two people, mostly."""

    sights: Sequence[Sight]
    vectors: Vectors
    suggested: Sequence[int | None]
    """Persons that the ML service thought of."""


@dataclass(frozen=True)
class Outcome:
    """What came of photos decided one after the other.

    `founds` of the verdicts counts through all of them: a face may join whom an earlier photo
    founds. `lonely` are the rows of faces that are like nobody on average.
    """

    verdicts: list[list[Verdict]]
    lonely: list[int]
    founded: int


def decide_all(
    sittings: Sequence[Sitting],
    similar: Sequence[Mapping[int, float]],
    copies: Mapping[int, Mapping[int, float]],
    known: Mapping[int, tuple[int, Vector]],
    limits: Limits,
) -> Outcome:
    """Verdicts on the faces of photos, as if each photo were written before the next is looked at.

    The rows are the faces of all photos in order. `similar`: candidates of each row; `copies`:
    those of some rows by single faces, which count where the average finds nobody; `known`: number
    and sum of the vectors of candidates.
    """
    gains, verdicts, lonely, start = Gains(known), [], [], 0
    for sitting in sittings:
        rows = range(start, start + len(sitting.sights))
        start = rows.stop
        averages = gains.similar(sitting.vectors)
        sights = [
            replace(sight, similar={**sight.similar, **similar[row], **average})
            for sight, row, average in zip(sitting.sights, rows, averages, strict=True)
        ]
        decided = decide(sights, sitting.vectors, limits)
        alone = [i for i, verdict in enumerate(decided) if verdict.person_id is None]
        lonely += [rows[i] for i in alone]
        faces = gains.copies(sitting.vectors[alone], limits.copy)
        more = {
            i: {**copies.get(rows[i], {}), **face} for i, face in zip(alone, faces, strict=True)
        }
        if any(more.values()):
            sights = [
                replace(sight, similar={**sight.similar, **more.get(i, {})})
                for i, sight in enumerate(sights)
            ]
            decided = decide(sights, sitting.vectors, limits)
        verdicts.append(gains.add(sights, decided, sitting.vectors))
    return Outcome(verdicts, lonely, gains.founded)


class Gains:
    """What persons gain by photos that are decided and not written yet.

    Persons founded by them have negative numbers, the first -1.
    """

    def __init__(self, known: Mapping[int, tuple[int, Vector]]) -> None:
        self.founded = 0
        self._known = known
        self._gained: dict[int, list[Vector]] = {}

    def add(
        self, sights: Sequence[Sight], verdicts: Sequence[Verdict], vectors: Vectors
    ) -> list[Verdict]:
        """A photo is decided; its verdicts, with `founds` counted through all photos."""
        first, counted = self.founded, []
        for sight, verdict, vector in zip(sights, verdicts, vectors, strict=True):
            person, founds = verdict.person_id, verdict.founds
            if founds is not None:
                founds += first
                self.founded = max(self.founded, founds + 1)
                person = -1 - founds
            elif person is not None and person < 0:
                founds = -1 - person
            new = sight.held is None and sight.fixed is None and sight.copied is None
            if person is not None and (new or person < 0):
                self._gained.setdefault(person, []).append(vector)
            known = None if person is None or person < 0 else person
            counted.append(Verdict(known, founds, verdict.similarity))
        return counted

    def similar(self, vectors: Vectors) -> list[dict[int, float]]:
        """For each vector, the average similarity to everybody who has gained."""
        persons, means = [], []
        for person, gained in self._gained.items():
            count, total = self._known.get(person, (0, np.float32(0)))
            if person < 0 or count:
                persons.append(person)
                means.append((total + np.sum(gained, axis=0)) / (count + len(gained)))
        if not persons or not len(vectors):
            return [{} for _ in vectors]
        rows = vectors @ np.stack(means).T
        return [dict(zip(persons, row, strict=True)) for row in rows.tolist()]

    def copies(self, vectors: Vectors, least: float) -> list[dict[int, float]]:
        """For each vector, who has gained a face at least that similar."""
        found: list[dict[int, float]] = [{} for _ in vectors]
        if len(vectors):
            for person, gained in self._gained.items():
                nearest = (vectors @ np.stack(gained).T).max(axis=1)
                for row in np.flatnonzero(nearest >= least).tolist():
                    found[row][person] = float(nearest[row])
        return found


def _copy(sights: Sequence[Sight], verdicts: dict[int, Verdict], alike: NDArray[np.bool_]) -> None:
    """In the copy of a picture everybody is who they are there."""
    for i, sight in enumerate(sights):
        person = sight.copied
        if i in verdicts or person is None or person in sight.refused:
            continue
        if _free(person, i, verdicts, alike):
            verdicts[i] = Verdict(person_id=person, similarity=sight.similar.get(person))


def _pairs(sights: Sequence[Sight], limits: Limits) -> list[tuple[float, int, int]]:
    """Every acceptable (similarity, face, person): those held already, then the most similar.

    A face too poor to be told from others joins only those who have the very face, or who held it.
    """
    pairs = [
        (similarity, i, person_id)
        for i, sight in enumerate(sights)
        for person_id, similarity in sight.similar.items()
        if similarity >= (limits.join if sight.quality >= limits.legible else limits.copy)
        and person_id not in sight.refused
    ]
    return sorted(pairs, key=lambda p: (sights[p[1]].held != p[2], -p[0], p[1], p[2]))


def _free(
    person_id: int, i: int, verdicts: Mapping[int, Verdict], alike: NDArray[np.bool_]
) -> bool:
    """Whether face `i` may be this person beside the other faces of the photo."""
    return all(alike[i, j] for j, v in verdicts.items() if v.person_id == person_id)


def _keep(sights: Sequence[Sight], verdicts: dict[int, Verdict], alike: NDArray[np.bool_]) -> None:
    """A face that is like nobody keeps the person it had: processing again moves no names."""
    for i, sight in enumerate(sights):
        held = sight.held
        if i in verdicts or held is None or held in sight.refused:
            continue
        if _free(held, i, verdicts, alike):
            verdicts[i] = Verdict(person_id=held, similarity=sight.similar.get(held))


def _found(
    sights: Sequence[Sight],
    verdicts: dict[int, Verdict],
    alike: NDArray[np.bool_],
    least_quality: float,
) -> None:
    """The twin of a settled face follows it, a good face founds, a poor one stays open."""
    rest = [i for i in range(len(sights)) if i not in verdicts]
    founded = 0
    for i in sorted(rest, key=lambda i: -sights[i].quality):
        twins = (v for j, v in verdicts.items() if alike[i, j] and _may_follow(sights[i], v))
        twin = next(twins, None)
        if twin is not None:
            verdicts[i] = Verdict(person_id=twin.person_id, founds=twin.founds)
        elif sights[i].quality >= least_quality:
            verdicts[i] = Verdict(founds=founded)
            founded += 1


def _may_follow(sight: Sight, verdict: Verdict) -> bool:
    return verdict.person_id is None or verdict.person_id not in sight.refused


def same_places(new: Sequence[Sequence[float]], old: Sequence[Sequence[float]]) -> dict[int, int]:
    """Which new box is which old one: index to index, the best overlap first, each used once."""
    pairs = sorted(
        ((overlap(a, b), i, j) for i, a in enumerate(new) for j, b in enumerate(old)),
        key=lambda p: (-p[0], p[1], p[2]),
    )
    return paired((i, j) for share, i, j in pairs if share >= SAME_PLACE)
