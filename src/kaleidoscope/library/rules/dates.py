"""When a photo was taken: which of several dates to believe, and how far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

Confidence = Literal["high", "medium", "low"]

NO_SOURCE = "none"
"""The source of a date that nothing tells: the asset has been looked at and stays undated."""

SOURCES = (
    "exif:DateTimeOriginal",
    "exif:DateTime",
    "mtime",
)
"""Every source of a date, the most trusted first."""

_RANK = {source: rank for rank, source in enumerate(SOURCES)}
_WEIGHT = {"high": 0, "medium": 1, "low": 2}


@dataclass(frozen=True)
class Candidate:
    """One date that something tells: wall clock `at`, and how far that clock was ahead of UTC."""

    source: str
    at: datetime
    offset: timedelta | None
    confidence: Confidence


@dataclass(frozen=True)
class Chosen:
    """The date to believe. `captured_at` None, source "none": there is none."""

    captured_at: datetime | None
    captured_offset: timedelta | None
    source: str
    confidence: Confidence


def choose(candidates: Sequence[Candidate]) -> Chosen:
    """The most trusted date: by confidence, then by source, then the earliest."""
    if not candidates:
        return Chosen(None, None, NO_SOURCE, "low")
    best = min(
        candidates,
        key=lambda c: (_WEIGHT[c.confidence], _RANK.get(c.source, len(_RANK)), c.at),
    )
    return Chosen(best.at, best.offset, best.source, best.confidence)


def from_plain(candidates: Iterable[Mapping[str, Any]]) -> list[Candidate]:
    """Candidates as `outside.metadata.read_file` answers them."""
    return [
        Candidate(
            source=c["source"],
            at=datetime.fromisoformat(c["at"]),
            offset=None if (m := c["offset_minutes"]) is None else timedelta(minutes=m),
            confidence=c["confidence"],
        )
        for c in candidates
    ]
