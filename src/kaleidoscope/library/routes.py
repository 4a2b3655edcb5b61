"""The library over HTTP: the list of photos, and how workers mark one."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import FileResponse

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.web import Session
from kaleidoscope.library import service
from kaleidoscope.library.ids import PhotoId
from kaleidoscope.library.schemas import (
    AttemptsBegun,
    Camera,
    Correction,
    Curation,
    CurationWish,
    DateGiven,
    DerivativeKind,
    DoubtfulDates,
    Healed,
    History,
    MediaType,
    PhotoDates,
    PhotoPage,
    PlaceDecision,
    PlaceName,
    Places,
    PlaceView,
    Retried,
    RetryWish,
    ShiftPreview,
    ShiftRequest,
    Status,
    StatusChange,
    StatusChanged,
    ZoneRequest,
)

router = APIRouter(tags=["photos"])

Id = Annotated[PhotoId, Path(ge=1, lt=2**63)]
Version = Annotated[
    str | None,
    Query(
        description="The photo's `file_hash`: with it the answer may be kept for ever, without it "
        "it is asked for again each time.",
    ),
]
Known = Annotated[str | None, Header(alias="If-None-Match")]
PICTURES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/webp": {}, "image/jpeg": {}}, "description": "The picture."},
    304: {"description": "The picture that the caller has."},
    404: {"description": "No such photo, or no picture can be made of it: `detail` says why."},
}
FOR_EVER, EACH_TIME = "private, max-age=31536000, immutable", "private, no-cache"


@router.get("/photos")
async def list_photos(
    session: Session,
    after: Annotated[int, Query(ge=0, lt=2**63, description="`next` of the page before.")] = 0,
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


@router.put("/photos/update-status")
async def begin_attempts(begun: AttemptsBegun, session: Session) -> list[StatusChanged]:
    """Mark photos PROCESSING, each for its attempt, in one transaction; unknown ones are left out.

    What `PUT /photo/update-status` does, for a worker that begins with several at once.
    """
    asked = {int(attempt.photo_id): attempt.attempt_id for attempt in begun.attempts}
    changed = await service.begin_attempts(session, dict(asked), begun.worker)
    return list(changed.values())


@router.get("/api/photos/{photo_id}/dates")
async def photo_dates(photo_id: Id, session: Session) -> PhotoDates:
    """When a photo was taken, what says so, and what else there was to choose from."""
    return await service.photo_dates(session, photo_id)


@router.put("/api/photos/{photo_id}/date")
async def set_date(photo_id: Id, given: DateGiven, session: Session) -> Correction:
    """Say when a photo was taken: to be believed above all that its file tells; can be undone."""
    at = _without_zone(given.captured_at)
    return await service.set_date(session, photo_id, at, given.captured_offset)


@router.get("/api/dates/review")
async def doubtful_dates(
    session: Session,
    after: Annotated[int, Query(ge=0, lt=2**63, description="`next` of the page before.")] = 0,
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
    return await service.shift_dates(session, *_shift(asked))


@router.post("/api/dates/zone/preview")
async def preview_zone(asked: ZoneRequest, session: Session) -> ShiftPreview:
    """What saying where videos without a position were taken would do; nothing is written."""
    return await service.preview_zone(session, asked.zone, *_between(asked))


@router.post("/api/dates/zone")
async def set_zone(asked: ZoneRequest, session: Session) -> Correction:
    """Say where that was taken whose date is known in UTC alone; can be undone."""
    return await service.set_zone(session, asked.zone, *_between(asked))


@router.get("/api/dates/corrections")
async def corrections(
    session: Session,
    before: Annotated[
        int | None, Query(ge=1, lt=2**63, description="Only corrections before this one.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> list[Correction]:
    """Corrections of dates, the newest first."""
    return await service.date_corrections(session, before, limit)


@router.post("/api/dates/corrections/{correction_id}/undo")
async def undo_correction(
    correction_id: Annotated[int, Path(ge=1, lt=2**63)], session: Session
) -> Correction:
    """Take a correction back, exactly. 409 when a later one concerns the same photos."""
    return await service.undo_correction(session, correction_id)


def _shift(
    asked: ShiftRequest,
) -> tuple[str, timedelta, datetime | None, datetime | None, str | None]:
    return asked.camera, asked.by, *_between(asked), asked.serial


def _between(asked: ShiftRequest | ZoneRequest) -> tuple[datetime | None, datetime | None]:
    since = asked.since and _without_zone(asked.since)
    return since, asked.until and _without_zone(asked.until)


def _without_zone(at: datetime) -> datetime:
    """A date as the clock on the wall shows it, whatever zone a client put behind it."""
    return at.replace(tzinfo=None)


@router.get("/api/photos/{photo_id}/thumbnail", response_class=FileResponse, responses=PICTURES)
async def thumbnail(
    request: Request, photo_id: Id, v: Version = None, known: Known = None
) -> Response:
    """The photo at 250 pixels, upright and in sRGB, as WebP; of a video a telling picture."""
    return await _picture(request, photo_id, "thumbnail", v, known)


@router.get("/api/photos/{photo_id}/preview", response_class=FileResponse, responses=PICTURES)
async def preview(
    request: Request, photo_id: Id, v: Version = None, known: Known = None
) -> Response:
    """The same at 1440 pixels, as JPEG."""
    return await _picture(request, photo_id, "preview", v, known)


@router.get("/api/photos/{photo_id}/place")
async def place(photo_id: Id, session: Session) -> PlaceName:
    """Where a photo was taken, by name; `attribution` is to be shown with it."""
    return await service.place_of(session, photo_id)


@router.get("/api/photos/{photo_id}/history")
async def history(photo_id: Id, session: Session) -> History:
    """The flight recorder: everything that happened to a photo, the oldest first."""
    return await service.history(session, photo_id)


@router.post("/api/photos/{photo_id}/retry")
async def retry(photo_id: Id, wish: RetryWish, session: Session) -> Retried:
    """Have something done again. 409 where there is nothing to be done again."""
    await service.retry(session, photo_id, wish.what)
    return Retried(photo_id=photo_id, what=wish.what)


@router.put("/api/photos/{photo_id}/curation")
async def curation(photo_id: Id, wish: CurationWish, session: Session) -> Curation:
    """Say that a person has looked a photo through, or take it back."""
    await service.curate(session, [photo_id], wish.curated)
    photo = await service.get(session, photo_id)
    return Curation(photo_id=photo.photo_id, curated=photo.is_curated, curated_at=photo.curated_at)


async def _picture(
    request: Request, photo_id: int, kind: DerivativeKind, version: str | None, known: str | None
) -> Response:
    db: Database = request.app.state.db
    found = await service.derivative(db, photo_id, kind)
    tag = f'"{found.file_hash}-{kind}"'
    headers = {
        "ETag": tag,
        # By its number a photo may have other content one day; by its hash it never has.
        "Cache-Control": FOR_EVER if version == found.file_hash else EACH_TIME,
        "X-Content-Type-Options": "nosniff",
    }
    if known is not None and (known.strip() == "*" or tag in known):
        return Response(status_code=304, headers=headers)
    return FileResponse(found.path, media_type=found.media_type, headers=headers)


@router.post("/api/photos/{photo_id}/heal")
async def heal(photo_id: Id, request: Request) -> Healed:
    """Put a damaged or missing original back from the backup; the damaged file is kept beside it.

    409 for one that is neither, 404 for one without a copy, 503 when the copy is damaged, too.
    """
    return await service.heal(request.app.state.db, photo_id)


@router.get("/api/places")
async def list_places(session: Session) -> Places:
    """The folders that are watched for vanishing as a whole; a frozen one awaits a decision."""
    return Places(places=await service.places(session))


@router.post("/api/places/{place_id}/decision")
async def decide(
    place_id: Annotated[int, Path(ge=1, lt=2**63)], said: PlaceDecision, session: Session
) -> PlaceView:
    """What a person says of a frozen place; acted upon within a minute. 409 unless it is frozen."""
    return await service.decide(session, place_id, said.decision)
