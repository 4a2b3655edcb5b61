"""The library over HTTP: the list of photos, and how workers mark one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from kaleidoscope.kernel.web import Session
from kaleidoscope.library import service
from kaleidoscope.library.schemas import (
    Healed,
    MediaType,
    PhotoPage,
    PlaceDecision,
    Places,
    PlaceView,
    Status,
    StatusChange,
    StatusChanged,
)

router = APIRouter(tags=["photos"])


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


@router.post("/api/photos/{photo_id}/heal")
async def heal(photo_id: int, request: Request) -> Healed:
    """Put a damaged or missing original back from the backup; the damaged file is kept beside it.

    409 for one that is neither, 404 for one without a copy, 503 when the copy is damaged, too.
    """
    return await service.heal(request.app.state.db, photo_id)


@router.get("/api/places")
async def list_places(session: Session) -> Places:
    """The folders that are watched for vanishing as a whole; a frozen one awaits a decision."""
    return Places(places=await service.places(session))


@router.post("/api/places/{place_id}/decision")
async def decide(place_id: int, said: PlaceDecision, session: Session) -> PlaceView:
    """What a person says of a frozen place; acted upon within a minute. 409 unless it is frozen."""
    return await service.decide(session, place_id, said.decision)
