"""What failed, by cause, and another try for all of one cause."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.bus import service as bus
from kaleidoscope.bus.messages import DeadLetter
from kaleidoscope.kernel.errors import NotFound
from kaleidoscope.library import service as library
from kaleidoscope.library.events import PhotoToProcess, VideoToRead
from kaleidoscope.ops import rules
from kaleidoscope.ops.schemas import ErrorGroup, Errors, RetriedCause

OF_ASSETS = {PhotoToProcess.topic, VideoToRead.topic}
"""Dead letters of these tell of assets that the ledger shows as failed already."""

PAGE = 1000
EXAMPLES = 6
LONG_AGO = datetime.min.replace(tzinfo=UTC)


Key = tuple[str, str]
"""What failed, and the cause."""


@dataclass
class _Same:
    """What failed alike."""

    kind: Literal["asset", "message", "file"]
    count: int = 0
    retrying: int = 0
    messages: set[str] = field(default_factory=set)
    photo_ids: list[int] = field(default_factory=list)
    latest_at: datetime = LONG_AGO
    example: str = ""

    def add(self, message: str, at: datetime, count: int = 1, retrying: int = 0) -> None:
        self.count += count
        self.retrying += retrying
        self.messages.add(message)
        if at > self.latest_at:
            self.latest_at, self.example = at, message


async def errors(session: AsyncSession) -> Errors:
    """Everything that failed, grouped by what and cause, the most frequent first."""
    found = [
        *(await _of_assets(session)).items(),
        *(await _of_kept(session)).items(),
        *(await _of_messages(session)).items(),
    ]
    groups = [
        ErrorGroup(
            cause=cause,
            kind=same.kind,
            what=what,
            count=same.count,
            retrying=same.retrying,
            latest_at=same.latest_at,
            example=same.example,
            photo_ids=same.photo_ids[:EXAMPLES],
        )
        for (what, cause), same in found
    ]
    groups.sort(key=lambda group: (-group.count, group.what, group.cause))
    return Errors(total=sum(group.count for group in groups), groups=groups)


async def retry(session: AsyncSession, cause: str, what: str | None = None) -> RetriedCause:
    """Try everything again that failed of a cause. Raises `NotFound` where nothing did."""
    # The letter of an asset goes, too: its message asks for an attempt that is void by then.
    letters = [
        letter.id
        async for letter in _dead(session)
        if rules.cause(letter.cause) == cause and what in (None, _what(letter))
    ]
    revived = await bus.revive(session, ids=letters) if letters else []
    assets = 0
    for (failed, common), same in (await _of_assets(session)).items():
        if common == cause and what in (None, failed):
            ids = await library.photos_with_errors(session, failed, same.messages)
            assets += await library.try_again(session, failed, ids)
    files = 0
    for row in await library.kept_errors(session):
        if rules.cause(row.message) == cause and what in (None, _pass_of(row.code)):
            files += await library.try_kept_again(session, row.code, row.message)
    if not assets and not revived and not files:
        raise NotFound(
            f"nothing failed of the cause {cause!r}",
            hint="`kaleidoscope status` tells what failed",
            cause=cause,
        )
    return RetriedCause(assets=assets, messages=len(revived), files=files)


async def state(session: AsyncSession) -> tuple[object, ...]:
    """Something that changes when `errors` does; cheap to ask for."""
    return (
        *await library.errors_state(session),
        *await library.kept_errors_state(session),
        *(await bus.count_dead(session)).items(),
    )


async def _of_assets(session: AsyncSession) -> dict[Key, _Same]:
    found: dict[Key, _Same] = defaultdict(lambda: _Same("asset"))
    for row in await library.errors_by_message(session):
        same = found[row.what, rules.cause(row.message)]
        same.add(row.message, row.latest_at, row.total, row.retrying)
        same.photo_ids += row.photo_ids
    return dict(found)


async def _of_kept(session: AsyncSession) -> dict[Key, _Same]:
    """Sidecars, duplicates and what was set aside, called as the same passes are of assets."""
    found: dict[Key, _Same] = defaultdict(lambda: _Same("file"))
    for row in await library.kept_errors(session):
        same = found[_pass_of(row.code), rules.cause(row.message)]
        tried = row.total if row.code == "backed-up" else 0
        same.add(f"{row.path}: {row.message}", row.latest_at, row.total, tried)
    return dict(found)


def _pass_of(code: str) -> str:
    return code if code in ("missing", "backed-up") else "scrubbed"


async def _of_messages(session: AsyncSession) -> dict[Key, _Same]:
    found: dict[Key, _Same] = defaultdict(lambda: _Same("message"))
    async for letter in _dead(session):
        if letter.topic not in OF_ASSETS:
            found[letter.topic, rules.cause(letter.cause)].add(letter.cause, letter.died_at)
    return dict(found)


def _what(letter: DeadLetter) -> str:
    return "recognised" if letter.topic in OF_ASSETS else letter.topic


async def _dead(session: AsyncSession) -> AsyncIterator[DeadLetter]:
    """Every dead letter, the youngest first."""
    before = None
    while page := await bus.list_dead(session, before=before, limit=PAGE):
        for letter in page:
            yield letter
        before = page[-1].id
