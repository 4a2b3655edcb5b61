"""When to try again, and what counts as a failure."""

from __future__ import annotations

import random
from datetime import timedelta

import psycopg

from kaleidoscope.bus.transports import TransportError

FIRST_DELAY = 1.0  # seconds
LONGEST_DELAY = 300.0
LONGEST_ERROR = 4000  # characters
QUERY_CANCELLED = "57014"


def back_off(attempt: int) -> timedelta:
    """How long to wait after the failed attempt number 1, 2, …: doubling, the later half random.

    At random, so that what failed together does not come back together.
    """
    longest = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(attempt - 1, 30))
    return timedelta(seconds=longest * random.uniform(0.5, 1.0))


def is_outage(error: BaseException) -> bool:
    """Whether the database or the transport was away, which is no failure of the message."""
    if isinstance(error, TransportError):
        return True
    cause = getattr(error, "orig", None) or error  # SQLAlchemy wraps what the driver raised
    if not isinstance(cause, psycopg.OperationalError):
        return False
    # Without a state the connection broke; 08: it failed; 57: the server goes down or comes up.
    state = cause.sqlstate
    return state is None or (state[:2] in ("08", "57") and state != QUERY_CANCELLED)


def describe(error: BaseException) -> str:
    """An exception in words."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def storable(words: str) -> str:
    """An error's words as PostgreSQL can keep them: valid UTF-8, no NUL, of bearable length."""
    clean = words.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\0")
    return clean if len(clean) <= LONGEST_ERROR else clean[: LONGEST_ERROR - 1] + "…"
