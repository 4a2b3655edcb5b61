"""Upkeep's verbs. Those that copy, read or restore take a Database: they work for long, between
short transactions of their own.
"""

from __future__ import annotations

from kaleidoscope.upkeep.service.backup import (
    alarms,
    back_up,
    copy_database,
    copy_log,
    copy_originals,
    prune,
    status,
    verify,
    verify_part,
)
from kaleidoscope.upkeep.service.drill import drill
from kaleidoscope.upkeep.service.maintenance import bloat, reindex, vacuum
from kaleidoscope.upkeep.service.restoring import restore
from kaleidoscope.upkeep.service.runs import alone

__all__ = [
    "alarms",
    "alone",
    "back_up",
    "bloat",
    "copy_database",
    "copy_log",
    "copy_originals",
    "drill",
    "prune",
    "reindex",
    "restore",
    "status",
    "vacuum",
    "verify",
    "verify_part",
]
