"""A person's word that something is to be done again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.errors import Conflict
from kaleidoscope.library.outside import derivatives as disk
from kaleidoscope.library.queries import derivatives, geocoding, history, places, scrubs
from kaleidoscope.library.schemas import Photo, Retryable
from kaleidoscope.library.service.attempts import reprocess
from kaleidoscope.library.service.ledger import get


async def retry(session: AsyncSession, photo_id: int, what: Retryable) -> None:
    """Have something done again in the next round of its pass, however it went before.

    Raises `NotFound`, and `Conflict` where there is nothing to be done again.
    """
    photo = await get(session, photo_id)
    await AGAIN.get(what, _only_what_failed)(session, photo, what)


async def _recognise(session: AsyncSession, photo: Photo, what: str) -> None:
    await reprocess(session, [photo.photo_id])


async def _thumbnail(session: AsyncSession, photo: Photo, what: str) -> None:
    if photo.file_hash is not None:  # before the flag: a missing file is made anew in any case
        disk.forget(photo.file_hash)
    await derivatives.undo(session, photo.photo_id)
    await history.due_now(session, photo.photo_id, what)


async def _geocode(session: AsyncSession, photo: Photo, what: str) -> None:
    if photo.location is None:
        raise Conflict(
            f"photo {photo.photo_id} has no position to be named", photo_id=photo.photo_id
        )
    await geocoding.undo(session, photo.photo_id)
    await history.due_now(session, photo.photo_id, what)


async def _only_what_failed(session: AsyncSession, photo: Photo, what: str) -> None:
    if not await history.due_now(session, photo.photo_id, what):
        raise Conflict(
            f"photo {photo.photo_id}: nothing has failed that would be {what} again",
            photo_id=photo.photo_id,
        )


async def _read_through(session: AsyncSession, photo: Photo, what: str) -> None:
    await _only_what_failed(session, photo, what)
    await scrubs.read_soon(session, [photo.photo_id])


async def _look_for(session: AsyncSession, photo: Photo, what: str) -> None:
    await _only_what_failed(session, photo, what)
    await places.look_soon(session, [photo.photo_id])


AGAIN: Mapping[str, Callable[[AsyncSession, Photo, str], Awaitable[None]]] = {
    "recognised": _recognise,
    "thumbnailed": _thumbnail,
    "geocoded": _geocode,
    "scrubbed": _read_through,
    "missing": _look_for,
}
