"""What a detector finds, as arrays: one row a face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from kaleidoscope.ml.models.pyramid import Pyramid

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Found:
    """`boxes` [n, 4] x1 y1 x2 y2, `points` [n, 5, 2], `scores` [n] 0..1, best first.

    Pixels of the picture looked at. The points are the eye on the left of the picture, the other
    eye, the tip of the nose, the corner of the mouth on the left, the other corner.
    """

    boxes: Array
    points: Array
    scores: Array

    @staticmethod
    def nothing() -> Found:
        return Found(*(np.zeros(shape, np.float32) for shape in [(0, 4), (0, 5, 2), (0,)]))

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Found:
        return Found(self.boxes[rows], self.points[rows], self.scores[rows])

    def moved(self, scale: float, dx: float = 0.0, dy: float = 0.0) -> Found:
        """The same faces in a picture of another scale: every x becomes (x + dx)·scale."""
        offset = np.array([dx, dy], np.float32)
        boxes = (self.boxes.reshape(-1, 2, 2) + offset) * np.float32(scale)
        points = (self.points + offset) * np.float32(scale)
        return Found(boxes.reshape(-1, 4), points, self.scores)


class Detector(Protocol):
    """A network, or several, that find faces."""

    def detect(self, picture: Pyramid, at_least: float = 0.0) -> Found:
        """The faces of a picture, in its pixels; `at_least`: none smaller than so many of them."""
        ...


def overlaps(boxes: Array, *, of_smaller: bool = False) -> Array:
    """Intersection over union of all pairs [n, n]; `of_smaller`: over the smaller area."""
    left, top, right, bottom = boxes.T[:, :, None]
    width = np.minimum(right, right.T) - np.maximum(left, left.T)
    height = np.minimum(bottom, bottom.T) - np.maximum(top, top.T)
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    areas = np.maximum(right - left, 0) * np.maximum(bottom - top, 0)
    whole = np.minimum(areas, areas.T) if of_smaller else areas + areas.T - shared
    ratios: Array = shared / np.maximum(whole, np.float32(1e-9))
    return ratios


def best(
    boxes: Array, scores: Array, overlap: float, *, of_smaller: bool = False, most: int = 1500
) -> npt.NDArray[np.intp]:
    """Greedy non-maximum suppression: rows kept, best first, of the `most` best."""
    order = np.argsort(-scores, kind="stable")[:most]
    free = overlaps(boxes[order], of_smaller=of_smaller) <= overlap
    alive = np.ones(len(order), bool)
    for row in range(len(order)):
        if alive[row]:
            alive[row + 1 :] &= free[row, row + 1 :]
    return order[alive]


def merged(parts: list[Found], overlap: float, smallest: float) -> Found:
    """One face each of what was found at several strides, none smaller than `smallest` pixels."""
    every = Found(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.points for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )
    every = every[(every.boxes[:, 2:] - every.boxes[:, :2]).max(axis=1) >= smallest]
    return every[best(every.boxes, every.scores, overlap)]
