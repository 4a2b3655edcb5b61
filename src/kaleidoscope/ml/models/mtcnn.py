"""MTCNN: proposals from a picture at many sizes, refined twice, with five points a face."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from kaleidoscope.ml.models.faces import Array, Found, best
from kaleidoscope.ml.models.pyramid import Pixels, Pyramid
from kaleidoscope.ml.models.session import Session

CELL = 12  # pixels of the square that PNet judges
STEP = 0.709  # from one size of the picture to the next: half the area
# PNet and RNet. At 0.6, as in the paper, RNet sees twice as many squares, and of 816 labelled faces
# one more is found (bench/bench_engine.py).
THRESHOLDS = (0.7, 0.7)


class Mtcnn:
    """`min_face`: pixels of the smallest face sought, in a picture of at most `side` pixels."""

    def __init__(
        self, sessions: Mapping[str, Session], *, confidence: float, side: int, min_face: int
    ) -> None:
        """`sessions`: `pnet`, `rnet`, `onet` as `weights.mtcnn` writes them."""
        self.pnet, self.rnet, self.onet = (sessions[n] for n in ("pnet", "rnet", "onet"))
        self.confidence = confidence
        self.side = side
        self.min_face = min_face

    def detect(self, picture: Pyramid, at_least: float = 0.0) -> Found:
        """The faces of a picture, in its pixels; `at_least`: none smaller than so many of them."""
        boxes = self._propose(picture, at_least)
        if len(boxes):
            boxes = self._refine(picture, boxes)
        return self._finish(picture, boxes) if len(boxes) else Found.nothing()

    def _propose(self, picture: Pyramid, at_least: float) -> Array:
        """Squares [n, 4] that PNet holds for faces."""
        fit = min(1.0, self.side / max(picture.width, picture.height))
        scale = CELL / max(self.min_face / fit, at_least)
        found = [np.zeros((0, 5), np.float32)]
        while min(picture.width, picture.height) * scale >= CELL:
            found.append(self._propose_at(picture, scale))
            scale *= STEP
        rows = np.concatenate(found)
        rows = rows[best(rows[:, :4], rows[:, 4], 0.7)]
        return _square(rows[:, :4])

    def _propose_at(self, picture: Pyramid, scale: float) -> Array:
        """Proposals [n, 5] (box and score) from the picture at one size."""
        width, height = round(picture.width * scale), round(picture.height * scale)
        shifts, scores = self.pnet.run(_planes(picture.resized(width, height)[None]))
        rows, columns = np.nonzero(scores[0, 0] > THRESHOLDS[0])
        corner = np.stack([columns, rows], axis=1).astype(np.float32) * 2 + 1
        size = np.float32(CELL - 1)
        boxes = np.concatenate([corner, corner + size], axis=1)
        boxes += shifts[0, :, rows, columns] * size
        boxes *= np.array([picture.width / width, picture.height / height] * 2, np.float32)
        score = scores[0, 0, rows, columns]
        kept = best(boxes, score, 0.5)
        return np.concatenate([boxes, score[:, None]], axis=1)[kept]

    def _refine(self, picture: Pyramid, boxes: Array) -> Array:
        """The squares that RNet holds for faces too."""
        shifts, scores = self.rnet.run(_planes(picture.patches(boxes, 24)))
        likely = scores[:, 0] > THRESHOLDS[1]
        boxes = _shifted(boxes, shifts)[likely]
        return _square(boxes[best(boxes, scores[likely, 0], 0.7)])

    def _finish(self, picture: Pyramid, boxes: Array) -> Found:
        """What ONet says of the squares."""
        shifts, points, scores = self.onet.run(_planes(picture.patches(boxes, 48)))
        likely = scores[:, 0] >= self.confidence
        boxes, shifts, points, scores = (a[likely] for a in (boxes, shifts, points, scores))
        size = (boxes[:, 2:] - boxes[:, :2])[:, None]
        places = boxes[:, None, :2] + points.reshape(-1, 2, 5).transpose(0, 2, 1) * size
        found = Found(_shifted(boxes, shifts), places, scores[:, 0])
        return found[best(found.boxes, found.scores, 0.7, of_smaller=True)]


def _planes(pictures: Pixels) -> Array:
    return pictures.transpose(0, 3, 1, 2).astype(np.float32)


def _shifted(boxes: Array, shifts: Array) -> Array:
    """Boxes [n, 4] whose corners moved by `shifts` times their size."""
    size = boxes[:, 2:] - boxes[:, :2]
    moved: Array = boxes + shifts * np.concatenate([size, size], axis=1)
    return moved


def _square(boxes: Array) -> Array:
    """The smallest square around the middle of each box that is as wide and as high as it."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half: npt.NDArray[np.float32] = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    return np.concatenate([centre - half, centre + half], axis=1)
