"""How much a face has to say about whose it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image

from kaleidoscope.ml.models.faces import Array
from kaleidoscope.ml.models.pyramid import Pixels

SIDE = 64  # pixels at which sharpness is judged, so that packs and sizes compare


@dataclass(frozen=True)
class Quality:
    """`size`: distance of the eyes in pixels of the picture looked at. `sharpness`: variance of the
    Laplacian of the aligned face's grey values (0..255) at 64 pixels, its margin left out. `yaw`:
    how far the nose lies from the middle between the eyes, in eye distances across the face: 0
    frontal, ±0.5 nearly a profile. `score` 0..1: each of these and the detector's confidence as
    a ramp, multiplied.
    """

    size: float
    sharpness: float
    yaw: float
    score: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def judge(points: Array, chips: Pixels, scores: Array) -> list[Quality]:
    """The quality of faces with points [n, 5, 2], aligned chips [n, s, s, 3], confidences [n]."""
    return [
        _judge(face.astype(np.float64), chip, float(score))
        for face, chip, score in zip(points, chips, scores, strict=True)
    ]


def _judge(
    points: np.ndarray[tuple[int, ...], np.dtype[np.float64]], chip: Pixels, confidence: float
) -> Quality:
    across = points[1] - points[0]
    size = float(np.hypot(*across))
    middle = (points[0] + points[1]) / 2
    yaw = float(np.dot(points[2] - middle, across)) / max(size * size, 1e-9)
    sharpness = _sharpness(chip)
    score = (
        _ramp(size, 10, 30)
        * _ramp(sharpness, 40, 250)
        * (1 - _ramp(abs(yaw), 0.15, 0.6))
        * _ramp(confidence, 0.5, 0.95)
    )
    return Quality(round(size, 2), round(sharpness, 2), round(yaw, 4), round(score, 4))


def _sharpness(chip: Pixels) -> float:
    grey = Image.fromarray(chip).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    inner = np.asarray(grey, np.float32)[SIDE // 5 : -SIDE // 5, SIDE // 5 : -SIDE // 5]
    around = inner[:-2, 1:-1] + inner[2:, 1:-1] + inner[1:-1, :-2] + inner[1:-1, 2:]
    return float((around - 4 * inner[1:-1, 1:-1]).var())


def _ramp(value: float, low: float, high: float) -> float:
    """0 below `low`, 1 above `high`, straight between."""
    return float(min(1.0, max(0.0, (value - low) / (high - low))))
