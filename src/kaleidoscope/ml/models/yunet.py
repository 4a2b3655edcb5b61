"""YuNet: faces and five points in one look (Wu et al., 2023; OpenCV's FaceDetectorYN)."""

from __future__ import annotations

import numpy as np

from kaleidoscope.ml.models.faces import Found, merged
from kaleidoscope.ml.models.letterbox import STRIDES, cells, letterbox
from kaleidoscope.ml.models.pyramid import Pyramid
from kaleidoscope.ml.models.session import Session

NAMES = {f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in STRIDES}


class YuNet:
    """Takes BGR 0..255; a face is the root of its class and objectness scores."""

    def __init__(self, session: Session, *, confidence: float, side: int, min_face: int) -> None:
        """`min_face`: pixels of the smallest face, in a picture of at most `side` pixels."""
        self.session = session
        self.confidence = confidence
        self.side = side
        self.min_face = min_face

    def detect(self, picture: Pyramid, at_least: float = 0.0) -> Found:
        """The faces of a picture, in its pixels; `at_least`: none smaller than so many of them."""
        boxed = letterbox(picture, self.side, self.session.side)
        planes = boxed.pixels[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32)
        outputs = dict(zip(self.session.outputs, self.session.run(planes), strict=True))
        height, width = boxed.pixels.shape[:2]
        found = [Found.nothing()]
        for stride in STRIDES:
            kinds = [outputs[f"{kind}_{stride}"] for kind in ("cls", "obj", "bbox", "kps")]
            likelihood, objectness, box, points = (a.reshape(-1, a.shape[-1]) for a in kinds)
            product = np.clip(likelihood[:, 0], 0, 1) * np.clip(objectness[:, 0], 0, 1)
            scores = np.sqrt(product)
            rows = np.flatnonzero(scores >= self.confidence)
            cell = cells(height, width, stride)[rows]
            centre = (cell + box[rows, :2]) * stride
            half = np.exp(box[rows, 2:]) * (stride / 2)
            places = (cell[:, None] + points[rows].reshape(-1, 5, 2)) * stride
            corners = np.concatenate([centre - half, centre + half], axis=1)
            found.append(Found(corners, places, scores[rows]))
        smallest = max(self.min_face, at_least * boxed.scale)
        return merged(found, 0.3, smallest).moved(1 / boxed.scale)
