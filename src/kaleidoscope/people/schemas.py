"""The documents of people's HTTP routes, and of the ML service's callback (seed 001)."""

from __future__ import annotations

import base64
import binascii
import math
from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field

from kaleidoscope.library.schemas import Photo


def _vector(text: str) -> str:
    decode_vector(text)
    return text


def decode_vector(text: str) -> NDArray[np.float32]:
    """The vector in base64 of little-endian float32; ValueError for anything else."""
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"is not base64: {error}") from error
    if not raw or len(raw) % 4:
        raise ValueError(f"is {len(raw)} bytes, not a row of float32")
    vector = np.frombuffer(raw, "<f4").astype(np.float32)
    if not np.isfinite(vector).all():
        raise ValueError("holds a number that is not finite")
    if not np.any(vector):
        raise ValueError("is all zero")
    return vector


def encode_vector(vector: NDArray[np.float32]) -> str:
    """The vector as base64 of little-endian float32."""
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()


def _box(box: list[float]) -> list[float]:
    if not all(math.isfinite(v) and abs(v) < 1e7 for v in box):
        raise ValueError("is not four finite numbers")
    if box[2] <= box[0] or box[3] <= box[1]:
        raise ValueError("has no area: x1, y1, x2, y2 with x1 < x2 and y1 < y2")
    return box


EncodedVector = Annotated[str, AfterValidator(_vector)]
Box = Annotated[list[float], Field(min_length=4, max_length=4), AfterValidator(_box)]
Point = Annotated[list[float], Field(min_length=2, max_length=2)]


Id = Annotated[int, Field(ge=1, lt=2**63)]


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Detection(_Lenient):
    """A face that the ML service found."""

    bbox: Box
    embedding: EncodedVector
    confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    landmarks: Annotated[list[Point], Field(min_length=5, max_length=5)] | None = None
    quality: dict[str, Any] | None = None
    suggested_person_id: Id | str | None = None
    similarity: float | None = None


class NewPerson(_Lenient):
    """Somebody the ML service knows nobody like; detections name it by `temp_id`."""

    temp_id: str
    embedding: EncodedVector | None = None
    suggested_display_name: str | None = Field(default=None, max_length=255)


class Failure(_Lenient):
    """Why a photo could not be processed."""

    code: str = "processing"
    message: str = ""
    permanent: bool = False


class CallbackMeta(_Lenient):
    """How the photo was processed."""

    model_version: str | None = None
    pack: str | None = None
    width: Annotated[int, Field(gt=0, lt=2**31)] | None = None
    height: Annotated[int, Field(gt=0, lt=2**31)] | None = None
    mime_type: str | None = None
    duration_ms: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    picture_hash: Annotated[str, Field(pattern="^[0-9a-f]{16}$")] | None = None
    timings: dict[str, float] = {}


class Callback(_Lenient):
    """POST /callback/photo-processed."""

    photo_id: Id
    path: str
    status: Literal["PROCESSED", "FAILED"]
    callback_id: UUID | None = None
    attempt_id: UUID | None = None
    detections: Annotated[list[Detection], Field(max_length=5000)] = []
    new_persons: list[NewPerson] = []
    error: Failure | None = None
    meta: CallbackMeta = CallbackMeta()


class Callbacks(BaseModel):
    """POST /callback/photos-processed: what was found in several photos, one callback each."""

    callbacks: Annotated[list[Callback], Field(min_length=1, max_length=1000)]


class CallbackAnswer(BaseModel):
    """What the callback did: the persons that it founded."""

    ok: bool = True
    created_person_ids: list[int] = []


class ClassifyRequest(BaseModel):
    """POST /classify-photo: one of the two."""

    photo_id: Id | None = None
    path: str | None = None


class ClassifiedFace(BaseModel):
    """A face of a classified photo."""

    bbox: list[float]
    person_id: int | None
    similarity: float | None


class Classified(BaseModel):
    """Who is in a photo; `photo_id` is null for a file that is not in the ledger."""

    photo_id: int | None
    person_ids: list[int]
    faces: list[ClassifiedFace]


class FaceView(BaseModel):
    """A face as the API shows it. `probability`: how likely it is of its person, calibrated, so
    that it means the same for every pack; `confidence`: how likely it is a face at all.
    """

    face_id: int
    bbox: list[float]
    landmarks: list[float] | None
    person_id: int | None
    suggested_person_id: int | None
    similarity: float | None
    probability: float | None
    confidence: float | None
    quality: float | None
    status: str
    confirmed_by: str
    model_version: str | None


class PhotoView(Photo):
    """A photo of the ledger with the faces found in it."""

    detections: list[FaceView]


class ExportedFace(BaseModel):
    """A face of `people export`: `bbox` in displayed pixels."""

    bbox: list[float]
    person_id: int | None
    similarity: float | None
    confirmed_by: str


class ExportedPhoto(BaseModel):
    """A line of `people export --jsonl`."""

    path: str
    faces: list[ExportedFace]


class PersonView(BaseModel):
    """A person with a few photos. `merged_from` are ids that resolve to this one."""

    person_id: int
    display_name: str | None
    created_at: datetime
    user_id: int | None
    birth_date: date | None
    faces: int
    photos: int
    merged_from: list[int]
    example_photos: list[str]
    representative_embedding: str | None = None


class BornView(PersonView):
    """A person whose birth date was said. Of the faces in photos from before it, the machine looks
    anew at its own (`reopened`), at the next consolidation; those confirmed stay (`kept`).
    """

    reopened: list[int]
    kept: list[int]


class PersonLine(BaseModel):
    """A person in the list of all."""

    person_id: int
    display_name: str | None
    faces: int
    photos: int
    created_at: datetime


class PortableFace(BaseModel):
    """A face of `people export-names`: the SHA-256 of its photo, and where in it, in pixels of an
    image of this `size` as displayed. The embedding is personal data.
    """

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None
    bbox: Box
    size: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]] | None
    confirmed: bool
    embedding: EncodedVector | None = None


class PortablePerson(BaseModel):
    """A line of `people export-names`. `aliases` are ids that were merged into this one."""

    person_id: int
    name: str | None
    aliases: list[int] = []
    birth_date: date | None = None
    pack: str
    faces: list[PortableFace]


class BirthDateRequest(BaseModel):
    """POST /people/{id}/birth-date: null takes it away."""

    birth_date: date | None


class ReviewFace(BaseModel):
    """A face to look at: `bbox` in displayed pixels."""

    face_id: int
    photo_id: int
    path: str
    bbox: list[float]


class ReviewParty(BaseModel):
    """A person that a question is about; `example` is the best of the faces."""

    person_id: int
    display_name: str | None
    faces: int
    example: ReviewFace | None


class ReviewQuestion(BaseModel):
    """Is `other` (a whole person) or `face` (an open face) the same as `person`?

    An answer settles so many `faces`; `gain` is that times the entropy of the probability.
    """

    question_id: int
    person: ReviewParty
    other: ReviewParty | None
    face: ReviewFace | None
    similarity: float
    probability: float
    faces: int
    gain: float
    skips: int


class AnswerRequest(BaseModel):
    """POST /people/review/{id}/answer: skip puts the question off."""

    answer: Literal["yes", "no", "skip"]


class MergeRequest(BaseModel):
    """POST /people/merge: all of `gone` are the person `kept`."""

    kept: Id = Field(validation_alias=AliasChoices("kept", "into"))
    gone: Annotated[list[Id], Field(min_length=1)]


class SplitRequest(BaseModel):
    """POST /people/{id}/split: these faces are somebody else."""

    face_ids: Annotated[list[Id], Field(min_length=1)]
    display_name: str | None = Field(default=None, max_length=255)


class RenameRequest(BaseModel):
    """POST /people/{id}/rename: null takes the name away."""

    display_name: str | None = Field(max_length=255)


class ConfirmRequest(BaseModel):
    """POST /faces/{id}/confirm: the face is this person; without one, the person it has."""

    person_id: Id | None = None


class RejectRequest(BaseModel):
    """POST /faces/{id}/reject: the face is not this person; without one, not the one it has."""

    person_id: Id | None = None


class UndoRequest(BaseModel):
    """POST /people/undo: without an event, the last one that a person made."""

    event_id: Id | None = None


class ConsolidateRequest(BaseModel):
    """POST /people/consolidate: only tell what would be, and look at all persons anew."""

    dry_run: bool = False
    everybody: bool = False


class UndoRoundRequest(BaseModel):
    """POST /people/consolidate/undo: the number of a consolidation, or of an event of it."""

    round: Id


class CompareRequest(BaseModel):
    """POST /people/quality/compare: with which pack, on how many confirmed faces at most, and the
    precision that thresholds are looked for.
    """

    pack: str = Field(min_length=1)
    sample: Annotated[int, Field(ge=50, le=2000)] = 300
    wanted: Annotated[float, Field(gt=0, lt=1)] = 0.99
