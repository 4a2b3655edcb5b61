"""A picture at several sizes, to cut small pieces out of it fast and without aliasing.

Coordinates are continuous pixels of the full picture: (0, 0) is the outer corner of the first
pixel, whose centre is (0.5, 0.5).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]


class Pyramid:
    """Level k is the picture shrunk 2**k times by averaging, made when it is first needed."""

    def __init__(self, image: Pixels) -> None:
        """`image`: uint8 [h, w, 3], RGB."""
        self.height, self.width = image.shape[:2]
        self._levels = [Image.fromarray(image)]

    def level(self, number: int) -> Image.Image:
        """The picture shrunk 2**number times, as far as it can be shrunk."""
        while len(self._levels) <= number:
            self._levels.append(self._levels[-1].reduce(2))
        return self._levels[number]

    def resized(self, width: int, height: int) -> Pixels:
        """The whole picture at another size: uint8 [height, width, 3]."""
        shrink = min(self.width / width, self.height / height)
        source = self.level(_level(shrink))
        return np.asarray(source.resize((width, height), Image.Resampling.BILINEAR))

    def patches(self, boxes: npt.NDArray[np.float32], side: int) -> Pixels:
        """The boxes [n, 4] (x1 y1 x2 y2), each at side×side: uint8 [n, side, side, 3].

        What lies outside the picture is black.
        """
        out = np.empty((len(boxes), side, side, 3), np.uint8)
        for row, box in zip(out, boxes.tolist(), strict=True):
            number = _level(min(box[2] - box[0], box[3] - box[1]) / side)
            extent = tuple(value / 2**number for value in box)
            patch = self.level(number).transform(
                (side, side), Image.Transform.EXTENT, extent, Image.Resampling.BILINEAR
            )
            row[:] = np.asarray(patch)
        return out

    def warped(self, matrix: Matrix, side: int) -> Pixels:
        """The picture seen through an affine map: uint8 [side, side, 3].

        `matrix` [2, 3] leads from a point of the result to one of the picture.
        """
        number = _level(float(np.sqrt(abs(np.linalg.det(matrix[:, :2])))))
        coefficients = tuple((matrix / 2**number).ravel().tolist())
        chip = self.level(number).transform(
            (side, side), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
        )
        return np.asarray(chip)


def _level(shrink: float) -> int:
    """The level from which bilinear sampling, which sees 2×2 pixels, misses nothing."""
    return int(np.log2(shrink)) if shrink >= 2 else 0
