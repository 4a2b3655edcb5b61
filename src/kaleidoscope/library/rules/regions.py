"""Where a face region of a sidecar lies in the photo as it is displayed, and back.

The Metadata Working Group's regions (Guidelines 2.0) have a centre, a width and a height between 0
and 1 of the image as it is stored: Exif's orientation turns them like the pixels. So Lightroom and
digiKam write them. A program that turned them itself gives itself away by AppliedToDimensions: the
size that the regions were drawn on is then that of the photo upright.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kaleidoscope.kernel import boxes

TURNED = frozenset({5, 6, 7, 8})  # orientations that exchange width and height
BACK = {6: 8, 8: 6}  # what undoes an orientation; the others undo themselves
SAME = 0.4  # intersection over union from which two boxes are one face


@dataclass(frozen=True)
class Named:
    """A name at a place: centre, width and height, from 0 to 1."""

    name: str
    x: float
    y: float
    w: float
    h: float

    @property
    def corners(self) -> tuple[float, float, float, float]:
        return (
            self.x - self.w / 2,
            self.y - self.h / 2,
            self.x + self.w / 2,
            self.y + self.h / 2,
        )


def displayed(region: Named, orientation: int) -> Named:
    """A region of the stored image in the image as it is displayed."""
    x, y = region.x, region.y
    places = {
        2: (1 - x, y),
        3: (1 - x, 1 - y),
        4: (x, 1 - y),
        5: (y, x),
        6: (1 - y, x),
        7: (1 - y, 1 - x),
        8: (y, 1 - x),
    }
    x, y = places.get(orientation, (x, y))
    turned = orientation in TURNED
    w, h = (region.h, region.w) if turned else (region.w, region.h)
    return replace(region, x=x, y=y, w=w, h=h)


def stored(region: Named, orientation: int) -> Named:
    """A region of the displayed image in the image as it is stored."""
    return displayed(region, BACK.get(orientation, orientation))


def orientation_of(
    applied: tuple[float, float] | None, size: tuple[int, int] | None, orientation: int
) -> int:
    """The orientation that turns regions drawn on an image of the size `applied` into those of the
    displayed image of this `size`: the file's, or 1 where they were drawn on the displayed one.
    """
    if orientation not in TURNED or applied is None or size is None or min(applied) <= 0:
        return orientation
    shape, upright = applied[0] / applied[1], size[0] / size[1]
    to_upright, to_stored = abs(shape / upright - 1), abs(shape * upright - 1)
    return 1 if to_upright < to_stored else orientation


def overlap(a: Named, b: Named) -> float:
    """How far two boxes are one: intersection over union; at least `SAME` when each one's centre
    lies in the other, for programs draw faces narrow or wide.
    """
    share = boxes.overlap(a.corners, b.corners)
    if not share:
        return 0.0
    ax1, ay1, ax2, ay2 = a.corners
    bx1, by1, bx2, by2 = b.corners
    centred = (
        ax1 <= b.x <= ax2 and ay1 <= b.y <= ay2 and bx1 <= a.x <= bx2 and by1 <= a.y <= by2
    )  # fmt: skip
    return max(share, SAME) if centred else share


def pairs(ones: Sequence[Named], others: Sequence[Named]) -> dict[int, int]:
    """Which of the first is which of the others: index to index, the best overlap first."""
    ranked = sorted(
        ((overlap(a, b), _union(a, b), i, j) for i, a in enumerate(ones)
         for j, b in enumerate(others)),
        key=lambda pair: (-pair[0], -pair[1], pair[2], pair[3]),
    )  # fmt: skip
    return boxes.paired((i, j) for share, _, i, j in ranked if share >= SAME)


def _union(a: Named, b: Named) -> float:
    """Of boxes that count alike, the nearer ones first."""
    return -((a.x - b.x) ** 2 + (a.y - b.y) ** 2)
