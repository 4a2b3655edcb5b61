"""When a photo was taken: reading dates as they are written, and which of several to believe."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Literal

Confidence = Literal["high", "medium", "low"]

NO_SOURCE = "none"
"""The source of a date that nothing tells: the asset has been looked at and stays undated."""

PERSON = "person"
"""The source of a date that a person has corrected."""

SOURCES = (
    "exif:DateTimeOriginal",
    "raw:DateTimeOriginal",
    "xmp:exif:DateTimeOriginal",
    "xmp:photoshop:DateCreated",
    "iptc:DateCreated",
    "quicktime:CreationDate",
    "quicktime:DateTimeOriginal",
    "sidecar:exif:DateTimeOriginal",
    "sidecar:photoshop:DateCreated",
    "exif:DateTimeDigitized",
    "xmp:exif:DateTimeDigitized",
    "xmp:xmp:CreateDate",
    "quicktime:CreateDate",
    "gps:GPSDateTime",
    "sidecar:exif:DateTimeDigitized",
    "sidecar:xmp:CreateDate",
    "takeout:photoTakenTime",
    "name",
    "name:day",
    "exif:DateTime",
    "mtime",
)
"""Every source of a date, the most trusted first (among those of one confidence)."""

UTC_SOURCES = frozenset({"quicktime:CreateDate", "gps:GPSDateTime", "takeout:photoTakenTime"})
"""Sources that tell an instant, not what a clock on a wall showed."""

NOTHING: Mapping[str, Any] = {
    "width": None,
    "height": None,
    "orientation": None,
    "duration_seconds": None,
    "frame_rate": None,
    "location": None,
    "candidates": [],
    "camera_make": None,
    "camera_model": None,
    "camera_serial": None,
    "content_id": None,
    "is_motion_photo": False,
    "error": None,
    "error_code": None,
}
"""What `outside.metadata.read_file` answers of a file that says nothing."""

FIRST_PHOTOGRAPH = datetime(1826, 1, 1)
TOLERANCE = timedelta(days=1)  # clocks and zones: so far ahead of ours a date may be
WEST, EAST = timedelta(hours=-12), timedelta(hours=14)

_RANK = {source: rank for rank, source in enumerate(SOURCES)}
_WEIGHT: dict[str, int] = {"high": 0, "medium": 1, "low": 2}

_WRITTEN = re.compile(
    r"(\d{4})[:\-/.](\d{1,2})[:\-/.](\d{1,2})"
    r"(?:[T :]+(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d+))?)?\s*(Z|[+-]\d{1,2}:?\d{2})?)?"
    r"(?![\d:])",
    re.ASCII,
)
_SHIFT = re.compile(r"([+-]?)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", re.ASCII)
_OFFSET = re.compile(r"\s*(?:(Z)|([+-])(\d{1,2}):?(\d{2}))\s*", re.ASCII)


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
    """The most trusted date.

    Where it does not say how far its clock was ahead of UTC, a source that tells the instant
    (GPS, a video's header) may.
    """
    if not candidates:
        return Chosen(None, None, NO_SOURCE, "low")
    best = ranked(candidates)[0]
    offset = best.offset if best.offset is not None else _implied_offset(best, candidates)
    return Chosen(best.at, offset, best.source, best.confidence)


def ranked(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The most trusted first: by confidence, then by source, then the earliest."""
    return sorted(
        candidates,
        key=lambda c: (_WEIGHT[c.confidence], _RANK.get(c.source, len(_RANK)), c.at),
    )


def possible(at: datetime, now: datetime) -> bool:
    """Whether a photo can have been taken then: not before photography, not in the future.

    `now` with its zone; `at` without one.
    """
    return FIRST_PHOTOGRAPH <= at <= now.astimezone(UTC).replace(tzinfo=None) + TOLERANCE


def guarded(candidate: Candidate) -> Candidate:
    """The candidate, with little confidence where it looks like a clock that was never set."""
    unset = (candidate.at.month, candidate.at.day) == (1, 1) and not any(
        (candidate.at.hour, candidate.at.minute, candidate.at.second)
    )
    return replace(candidate, confidence="low") if unset else candidate


def read(written: str) -> tuple[datetime, timedelta | None] | None:
    """A date as EXIF, XMP or a container writes it, and its offset; None: it is no date.

    A date without a time is its midnight. What no calendar or clock has (2019:02:29, 24:00:00) is
    no date.
    """
    match = _WRITTEN.match(written.partition("\0")[0].strip())
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(n or 0) for n in match.groups()[:6])
    try:
        at = datetime(year, month, day, hour, minute, second, _microseconds(match[7]))
    except ValueError:
        return None
    return at, read_offset(match[8] or "")


def read_offset(written: str) -> timedelta | None:
    """An offset such as +05:30, -0800 or Z; None for none, and for one that no place has."""
    match = _OFFSET.fullmatch(written.partition("\0")[0])
    if match is None:
        return None
    if match[1]:
        return timedelta(0)
    offset = timedelta(hours=int(match[3]), minutes=int(match[4]))
    if int(match[4]) > 59:
        return None
    return signed if WEST <= (signed := -offset if match[2] == "-" else offset) <= EAST else None


def read_shift(written: str) -> timedelta | None:
    """A shift of a clock such as +1h30m, -2d or 45s; None: it is none."""
    match = _SHIFT.fullmatch(written.strip())
    if match is None or not any(match.groups()[1:]):
        return None
    days, hours, minutes, seconds = (int(n or 0) for n in match.groups()[1:])
    try:
        shift = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError:
        return None
    return -shift if match[1] == "-" else shift


def with_fraction(at: datetime, written: str) -> datetime:
    """The date with the fraction of a second that a field of its own gives ("7": 0.7 s)."""
    digits = written.partition("\0")[0].strip()
    return at.replace(microsecond=_microseconds(digits)) if digits.isdecimal() else at


def local(instant: datetime, zone: tzinfo | None) -> tuple[datetime, timedelta]:
    """Wall clock and offset of an instant (naive UTC) in a zone; None: UTC itself."""
    there = instant.replace(tzinfo=UTC).astimezone(zone or UTC)
    return there.replace(tzinfo=None), there.utcoffset() or timedelta(0)


def told(source: str, instant: datetime, zone: tzinfo | None) -> Candidate:
    """An instant (naive UTC) as the clocks there showed it. Where "there" is not known, little is.

    Takeout's is what a person sees in Google Photos, and may have set there.
    """
    sure = zone is not None or source == "takeout:photoTakenTime"
    return Candidate(source, *local(instant, zone), "medium" if sure else "low")


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


def to_plain(candidate: Candidate) -> dict[str, Any]:
    """The opposite of `from_plain` for one."""
    offset = candidate.offset
    return {
        "source": candidate.source,
        "at": candidate.at.isoformat(),
        "offset_minutes": None if offset is None else round(offset / timedelta(minutes=1)),
        "confidence": candidate.confidence,
    }


def _microseconds(digits: str | None) -> int:
    return int((digits or "0")[:6].ljust(6, "0"))


def _implied_offset(best: Candidate, candidates: Sequence[Candidate]) -> timedelta | None:
    """How far `best`'s clock was ahead of UTC, by an instant that another source tells.

    Zones lie a multiple of fifteen minutes from UTC; a clock some minutes off one is taken for a
    clock that goes wrong, and the instant for that of another event.
    """
    quarter, slack = timedelta(minutes=15), timedelta(minutes=2)
    for other in candidates:
        if other.source not in UTC_SOURCES or other.offset is None:
            continue
        ahead = best.at - (other.at - other.offset)
        offset = round(ahead / quarter) * quarter
        if WEST <= offset <= EAST and abs(ahead - offset) <= slack:
            return offset
    return None
