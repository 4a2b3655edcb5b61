"""What consolidation does: who is one after all, who is not, and which id each keeps.

The persons to be looked at anew are taken apart into pieces that hold together in any company (in a
small library into faces, but for what a person said), and grown together again with everybody
else. What a person said is never broken: confirmed faces stay,
what was put or taken back together stays together, a remembered no and two faces in one photo keep
people apart.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations

import numpy as np

from kaleidoscope.kernel.batches import batched
from kaleidoscope.people.rules.ages import too_early_all
from kaleidoscope.people.rules.chains import Dated, chained
from kaleidoscope.people.rules.clustering import (
    Flags,
    Indices,
    Numbers,
    Rule,
    distinct,
    each_together,
    pairwise,
    together,
)
from kaleidoscope.people.rules.matching import Limits, Vectors

NOBODY = 0  # the person of an open face
CROWD = 64  # faces of a person from which on those near the average are one piece unseen
AT_ONCE = 10_000  # faces whose similarities are computed at once
LARGEST = 500  # faces that are compared with each other at once
ALONE = 10_000  # faces up to which each starts alone: then arrival order leaves no trace
MOST_TOLD = 200_000  # pairs of faces kept apart, up to which they may


@dataclass(frozen=True)
class Faces:
    """Faces in rows: ids, persons (`NOBODY`: open), photos, qualities, whether a person confirmed
    them, the faces that they are copies of (0: of none), vectors, and when they were taken: points
    of time in years (NaN: not known; None: of none is it known).
    """

    ids: Indices
    persons: Indices
    photos: Indices
    qualities: Numbers
    confirmed: Flags
    copies: Indices
    vectors: Vectors
    taken: Numbers | None = None

    def some(self, rows: Flags) -> Faces:
        return Faces(
            self.ids[rows],
            self.persons[rows],
            self.photos[rows],
            self.qualities[rows],
            self.confirmed[rows],
            self.copies[rows],
            self.vectors[rows],
            None if self.taken is None else self.taken[rows],
        )


@dataclass(frozen=True)
class Whole:
    """Persons who are taken as they are, in rows: ids, counts of faces, means.

    Of a person in many photos it may be the faces long settled, while the new ones are among
    `Faces`: those are looked at one by one, the settled ones stay together and keep the id, unless
    somebody larger takes them in.
    """

    ids: Indices
    counts: Indices
    means: Vectors

    def some(self, rows: Flags) -> Whole:
        return Whole(self.ids[rows], self.counts[rows], self.means[rows])

    def without(self, faces: Faces, settled: Collection[int] = ()) -> Whole:
        """Without those who have faces among these; of the persons `settled` the rest is left."""
        partly = np.isin(self.ids, np.fromiter(settled, np.int64, len(settled)))
        return self.some(partly | ~np.isin(self.ids, faces.persons))._less(faces)

    def _less(self, faces: Faces) -> Whole:
        """Without these faces of theirs. A copy of another of the faces does not count."""
        original = _originals(faces, np.zeros(len(faces.ids), np.bool_))
        counted = (original == np.arange(len(original))) & np.isin(faces.persons, self.ids)
        row = np.searchsorted(self.ids, faces.persons[counted])
        gone = np.bincount(row, minlength=len(self.ids)).astype(np.int64)
        sums = self.means.astype(np.float64) * self.counts[:, None]
        np.add.at(sums, row, -faces.vectors[counted].astype(np.float64))
        rest = self.counts - gone
        means = np.where(
            (gone > 0)[:, None], sums / np.maximum(rest, 1)[:, None], self.means
        ).astype(np.float32)
        return Whole(self.ids, rest, means).some(rest > 0)


@dataclass(frozen=True)
class Said:
    """What is known besides the vectors. Persons go by the id they resolve to."""

    names: Mapping[int, str] = field(default_factory=dict)
    confirmed: frozenset[int] = frozenset()
    """Persons who have a face that a person confirmed."""
    held: frozenset[int] = frozenset()
    """Faces that a person's word keeps with the person they have."""
    face_noes: Sequence[tuple[int, int]] = ()
    """A face, and a person it is not."""
    person_noes: Sequence[tuple[int, int]] = ()
    """Two persons who are not the same."""
    present: Sequence[tuple[int, int]] = ()
    """A photo, and a person taken as a whole who is in it."""
    changed: frozenset[int] = frozenset()
    """Persons who have changed: also those taken as a whole are compared with everybody."""
    births: Mapping[int, float] = field(default_factory=dict)
    """When persons were born: points of time in years."""


@dataclass(frozen=True)
class Regrouping:
    """Moves that belong together. A negative person is one to be found: each has its number."""

    faces: Mapping[int, tuple[int | None, float | None]]
    """Every face that gets another person (None: it is open again), and its similarity to them."""
    before: Mapping[int, int]
    """The person each of them had (`NOBODY`: it was open)."""
    merged: Mapping[int, int]
    """Persons of whom nothing is left, and who they are."""
    founded: Mapping[int, int]
    """Persons to be founded, and whose face the most of theirs were (`NOBODY`: open faces)."""
    split: frozenset[int]
    """Persons of whose faces some are somebody else."""
    weight: int
    """How many faces get another id, with those of persons merged as a whole."""

    @property
    def persons(self) -> set[int]:
        """Every living person that it touches."""
        had, has = set(self.before.values()), {p for p, _ in self.faces.values() if p is not None}
        ends = {*self.merged, *self.merged.values(), *self.split}
        return {p for p in had | has | ends if p > NOBODY}


def regroup(
    faces: Faces, whole: Whole, said: Said, limits: Limits, met: Faces | None = None
) -> list[Regrouping]:
    """The moves that make of faces and persons those whom they are by all that can be seen now.

    Only what concerns the persons taken apart (those of `faces`) and open faces is looked at.
    `met` are faces, with their dates, of persons taken as a whole whom others may meet in time.
    """
    atoms = _Atoms(_legible(faces, limits.legible), whole, said, limits)
    company = len(whole.ids) > 0
    groups = np.arange(len(atoms.counts))
    plain = Rule(limits.merge, min(limits.lonely, limits.merge), limits.rival, limits.caution)
    for rule in (Rule(least=limits.join, floor=limits.join), plain):
        groups = atoms.grown(groups, rule, only_fresh=company)
    groups = atoms.chained(groups, plain, met)
    return _Identities(atoms, groups, said, limits).moves()


def _legible(faces: Faces, least: float) -> Faces:
    """Without the open faces that are too poor to be anybody."""
    return faces.some((faces.persons != NOBODY) | (faces.qualities >= least))


@dataclass(frozen=True)
class _Grown:
    """Groups of atoms, in rows: the first atom of each, the row that each atom is in; their means,
    counts, pairs of them that are different people, whether they are looked at anew, and whose
    they are.
    """

    first: Indices
    row: Indices
    means: Vectors
    counts: Numbers
    apart: Indices
    fresh: Flags
    whose: Indices


class _Atoms:
    """The pieces of the persons taken apart, open faces, then whole persons: each a row."""

    def __init__(self, faces: Faces, whole: Whole, said: Said, limits: Limits) -> None:
        self.faces, self.whole, self.births = faces, whole, said.births
        held = np.isin(faces.ids, np.fromiter(said.held, np.int64, len(said.held)))
        pinned = (faces.confirmed | held) & (faces.persons != NOBODY)
        self.pinned = pinned
        foes = _in_one_photo(faces, limits.same)
        original = _originals(faces, pinned)
        self.counted = original == np.arange(len(original))  # a copy counts for nothing
        self.unborn = _unborn(faces, said.births, self.counted, pinned)
        # The faces of who was not born then are open ones from here on.
        self.astray = np.zeros(len(faces.ids), np.bool_)
        for person, rows in self.unborn.items():
            self.astray[rows] |= faces.persons[rows] == person
        self.astray = self.astray[original]
        claimed = replace(faces, persons=np.where(self.astray, NOBODY, faces.persons))
        home = _homes(claimed, whole, pinned, foes, limits.join)[original]
        alone = not len(whole.ids) and len(faces.ids) <= ALONE and self._told(said) <= MOST_TOLD
        # Of who has pinned faces those are the piece that a name stays with: more of them in one
        # piece would meet others under other terms than these meet them, and change each round.
        together = said.names.keys() - set(faces.persons[pinned].tolist()) if alone else None
        piece = _pieces(claimed, pinned, foes, limits.join, original, together)
        loose, names = home < 0, np.unique(piece[home < 0])
        pieces = len(names)
        self.of = np.where(loose, np.searchsorted(names, piece), pieces + home)  # of each face
        atoms = pieces + len(whole.ids)
        self.counts = np.bincount(self.of[self.counted], minlength=atoms).astype(np.float64)
        self.counts[pieces:] += whole.counts
        self.sums = np.zeros((atoms, faces.vectors.shape[1]))
        np.add.at(self.sums, self.of[self.counted], faces.vectors[self.counted].astype(np.float64))
        self.sums[pieces:] += whole.means * whole.counts[:, None].astype(np.float64)
        changed = np.isin(whole.ids, np.fromiter(said.changed, np.int64, len(said.changed)))
        self.fresh = np.concatenate([np.ones(pieces, np.bool_), changed])
        self.settled = dict(zip(whole.ids.tolist(), range(pieces, atoms), strict=True))
        self.persons = np.concatenate([np.zeros(pieces, np.int64), whole.ids])
        self.persons[self.of] = claimed.persons
        self.by_person: dict[int, list[int]] = defaultdict(list)
        for atom, person in enumerate(self.persons.tolist()):
            if person != NOBODY:
                self.by_person[person].append(atom)
        self.anchors = self._anchors(said)
        self.whose = self._whose(said)
        self.apart = self._apart(foes, said)

    def _told(self, said: Said) -> int:
        """Pairs of faces that noes and births keep apart, where each face is a piece."""
        has = Counter(self.faces.persons.tolist())
        noes = sum(has[person] for _, person in said.face_noes)
        return noes + sum(has[person] * len(rows) for person, rows in self.unborn.items())

    def grown(self, groups: Indices, rule: Rule, *, only_fresh: bool) -> Indices:
        """The groups that these groups make by a rule: of each atom the first of its group."""
        grown = self._grown(groups)
        found = together(
            grown.means,
            grown.counts,
            grown.apart,
            rule,
            fresh=grown.fresh if only_fresh else None,
            whose=grown.whose,
        )
        return grown.first[found[grown.row]]

    def chained(self, groups: Indices, rule: Rule, met: Faces | None) -> Indices:
        """The groups that these groups make where they lie apart in time and are alike where they
        meet; without dates they stay as they are.
        """
        dated = [_dated(self.faces, self.counted, self.of)]
        if met is not None:
            atoms = [self.by_person.get(person, [-1])[0] for person in met.persons.tolist()]
            place = np.array(atoms, np.int64)
            dated.append(_dated(met, (met.copies == 0) & (place >= 0), place))
        place, taken, vectors = (np.concatenate(column) for column in zip(*dated, strict=True))
        if not len(taken):
            return groups
        grown = self._grown(groups)
        births = {
            int(grown.row[atom]): born
            for person, born in self.births.items()
            for atom in self.by_person.get(person, ())
        }
        found = chained(
            grown.means,
            grown.counts,
            grown.apart,
            rule,
            Dated(grown.row[place], taken, vectors, births),
            fresh=grown.fresh,
            whose=grown.whose,
        )
        return grown.first[found[grown.row]]

    def _grown(self, groups: Indices) -> _Grown:
        """What groups are, each a row."""
        first, row = np.unique(groups, return_inverse=True)
        counts = np.bincount(row, self.counts).astype(np.float64)
        sums = np.zeros((len(first), self.sums.shape[1]))
        np.add.at(sums, row, self.sums)
        fresh = np.zeros(len(first), np.bool_)
        np.logical_or.at(fresh, row, self.fresh)
        apart = distinct(row[self.apart])
        means = (sums / counts[:, None]).astype(np.float32)
        whose = np.zeros(len(first), np.int64)
        np.maximum.at(whose, row, self.whose)
        return _Grown(first, row, means, counts, apart, fresh, whose)

    def _anchors(self, said: Said) -> dict[int, int]:
        """The atom that each person whom somebody spoke of lives in: that of the pinned faces, or
        the largest.
        """
        rows = np.nonzero(self.pinned)[0]
        pinned = dict(zip(self.faces.persons[rows].tolist(), self.of[rows].tolist(), strict=True))
        spoken_of = (said.names.keys() | said.confirmed) & self.by_person.keys()
        return {
            p: max(self.by_person[p], key=lambda atom: (self.counts[atom], -atom))
            for p in spoken_of
        } | pinned

    def _apart(self, foes: Indices, said: Said) -> Indices:
        """Pairs of atoms that are different people."""
        pairs = [self.of[foes]] if len(foes) else []
        place = dict(zip(self.faces.ids.tolist(), self.of.tolist(), strict=True))
        told: list[tuple[int, int]] = []
        for face, person in said.face_noes:
            if face in place:
                told += [(place[face], atom) for atom in self.by_person.get(person, ())]
        for one, other in said.person_noes:
            atoms = self.by_person.get(other, ())
            told += [(a, b) for a in self.by_person.get(one, ()) for b in atoms]
        seen: dict[int, set[int]] = defaultdict(set)
        for photo, person in said.present:
            seen[photo] |= set(self.by_person.get(person, ()))
        if seen:
            for photo, atom in zip(self.faces.photos.tolist(), self.of.tolist(), strict=True):
                told += [(atom, other) for other in seen.get(photo, ())]
        told += self._both_confirmed(said)
        pairs.append(np.array(told, np.int64).reshape(-1, 2))
        for person, rows in self.unborn.items():
            theirs = np.array(self.by_person.get(person, ()), np.int64)
            both = np.meshgrid(np.unique(self.of[rows]), theirs)
            pairs.append(np.stack(both, axis=-1).reshape(-1, 2))
        apart = np.concatenate(pairs)
        return distinct(apart[apart[:, 0] != apart[:, 1]])

    def _whose(self, said: Said) -> Indices:
        """For each atom a number of the name it has, or of the person confirmed in it; 0: none."""
        numbers: dict[object, int] = {}
        whose = np.zeros(len(self.counts), np.int64)
        for person, atom in sorted(self.anchors.items()):
            if person in said.names or person in said.confirmed:
                whose[atom] = numbers.setdefault(said.names.get(person, person), len(numbers) + 1)
        return whose

    def _both_confirmed(self, said: Said) -> Iterable[tuple[int, int]]:
        """Persons of one name who both have confirmed faces: neither can become the other."""
        of_name: dict[str, list[int]] = defaultdict(list)
        for person in sorted(said.confirmed & self.anchors.keys() & said.names.keys()):
            of_name[said.names[person]].append(self.anchors[person])
        for anchors in of_name.values():
            yield from combinations(anchors, 2)


def _runs(values: Indices) -> list[Indices]:
    """The rows that have the same value, for each value."""
    order = np.argsort(values, kind="stable")
    ends = np.nonzero(np.diff(values[order]))[0] + 1
    return [rows for rows in np.split(order, ends) if len(rows)]


def _in_one_photo(faces: Faces, same: float) -> Indices:
    """Pairs of faces in one photo that are not nearly identical."""
    order = np.argsort(faces.photos, kind="stable")
    photos, pairs = faces.photos[order], [np.zeros((0, 2), np.int64)]
    for apart in range(1, len(order)):
        both = np.nonzero(photos[apart:] == photos[:-apart])[0]
        if not len(both):
            break
        one, other = order[both], order[both + apart]
        alike = pairwise(faces.vectors, one, other) >= same
        pairs.append(np.stack([one, other], axis=1)[~alike])
    return np.concatenate(pairs)


def _homes(faces: Faces, whole: Whole, pinned: Flags, foes: Indices, join: float) -> Indices:
    """For each face the row of its person's settled faces, where it would join those; else -1."""
    if not len(whole.ids):
        return np.full(len(faces.ids), -1, np.int64)
    row = np.minimum(np.searchsorted(whole.ids, faces.persons), len(whole.ids) - 1)
    likeness = np.einsum("ij,ij->i", faces.vectors, whole.means[row])
    twice = foes[faces.persons[foes[:, 0]] == faces.persons[foes[:, 1]]]
    alike = (likeness >= join) & ~np.isin(np.arange(len(row)), twice)
    return np.where((whole.ids[row] == faces.persons) & (alike | pinned), row, -1)


def _unborn(
    faces: Faces, births: Mapping[int, float], counted: Flags, pinned: Flags
) -> dict[int, Indices]:
    """The faces that a person was not born for, by the person, but for those that somebody said."""
    if faces.taken is None:
        return {}
    found = {}
    for person, born in births.items():
        early = too_early_all(faces.taken, born) & counted
        rows = np.nonzero(early & ~(pinned & (faces.persons == person)))[0]
        if len(rows):
            found[person] = rows
    return found


def _dated(faces: Faces, which: Flags, atoms: Indices) -> tuple[Indices, Numbers, Vectors]:
    """Of these faces those with a date: the atom of each, when it was taken, the vectors."""
    taken = np.full(len(faces.ids), np.nan) if faces.taken is None else faces.taken
    rows = which & ~np.isnan(taken)
    return atoms[rows], taken[rows], faces.vectors[rows]


def _originals(faces: Faces, pinned: Flags) -> Indices:
    """For each face its row, or that of the face it is a copy of, if both are the same person's
    and nobody spoke of the copy.
    """
    rows = np.arange(len(faces.ids))
    order = np.argsort(faces.ids)
    place = np.searchsorted(faces.ids, faces.copies, sorter=order)
    found = order[np.minimum(place, len(rows) - 1)] if len(rows) else rows
    follows = (faces.copies != 0) & (faces.ids[found] == faces.copies) & ~pinned
    follows &= (faces.persons[found] == faces.persons) & (faces.persons != NOBODY)
    follows &= faces.copies[found] == 0
    return np.where(follows, found, rows)


def _pieces(
    faces: Faces,
    pinned: Flags,
    foes: Indices,
    join: float,
    original: Indices,
    together: Collection[int] | None,
) -> Indices:
    """For each face the number of its piece: what of a person holds together at `join`, and the
    copies of it. The faces of persons not in `together` (None: all are) are a piece each, but for
    the pinned ones.
    """
    piece = np.arange(len(faces.ids))
    counted = original == piece
    foes = foes[faces.persons[foes[:, 0]] == faces.persons[foes[:, 1]]]
    foe_of: dict[int, list[int]] = defaultdict(list)
    for a, b in foes.tolist():
        foe_of[int(faces.persons[a])] += [a, b]
    sets = []
    for rows in _runs(faces.persons):
        person = int(faces.persons[rows[0]])
        if person == NOBODY or len(rows) == 1:
            continue
        fixed, free = rows[pinned[rows]], rows[~pinned[rows] & counted[rows]]
        piece[fixed] = fixed[0] if len(fixed) else 0
        if together is not None and person not in together:
            continue
        apart = np.array(foe_of.get(person, ()), np.int64).reshape(-1, 2)
        if len(free) > CROWD:
            core = _core(faces.vectors[free], ~np.isin(free, apart), join)
            piece[free[core]] = free[core][0] if core.any() else 0
            free = free[~core]
        if len(free) <= LARGEST:
            sets.append(free)
        else:
            piece[free] = _held_together(faces.vectors, free, apart, join)
    free = np.concatenate([np.zeros(0, np.int64), *sets])
    piece[free] = each_together(faces.vectors, sets, foes, join)[free]
    return np.unique(piece[original], return_inverse=True)[1].astype(np.int64)


def _core(vectors: Vectors, may: Flags, join: float) -> Flags:
    """Which faces of a person would join all that are so: of a person in a thousand photos nearly
    all, of two people taken for one none or those of the greater part.
    """
    inside = may
    for _ in range(2):
        count = int(inside.sum())
        if count < CROWD // 2:
            return np.zeros(len(may), np.bool_)
        likeness = vectors @ vectors[inside].sum(axis=0, dtype=np.float64)
        average = np.where(inside, (likeness - 1) / (count - 1), likeness / count)
        inside = may & (average >= join)
    return inside


def _held_together(vectors: Vectors, rows: Indices, apart: Indices, join: float) -> Indices:
    """For each of some faces the first of its piece; a crowd is taken in portions."""
    first = rows.copy()
    rule = Rule(least=join, floor=join)
    portions = range(0, len(rows), LARGEST)
    for start in portions:
        some = rows[start : start + LARGEST]
        here = np.isin(apart, some).all(axis=1)
        pairs = np.searchsorted(some, apart[here])
        found = together(vectors[some], np.ones(len(some)), pairs.astype(np.int64), rule)
        first[start : start + LARGEST] = some[found]
    if len(portions) <= 1:
        return first
    heads, row = np.unique(first, return_inverse=True)
    counts = np.bincount(row).astype(np.float64)
    sums = np.zeros((len(heads), vectors.shape[1]))
    np.add.at(sums, row, vectors[rows].astype(np.float64))
    member = dict(zip(rows.tolist(), row.tolist(), strict=True))
    known = [(member[a], member[b]) for a, b in apart.tolist() if a in member and b in member]
    means = (sums / counts[:, None]).astype(np.float32)
    found = together(means, counts, np.array(known, np.int64).reshape(-1, 2), rule)
    return heads[found[row]]


class _Identities:
    """Which id each group keeps, and what that moves."""

    def __init__(self, atoms: _Atoms, groups: Indices, said: Said, limits: Limits) -> None:
        self.atoms, self.groups, self.said, self.limits = atoms, groups, said, limits
        self.members: dict[int, list[int]] = defaultdict(list)
        for atom, group in enumerate(groups.tolist()):
            self.members[group].append(atom)
        persons, counts = atoms.persons.tolist(), atoms.counts.astype(np.int64).tolist()
        self.shares: dict[int, Counter[int]] = {}  # of each group: faces by the person they had
        for group, members in self.members.items():
            share = Counter[int]()
            for atom in members:
                share[persons[atom]] += counts[atom]
            self.shares[group] = share
        self.ids = self._ids()

    def _ids(self) -> dict[int, int]:
        """The person that each group is: whom somebody spoke of, else whose faces the most of its
        faces were; negative for one to be founded, none for what may found nobody.
        """
        atoms, said = self.atoms, self.said
        claims: list[tuple[bool, bool, bool, int, int, int]] = []
        for group, share in self.shares.items():
            for person, count in share.items():
                if person != NOBODY and self._may_be(group, person):
                    here = person in atoms.anchors and self.groups[atoms.anchors[person]] == group
                    confirmed, named = person in said.confirmed, person in said.names
                    claims.append((here and confirmed, here and named, here, count, -person, group))
        ids: dict[int, int] = {}
        given: set[int] = set()
        for *_, negative, group in sorted(claims, reverse=True):
            if group not in ids and -negative not in given:
                ids[group] = -negative
                given.add(-negative)
        found = -1
        for group in sorted(self.members.keys() - ids.keys()):
            if self.best_quality[group] >= self.limits.found:
                ids[group], found = found, found - 1
        return ids

    def _may_be(self, group: int, person: int) -> bool:
        """Settled faces keep the id: where they are not, nobody else's can have it."""
        settled = self.atoms.settled.get(person)
        return settled is None or int(self.groups[settled]) == group

    @cached_property
    def best_quality(self) -> Mapping[int, float]:
        """The quality of the best face taken apart in each group."""
        best: dict[int, float] = defaultdict(float)
        groups, qualities = self.groups[self.atoms.of], self.atoms.faces.qualities
        for group, quality in zip(groups.tolist(), qualities.tolist(), strict=True):
            best[group] = max(best[group], quality)
        return best

    def moves(self) -> list[Regrouping]:
        """All that gets another person, in sets that have no person in common."""
        atoms, faces = self.atoms, self.atoms.faces
        group_of = self.groups[atoms.of]
        where: dict[int, Counter[int]] = defaultdict(Counter)  # of each person: faces by group
        for group, share in self.shares.items():
            for person, count in share.items():
                if person != NOBODY:
                    where[person][group] += count
        merged, split = {}, set()
        for person, groups in where.items():
            if all(self.ids.get(group) != person for group in groups):
                settled = atoms.settled.get(person)
                most = groups.most_common(1)[0][0] if settled is None else self.groups[settled]
                merged[person] = self.ids[int(most)]
            elif len(groups) > 1:
                split.add(person)
        split |= set(faces.persons[atoms.astray].tolist()) - merged.keys()
        given = np.array([self.ids.get(group, NOBODY) for group in group_of.tolist()], np.int64)
        moved = np.nonzero(given != faces.persons)[0].tolist()
        similarities = self._similarities(moved)
        sets = _Sets()
        for row in moved:
            sets.join(("group", int(group_of[row])), ("person", int(faces.persons[row])))
        for person, into in merged.items():
            sets.join(("person", person), ("person", into))
        for group in {int(group_of[row]) for row in moved}:
            if (id_ := self.ids.get(group)) is not None:
                sets.join(("group", group), ("person", id_))
        rows_of: dict[object, list[int]] = defaultdict(list)
        for row in moved:
            rows_of[sets.root(("group", int(group_of[row])))].append(row)
        merged_of: dict[object, list[int]] = defaultdict(list)
        for person in merged:
            merged_of[sets.root(("person", person))].append(person)
        return [
            self._regrouping(
                {row: similarities[row] for row in rows_of.get(key, [])},
                group_of,
                merged,
                merged_of.get(key, []),
                split,
            )
            for key in sorted(rows_of.keys() | merged_of.keys(), key=str)
        ]

    def _regrouping(
        self,
        rows: Mapping[int, float | None],
        group_of: Indices,
        merged: Mapping[int, int],
        gone: Sequence[int],
        split: Collection[int],
    ) -> Regrouping:
        faces = self.atoms.faces
        given: dict[int, tuple[int | None, float | None]] = {}
        before: dict[int, int] = {}
        founded: dict[int, int] = {}
        for row, similarity in rows.items():
            face, group = int(faces.ids[row]), int(group_of[row])
            person = self.ids.get(group)
            given[face] = person, None if person is None else similarity
            before[face] = int(faces.persons[row])
            if person is not None and person < NOBODY:
                founded[person] = self._most_of(group)
        had = set(before.values())
        return Regrouping(
            given,
            before,
            {p: merged[p] for p in gone},
            founded,
            frozenset(had & set(split)),
            len(given) + sum(self.sizes.get(p, 0) for p in gone),
        )

    def _most_of(self, group: int) -> int:
        """The person whose faces the most of a group's were, if any had one."""
        persons = [p for p, _ in self.shares[group].most_common() if p != NOBODY]
        return persons[0] if persons else NOBODY

    def _similarities(self, rows: Sequence[int]) -> Mapping[int, float | None]:
        """The average similarity of these faces to the other faces of their groups."""
        atoms = self.atoms
        totals, counts = np.zeros_like(atoms.sums), np.bincount(self.groups, atoms.counts)
        np.add.at(totals, self.groups, atoms.sums)
        found: dict[int, float | None] = {}
        for some in batched(rows, AT_ONCE):
            faces = np.array(some, np.int64)
            groups, own = self.groups[atoms.of[faces]], atoms.counted[faces]
            others = counts[groups] - own
            vectors = atoms.faces.vectors[faces].astype(np.float64)
            alike = np.einsum("ij,ij->i", totals[groups] - own[:, None] * vectors, vectors)
            average = (alike / np.maximum(others, 1)).tolist()
            for row, value, count in zip(some, average, others.tolist(), strict=True):
                found[row] = value if count else None
        return found

    @cached_property
    def sizes(self) -> Mapping[int, int]:
        """How many faces each person has who is taken as a whole."""
        whole = self.atoms.whole
        return dict(zip(whole.ids.tolist(), whole.counts.tolist(), strict=True))


class _Sets:
    """Things that are joined to each other, and what they are all joined to."""

    def __init__(self) -> None:
        self._of: dict[object, object] = {}

    def root(self, thing: object) -> object:
        while (of := self._of.get(thing, thing)) != thing:
            self._of[thing] = self._of.get(of, of)
            thing = of
        return thing

    def join(self, one: object, other: object) -> None:
        if other != ("person", NOBODY):  # open faces have nothing in common
            self._of[self.root(other)] = self.root(one)
