"""What may be chosen about the ledger."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Literal

from pydantic import Field

from kaleidoscope.kernel.settings import Section


class LibrarySettings(Section):
    """The ledger of media: messages, retries, hashes."""

    section: ClassVar[str] = "library"

    message_key: Literal["photo", "directory"] = Field(
        default="photo",
        description="What the key of a photo's message is a hash of: `photo` spreads the load "
        "evenly, `directory` keeps the photos of a folder together.",
    )
    max_retries: int = Field(
        default=5,
        ge=0,
        description="How often a failed photo is tried again before it becomes a dead letter.",
    )
    retry_after: timedelta = Field(
        default=timedelta(seconds=30),
        gt=timedelta(0),
        description="Wait before the first retry, in seconds; each further one waits twice as "
        "long, give or take a tenth.",
    )
    retry_at_most: timedelta = Field(
        default=timedelta(hours=6),
        gt=timedelta(0),
        description="The longest wait between two retries, in seconds.",
    )
    retry_interval: timedelta = Field(
        default=timedelta(seconds=5),
        gt=timedelta(0),
        description="How often due retries and stuck photos are looked for, in seconds.",
    )
    stuck_after: timedelta = Field(
        default=timedelta(minutes=10),
        gt=timedelta(0),
        description="A photo that is PROCESSING for longer, in seconds, has failed.",
    )
    hash_interval: timedelta = Field(
        default=timedelta(seconds=30),
        gt=timedelta(0),
        description="How often files without a full hash are looked for, in seconds.",
    )
    hash_threads: int = Field(
        default=2, ge=1, description="Files hashed at the same time in the background."
    )
    video_timeout: timedelta = Field(
        default=timedelta(seconds=60),
        gt=timedelta(0),
        description="A video whose metadata takes longer to read, in seconds, has failed.",
    )
    video_memory_mb: int = Field(
        default=2048,
        ge=256,
        description="Address space, in MiB, of the process that reads a video's metadata.",
    )
