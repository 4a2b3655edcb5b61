"""The library's verbs. Each takes a session and never commits, but for those that take a Database:
they read files between short transactions of their own.
"""

from __future__ import annotations

from kaleidoscope.library.outside.files import modified_at
from kaleidoscope.library.queries.attempts import Held
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
from kaleidoscope.library.service.figures import (
    errors_by_message,
    errors_state,
    figures,
    latest,
    photos_with_errors,
    try_again,
)
from kaleidoscope.library.service.hashing import hash_pending
from kaleidoscope.library.service.history import Happened, note
from kaleidoscope.library.service.ledger import (
    attempts,
    by_path,
    count_known,
    counts,
    failed,
    get,
    get_many,
    page,
    photo_ids,
    set_person_ids,
    stream,
    stuck,
)
from kaleidoscope.library.service.registration import (
    Plan,
    Refused,
    Registered,
    ScannedFile,
    plan,
    register,
)

__all__ = [
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
    "change_status",
    "count_known",
    "counts",
    "errors_by_message",
    "errors_state",
    "fail",
    "failed",
    "figures",
    "finish",
    "get",
    "get_many",
    "hash_pending",
    "latest",
    "lock",
    "modified_at",
    "new_attempt",
    "note",
    "page",
    "photo_ids",
    "photos_with_errors",
    "plan",
    "register",
    "reprocess",
    "retry_due",
    "set_person_ids",
    "stream",
    "stuck",
    "time_out",
    "try_again",
]
