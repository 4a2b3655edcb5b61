"""Rot: originals are read through, again and again, and compared with what was taken in."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import Conflict
from kaleidoscope.kernel.paths import to_bytes, to_text
from kaleidoscope.kernel.settings import load
from kaleidoscope.library.outside import originals as disk
from kaleidoscope.library.outside import places as places_on_disk
from kaleidoscope.library.outside.files import modified_at
from kaleidoscope.library.queries import places, scrubs
from kaleidoscope.library.queries.scrubs import Content
from kaleidoscope.library.schemas import Healed, Photo
from kaleidoscope.library.service.claim import alone
from kaleidoscope.library.service.copies import brought, swapped_in
from kaleidoscope.library.service.history import Happened, note
from kaleidoscope.library.service.kept import scrub_kept
from kaleidoscope.library.service.ledger import get, get_many
from kaleidoscope.library.settings import LibrarySettings

log = structlog.get_logger(__name__)

AT_ONCE = 50
ROUND = timedelta(seconds=60)
KEPT_SHARE = 0.25  # of what is read: what is kept beside the originals


async def scrub(db: Database) -> dict[str, int]:
    """Read through as much as the set rate gives this round; what was read, and what is damaged."""
    settings = load(LibrarySettings)
    budget = settings.scrub_megabytes_per_second * 1e6 * ROUND.total_seconds()
    return await scrub_some(db, timedelta(days=settings.scrub_after_days), budget)


async def scrub_some(
    db: Database,
    age: timedelta,
    budget: float | None = None,
    progress: Callable[[int, int, str], None] = lambda files, size, path: None,
) -> dict[str, int]:
    """Read through originals that were not within `age`, and what is kept beside them, up to so
    many bytes; None: all."""
    left = float("inf") if budget is None else budget
    # A part of each round is theirs, so that a large library does not keep them from their turn.
    beside = await scrub_kept(db, age, left * KEPT_SHARE, progress)
    left -= beside["bytes"]
    done = {"read": beside["read"], "damaged": beside["damaged"]}
    seen: set[int] = set()
    while left > 0:
        async with db.transaction() as session:
            found = await scrubs.due(session, age, AT_ONCE)
        portion = [content for content in found if content.photo_id not in seen]
        if not portion:
            break
        events = []
        for content in portion:
            if left <= 0:
                break
            seen.add(content.photo_id)
            event = await asyncio.to_thread(_examine, content)
            left -= content.size
            events.append(event)
            progress(1, content.size, content.path)
        read = [event.photo_id for event in events if event.outcome != "skipped"]
        async with db.transaction() as session:
            await scrubs.note_read(session, portion[: len(events)])
            # That one is whole again every month says `scrubbed_at`; it is told once.
            told = zip(portion, events, strict=False)
            await note(session, [e for c, e in told if e.outcome == "failed" or _is_told(c, e)])
        done["read"] += len(read)
        for event in events:
            if event.outcome == "failed":
                done["damaged"] += 1
                log.warning("an original is damaged", photo_id=event.photo_id, cause=event.error)
    return {what: number for what, number in done.items() if number}


def _examine(content: Content) -> Happened:
    """What reading an original through shows.

    A file that was written to since it was taken in is the next scan's to judge, but for those
    that we filed ourselves: nobody may write to these. One that is gone is presence's.
    """
    began = time.monotonic()
    try:
        status = Path(os.fsdecode(to_bytes(content.path))).stat()
        digest = disk.content_hash(content.path)
        if digest != content.file_hash:
            digest = disk.content_hash(content.path)  # memory errs, too
    except OSError as error:
        if error.errno in places_on_disk.GONE:
            return Happened(content.photo_id, "scrubbed", "skipped")
        cause = f"the file cannot be read: {error.strerror or error}"
        return Happened(content.photo_id, "scrubbed", "failed", error=cause, code="unreadable")
    took = round((time.monotonic() - began) * 1000)
    if digest == content.file_hash:
        return Happened(content.photo_id, "scrubbed", duration_ms=took)
    if modified_at(status) != content.modified_at and not _is_ours(content.path):
        return Happened(content.photo_id, "scrubbed", "skipped")
    return Happened(
        content.photo_id,
        "scrubbed",
        "failed",
        duration_ms=took,
        error="the file is damaged: its content is not what was taken in (SHA-256)",
        code="rot",
        detail={"expected": content.file_hash, "found": digest, "size": status.st_size},
        permanent=True,
    )


def _is_told(content: Content, event: Happened) -> bool:
    return event.outcome == "ok" and content.is_news


def _is_ours(path: str) -> bool:
    return path.startswith(to_text(load(LibrarySettings).originals) + "/")


async def heal(db: Database, photo_id: int) -> Healed:
    """Put a damaged or missing original back from the backup, on a person's word.

    The copy is hashed before it takes the file's name; the damaged file is kept beside it.
    """
    photo = await _to_be_healed(db, photo_id)
    # Nothing is filed elsewhere while it is alone.
    async with brought(db, f"photo {photo_id}", photo, photo_id=photo_id) as draft, alone(db):
        now = await _to_be_healed(db, photo_id)
        if (now.path, now.file_hash) != (photo.path, photo.file_hash):
            raise Conflict(
                f"photo {photo_id} was filed elsewhere meanwhile: {now.path}",
                hint="heal it again",
                photo_id=photo_id,
            )
        aside = await _swap_in(draft, photo)
        async with db.transaction() as session:
            await scrubs.set_healed(session, photo_id)
            events = [Happened(photo_id, "healed", detail={"kept_aside": aside})]
            if photo.missing_since is not None:
                events.append(Happened(photo_id, "found-again"))
            await note(session, events)
    return Healed(photo_id=photo.photo_id, path=photo.path, kept_aside=aside)


async def _to_be_healed(db: Database, photo_id: int) -> Photo:
    """A photo that is damaged or missing, in a place that is well; raises `Conflict`."""
    async with db.transaction() as session:
        photo = await get(session, photo_id)
        rotten = {content.photo_id for content in await scrubs.damaged(session)}
        is_frozen = await places.is_frozen(session, photo_id)
    if photo_id not in rotten and photo.missing_since is None:
        raise Conflict(f"photo {photo_id} is neither damaged nor missing", photo_id=photo_id)
    if is_frozen:
        raise Conflict(
            f"{photo.path} lies in a place that is frozen: is its disk not mounted?",
            hint="mount it, or say that what is gone is gone: `kaleidoscope places decide`",
            photo_id=photo_id,
        )
    return photo


async def _swap_in(draft: Path, photo: Photo) -> str | None:
    """Put it in place; what has come right by itself is left alone."""
    try:
        if await asyncio.to_thread(disk.content_hash, photo.path) == photo.file_hash:
            return None
    except OSError:  # gone, or not to be read: that is why
        pass
    return await swapped_in(draft, photo.path, photo_id=photo.photo_id)


async def count_damaged(session: AsyncSession) -> int:
    """How many originals are not what was taken in."""
    return await scrubs.count_damaged(session)


async def damaged(session: AsyncSession) -> list[Photo]:
    """The originals that are not what was taken in."""
    return await get_many(session, [c.photo_id for c in await scrubs.damaged(session)])
