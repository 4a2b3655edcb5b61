"""The library's verbs. Each takes a session and never commits, but for those that take a Database:
they read files between short transactions of their own.
"""

from __future__ import annotations

from kaleidoscope.library.outside.files import modified_at
from kaleidoscope.library.queries.attempts import Held
from kaleidoscope.library.service.again import retry
from kaleidoscope.library.service.attempts import (
    attempt_result,
    begin_attempt,
    change_status,
    fail,
    finish,
    lock,
    new_attempt,
    reprocess,
    retry_due,
    time_out,
)
from kaleidoscope.library.service.curation import curate
from kaleidoscope.library.service.dates import (
    cameras,
    corrections,
    date_assets,
    doubtful_dates,
    photo_dates,
    preview_shift,
    read_shift,
    reader,
    set_date,
    shift,
    task,
    tell,
    undated,
    undo_correction,
)
from kaleidoscope.library.service.derivatives import Derivative, derivative, thumbnail_pending
from kaleidoscope.library.service.hashing import hash_pending
from kaleidoscope.library.service.history import Happened, history, note
from kaleidoscope.library.service.ledger import (
    attempts,
    by_path,
    count_known,
    counts,
    failed,
    get,
    get_many,
    number_of,
    page,
    photo_ids,
    set_person_ids,
    stream,
    stuck,
)
from kaleidoscope.library.service.places import geocode_pending, place
from kaleidoscope.library.service.registration import (
    Plan,
    Refused,
    Registered,
    ScannedFile,
    plan,
    register,
)

__all__ = [
    "Derivative",
    "Happened",
    "Held",
    "Plan",
    "Refused",
    "Registered",
    "ScannedFile",
    "attempt_result",
    "attempts",
    "begin_attempt",
    "by_path",
    "cameras",
    "change_status",
    "corrections",
    "count_known",
    "counts",
    "curate",
    "date_assets",
    "derivative",
    "doubtful_dates",
    "fail",
    "failed",
    "finish",
    "geocode_pending",
    "get",
    "get_many",
    "hash_pending",
    "history",
    "lock",
    "modified_at",
    "new_attempt",
    "note",
    "number_of",
    "page",
    "photo_dates",
    "photo_ids",
    "place",
    "plan",
    "preview_shift",
    "read_shift",
    "reader",
    "register",
    "reprocess",
    "retry",
    "retry_due",
    "set_date",
    "set_person_ids",
    "shift",
    "stream",
    "stuck",
    "task",
    "tell",
    "thumbnail_pending",
    "time_out",
    "undated",
    "undo_correction",
]
