"""Decisions about services, errors and disks, from what was said and measured, and when."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

Colour = Literal["green", "yellow", "red"]
Status = Literal["OK", "WARNING", "ERROR"]
State = Literal["OK", "WARNING", "ERROR", "silent", "unknown"]

USUAL = timedelta(seconds=20)
"""The interval of heartbeats for which the seed's 60 and 180 seconds are meant."""

GAP = 3
"""A service that says nothing for more than so many of its intervals is not up."""

BY_STATUS: dict[Status, Colour] = {"OK": "green", "WARNING": "yellow", "ERROR": "red"}
ORDER: list[Colour] = ["green", "yellow", "red"]


def colour(
    age: timedelta,
    status: Status = "OK",
    *,
    interval: timedelta = USUAL,
    green_for: timedelta = timedelta(seconds=60),
    yellow_for: timedelta = timedelta(seconds=180),
) -> Colour:
    """The colour of a service whose last heartbeat is that old and said `status` (seed 002).

    The worse of the two counts: a service that reports an error is red however fresh its word is.
    One that beats more rarely than usual is given as many of its own intervals.
    """
    scale = max(1.0, interval / USUAL)
    by_age: Colour = (
        "green" if age <= green_for * scale else "yellow" if age <= yellow_for * scale else "red"
    )
    return max(by_age, BY_STATUS[status], key=ORDER.index)


def interval_of(service: str, usual: float, chosen: Mapping[str, float]) -> float:
    """Seconds between two heartbeats of a service: `worker` is said of every `worker-HOST-N`."""
    if service in chosen:
        return chosen[service]
    kinds = [kind for kind in chosen if service.startswith(kind + "-")]
    return chosen[max(kinds, key=len)] if kinds else usual


@dataclass(frozen=True)
class Spell:
    """Heartbeats of one status and interval, none more than `GAP` intervals after the last."""

    status: Status
    first: datetime
    last: datetime
    interval: timedelta
    beats: int = 1
    task: str | None = None

    @property
    def reaches(self) -> datetime:
        """Until when its last heartbeat is good, if nothing else is said."""
        return self.last + GAP * self.interval


@dataclass(frozen=True)
class Segment:
    """A part of a window in which a service was in one state."""

    state: State
    since: datetime
    until: datetime
    task: str | None = None


def timeline(spells: Sequence[Spell], start: datetime, end: datetime) -> list[Segment]:
    """The window from `start` to `end` without a hole: spells, silence, and `unknown` before any.

    `spells` in their order. Between two heartbeats no farther apart than `GAP` intervals the
    service was in the state that the earlier one says; else it was silent from that one on.
    """
    marks: list[tuple[datetime, State, str | None]] = [(start, "unknown", None)]
    heard_next = [*(spell.first for spell in spells[1:]), end]
    for spell, heard_again in zip(spells, heard_next, strict=False):
        marks.append((spell.first, spell.status, spell.task))
        if heard_again > spell.reaches:
            marks.append((spell.last, "silent", None))
    ends = [mark[0] for mark in marks[1:]] + [end]
    found: list[Segment] = []
    for (since, state, task), until in zip(marks, ends, strict=True):
        since, until = max(since, start), min(until, end)
        if since >= until:
            continue
        if found and (found[-1].state, found[-1].task) == (state, task):
            found[-1] = Segment(state, found[-1].since, until, task)
        else:
            found.append(Segment(state, since, until, task))
    return found


def uptime(segments: Iterable[Segment], *, observed_only: bool = False) -> float | None:
    """The share of a timeline in which the service was up: OK or WARNING.

    `observed_only`: of the time since it was first heard of. None: there is no such time.
    """
    up = whole = timedelta(0)
    for segment in segments:
        length = segment.until - segment.since
        if segment.state in ("OK", "WARNING"):
            up += length
        if segment.state != "unknown" or not observed_only:
            whole += length
    return up / whole if whole else None


_PARTICULARS = re.compile(
    r"""
      ^/.*?(?=:\s) | "[^"]*" | '[^']*' | ‘[^’]*’ | “[^”]*”        # what is quoted
    | (?<![\w.])/[^\s:,;()]+                          # a path
    | \S+\.(?:[A-Za-z][A-Za-z0-9]{1,4})(?![\w.])      # a file's name
    | \b[0-9a-f]{8,}(?:-[0-9a-f]{4,})*\b              # a hash or an identifier
    | \b\d+(?:[.,:×x]\d+)*                            # a number
    """,
    re.VERBOSE,
)
_SEVERAL = re.compile(r"…(?:[\s,]*…)+")


def cause(message: str | None) -> str:
    """What errors have in common: the message without the particulars of one file."""
    text = " ".join((message or "").split())
    text = _SEVERAL.sub("…", _PARTICULARS.sub("…", text)).removeprefix("…: ")
    return text[:200] or "no cause was given"


@dataclass(frozen=True)
class Measured:
    """How much of a disk was used at a moment."""

    at: datetime
    used: int


LEAST_SPAN = timedelta(hours=6)


def days_until_full(history: Sequence[Measured], free: int) -> float | None:
    """Days until `free` bytes are gone, if the disk goes on filling as it did.

    By the line of least squares through its history. None: it does not fill, or less than six
    hours of it are known.
    """
    if len(history) < 3 or history[-1].at - history[0].at < LEAST_SPAN:
        return None
    days = [(one.at - history[0].at) / timedelta(days=1) for one in history]
    mean_day = sum(days) / len(days)
    mean_used = sum(one.used for one in history) / len(history)
    spread = sum((day - mean_day) ** 2 for day in days)
    pairs = zip(days, history, strict=True)
    slope = sum((day - mean_day) * (one.used - mean_used) for day, one in pairs) / spread
    return free / slope if slope > 0 else None
