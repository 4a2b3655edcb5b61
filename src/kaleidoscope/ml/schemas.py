"""The documents of the ML service's HTTP routes (seed 001)."""

from __future__ import annotations

from typing import Literal
from uuid import UUID, uuid4

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

State = Literal["queued", "running", "delivered", "undelivered"]


class ProcessPhoto(BaseModel):
    """POST /process-photo: look at the photo at `path`, then call `callbackUrl`.

    `path` is spelled as `kernel.paths` does. Sent again with the same `attempt_id` it is not done
    twice.
    """

    model_config = ConfigDict(populate_by_name=True)

    photo_id: int
    path: str = Field(min_length=1)
    callback_url: str = Field(
        validation_alias=AliasChoices("callbackUrl", "callback_url"),
        serialization_alias="callbackUrl",
    )
    callbacks_url: str | None = Field(
        default=None,
        validation_alias=AliasChoices("callbacksUrl", "callbacks_url"),
        serialization_alias="callbacksUrl",
        description="Where several results are taken at once, as `{callbacks: [...]}`.",
    )
    attempt_id: UUID = Field(default_factory=uuid4)


class ProcessPhotos(BaseModel):
    """POST /process-photos: several at once."""

    photos: list[ProcessPhoto] = Field(min_length=1, max_length=1000)


class AttemptsAsked(BaseModel):
    """POST /process-photos/states: how these attempts stand."""

    attempt_ids: list[UUID] = Field(min_length=1, max_length=1000)


class Refusal(BaseModel):
    """Why an attempt was not accepted or is not known; the fields of a problem document."""

    status: int
    code: str
    detail: str
    hint: str | None = None
    retry_after: int | None = None


class AttemptAnswer(BaseModel):
    """How one of several attempts stands, or why it is not one."""

    attempt_id: UUID
    state: State | None = None
    error: str | None = None
    refusal: Refusal | None = None


class AttemptState(BaseModel):
    """How an attempt stands. `delivered`: its callback was answered, for a photo that failed too.
    `undelivered`: it was not, and `error` says why; no more is done about it.
    """

    attempt_id: UUID
    state: State
    error: str | None = None


class FromPath(BaseModel):
    """POST /embeddings/from-image as JSON."""

    path: str = Field(min_length=1)


class FaceQuality(BaseModel):
    """See `ml.models.quality.Quality`."""

    model_config = ConfigDict(extra="allow")

    size: float
    sharpness: float
    yaw: float
    score: float


class FoundFace(BaseModel):
    """A face in displayed pixels of the original: `bbox` x1 y1 x2 y2, five `landmarks` (eyes, nose,
    corners of the mouth). `embedding`: base64 of little-endian float32, of length 1.
    """

    bbox: list[float]
    landmarks: list[list[float]]
    embedding: str
    confidence: float
    quality: FaceQuality


class Analysis(BaseModel):
    """The faces of a photo, displayed `width` by `height` pixels. `damage`: what is wrong with a
    file that is not whole.
    """

    width: int
    height: int
    mime_type: str
    damage: str | None = None
    pack: str
    model_version: str
    detections: list[FoundFace] = Field(validation_alias=AliasChoices("detections", "faces"))


class MlHealth(BaseModel):
    """The networks have just found the face in a drawing."""

    status: Literal["ok"] = "ok"
    pack: str
    model_version: str
    milliseconds: float


class MlVersion(BaseModel):
    """What would look at a photo now."""

    version: str
    pack: str
    model_version: str
    onnxruntime: str
