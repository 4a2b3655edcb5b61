"""The flight recorder: what happened to each asset, and what is wrong with it now.

Every pass tells of its outcomes by `note`, in the transaction that writes them. A failure stands
in `has_errors` and `error_message` until the same thing has succeeded; see
docs/decisions/0008-open-problems.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.settings import load
from kaleidoscope.library.queries import history as rows
from kaleidoscope.library.settings import LibrarySettings

What = Literal[
    "received",
    "hashed",
    "filed",
    "set-aside",
    "dated",
    "date-corrected",
    "geocoded",
    "thumbnailed",
    "recognised",
    "curated",
    "backed-up",
    "scrubbed",
    "missing",
    "found-again",
    "healed",
]

HEALS: Mapping[What, What] = {
    "found-again": "missing",
    "healed": "scrubbed",
    "date-corrected": "dated",
}
"""What is put right by something of another name."""


@dataclass(frozen=True)
class Happened:
    """One thing that happened to an asset.

    With `failed` an `error` for people and a `code` for machines; `permanent`: trying again cannot
    help, only a person or a change of the file can.
    """

    photo_id: int
    what: What
    outcome: Literal["ok", "failed", "skipped"] = "ok"
    duration_ms: int | None = None
    error: str | None = None
    detail: Mapping[str, Any] | None = None
    code: str = "failed"
    permanent: bool = False


async def note(session: AsyncSession, events: Sequence[Happened]) -> None:
    """Write down what happened, in the order given.

    A failure opens a problem, which waits longer with each further one; `ok` and `skipped` of the
    same kind, or of one that `HEALS` it, close it. A failure that stands already in the same words
    is only counted.
    """
    if not events:
        return
    told = [_told(event) for event in events]
    await rows.insert(session, told)
    last = {(event.photo_id, event.what): event for event in told}
    healed = [key for key, event in last.items() if event.outcome != "failed"]
    healed += [(photo_id, HEALS[what]) for photo_id, what in healed if what in HEALS]
    failed = [event for event in last.values() if event.outcome == "failed"]
    if healed:
        await rows.close_problems(session, healed)
    if failed:
        settings = load(LibrarySettings)
        await rows.open_problems(session, failed, settings.retry_after, settings.retry_at_most)


def _told(event: Happened) -> Happened:
    """As the database can hold it: a failure has words, nothing else has, and none has a NUL."""
    if event.outcome != "failed":
        return replace(event, error=None)
    return replace(event, error=(event.error or "failed").replace("\0", "\\0"))
