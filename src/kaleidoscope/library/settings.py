"""What may be chosen about the ledger."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar, Literal

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
    stuck_after: timedelta = Field(
        default=timedelta(minutes=10),
        gt=timedelta(0),
        description="A photo that is PROCESSING for longer, in seconds, has failed.",
    )
    hash_threads: int = Field(
        default=2, ge=1, description="Files hashed at the same time in the background."
    )
    scrub_megabytes_per_second: float = Field(
        default=4.0,
        ge=0,
        description="How fast originals are read through for rot, in the background; 0: never. "
        "4 MB/s are 345 GB a day.",
    )
    scrub_after_days: float = Field(
        default=30.0,
        gt=0,
        description="An original is read through again when that has passed since the last time.",
    )
    presence_hours: float = Field(
        default=6.0,
        gt=0,
        description="How often every file of a known place is looked for. Whether the place itself "
        "is there and on its device is looked at every minute.",
    )
    vanished_share: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="When a larger share of a place's files is gone at once, none is marked "
        "missing: the place is frozen, and a person decides.",
    )
    vanished_files: int = Field(
        default=5,
        ge=1,
        description="... and at least so many: a few files may go however small the place is.",
    )
    video_seconds: float = Field(
        default=60.0,
        gt=0,
        description="Seconds that reading a video's metadata may take; then it has failed.",
    )
    video_memory: int = Field(
        default=2048,
        ge=256,
        description="Megabytes of address space of the process that reads a video's metadata.",
    )


class BackupSettings(Section):
    """A second copy of every original and of the database, in another place."""

    section: ClassVar[str] = "backup"

    target: str = Field(
        default="",
        description="Where to: a folder (a second disk, a mounted share), or a URL such as "
        "s3://bucket/photos (with `pip install 'kaleidoscope[s3]'`). Empty: no backup.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="What `fsspec` needs to reach a URL: for S3 for example key, secret and "
        "endpoint_url, as the table [backup.options].",
    )
    originals_minutes: float = Field(
        default=15.0, gt=0, description="How often new originals are copied."
    )
    database_hours: float = Field(
        default=24.0, gt=0, description="How often the whole database is copied."
    )
    log_minutes: float = Field(
        default=15.0,
        gt=0,
        description="How often what has changed in it since is copied: its write-ahead log. Only "
        "for the embedded PostgreSQL.",
    )
    verify_days: float = Field(
        default=90.0,
        gt=0,
        description="Within how many days every copy is read back once, a part of them a day.",
    )
    drill_days: float = Field(
        default=30.0,
        gt=0,
        description="How often the backup is restored on the side, to see that it can be.",
    )
    keep_databases: int = Field(
        default=30,
        ge=1,
        description="How many copies of the database `kaleidoscope backup prune` leaves. Nothing "
        "else ever deletes from the backup.",
    )
    threads: int = Field(default=2, ge=1, description="Files copied at the same time.")
