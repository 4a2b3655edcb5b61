"""Boxes: how far two are one, and which of some is which of others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes x1, y1, x2, y2."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return both / area


def paired(ranked: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Of pairs of numbers, the best first, those that are left when each is used once."""
    found: dict[int, int] = {}
    taken: set[int] = set()
    for one, other in ranked:
        if one not in found and other not in taken:
            found[one] = other
            taken.add(other)
    return found
