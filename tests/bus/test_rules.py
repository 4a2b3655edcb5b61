"""Back-off, what an outage is, and words that can be stored."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from kaleidoscope.bus.rules import LONGEST_DELAY, back_off, describe, is_outage, storable
from kaleidoscope.bus.transports import TransportError


def test_back_off_doubles_up_to_a_limit_with_jitter() -> None:
    for attempt in (1, 2, 3, 20, 10_000):
        longest = min(LONGEST_DELAY, 2.0 ** (min(attempt, 30) - 1))
        delays = {back_off(attempt).total_seconds() for _ in range(50)}
        assert all(longest / 2 <= delay <= longest for delay in delays)
        assert len(delays) > 25


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TransportError("away"), True),
        (psycopg.OperationalError("connection refused"), True),
        (psycopg.errors.AdminShutdown(), True),
        (psycopg.errors.CannotConnectNow(), True),
        (OperationalError("SELECT 1", {}, psycopg.OperationalError("server closed")), True),
        (psycopg.errors.QueryCanceled(), False),
        (psycopg.errors.DeadlockDetected(), False),
        (psycopg.errors.UniqueViolation(), False),
        (ValueError("57"), False),
    ],
)
def test_an_outage_is_no_failure_of_the_message(error: Exception, expected: bool) -> None:
    assert is_outage(error) is expected


def test_errors_in_words() -> None:
    assert describe(ValueError("no")) == "ValueError: no"
    assert describe(TimeoutError()) == "TimeoutError"


@pytest.mark.parametrize("words", ["plain", "nul \0", "torn \udc80", "x" * 100_000])
def test_words_can_be_stored(words: str) -> None:
    kept = storable(words)
    assert "\0" not in kept
    assert len(kept.encode()) <= 4 * 4000
