"""The verbs of operation: give a sign of life, say how it is going, try again what failed.

Each takes a session and never commits, but for those that take a Database.
"""

from __future__ import annotations

from kaleidoscope.ops.service.checks import database_health, syncthing_health, watches_syncthing
from kaleidoscope.ops.service.errors import errors, retry
from kaleidoscope.ops.service.figures import disks, figures, measure_disks
from kaleidoscope.ops.service.heartbeats import Check, Health, Heartbeat, beat
from kaleidoscope.ops.service.overview import (
    check_ready,
    database_facts,
    forget,
    history,
    list_dead,
    overview,
    revive,
    services,
    trim,
    uptimes,
)
from kaleidoscope.ops.service.stream import News, Pulse

__all__ = [
    "Check",
    "Health",
    "Heartbeat",
    "News",
    "Pulse",
    "beat",
    "check_ready",
    "database_facts",
    "database_health",
    "disks",
    "errors",
    "figures",
    "forget",
    "history",
    "list_dead",
    "measure_disks",
    "overview",
    "retry",
    "revive",
    "services",
    "syncthing_health",
    "trim",
    "uptimes",
    "watches_syncthing",
]
