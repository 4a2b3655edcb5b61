"""Decisions about jobs."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kaleidoscope.ingest.rules import JobState, next_status, portions, publish_wait
from kaleidoscope.ingest.settings import IngestSettings


@pytest.mark.parametrize(
    ("status", "scanned", "batches", "photos", "given_up", "expected"),
    [
        ("SCANNED", False, False, False, 0, "SCANNED"),
        ("SCANNED", True, True, True, 0, "SCANNED"),
        ("SCANNED", True, False, True, 0, "PUBLISHED"),
        ("SCANNED", True, False, False, 0, "COMPLETED"),
        ("SCANNED", True, False, True, 1, "SCANNED"),
        ("SCANNED", True, False, False, 1, "FAILED"),
        ("PUBLISHED", True, False, True, 0, "PUBLISHED"),
        ("PUBLISHED", True, False, False, 0, "COMPLETED"),
        ("COMPLETED", True, False, True, 0, "COMPLETED"),
        ("FAILED", True, False, False, 0, "FAILED"),
    ],
)
def test_a_job_earns_its_status(
    status: str, scanned: bool, batches: bool, photos: bool, given_up: int, expected: str
) -> None:
    job = JobState(status, scanned, batches, photos, given_up)
    assert next_status(job)[0] == expected


def test_publishing_waits_longer_and_longer_and_ends() -> None:
    settings = IngestSettings(publish_tries=3, publish_failures=30, publish_again_after=30)
    waits = [publish_wait(failures, settings) for failures in range(3, 31, 3)]
    assert waits[:3] == [timedelta(seconds=s) for s in (30, 60, 120)]
    assert waits[-2:] == [timedelta(hours=1), None]


def test_portions() -> None:
    assert portions("abcde", 2) == ["ab", "cd", "e"]
    assert portions([], 2) == []
