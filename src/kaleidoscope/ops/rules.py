"""Decisions about a service's health, from what it said and when."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

Colour = Literal["green", "yellow", "red"]

GREEN_FOR = timedelta(seconds=60)
YELLOW_FOR = timedelta(seconds=180)


def colour(age: timedelta) -> Colour:
    """The colour of a service whose last heartbeat is that old (seed 002)."""
    if age <= GREEN_FOR:
        return "green"
    return "yellow" if age <= YELLOW_FOR else "red"
