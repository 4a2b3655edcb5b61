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
from kaleidoscope.people.service.comparing import Comparison, compare
from kaleidoscope.people.service.delivery import deliver, deliver_all
from kaleidoscope.people.service.dump import gzipped
from kaleidoscope.people.service.dump import stream as dump
from kaleidoscope.people.service.healing import Consolidated
from kaleidoscope.people.service.indexing import reindex
from kaleidoscope.people.service.matching import find_pack
from kaleidoscope.people.service.migrating import Foreseen, Migration, foresee, migration
from kaleidoscope.people.service.naming import Born, Heeded, set_birth_date
from kaleidoscope.people.service.portable import export_names, import_names
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
from kaleidoscope.people.service.review import Answered, Word, answer, in_words, questions
from kaleidoscope.people.service.sidecars import Written, read_sidecars, write_sidecars

__all__ = [
    "Answered",
    "Born",
    "Comparison",
    "Consolidated",
    "Event",
    "Foreseen",
    "Heeded",
    "Migration",
    "Portrait",
    "Quality",
    "Word",
    "Written",
    "answer",
    "classify",
    "compare",
    "confirm",
    "counts",
    "deliver",
    "deliver_all",
    "dump",
    "export",
    "export_names",
    "find_pack",
    "foresee",
    "gzipped",
    "history",
    "import_names",
    "in_words",
    "merge",
    "migration",
    "names",
    "person",
    "persons",
    "photo",
    "portraits",
    "quality",
    "questions",
    "read_sidecars",
    "reindex",
    "reject",
    "rename",
    "resolve",
    "set_birth_date",
    "split",
    "undo",
    "undo_round",
    "write_sidecars",
]
