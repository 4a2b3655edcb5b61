"""The library over HTTP: the list of photos, and how workers mark one."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query

from kaleidoscope.kernel.web import Session
from kaleidoscope.library import service
from kaleidoscope.library.schemas import (
    Camera,
    Correction,
    DateGiven,
    DoubtfulDates,
    MediaType,
    PhotoDates,
    PhotoPage,
    ShiftPreview,
    ShiftRequest,
    Status,
    StatusChange,
    StatusChanged,
)

router = APIRouter(tags=["photos"])

PhotoNumber = Annotated[int, Path(ge=1, lt=2**63)]


@router.get("/photos")
async def list_photos(
    session: Session,
    after: Annotated[int, Query(ge=0, description="`next` of the page before.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    status: Status | None = None,
    media_type: MediaType | None = None,
) -> PhotoPage:
    """The ledger, page by page in the order of photo_ids."""
    return await service.page(
        session, after=after, limit=limit, status=status, media_type=media_type
    )


@router.put("/photo/update-status")
async def update_status(change: StatusChange, session: Session) -> StatusChanged:
    """Mark a photo PROCESSING or FAILED for an attempt; READY has it looked at anew.

    PROCESSED ends an attempt that runs without saying what was found; recognition reports by
    `POST /callback/photo-processed`. 409 for a change that the photo's status does not allow.
    """
    return await service.change_status(session, change)


@router.get("/api/photos/{photo_id}/dates")
async def photo_dates(photo_id: PhotoNumber, session: Session) -> PhotoDates:
    """When a photo was taken, what says so, and what else there was to choose from."""
    return await service.photo_dates(session, photo_id)


@router.put("/api/photos/{photo_id}/date")
async def set_date(photo_id: PhotoNumber, given: DateGiven, session: Session) -> Correction:
    """Say when a photo was taken: to be believed above all that its file tells; can be undone."""
    at = _without_zone(given.captured_at)
    return await service.set_date(session, photo_id, at, given.captured_offset)


@router.get("/api/dates/review")
async def doubtful_dates(
    session: Session,
    after: Annotated[int, Query(ge=0, description="`next` of the page before.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> DoubtfulDates:
    """Photos whose date is of low confidence, each with every date that something tells."""
    return await service.doubtful_dates(session, after, limit)


@router.get("/api/dates/cameras")
async def cameras(session: Session) -> list[Camera]:
    """Every camera that has taken something, the busiest first."""
    return await service.cameras(session)


@router.post("/api/dates/shift/preview")
async def preview_shift(asked: ShiftRequest, session: Session) -> ShiftPreview:
    """What a shift of a camera's dates would do; nothing is written."""
    return await service.preview_shift(session, *_shift(asked))


@router.post("/api/dates/shift")
async def shift(asked: ShiftRequest, session: Session) -> Correction:
    """A camera's clock was wrong: shift the dates of what it took; can be undone."""
    return await service.shift(session, *_shift(asked))


@router.get("/api/dates/corrections")
async def corrections(
    session: Session,
    before: Annotated[int | None, Query(description="Only corrections before this one.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> list[Correction]:
    """Corrections of dates, the newest first."""
    return await service.corrections(session, before, limit)


@router.post("/api/dates/corrections/{correction_id}/undo")
async def undo_correction(
    correction_id: Annotated[int, Path(ge=1, lt=2**63)], session: Session
) -> Correction:
    """Take a correction back, exactly. 409 when a later one concerns the same photos."""
    return await service.undo_correction(session, correction_id)


def _shift(
    asked: ShiftRequest,
) -> tuple[str, timedelta, datetime | None, datetime | None, str | None]:
    since = asked.since and _without_zone(asked.since)
    until = asked.until and _without_zone(asked.until)
    return asked.camera, asked.by, since, until, asked.serial


def _without_zone(at: datetime) -> datetime:
    """A date as the clock on the wall shows it, whatever zone a client put behind it."""
    return at.replace(tzinfo=None)
