"""What failed, by cause, and another try for all of one cause."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.bus import service as bus
from kaleidoscope.bus.messages import DeadLetter
from kaleidoscope.kernel.errors import NotFound
from kaleidoscope.library import service as library
from kaleidoscope.library.events import PhotoToProcess, VideoToRead
from kaleidoscope.ops import rules
from kaleidoscope.ops.schemas import ErrorGroup, Errors, Retried

OF_ASSETS = {PhotoToProcess.topic, VideoToRead.topic}
"""Dead letters of these tell of assets that the ledger shows as failed already."""

PAGE = 1000
EXAMPLES = 6


@dataclass
class _Same:
    """What has one cause."""

    kind: Literal["asset", "message"]
    count: int = 0
    retrying: int = 0
    messages: dict[str | None, None] = field(default_factory=dict)
    photo_ids: list[int] = field(default_factory=list)
    latest_at: datetime | None = None
    example: str = ""

    def add(self, message: str | None, at: datetime, count: int = 1, retrying: int = 0) -> None:
        self.count += count
        self.retrying += retrying
        self.messages[message] = None
        if self.latest_at is None or at > self.latest_at:
            self.latest_at, self.example = at, message or ""


async def errors(session: AsyncSession) -> Errors:
    """Everything that failed, grouped by cause, the most frequent first."""
    found = [*(await _of_assets(session)).items(), *(await _of_messages(session)).items()]
    groups = [
        ErrorGroup(
            cause=cause,
            kind=same.kind,
            count=same.count,
            retrying=same.retrying,
            latest_at=same.latest_at,  # type: ignore[arg-type]
            example=same.example,
            photo_ids=same.photo_ids[:EXAMPLES],
        )
        for cause, same in found
    ]
    groups.sort(key=lambda group: (-group.count, group.cause))
    return Errors(total=sum(group.count for group in groups), groups=groups)


async def retry(session: AsyncSession, cause: str) -> Retried:
    """Try everything again that failed of a cause. Raises `NotFound` where nothing did."""
    same = (await _of_assets(session)).get(cause)
    photo_ids = await library.photos_with_errors(session, same.messages) if same else []
    letters = [letter.id async for letter in _dead(session) if _cause(letter) == cause]
    if not photo_ids and not letters:
        raise NotFound(f"nothing failed of the cause {cause!r}", cause=cause)
    # The letter of an asset goes, too: its message asks for an attempt that is void by then.
    revived = await bus.revive(session, ids=letters) if letters else []
    assets = await library.reprocess(session, photo_ids) if photo_ids else 0
    return Retried(assets=assets, messages=len(revived))


async def state(session: AsyncSession) -> tuple[object, ...]:
    """Something that changes when `errors` does; cheap to ask for."""
    return (*await library.errors_state(session), *(await bus.count_dead(session)).items())


async def _of_assets(session: AsyncSession) -> dict[str, _Same]:
    found: dict[str, _Same] = defaultdict(lambda: _Same("asset"))
    for row in await library.errors_by_message(session):
        same = found[rules.cause(row.message)]
        same.add(row.message, row.latest_at, row.total, row.retrying)
        same.photo_ids += row.photo_ids
    return dict(found)


async def _of_messages(session: AsyncSession) -> dict[str, _Same]:
    found: dict[str, _Same] = defaultdict(lambda: _Same("message"))
    async for letter in _dead(session):
        if letter.topic not in OF_ASSETS:
            found[_cause(letter)].add(letter.cause, letter.died_at)
    return dict(found)


def _cause(letter: DeadLetter) -> str:
    """The cause of a dead letter; where it is about an asset, that of the asset's error."""
    common = rules.cause(letter.cause)
    return common if letter.topic in OF_ASSETS else f"{letter.topic}: {common}"


async def _dead(session: AsyncSession) -> AsyncIterator[DeadLetter]:
    """Every dead letter, the youngest first."""
    before = None
    while page := await bus.list_dead(session, before=before, limit=PAGE):
        for letter in page:
            yield letter
        before = page[-1].id
