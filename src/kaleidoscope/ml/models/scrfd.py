"""SCRFD: faces and five points in one look (Guo et al., 2021; insightface)."""

from __future__ import annotations

import numpy as np

from kaleidoscope.ml.errors import BadWeights
from kaleidoscope.ml.models.faces import Array, Found, merged
from kaleidoscope.ml.models.letterbox import STRIDES, cells, letterbox
from kaleidoscope.ml.models.pyramid import Pyramid
from kaleidoscope.ml.models.session import Session


class Scrfd:
    """Takes RGB (x - 127.5) / 128; answers distances from the middle of each cell, in strides."""

    def __init__(self, session: Session, *, confidence: float, side: int, min_face: int) -> None:
        """`min_face`: pixels of the smallest face, in a picture of at most `side` pixels."""
        self.session = session
        self.confidence = confidence
        self.side = side
        self.min_face = min_face

    def detect(self, picture: Pyramid, at_least: float = 0.0) -> Found:
        """The faces of a picture, in its pixels; `at_least`: none smaller than so many of them."""
        boxed = letterbox(picture, self.side, self.session.side)
        planes = boxed.pixels.transpose(2, 0, 1)[None].astype(np.float32)
        planes = (planes - np.float32(127.5)) / np.float32(128)
        scores, boxes, points = self._maps(self.session.run(planes))
        height, width = boxed.pixels.shape[:2]
        found = [Found.nothing()]
        for stride, score, box, point in zip(STRIDES, scores, boxes, points, strict=True):
            grid = cells(height, width, stride) * stride
            anchors = len(score) // max(1, len(grid))
            if anchors < 1 or anchors * len(grid) != len(score):
                raise self._bad(f"{len(score)} scores for {len(grid)} cells of {stride} pixels")
            rows = np.flatnonzero(score[:, 0] >= self.confidence)
            centre = np.repeat(grid, anchors, axis=0)[rows]
            away = box[rows] * stride
            corners = np.concatenate([centre - away[:, :2], centre + away[:, 2:]], axis=1)
            places = centre[:, None] + point[rows].reshape(-1, 5, 2) * stride
            found.append(Found(corners, places, score[rows, 0]))
        smallest = max(self.min_face, at_least * boxed.scale)
        return merged(found, 0.4, smallest).moved(1 / boxed.scale)

    def _maps(self, outputs: list[Array]) -> tuple[list[Array], list[Array], list[Array]]:
        """Scores, boxes and points, each for strides 8, 16, 32, as rows.

        Exports differ in the order of their outputs and in whether they keep the batch; the last
        side says what an output is and the number of its rows which stride.
        """
        rows = [output.reshape(-1, output.shape[-1]) for output in outputs]
        kinds = [
            sorted((r for r in rows if r.shape[1] == width), key=len, reverse=True)
            for width in (1, 4, 10)
        ]
        if [len(kind) for kind in kinds] != [3, 3, 3]:
            raise self._bad(f"outputs of {[output.shape for output in outputs]}")
        return kinds[0], kinds[1], kinds[2]

    def _bad(self, why: str) -> BadWeights:
        path = self.session.path
        return BadWeights(f"{path} is no SCRFD with five points: {why}", path=str(path))
