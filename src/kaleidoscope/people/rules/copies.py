"""Which faces of a photo are those of a picture of which it is a copy.

A picture comes smaller and re-encoded from messengers and albums. Its copy looks the same as a
whole, and its faces lie in the same places: they are the same faces, however blurred they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kaleidoscope.kernel.boxes import overlap
from kaleidoscope.people.rules.matching import Sitting, Vector

SAME_PLACE = 0.5  # intersection over union of the boxes
SAME_SHAPE = 0.02  # by which the ratios of the sides differ at most
BETTER = 0.1  # by how much better a face may be than the one it is taken for


@dataclass(frozen=True)
class Known:
    """A face whose person is known: its box in a picture of this size, quality, unit vector."""

    face_id: int
    person_id: int
    bbox: Sequence[float]
    size: tuple[int, int]
    quality: float
    vector: Vector


def originals(
    boxes: Sequence[Sequence[float]],
    size: tuple[int, int],
    sitting: Sitting,
    known: Sequence[Known],
    least: float,
) -> list[Known | None]:
    """For each face of a photo the most similar known one in the same place of a picture that
    looks the same (`known` are those of such pictures), at least `least` similar.

    A face that is far better than the known one is worth being looked at for itself.
    """
    found: list[Known | None] = []
    for box, sight, vector in zip(boxes, sitting.sights, sitting.vectors, strict=True):
        here = [
            (float(vector @ k.vector), -k.face_id, k)
            for k in known
            if _same_shape(size, k.size)
            and overlap(_relative(box, size), _relative(k.bbox, k.size)) >= SAME_PLACE
            and sight.quality <= k.quality + BETTER
        ]
        similarity, _, best = max(here, default=(least - 1, 0, None), key=lambda k: k[:2])
        found.append(best if similarity >= least else None)
    return found


def _same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    across, down = one[0] * other[1], one[1] * other[0]
    return abs(across - down) <= SAME_SHAPE * max(across, down)


def _relative(box: Sequence[float], size: tuple[int, int]) -> list[float]:
    """A box in shares of the picture's width and height."""
    return [box[0] / size[0], box[1] / size[1], box[2] / size[0], box[3] / size[1]]
