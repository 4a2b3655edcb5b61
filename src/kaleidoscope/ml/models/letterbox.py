"""A picture made to fit a network that looks at it once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kaleidoscope.ml.models.faces import Array
from kaleidoscope.ml.models.pyramid import Pyramid

STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class Letterbox:
    """`pixels` uint8 [h, w, 3]: the picture shrunk `scale` times into the top left corner."""

    pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    scale: float


def letterbox(picture: Pyramid, side: int, fixed: tuple[int, int] | None) -> Letterbox:
    """Shrink (never enlarge) to `side` pixels and fill up with black to multiples of 32.

    `fixed` is the height and width a network insists on; the picture then fills it.
    """
    if fixed:
        height, width = fixed
        scale = min(height / picture.height, width / picture.width)
    else:
        scale = min(1.0, side / max(picture.height, picture.width))
    inner_height = max(1, round(picture.height * scale))
    inner_width = max(1, round(picture.width * scale))
    if not fixed:
        height, width = (-(-side // 32) * 32 for side in (inner_height, inner_width))
    pixels = np.zeros((height, width, 3), np.uint8)
    inner_height, inner_width = min(inner_height, height), min(inner_width, width)
    pixels[:inner_height, :inner_width] = picture.resized(inner_width, inner_height)
    return Letterbox(pixels, scale)


def cells(height: int, width: int, stride: int) -> Array:
    """Column and row of each cell of a map, row by row: [rows·columns, 2]."""
    rows, columns = np.mgrid[0 : height // stride, 0 : width // stride]
    return np.stack([columns, rows], axis=-1).reshape(-1, 2).astype(np.float32)
