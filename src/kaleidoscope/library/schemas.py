"""What the library tells of an asset, and what it is told over HTTP."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from kaleidoscope.library.ids import AssetId, PhotoId

Status = Literal["READY", "PROCESSING", "PROCESSED", "FAILED"]
MediaType = Literal["photo", "video"]
Decision = Literal["wait", "accept-missing"]
AttemptState = Literal["started", "already-done", "superseded"]


class Photo(BaseModel):
    """One asset: every column of the ledger under its own name."""

    model_config = ConfigDict(frozen=True, from_attributes=True, ser_json_bytes="base64")

    id: AssetId
    photo_id: PhotoId
    file_hash: str | None
    original_name: str
    original_path: str
    final_path: str
    filename: str
    path_bytes: bytes | None
    size_bytes: int
    modified_at: datetime | None
    sample_hash: str | None
    mime_type: str | None
    media_type: MediaType
    width: int | None
    height: int | None
    duration_seconds: Decimal | None
    frame_rate: Decimal | None
    captured_at: datetime | None
    captured_offset: timedelta | None
    captured_at_source: str | None
    ingested_at: datetime
    location: dict[str, float] | None
    is_ingested: bool
    is_geocoded: bool
    is_thumbnailed: bool
    is_curated: bool
    is_backed_up: bool
    has_errors: bool
    error_message: str | None
    geocoded_at: datetime | None
    thumbnailed_at: datetime | None
    curated_at: datetime | None
    backed_up_at: datetime | None
    status: Status
    attempt_id: UUID
    processing_since: datetime | None
    retry_count: int
    next_retry_at: datetime | None
    no_faces: bool | None
    person_ids: list[int] | None
    duplicate_of: PhotoId | None
    missing_since: datetime | None
    scrubbed_at: datetime | None
    user_id: UUID | None
    created_at: datetime
    updated_at: datetime

    @property
    def path(self) -> str:
        """Where the file lies now."""
        return self.final_path


class Attempt(BaseModel):
    """One attempt at an asset."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    attempt_id: UUID
    worker: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    outcome: Literal["PROCESSED", "FAILED", "SUPERSEDED"] | None
    error_code: str | None
    error_message: str | None
    permanent: bool
    model_version: str | None
    duration_ms: int | None


class PhotoPage(BaseModel):
    """Some assets in the order of their ids."""

    photos: list[Photo]
    next: PhotoId | None = Field(description="`after` of the next page; null: this is the last.")


class Problem(BaseModel):
    """Why an attempt failed."""

    code: str = Field(default="failed", description="For machines.")
    message: str = Field(description="For people.")
    permanent: bool = Field(default=False, description="Trying again cannot help.")


class StatusChange(BaseModel):
    """A new status for a photo (seed 001)."""

    photo_id: PhotoId
    status: Status
    attempt_id: UUID | None = Field(
        default=None, description="The attempt that says so; without one the current attempt."
    )
    error: Problem | str | None = Field(default=None, description="With FAILED: why.")
    worker: str | None = Field(default=None, description="Who says so.")


class StatusChanged(BaseModel):
    """What came of it."""

    photo_id: PhotoId
    status: Status = Field(description="The status that the photo has now.")
    attempt_id: UUID = Field(description="The photo's current attempt.")
    state: AttemptState = Field(
        description="`started`: done as asked; `already-done`: that attempt had ended before; "
        "`superseded`: another attempt has taken its place."
    )


class PlaceView(BaseModel):
    """A folder that is watched for vanishing as a whole."""

    place_id: int
    path: str
    kind: Literal["folder", "originals", "mount"]
    assets: int = Field(description="Files of the ledger in it, those of inner places left out.")
    missing: int = Field(description="Of these, those that are gone.")
    device: str | None = Field(description="The file system it is on when all is well.")
    frozen_at: datetime | None = Field(description="Null: all is well.")
    frozen_because: str | None
    decision: Decision | None = Field(description="What a person said of it last.")
    last_seen_at: datetime | None = Field(description="When it was last there, and well.")


class Places(BaseModel):
    """The known places."""

    places: list[PlaceView]


class PlaceDecision(BaseModel):
    """What a person says of a frozen place."""

    decision: Decision = Field(
        description="`wait`: it will come back; `accept-missing`: what is gone is gone."
    )


class Healed(BaseModel):
    """A file that was put back from the backup."""

    photo_id: PhotoId
    path: str
    kept_aside: str | None = Field(description="Where the damaged file lies now, if there was one.")
