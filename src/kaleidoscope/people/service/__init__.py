"""The door of people: its verbs. They take a session and never commit, but for those that take a
Database: they call the ML service, or stream, between short transactions of their own.
"""

from kaleidoscope.people.service.changes import (
    Event,
    confirm,
    history,
    merge,
    reject,
    rename,
    resolve,
    split,
    undo,
    undo_round,
)
from kaleidoscope.people.service.classify import classify
from kaleidoscope.people.service.delivery import deliver, deliver_all
from kaleidoscope.people.service.dump import gzipped
from kaleidoscope.people.service.dump import stream as dump
from kaleidoscope.people.service.healing import Consolidated
from kaleidoscope.people.service.indexing import reindex
from kaleidoscope.people.service.matching import find_pack
from kaleidoscope.people.service.quality import Quality, quality
from kaleidoscope.people.service.reading import (
    Portrait,
    counts,
    export,
    names,
    person,
    persons,
    photo,
    portraits,
)

__all__ = [
    "Consolidated",
    "Event",
    "Portrait",
    "Quality",
    "classify",
    "confirm",
    "counts",
    "deliver",
    "deliver_all",
    "dump",
    "export",
    "find_pack",
    "gzipped",
    "history",
    "merge",
    "names",
    "person",
    "persons",
    "photo",
    "portraits",
    "quality",
    "reindex",
    "reject",
    "rename",
    "resolve",
    "split",
    "undo",
    "undo_round",
]
