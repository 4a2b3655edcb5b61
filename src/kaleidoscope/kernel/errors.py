"""Errors with a code, an HTTP status and fields.

At the HTTP edge they become RFC 9457 problem documents (`kernel.web`), at the terminal one line
and an exit code (`apps.cli`).
"""

from __future__ import annotations

from typing import Any, ClassVar


class KaleidoscopeError(Exception):
    """Something went wrong in a way a user can understand and act on.

    `message` says what and why, `hint` what to do next; keyword `fields` travel with both.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.fields = fields


class Invalid(KaleidoscopeError):
    """The request is well-formed and still makes no sense."""

    code, status, exit_code = "invalid", 422, 2


class NotFound(KaleidoscopeError):
    """No such thing."""

    code, status, exit_code = "not-found", 404, 3


class Conflict(KaleidoscopeError):
    """The thing is not in the state that the request needs."""

    code, status, exit_code = "conflict", 409, 4


class Forbidden(KaleidoscopeError):
    """The caller may not do this."""

    code, status, exit_code = "forbidden", 403, 5


class TooBusy(KaleidoscopeError):
    """The queue is full: come back later."""

    code, status, exit_code = "too-busy", 429, 6


class Unavailable(KaleidoscopeError):
    """A service this one needs does not answer."""

    code, status, exit_code = "unavailable", 503, 7


class SettingsError(KaleidoscopeError):
    """A setting is missing, malformed or contradicts another."""

    code, status, exit_code = "settings", 500, 8


class DatabaseError(KaleidoscopeError):
    """The database cannot be started, reached or used."""

    code, status, exit_code = "database", 503, 9


class UnreadableMedia(KaleidoscopeError):
    """A file that no decoder here can read, or that is too large to decode safely."""

    code, status, exit_code = "unreadable-media", 422, 10
