"""Calibration of a pack: what its similarities mean, by faces whose persons are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.errors import Invalid, UnreadableMedia
from kaleidoscope.kernel.settings import load
from kaleidoscope.ml import packs, work
from kaleidoscope.ml.catalog import REGULAR, Calibration, Pack
from kaleidoscope.ml.decode import decode
from kaleidoscope.ml.settings import MlSettings
from kaleidoscope.people.queries import search
from kaleidoscope.people.rules import calibration
from kaleidoscope.people.rules.calibration import Bin, Integers
from kaleidoscope.people.rules.matching import Vectors

FEWEST = 100  # faces, of which it says anything
FEWEST_PERSONS = 10
FEWEST_WRONG = 5  # matches, as of right ones
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".heic", ".tif", ".tiff"}


@dataclass(frozen=True)
class Calibrated:
    """A calibration with how far what it states is from the truth, cross-validated over persons."""

    pack: str
    faces: int
    persons: int
    slope: float
    even: tuple[float, ...]
    error: float
    bins: list[Bin]

    @property
    def measured(self) -> str:
        return (
            f"{self.faces} faces of {self.persons} persons, expected calibration error"
            f" {self.error:.4f} by cross-validation over persons"
        )


async def confirmed(session: AsyncSession, pack: Pack) -> tuple[Vectors, Integers]:
    """The faces that people confirmed, and whose they are."""
    faces = await search.read_faces(session, pack.name, pack.dimension, None)
    known = faces.confirmed & (faces.persons != 0) & (faces.copies == 0)
    return faces.vectors[known], faces.persons[known]


def labelled(folder: Path, pack: Pack) -> tuple[Vectors, Integers]:
    """The largest face of each photo of a folder that has one folder a person. Slow."""
    engine = work.engine(pack.name)
    side = load(MlSettings).decode_side
    vectors: list[object] = []
    who: list[int] = []
    for number, person in enumerate(sorted(p for p in folder.iterdir() if p.is_dir())):
        for photo in sorted(p for p in person.iterdir() if p.suffix.lower() in SUFFIXES):
            try:
                found = engine.analyse(decode(photo, max_side=side).image)
            except UnreadableMedia:
                continue
            if found:
                vectors.append(max(found, key=lambda f: f.bbox[2] - f.bbox[0]).embedding)
                who.append(number)
    return np.array(vectors, np.float32), np.array(who, np.int64)


def calibrate(pack: Pack, vectors: Vectors, who: Integers) -> Calibrated:
    """Fit what similarities of the pack mean; `Invalid` where too little is known. Slow."""
    persons = len(np.unique(who))
    if len(who) < FEWEST or persons < FEWEST_PERSONS:
        raise Invalid(
            f"{len(who)} faces of {persons} persons are too few to calibrate on",
            hint=f"confirm {FEWEST} faces of {FEWEST_PERSONS} persons, or name a --folder",
        )
    regulars = _middles([step.persons for step in pack.thresholds.steps])
    known = calibration.libraries(vectors, who, regulars, REGULAR)
    wrong = int((1 - known.right).sum())
    if min(wrong, len(known.right) - wrong) < FEWEST_WRONG:
        raise Invalid(
            f"{wrong} of {len(known.right)} matches are wrong: right and wrong ones are needed",
            hint="confirm faces of people who are in one photo only, too",
        )
    found = calibration.fit(known)
    bins = calibration.reliability(calibration.cross_validated(known), known.right)
    shift = pack.thresholds.shift(load(MlSettings).preset)
    return Calibrated(
        pack.name,
        len(who),
        persons,
        round(found.slope, 2),
        tuple(round(even - shift, 4) for even in found.even),
        round(calibration.calibration_error(bins), 4),
        bins,
    )


def keep(pack: Pack, found: Calibrated) -> Path:
    """Store a calibration with its pack; the file."""
    kept = Calibration(slope=found.slope, even=found.even, measured=found.measured)
    return packs.calibrate(pack, kept)


def _middles(limits: Sequence[int]) -> list[int]:
    """A size of library inside each step: three quarters of its limit; 0 for the last."""
    return [round(0.75 * limit) for limit in limits]
