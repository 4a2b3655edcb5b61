"""The flight recorder: what happened to each asset, and what is wrong with it now.

Every pass tells of its outcomes by `note`, in the transaction that writes them. A failure stands
in `has_errors` and `error_message` until the same thing has succeeded; see
docs/decisions/0008-open-problems.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.settings import load
from kaleidoscope.library.queries import history as rows
from kaleidoscope.library.schemas import History, HistoryEvent, Photo, Retryable
from kaleidoscope.library.service.ledger import get
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


async def history(session: AsyncSession, photo_id: int) -> History:
    """Everything that is known to have happened to an asset, the oldest first."""
    photo = await get(session, photo_id)
    order = {what: n for n, what in enumerate(get_args(What))}
    events = sorted(
        await _events(session, photo), key=lambda event: (event.at, order.get(event.what, 0))
    )
    open_problems = {row.what: row for row in await rows.problems(session, photo_id)}
    return History(
        photo_id=photo.photo_id,
        path=photo.path,
        has_errors=photo.has_errors,
        error_message=photo.error_message,
        events=_counted(events, open_problems),
    )


async def _events(session: AsyncSession, photo: Photo) -> list[HistoryEvent]:
    """What was noted, what recognition and custody tell, and what only the ledger knows."""
    found = [
        HistoryEvent.model_validate(dict(row._mapping))
        for table in (rows.events, rows.recognitions)
        for row in await table(session, photo.photo_id)
    ]
    told = {event.what for event in found if event.outcome == "ok" or event.what == "missing"}
    moves = await rows.moves(session, photo.photo_id)
    found += [
        HistoryEvent.model_validate(dict(row._mapping)) for row in moves if row.what not in told
    ]
    known = _by_the_ledger(photo)
    if moves and moves[0].planned_at < photo.ingested_at:  # custody plans what it has hashed
        known["received"] = known["hashed"] = moves[0].planned_at
    found += [
        HistoryEvent(at=at, what=what, outcome="ok")
        for what, at in known.items()
        if at is not None and what not in told
    ]
    return found


def _by_the_ledger(photo: Photo) -> dict[str, datetime | None]:
    """What the ledger knows without anybody having noted it."""
    return {
        "received": photo.ingested_at,
        "geocoded": photo.geocoded_at,
        "thumbnailed": photo.thumbnailed_at,
        "curated": photo.curated_at,
        "backed-up": photo.backed_up_at,
        "missing": photo.missing_since,
    }


def _counted(events: Sequence[HistoryEvent], problems: Mapping[str, Any]) -> list[HistoryEvent]:
    """Each with the number of its try, the last failure of a kind with what can be done."""
    tries: dict[str, int] = {}
    last = {event.what: n for n, event in enumerate(events)}
    counted = []
    for n, event in enumerate(events):
        attempt = tries.get(event.what, 0) + 1
        tries[event.what] = 0 if event.outcome == "ok" else attempt
        update: dict[str, Any] = {"attempt": attempt}
        problem = problems.get(event.what)
        if problem is not None and n == last[event.what] and event.outcome == "failed":
            # The same failure again is counted there, not told again.
            update["attempt"] = max(attempt, problem.failures)
            update["retry_at"] = problem.retry_at
            update["retry"] = event.what if event.what in get_args(Retryable) else None
            if problem.failed_at > event.at:
                last_time = {"last_failed_at": problem.failed_at.isoformat()}
                update["detail"] = {**(event.detail or {}), **last_time}
        counted.append(event.model_copy(update=update))
    return counted


def _told(event: Happened) -> Happened:
    """As the database can hold it: a failure has words, nothing else has, and none has a NUL."""
    if event.outcome != "failed":
        return replace(event, error=None)
    return replace(event, error=(event.error or "failed").replace("\0", "\\0"))
