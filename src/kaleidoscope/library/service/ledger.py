"""Reading the ledger, and the persons it shows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import date
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.errors import Invalid, NotFound
from kaleidoscope.kernel.paths import to_text
from kaleidoscope.kernel.settings import load
from kaleidoscope.library.queries import assets
from kaleidoscope.library.schemas import Attempt, MediaType, Photo, PhotoPage, Status
from kaleidoscope.library.settings import LibrarySettings

NO_STATUS: dict[str, int] = {"READY": 0, "PROCESSING": 0, "PROCESSED": 0, "FAILED": 0}
LARGEST_ID = 2**63 - 1
NAMESAKES = 5
"""So many files of one name are listed when it is asked for."""


def no_photo(photo_id: int) -> NotFound:
    """Nobody knows that number."""
    hint = "`kaleidoscope photos list` has all"
    return NotFound(f"there is no photo {photo_id}", hint=hint, photo_id=photo_id)


async def get(session: AsyncSession, photo_id: int) -> Photo:
    """One asset; raises `NotFound`."""
    rows = await assets.by_ids(session, [photo_id])
    if not rows:
        raise no_photo(photo_id)
    return Photo.model_validate(rows[0])


async def get_many(session: AsyncSession, photo_ids: Sequence[int]) -> list[Photo]:
    """Assets in the order asked for; unknown ids are left out."""
    rows = {row.photo_id: row for row in await assets.by_ids(session, photo_ids)}
    return [Photo.model_validate(rows[i]) for i in photo_ids if i in rows]


async def taken(session: AsyncSession, photo_ids: Collection[int]) -> dict[int, date]:
    """The day on which these photos were taken, of those whose date is to be relied upon."""
    return {row.photo_id: row.day for row in await assets.taken(session, photo_ids)}


async def by_path(session: AsyncSession, path: str) -> Photo | None:
    """The asset at a path as `kernel.paths.to_text` spells it."""
    row = await assets.by_path(session, path)
    return None if row is None else Photo.model_validate(row)


async def by_contents(session: AsyncSession, hashes: Collection[str]) -> dict[str, Photo]:
    """The assets that have these contents (SHA-256), by it; of equal ones the first."""
    rows = await assets.by_contents(session, hashes)
    return {row.file_hash: Photo.model_validate(row) for row in rows}


async def number_of(session: AsyncSession, name: str) -> int:
    """The photo that a user names by its number, its path, or the name of its file alone.

    Raises `NotFound` for what nobody knows, `Invalid` for a name that several have.
    """
    if name.isdecimal():
        if int(name) > LARGEST_ID:
            raise no_photo(int(name))
        return int(name)
    path = to_text(Path(name).absolute())
    photo = await by_path(session, path)
    if photo is not None:
        return photo.photo_id
    bare = Path(name).name == name
    found = await assets.named(session, to_text(Path(name)), NAMESAKES + 1) if bare else []
    if not found:
        raise NotFound(
            f"{path} is not in the ledger", hint="`kaleidoscope photos list` has all", path=path
        )
    if len(found) > 1:
        listed = ", ".join(f"{row.photo_id} ({row.final_path})" for row in found[:NAMESAKES])
        more = ", …" if len(found) > NAMESAKES else ""
        raise Invalid(f"several files are called {name}", hint=f"name one: {listed}{more}")
    return int(found[0].photo_id)


async def page(
    session: AsyncSession,
    *,
    after: int = 0,
    limit: int = 100,
    status: Status | None = None,
    media_type: MediaType | None = None,
) -> PhotoPage:
    """Assets with ids above `after`, in their order."""
    rows = await assets.page(session, after, limit + 1, status, media_type)
    photos = [Photo.model_validate(row) for row in rows[:limit]]
    return PhotoPage(photos=photos, next=photos[-1].photo_id if len(rows) > limit else None)


async def photo_ids(
    session: AsyncSession,
    *,
    after: int = 0,
    limit: int = 1000,
    status: Status | None = None,
    media_type: MediaType | None = None,
) -> list[int]:
    """The ids above `after` of the assets that recognition looks at: duplicates are left out."""
    return await assets.photo_ids(session, after, limit, status, media_type)


async def stream(session: AsyncSession, status: Status | None = None) -> AsyncIterator[Photo]:
    """Every asset in the order of the ids, a thousand at a time in memory."""
    async for row in assets.stream(session, status):
        yield Photo.model_validate(row)


async def attempts(session: AsyncSession, photo_id: int) -> list[Attempt]:
    """The history of an asset's attempts, the oldest first."""
    return [Attempt.model_validate(row) for row in await assets.attempts(session, photo_id)]


async def count_known(session: AsyncSession, paths: Sequence[str]) -> int:
    """How many of these paths are in the ledger."""
    return await assets.count_known(session, paths)


async def counts(session: AsyncSession) -> dict[str, int]:
    """How many assets have each status."""
    return NO_STATUS | await assets.counts(session)


async def on_their_way(session: AsyncSession) -> int:
    """How many assets wait for recognition or are being recognised."""
    status = await counts(session)
    return status["READY"] + status["PROCESSING"]


async def failed(session: AsyncSession, limit: int = 100) -> list[Photo]:
    """FAILED assets, the latest failure first."""
    return [Photo.model_validate(row) for row in await assets.latest_failed(session, limit)]


async def stuck(session: AsyncSession, limit: int = 100) -> list[Photo]:
    """Assets that are PROCESSING for longer than `library.stuck_after`, the longest first."""
    age = load(LibrarySettings).stuck_after
    return [Photo.model_validate(row) for row in await assets.stuck(session, age, limit)]


async def set_person_ids(session: AsyncSession, person_ids: Mapping[int, Sequence[int]]) -> None:
    """Who is in photos, by photo_id; their duplicates show the same."""
    if person_ids:
        await assets.set_person_ids(session, person_ids)
