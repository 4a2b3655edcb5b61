"""Identity consistency of the product's rules alone, in many random arrival orders: in memory.

usage: simulate_identity.py --cache FOLDER [--set household …] [--orders 5] [--parts 5]
                            [--pack builtin|yunet-mobilefacenet] [--changed]

The faces of the labelled photographs are extracted once, by the product's engine, into FOLDER.
For each set and order: the set is dealt at random into parts as `make_set.py` deals it, the photos
of a part are matched one after the other and the library is consolidated after each part, by the
rules that the product runs (people/rules) with the pack's thresholds; whose face the labelled one
is and how right the ids are, the label folder's own `score.py` says. `bench_identity.py` measures
the same through files, services and database, and takes hours where this takes minutes.

Baseline of each set, in the same run: the same orders without consolidation.
Needs the labelled photographs (KALEIDOSCOPE_SHARED, or `shared` beside the checkout).
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import csv
import hashlib
import importlib
import io
import json
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from kaleidoscope.ml import catalog, packs, work
from kaleidoscope.ml.catalog import REGULAR, Pack
from kaleidoscope.people.queries.pictures import DIFFERENT
from kaleidoscope.people.rules import consolidation
from kaleidoscope.people.rules.consolidation import NOBODY, Faces, Said, Whole
from kaleidoscope.people.rules.copies import Known, originals
from kaleidoscope.people.rules.matching import Limits, Sight, Sitting, decide
from kaleidoscope.people.service.matching import COPY_CANDIDATES
from kaleidoscope.people.service.matching import limits as limits_of

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("KALEIDOSCOPE_SHARED") or ROOT.parent / "shared")
SETS = ("household", "people100", "all")
Array = np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True, help="folder of extracted faces")
    parser.add_argument("--set", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--orders", type=int, default=5)
    parser.add_argument("--parts", type=int, default=5)
    parser.add_argument("--pack", default="builtin", choices=["builtin", "yunet-mobilefacenet"])
    parser.add_argument(
        "--changed", action="store_true", help="consolidate those that changed, as large ones do"
    )
    options = parser.parse_args()
    if not SHARED.is_dir():
        sys.exit(f"no labelled photographs at {SHARED}: set KALEIDOSCOPE_SHARED")
    sys.path.insert(0, str(SHARED / "faces"))
    os.environ["KALEIDOSCOPE_DATA_DIR"] = str(options.cache / "data")
    photos = Photos(pack_of(options.pack), options.cache)
    print(f"{len(photos.vectors)} faces in {len(photos.rows)} photographs, {options.pack}")
    for name in options.set:
        table(photos, name, options)


def pack_of(name: str) -> Pack:
    """The pack, ready to be used."""
    if name == "builtin":
        packs.pull(catalog.BUILTIN)
    elif not (catalog.models_dir() / name).is_dir():
        models = SHARED / "models"
        networks = [models / "yunet_n_dynamic.onnx", models / "MobileFaceNet_foamliu.onnx"]
        packs.import_files(networks, name=name, reading="imagenet")
    return catalog.find(name)


def table(photos: Photos, name: str, options: argparse.Namespace) -> None:
    """Print how consistent a set is, without and with consolidation."""
    for healed in (False, True):
        runs = [
            arrive(photos, parts, healed=healed, changed=options.changed)
            for parts in (photos.dealt(name, options.parts, n) for n in range(options.orders))
        ]
        for clear in (False, True) if name == "household" else (False,):
            scores = [photos.score(name, persons, clear=clear) for persons in runs]
            right = [s["consistency"] for s in scores]
            precision = min(s["precision"] for s in scores)
            ids = statistics.mean(s["ids_per_person"] for s in scores)
            what = f"{name}{' --clear' if clear else ''}{'' if healed else ' unconsolidated'}"
            print(
                f"{options.pack} {what}: consistency {statistics.mean(right):.2f} %"
                f" [{min(right):.2f}, {max(right):.2f}], pairwise precision {precision:.4f} at"
                f" worst, {ids:.3f} ids a person; {len(runs)} orders in {options.parts} parts",
                flush=True,
            )


class Photos:
    """The labelled photographs with the faces found in them; a face is a row of `vectors`."""

    def __init__(self, pack: Pack, cache: Path) -> None:
        self.pack = pack
        self.sets: Any = importlib.import_module("make_set")
        self.scoring: Any = importlib.import_module("score")
        with (SHARED / "faces" / "manifest.csv").open(newline="") as manifest:
            self.rows = list(csv.DictReader(manifest))
        photos = extracted(pack, [row["path"] for row in self.rows], cache)
        found = {path: photos[path]["faces"] for path in photos}
        self.sizes = {path: (photos[path]["width"], photos[path]["height"]) for path in photos}
        self.looks = {path: int(photos[path]["picture_hash"] or "0", 16) for path in photos}
        self.found = {p: [{"bbox": face["bbox"]} for face in found[p]] for p in found}
        faces = [(path, face) for path in found for face in found[path]]
        self.faces: dict[str, list[int]] = {path: [] for path in found}
        for row, (path, _) in enumerate(faces):
            self.faces[path].append(row)
        number = {path: n + 1 for n, path in enumerate(found)}
        self.photos = np.array([number[path] for path, _ in faces], np.int64)
        self.qualities = np.array([face["quality"]["score"] for _, face in faces], np.float64)
        written = b"".join(base64.b64decode(face["embedding"]) for _, face in faces)
        vectors = np.frombuffer(written, "<f4").reshape(len(faces), pack.dimension)
        self.vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def dealt(self, name: str, parts: int, seed: int) -> list[list[str]]:
        """The photos of a set as `make_set.py` deals them into parts, each in order of paths."""
        rows = list(self.sets.pick(name, self.rows))
        random.Random(seed).shuffle(rows)
        return [sorted(row["path"] for row in rows[part::parts]) for part in range(parts)]

    def score(self, name: str, persons: Array, *, clear: bool) -> dict[str, float]:
        """What the label folder's `score.py` says of these persons of all faces."""
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
            for row in self.sets.pick(name, self.rows):
                ids = [int(persons[face]) for face in self.faces[row["path"]]]
                faces = [
                    {**face, "person_id": None if person == NOBODY else person}
                    for face, person in zip(self.found[row["path"]], ids, strict=True)
                ]
                file.write(json.dumps({"path": row["path"], "faces": faces}) + "\n")
            file.flush()
            words = ["score.py", file.name, "--set", name, "--json"] + ["--clear"] * clear
            told = io.StringIO()
            with patch.object(sys, "argv", words), contextlib.redirect_stdout(told):
                self.scoring.main()
        return json.loads(told.getvalue())  # type: ignore[no-any-return]


def distance(one: int, other: int) -> int:
    """In how many bits two hashes differ."""
    return (one ^ other).bit_count()


def extracted(pack: Pack, paths: Sequence[str], cache: Path) -> dict[str, dict[str, Any]]:
    """What the ML service finds in each photograph, kept under the photos' hashes."""
    cache.mkdir(parents=True, exist_ok=True)
    file = cache / f"{pack.name}-photos.jsonl"
    known: dict[str, dict[str, Any]] = {}
    if file.is_file():
        for line in file.read_text().splitlines():
            kept = json.loads(line)
            known[kept["key"]] = kept["photo"]
    version = hashlib.sha256(pack.model_dump_json(exclude={"thresholds"}).encode()).hexdigest()
    found = {}
    with file.open("a") as more:
        for number, path in enumerate(paths):
            photo = SHARED / "faces" / path
            key = hashlib.sha256(photo.read_bytes() + version.encode()).hexdigest()
            if key not in known:
                task = {"path": str(photo), "pack": pack.name}
                known[key] = work.analyse(task)
                more.write(json.dumps({"key": key, "photo": known[key]}) + "\n")
                if number % 200 == 0:
                    print(f"extracting: {number} of {len(paths)}", file=sys.stderr, flush=True)
            found[path] = known[key]
    return found


def arrive(photos: Photos, parts: Sequence[Sequence[str]], *, healed: bool, changed: bool) -> Array:
    """The person of every face after these parts have arrived one after the other."""
    library = Library(photos, rounds=len(parts))
    for part in parts:
        library.touched.clear()
        for path in part:
            library.add(path)
        if healed:
            library.consolidate(library.touched if changed else None)
    return library.persons


class Library:
    """The product's state in memory: whose each face is (`NOBODY`: open, or not there yet)."""

    def __init__(self, photos: Photos, rounds: int) -> None:
        self.photos = photos
        self.persons = np.zeros(len(photos.vectors), np.int64)
        self.here = np.zeros(len(photos.vectors), np.bool_)
        room = 1 + (1 + rounds) * len(photos.vectors)  # ids, which are given once
        self.sums = np.zeros((room, photos.pack.dimension), np.float64)
        self.counts = np.zeros(room, np.int64)
        self.copy_of = np.zeros(len(photos.vectors), np.int64)  # number of a face: its row + 1
        self.looks: list[str] = []  # photos with faces that have come
        self.last = 0
        self.touched: set[int] = set()

    @property
    def limits(self) -> Limits:
        return limits_of(self.photos.pack, int((self.counts >= REGULAR).sum()))

    def add(self, path: str) -> None:
        """Decide about the faces of a photo, as a callback does."""
        faces = np.array(self.photos.faces[path], np.int64)
        self.here[faces] = True
        if not len(faces):
            return
        limits, vectors = self.limits, self.photos.vectors[faces]
        living = np.nonzero(self.counts)[0]
        means = (self.sums[living] / self.counts[living][:, None]).astype(np.float32)
        likeness = vectors @ means.T
        same = self._originals(path)
        sights = [
            Sight(
                copied=same[face].person_id if face in same else None,
                quality=float(self.photos.qualities[face]),
                similar={int(living[n]): float(row[n]) for n in np.nonzero(row >= limits.join)[0]},
            )
            for face, row in zip(faces, likeness, strict=True)
        ]
        verdicts = decide(sights, vectors, limits)
        for i, verdict in enumerate(verdicts):
            if verdict.person_id is None:
                near = living[np.argsort(-likeness[i])[:COPY_CANDIDATES]]
                copies = self._copies(vectors[i], near, limits.copy)
                sights[i] = replace(sights[i], similar={**sights[i].similar, **copies})
        founded: dict[int, int] = {}
        for face, verdict in zip(faces.tolist(), decide(sights, vectors, limits), strict=True):
            person = verdict.person_id
            if verdict.founds is not None:
                person = founded.setdefault(verdict.founds, self.last + 1)
                self.last = max(self.last, person)
            if person is None:
                continue
            self.persons[face] = person
            if (original := same.get(face)) is not None and original.person_id == person:
                self.copy_of[face] = original.face_id
                continue
            self.sums[person] += self.photos.vectors[face]
            self.counts[person] += 1
            self.touched.add(person)

    def _originals(self, path: str) -> dict[int, Known]:
        """The same faces in a picture of which this one is a copy, by the face."""
        faces, look = self.photos.faces[path], self.photos.looks[path]
        known = []
        for other in [p for p in self.looks if distance(self.photos.looks[p], look) <= DIFFERENT]:
            size, there = self.photos.sizes[other], self.photos.found[other]
            known += [
                Known(
                    face + 1,
                    int(self.persons[face]),
                    seen["bbox"],
                    size,
                    float(self.photos.qualities[face]),
                    self.photos.vectors[face],
                )
                for face, seen in zip(self.photos.faces[other], there, strict=True)
                if self.persons[face] != NOBODY and self.copy_of[face] == 0
            ]
        self.looks.append(path)
        boxes = [face["bbox"] for face in self.photos.found[path]]
        qualities = [Sight(quality=float(self.photos.qualities[face])) for face in faces]
        sitting = Sitting(qualities, self.photos.vectors[faces], [None] * len(faces))
        least = limits_of(self.photos.pack, 0).merge
        found = originals(boxes, self.photos.sizes[path], sitting, known, least)
        return {f: k for f, k in zip(faces, found, strict=True) if k is not None}

    def _copies(self, vector: Array, near: Array, least: float) -> dict[int, float]:
        """The persons, of those near, with a single face that is this one again."""
        found = {}
        for person in near.tolist():
            alike = float((self.photos.vectors[self.persons == person] @ vector).max())
            if alike >= least:
                found[person] = alike
        return found

    def consolidate(self, changed: Collection[int] | None) -> None:
        """One round, of everybody (None) or of those that changed, as the product settles it."""
        living = np.nonzero(self.counts)[0]
        apart = living if changed is None else np.intersect1d(living, list(changed))
        rows = np.nonzero(self.here & (np.isin(self.persons, apart) | (self.persons == NOBODY)))[0]
        rest = np.setdiff1d(living, apart)
        means = (self.sums[rest] / self.counts[rest][:, None]).astype(np.float32)
        faces = Faces(
            rows + 1,
            self.persons[rows],
            self.photos.photos[rows],
            self.photos.qualities[rows],
            np.zeros(len(rows), np.bool_),
            self.copy_of[rows],
            self.photos.vectors[rows],
        )
        seen = np.nonzero(np.isin(self.persons, rest))[0]
        present = list(
            zip(self.photos.photos[seen].tolist(), self.persons[seen].tolist(), strict=True)
        )
        whole = Whole(rest, self.counts[rest], means)
        groups = consolidation.regroup(faces, whole, Said(present=present), self.limits)
        for group in groups:
            ids = {n: self.last + 1 + i for i, n in enumerate(sorted(group.founded))}
            self.last += len(ids)
            for face, (person, _) in group.faces.items():
                self.persons[face - 1] = NOBODY if person is None else ids.get(person, person)
            for gone, kept in group.merged.items():
                self.persons[self.persons == gone] = ids.get(kept, kept)
        self.sums[:], self.counts[:] = 0, 0
        original = np.where(self.copy_of == 0, self.persons, self.persons[self.copy_of - 1])
        has = np.nonzero(self.persons * ((self.copy_of == 0) | (original != self.persons)))[0]
        np.add.at(self.sums, self.persons[has], self.photos.vectors[has])
        np.add.at(self.counts, self.persons[has], 1)


if __name__ == "__main__":
    main()
