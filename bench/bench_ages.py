"""Whether consolidation holds people together over the years, and what that costs in wrong merges.

usage: bench_ages.py --cache FOLDER [--pack builtin|yunet-mobilefacenet] [--people 45] [--faces 40]
                     [--years 20] [--reach 8] [--seeds 3]

THE AGEING IS SYNTHETIC. Nobody labelled the years of the labelled photographs, so faces are made of
real ones: the mean of a real person, moved by how real faces of one person differ, and then moved
on with the years by a drift in a direction of the person's own, one by which two real people
differ. The drift is such that the average likeness of faces `--reach` years apart falls to the
threshold of merging: neighbours in time stay above it, the ends of a life fall below. How real
faces age, in particular those of children, may be quite different.

Libraries of people alone; of people with a sibling each, who is that person to some share and else
a stranger, lives in the same years and drifts half in the same direction; and the same with a tenth
of the photos showing both. All faces come at once and consolidation decides by the product's own
rules.
Baseline, in the same run: the same library without dates, which is without the chain.

Whole: people of whose faces at least 95 of 100 have one id, which is nobody else's mainly.
Needs the labelled photographs (KALEIDOSCOPE_SHARED, or `shared` beside the checkout); faces are
extracted once into FOLDER, as simulate_identity.py does.
"""

from __future__ import annotations

import argparse
import base64
import csv
import os
import statistics
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from bench_match import noise, unit
from simulate_identity import SHARED, extracted, pack_of

from kaleidoscope.ml.catalog import Pack
from kaleidoscope.people.rules.consolidation import Faces, Said, Whole, regroup
from kaleidoscope.people.service.matching import limits as limits_of

LEAST_PHOTOS = 10  # of a real person who is taken
MIXED = 0.05  # of an id's faces that are somebody else's: from there on it mixes people
Array = np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True, help="folder of extracted faces")
    parser.add_argument("--pack", default="builtin", choices=["builtin", "yunet-mobilefacenet"])
    parser.add_argument("--people", type=int, default=45)
    parser.add_argument("--faces", type=int, default=40, help="of each person")
    parser.add_argument("--years", type=float, default=20, help="that a person is photographed")
    parser.add_argument("--reach", type=float, default=8, help="years until likeness is too little")
    parser.add_argument(
        "--alike", type=float, nargs="+", default=[0.3, 0.5], help="share of a sibling in the other"
    )
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    if not SHARED.is_dir():
        sys.exit(f"no labelled photographs at {SHARED}: set KALEIDOSCOPE_SHARED")
    os.environ["KALEIDOSCOPE_DATA_DIR"] = str(options.cache / "data")
    pack = pack_of(options.pack)
    between, within = real_people(pack, options.cache)
    print(f"{len(between)} real people, {len(within)} real differences; the ageing is synthetic")
    libraries = [("people", 0.0, 0.0)]
    for alike in options.alike:
        siblings = f"people with siblings who are {alike:.0%} alike"
        libraries.append((siblings, alike, 0.0))
        libraries.append((f"{siblings}, a tenth of the photos together", alike, 0.1))
    for what, alike, together in libraries:
        albums = [
            album(pack, between, within, options, seed, alike, together)
            for seed in range(options.seeds)
        ]
        for chain in (False, True):
            tell(f"{what}, {'chain' if chain else 'no chain'}", pack, albums, chain=chain)


def real_people(pack: Pack, cache: Path) -> tuple[Array, Array]:
    """The means of real people with enough photos, and how their faces differ from them."""
    with (SHARED / "faces" / "manifest.csv").open(newline="") as manifest:
        rows = [row for row in csv.DictReader(manifest) if row["identity"]]
    photos = Counter(row["identity"] for row in rows)
    rows = [row for row in rows if photos[row["identity"]] >= LEAST_PHOTOS]
    found = extracted(pack, [row["path"] for row in rows], cache)
    faces: dict[str, list[Array]] = defaultdict(list)
    for row in rows:
        seen = found[row["path"]]["faces"]
        if len(seen) == 1:  # who is meant is beyond doubt
            faces[row["identity"]].append(vector_of(seen[0]["embedding"]))
    means = {who: np.mean(theirs, axis=0) for who, theirs in faces.items() if len(theirs) > 4}
    within = [vector - means[who] for who in means for vector in faces[who]]
    return np.array(list(means.values()), np.float32), np.array(within, np.float32)


def vector_of(written: str) -> Array:
    """A face's unit vector as the ML service writes it."""
    return unit(np.frombuffer(base64.b64decode(written), "<f4").reshape(1, -1))[0]


@dataclass(frozen=True)
class Album:
    """Faces, and who each really is."""

    faces: Faces
    people: Array


def album(
    pack: Pack,
    between: Array,
    within: Array,
    options: argparse.Namespace,
    seed: int,
    alike: float,
    together: float,
) -> Album:
    """A library of people who grow older, with siblings unless they are not at all `alike`."""
    rng = np.random.default_rng(seed)
    shuffled = between[rng.permutation(len(between))]
    count = min(options.people, len(between) // 2)
    base, strangers = shuffled[:count], shuffled[count : 2 * count]
    one, other = rng.integers(0, len(between), (2, count))
    other = np.where(one == other, (other + 1) % len(between), other)
    drift = unit(between[one] - between[other])
    if alike:
        base = np.concatenate([base, alike * base + (1 - alike) * strangers])
        drift = np.concatenate([drift, unit(drift + np.roll(drift, 1, axis=0))])
    people = np.repeat(np.arange(len(base)), options.faces)
    taken = rng.uniform(0, options.years, len(people))
    faces = base[people] + noise(len(people), within, rng)
    # Likeness falls by about half the square of what the vectors have moved apart.
    least = limits_of(pack, len(base)).merge
    pairs = unit(faces).reshape(len(base), options.faces, -1)
    own = np.mean([(p @ p.T)[np.triu_indices(len(p), 1)].mean() for p in pairs])
    speed = np.sqrt(2 * max(own - least, 0.001)) / options.reach
    moved = speed * (taken - options.years / 2)
    size = np.linalg.norm(base, axis=1).mean()
    vectors = unit(faces + (size * moved)[:, None] * drift[people])
    photos = np.arange(1, len(people) + 1)
    if alike and together:
        for person in range(count):
            mine = np.nonzero(people == person)[0][: round(together * options.faces)]
            theirs = np.nonzero(people == person + count)[0][: len(mine)]
            photos[theirs], taken[theirs] = photos[mine], taken[mine]
    none = np.zeros(len(people), np.int64)
    return Album(
        Faces(
            np.arange(1, len(people) + 1),
            none,
            photos,
            np.ones(len(people)),
            np.zeros(len(people), np.bool_),
            none,
            vectors,
            2000 + taken,
        ),
        people,
    )


def tell(what: str, pack: Pack, albums: list[Album], *, chain: bool) -> None:
    """Consolidate libraries and print how people fare."""
    whole, ids_each, precision, mixed, seconds = [], [], [], [], []
    for made in albums:
        faces = made.faces if chain else replace(made.faces, taken=None)
        began = time.perf_counter()
        ids = settled(faces, pack, int(made.people.max()) + 1)
        seconds.append(time.perf_counter() - began)
        table = np.zeros((ids.max() + 1, made.people.max() + 1))
        np.add.at(table, (ids, made.people), 1)
        sizes, best = table.sum(axis=1), table.argmax(axis=0)
        held = table.max(axis=0) >= 0.95 * table.sum(axis=0)
        held &= table[best].argmax(axis=1) == np.arange(table.shape[1])
        whole.append(100 * held.mean())
        ids_each.append((table >= 3).sum(axis=0).mean())
        pairs = (sizes * (sizes - 1)).sum()
        precision.append((table * (table - 1)).sum() / pairs if pairs else 1.0)
        mixed.append(int((sizes - table.max(axis=1) > MIXED * sizes).sum()))
    print(
        f"{pack.name}, {what}: {statistics.mean(whole):.1f} % of people whole [{min(whole):.1f},"
        f" {max(whole):.1f}], {statistics.mean(ids_each):.2f} ids of three faces and more a person,"
        f" pairwise precision {statistics.mean(precision):.4f} (worst {min(precision):.4f}),"
        f" {sum(mixed)} ids that mix people; {statistics.mean(seconds):.2f} s",
        flush=True,
    )


def settled(faces: Faces, pack: Pack, regulars: int) -> Array:
    """The id of each face, once consolidation has looked; each open face an id of its own."""
    none = np.zeros(0, np.int64)
    nobody = Whole(none, none, np.zeros((0, pack.dimension), np.float32))
    ids = np.arange(len(faces.ids))
    for group in regroup(faces, nobody, Said(), limits_of(pack, regulars)):
        for face, (person, _) in group.faces.items():
            if person is not None:
                ids[face - 1] = len(ids) - person  # persons to be founded have negative numbers
    return np.unique(ids, return_inverse=True)[1]


if __name__ == "__main__":
    main()
