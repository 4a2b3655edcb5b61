"""Many things, some at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def batched(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items, `size` at a time; the last time the rest."""
    return (items[start : start + size] for start in range(0, len(items), size))
