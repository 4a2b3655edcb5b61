"""Decisions about jobs that need neither database nor disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from kaleidoscope.ingest.settings import IngestSettings

T = TypeVar("T")

LONGEST_WAIT = timedelta(hours=1)


@dataclass(frozen=True)
class JobState:
    """What decides how a job stands. `given_up`: batches that could never be published."""

    status: str
    is_scanned: bool
    has_open_batches: bool
    has_open_photos: bool
    given_up: int


def next_status(job: JobState) -> tuple[str, str | None]:
    """The status that a job has earned, and why it failed if it did."""
    if job.status in ("COMPLETED", "FAILED") or not job.is_scanned or job.has_open_batches:
        return job.status, None
    if job.has_open_photos:
        return ("SCANNED" if job.given_up else "PUBLISHED"), None
    if job.given_up:
        return "FAILED", f"{job.given_up} batches could not be published; see the dead letters"
    return "COMPLETED", None


def publish_wait(failures: int, settings: IngestSettings) -> timedelta | None:
    """How long a batch waits after so many failed tries to publish it; None: it is given up."""
    if failures >= settings.publish_failures:
        return None
    rounds = max(0, failures // settings.publish_tries - 1)
    wait = timedelta(seconds=settings.publish_again_after * 2 ** min(rounds, 20))
    return min(wait, LONGEST_WAIT)


def portions(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """The items in their order, `size` at a time."""
    return [items[i : i + size] for i in range(0, len(items), size)]


def portions_by(items: Sequence[T], weight: Callable[[T], int], most: int) -> list[list[T]]:
    """The items in their order, as many at a time as weigh no more than `most` together."""
    found: list[list[T]] = []
    room = 0
    for item in items:
        if not found or weight(item) > room:
            found.append([])
            room = most
        found[-1].append(item)
        room -= weight(item)
    return found
