"""The verbs of ingest: folder jobs (`folders`), and the inboxes of the librarian (`inbox`)."""

from __future__ import annotations

from kaleidoscope.ingest.service.folders import (
    Publication,
    ask_after,
    cancel,
    due,
    end_scan,
    errors,
    estimate,
    fail,
    jobs,
    not_published,
    note_errors,
    note_scanned,
    order,
    photo_ended,
    publication,
    published,
    refusals,
    register,
    relocate,
    settle,
    status,
)
from kaleidoscope.ingest.service.inbox import Librarian, inboxes

__all__ = [
    "Librarian",
    "Publication",
    "ask_after",
    "cancel",
    "due",
    "end_scan",
    "errors",
    "estimate",
    "fail",
    "inboxes",
    "jobs",
    "not_published",
    "note_errors",
    "note_scanned",
    "order",
    "photo_ended",
    "publication",
    "published",
    "refusals",
    "register",
    "relocate",
    "settle",
    "status",
]
