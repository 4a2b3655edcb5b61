"""What the library tells of an asset, and what it is told over HTTP."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from kaleidoscope.library.ids import AssetId, PhotoId

Status = Literal["READY", "PROCESSING", "PROCESSED", "FAILED"]
MediaType = Literal["photo", "video"]
Confidence = Literal["high", "medium", "low"]
DerivativeKind = Literal["thumbnail", "preview"]
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
    captured_at_confidence: Confidence | None
    camera_make: str | None
    camera_model: str | None
    camera_serial: str | None
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


class PlaceName(BaseModel):
    """Where an asset was taken, by name. Nulls with `geocoded_at`: no place is near."""

    photo_id: PhotoId
    location: dict[str, float] | None = Field(description="`lat` and `lon`; null: it has none.")
    geocoded_at: datetime | None = Field(description="Null: nobody has looked it up yet.")
    city: str | None = None
    district: str | None = None
    region: str | None = None
    country: str | None = None
    country_code: str | None = Field(default=None, description="Two letters of ISO 3166.")
    distance_km: float | None = Field(default=None, description="To the middle of the city.")
    source: str | None = Field(default=None, description="Which names, and their version.")
    attribution: str = Field(description="To be shown where the names are shown.")


class HistoryEvent(BaseModel):
    """One thing that happened to an asset, or failed to."""

    at: datetime
    what: str = Field(description="received, hashed, filed, dated, thumbnailed, recognised …")
    outcome: Literal["ok", "failed", "skipped", "running"]
    attempt: int = Field(default=1, description="Which try it was since the last that went well.")
    duration_ms: int | None = None
    model_version: str | None = Field(default=None, description="Which model looked at it.")
    error: str | None = None
    retry: str | None = Field(
        default=None, description="What to say to `POST …/retry` to have it done again."
    )
    retry_at: datetime | None = Field(
        default=None, description="When a failure is tried again by itself; null: never."
    )
    detail: dict[str, Any] | None = None


class History(BaseModel):
    """What happened to an asset, the oldest first."""

    photo_id: PhotoId
    path: str
    has_errors: bool
    error_message: str | None
    events: list[HistoryEvent]


class CurationWish(BaseModel):
    """Whether a person has looked a photo through."""

    curated: bool


class Curation(CurationWish):
    """What the ledger says of it now."""

    photo_id: PhotoId
    curated_at: datetime | None


Retryable = Literal[
    "recognised",
    "thumbnailed",
    "geocoded",
    "hashed",
    "dated",
    "filed",
    "backed-up",
    "scrubbed",
    "missing",
]


class RetryWish(BaseModel):
    """What is to be done again."""

    what: Retryable


class Retried(BaseModel):
    """What is going to be done again, in the next round of its pass."""

    photo_id: PhotoId
    what: Retryable


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

    photo_id: Annotated[PhotoId, Field(ge=1, lt=2**63)]
    status: Status
    attempt_id: UUID | None = Field(
        default=None, description="The attempt that says so; without one the current attempt."
    )
    error: Problem | str | None = Field(default=None, description="With FAILED: why.")
    worker: str | None = Field(default=None, description="Who says so.")


class AttemptBegun(BaseModel):
    """An attempt at a photo that somebody begins."""

    photo_id: Annotated[PhotoId, Field(ge=1, lt=2**63)]
    attempt_id: UUID


class AttemptsBegun(BaseModel):
    """Attempts that somebody begins, one a photo."""

    attempts: list[AttemptBegun] = Field(min_length=1, max_length=1000)
    worker: str | None = Field(default=None, description="Who says so.")


class StatusChanged(BaseModel):
    """What came of it."""

    photo_id: PhotoId
    status: Status = Field(description="The status that the photo has now.")
    attempt_id: UUID = Field(description="The photo's current attempt.")
    path: str = Field(description="Where the file lies now, whatever a message says.")
    state: AttemptState = Field(
        description="`started`: done as asked; `already-done`: that attempt had ended before; "
        "`superseded`: another attempt has taken its place."
    )


class DateCandidate(BaseModel):
    """One date that something tells of an asset."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    source: str = Field(description="What tells it: an EXIF tag, a sidecar, the name …")
    captured_at: datetime = Field(description="By the clock on the wall there.")
    captured_offset: timedelta | None = Field(description="How far that was ahead of UTC.")
    confidence: Confidence


class PhotoDates(BaseModel):
    """An asset's date, why it has it, and what else there was to choose from."""

    model_config = ConfigDict(frozen=True)

    photo_id: PhotoId
    path: str
    captured_at: datetime | None
    captured_offset: timedelta | None
    source: str | None = Field(description="Null: nobody has looked yet.")
    confidence: Confidence | None
    camera: str | None
    candidates: list[DateCandidate] = Field(description="The most trusted first.")


class DoubtfulDate(PhotoDates):
    """An asset whose date a person should look at."""


class DoubtfulDates(BaseModel):
    """Assets whose date is of low confidence, in the order of their ids."""

    photos: list[DoubtfulDate]
    total: int = Field(description="How many there are in all.")
    next: PhotoId | None = Field(description="`after` of the next page; null: this is the last.")


class Camera(BaseModel):
    """A camera, by what it writes into its photos."""

    name: str
    make: str | None
    model: str
    serial: str | None
    photos: int
    first: datetime | None = Field(description="Date of its first photo.")
    last: datetime | None = Field(description="Date of its last photo.")


class ShiftRequest(BaseModel):
    """The clock of a camera was wrong."""

    camera: str = Field(description="Its model, with or without the maker.")
    serial: str | None = Field(default=None, description="Only the one with this serial number.")
    by: timedelta = Field(description="What to add to its dates: seconds, or PT1H30M.")
    since: datetime | None = Field(default=None, description="Only dates from then on.")
    until: datetime | None = Field(default=None, description="Only dates before then.")


class ZoneRequest(BaseModel):
    """Where that was taken whose date is known in UTC alone."""

    zone: str = Field(description="As the IANA database names it: Europe/Berlin.")
    since: datetime | None = Field(default=None, description="Only from then on, in UTC.")
    until: datetime | None = Field(default=None, description="Only before then, in UTC.")


class DateGiven(BaseModel):
    """When a photo was taken, as a person says."""

    captured_at: datetime = Field(description="By the clock on the wall there, without a zone.")
    captured_offset: timedelta | None = Field(
        default=None, description="How far that clock was ahead of UTC, where it is known."
    )


class CorrectedPhoto(BaseModel):
    """One photo of a correction."""

    photo_id: PhotoId
    path: str
    before: datetime | None
    after: datetime
    offset: timedelta | None


class ShiftPreview(BaseModel):
    """What a shift would do; nothing has been written."""

    photos: int
    to_be_filed: int = Field(description="How many change their day, and so their folder.")
    examples: list[CorrectedPhoto]


class Correction(BaseModel):
    """A person's correction of the dates of one or many photos."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    correction_id: int
    kind: Literal["shift", "set"]
    shifted_by: timedelta | None
    criteria: dict[str, object] = Field(description="Which photos were meant.")
    made_at: datetime
    undone_at: datetime | None
    photos: int
    to_be_filed: int = Field(description="How many wait to be filed under their new day.")


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


class HealedFile(BaseModel):
    """A file kept beside the originals that was put back from the backup."""

    path: str
    kept_aside: str | None = Field(description="Where the damaged file lies now, if there was one.")


class KeptFile(BaseModel):
    """A file that is kept beside the originals."""

    model_config = ConfigDict(from_attributes=True)

    file_id: int
    kind: Literal["sidecar", "duplicate", "set-aside"]
    photo_id: PhotoId | None = Field(description="The photo that it tells of, or is a copy of.")
    final_path: str
    size_bytes: int
    file_hash: str
    is_backed_up: bool
    missing_since: datetime | None
    error_code: str | None
    error: str | None
