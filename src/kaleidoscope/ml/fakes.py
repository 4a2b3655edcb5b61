"""An engine without networks, for tests of everything around it: pack `fake`.

`picture` draws photos in which it finds exactly the people that were drawn.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from kaleidoscope.ml.catalog import FAKE
from kaleidoscope.ml.engine import Face, FaceEngine, Seen
from kaleidoscope.ml.models.faces import Found
from kaleidoscope.ml.models.quality import Quality

TILE = 96
LEVELS = 8  # of each colour channel: people 0 to 511
NOBODY = (128, 128, 128)


def picture(people: Sequence[int], *, seed: int = 0, format: str = "JPEG") -> bytes:
    """A photo of these people (numbers 0 to 511) side by side; [] is one of nobody.

    Photos of other `seed`s show the same people with slightly other embeddings.
    """
    tiles = np.full((TILE, TILE * max(1, len(people)), 3), NOBODY, np.uint8)
    for place, person in enumerate(people):
        left = place * TILE
        tiles[8:-8, left + 8 : left + TILE - 8] = _colour(person)
    tiles[:4, :, :] = np.random.default_rng(seed).integers(0, 255, (4, tiles.shape[1], 1))
    file = BytesIO()
    Image.fromarray(tiles).save(file, format, quality=95)
    return file.getvalue()


@dataclass(frozen=True)
class _Drawn(Seen):
    """Who was drawn."""

    people: list[Face]


class FakeEngine(FaceEngine):
    """Honours the contract of `FaceEngine` on pictures that `picture` drew; on others its answer
    means nothing and is always the same.
    """

    def __init__(self) -> None:
        super().__init__(FAKE)

    @property
    def model_version(self) -> str:
        return "fake/1"

    def load(self) -> None:
        """There is nothing to load."""

    def look(self, image: npt.NDArray[np.uint8]) -> Seen:
        """A face for each tile that is not grey."""
        height, width = image.shape[:2]
        tiles = max(1, round(width / height))
        noise = np.random.default_rng(zlib.crc32(image[: max(1, height // 32)].tobytes()))
        faces = []
        for place in range(tiles):
            middle = int((place + 0.5) * width / tiles)
            patch = image[height // 2 - 4 : height // 2 + 4, max(0, middle - 4) : middle + 4]
            colour = patch.reshape(-1, 3).mean(axis=0)
            if np.abs(colour - NOBODY).max() > 6:
                faces.append(_face(colour, place * width / tiles, width / tiles, height, noise))
        none = np.zeros((0, 1, 1, 3), np.uint8)
        timings = {"detect": 0.0, "align": 0.0}
        return _Drawn(Found.nothing(), [], none, np.zeros(0, np.bool_), none, timings, faces)

    def embed(self, pictures: Sequence[Seen]) -> list[list[Face]]:
        """They have been found with their vectors."""
        for seen in pictures:
            seen.timings["embed"] = 0.0
        return [seen.people for seen in pictures if isinstance(seen, _Drawn)]


def embedding(person: int) -> npt.NDArray[np.float32]:
    """The direction around which a person's embeddings lie, of length 1."""
    return _unit(np.random.default_rng(person).standard_normal(FAKE.dimension))


def _face(
    colour: npt.NDArray[np.float64],
    left: float,
    width: float,
    height: float,
    noise: np.random.Generator,
) -> Face:
    red, green, blue = np.clip(((colour - 16) / 32).round(), 0, LEVELS - 1).astype(int)
    person = int(red + LEVELS * green + LEVELS * LEVELS * blue)
    vector = embedding(person) + 0.015 * noise.standard_normal(FAKE.dimension)
    points = [(0.35, 0.4), (0.65, 0.4), (0.5, 0.55), (0.38, 0.7), (0.62, 0.7)]
    return Face(
        bbox=(left + 0.1 * width, 0.1 * height, left + 0.9 * width, 0.9 * height),
        landmarks=np.array([(left + x * width, y * height) for x, y in points], np.float32),
        embedding=_unit(vector),
        confidence=0.99,
        quality=Quality(size=0.3 * width, sharpness=500.0, yaw=0.0, score=1.0),
    )


def _colour(person: int) -> tuple[int, int, int]:
    red, green, blue = person % LEVELS, person // LEVELS % LEVELS, person // LEVELS**2 % LEVELS
    return 16 + 32 * red, 16 + 32 * green, 16 + 32 * blue


def _unit(vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    return (vector / np.linalg.norm(vector)).astype(np.float32)
