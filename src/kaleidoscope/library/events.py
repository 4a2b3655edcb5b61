"""What the library says to the rooms above it: the only spelling of these messages."""

from __future__ import annotations

import hashlib
import posixpath
from datetime import datetime
from typing import ClassVar, Literal
from uuid import UUID

from kaleidoscope.bus.messages import Event
from kaleidoscope.kernel.settings import load
from kaleidoscope.library.ids import PhotoId
from kaleidoscope.library.settings import LibrarySettings


class _MediaMessage(Event):
    photo_id: PhotoId
    path: str
    job_id: UUID | None = None
    ingest_batch_id: int | None = None
    created_at: datetime
    attempt_id: UUID

    def key(self) -> str:
        """A hash of the photo's id or of its folder, as the setting `library.message_key` says."""
        by_photo = load(LibrarySettings).message_key == "photo"
        keyed = str(self.photo_id) if by_photo else posixpath.dirname(self.path)
        return hashlib.sha256(keyed.encode()).hexdigest()[:16]


class PhotoToProcess(_MediaMessage):
    """A photo waits for recognition (seed 001). `path` is spelled by `kernel.paths.to_text`."""

    topic: ClassVar[str] = "photos-to-process"


class VideoToRead(_MediaMessage):
    """A video waits for its metadata to be read."""

    topic: ClassVar[str] = "videos-to-read"


class PhotoProcessed(Event):
    """An attempt at a photo or video has ended (seed 001).

    `final` is False when the ledger will try again by itself. DUPLICATE: the file has the content
    of another one and shows that one's outcome from now on.
    """

    topic: ClassVar[str] = "photos-processed"
    photo_id: PhotoId
    attempt_id: UUID
    outcome: Literal["PROCESSED", "FAILED", "DUPLICATE"]
    final: bool
    person_ids: tuple[int, ...] = ()
    created_person_ids: tuple[int, ...] = ()
    faces: int = 0
    model_version: str | None = None
    duration_ms: int | None = None
    error: str | None = None

    def key(self) -> str:
        """The photo's id: what is said of one photo stays in order."""
        return str(self.photo_id)
