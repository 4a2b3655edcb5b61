"""Products that run, and photographs for them."""

from __future__ import annotations

import csv
import hashlib
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from product import COMMAND, Product


@pytest.fixture
def make_product(folder: Path) -> Iterator[Callable[..., Product]]:
    """Products side by side, stopped at the end."""
    made: list[Product] = []

    def make(name: str, **settings: str) -> Product:
        made.append(Product(folder / name, **settings))
        return made[-1]

    yield make
    for product in made:
        subprocess.run([COMMAND, "down"], env=product.env, capture_output=True)


@pytest.fixture
def photos(folder: Path) -> Callable[[int], Path]:
    """A folder of so many photographs: of the labelled ones where they are, else generated."""

    def lay(count: int) -> Path:
        target = folder / f"photos-{count}"
        target.mkdir()
        default = Path(__file__).parents[3] / "shared"
        faces = Path(os.environ.get("KALEIDOSCOPE_SHARED", default)) / "faces"
        if (faces / "manifest.csv").is_file():
            _lay_real(faces, target, count)
        else:
            _generate(target, count)
        return target

    return lay


def _lay_real(faces: Path, target: Path, count: int) -> None:
    """People with several photos and a few groups, always the same ones."""
    with (faces / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] in ("whole", "group")]
    chosen = sorted((r["path"] for r in rows), key=lambda p: hashlib.sha1(p.encode()).hexdigest())
    assert len(chosen) >= count
    for path in chosen[:count]:
        to = target / path
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(faces / path, to)


def _generate(target: Path, count: int) -> None:
    dice = np.random.default_rng(5)
    for number in range(count):
        small = dice.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(small).resize((640, 480)).save(target / f"{number:04}.jpg", quality=90)


@pytest.fixture
def dice() -> random.Random:
    """The same chances in every run; KALEIDOSCOPE_TEST_SEED gives others."""
    return random.Random(int(os.environ.get("KALEIDOSCOPE_TEST_SEED", "7")))
