"""The library's verbs. Each takes a session and never commits, but for those that take a Database:
they read files between short transactions of their own.
"""

from __future__ import annotations

from kaleidoscope.library.outside.custody import Identity, remove_empty
from kaleidoscope.library.outside.files import SAMPLE, modified_at, sample_hash
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
from kaleidoscope.library.service.custody import (
    Outcome,
    SetAside,
    begun,
    filed_since,
    folders,
    refile,
    resume,
    set_aside,
    take_in,
)
from kaleidoscope.library.service.hashing import hash_pending
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
from kaleidoscope.library.service.planning import owned
from kaleidoscope.library.service.receiving import (
    Candidate,
    Parcel,
    Received,
    Work,
    children,
    parcels,
    read,
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
    "SAMPLE",
    "Candidate",
    "Held",
    "Identity",
    "Outcome",
    "Parcel",
    "Plan",
    "Received",
    "Refused",
    "Registered",
    "ScannedFile",
    "SetAside",
    "Work",
    "attempt_result",
    "attempts",
    "begin_attempt",
    "begun",
    "by_path",
    "change_status",
    "children",
    "count_known",
    "counts",
    "fail",
    "failed",
    "filed_since",
    "finish",
    "folders",
    "get",
    "get_many",
    "hash_pending",
    "lock",
    "modified_at",
    "new_attempt",
    "owned",
    "page",
    "parcels",
    "photo_ids",
    "plan",
    "read",
    "refile",
    "register",
    "remove_empty",
    "reprocess",
    "resume",
    "retry_due",
    "sample_hash",
    "set_aside",
    "set_person_ids",
    "stream",
    "stuck",
    "take_in",
    "time_out",
]
