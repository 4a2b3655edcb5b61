"""What may be chosen about the ledger."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator

from kaleidoscope.kernel.settings import Section, data_dir
from kaleidoscope.library.rules.custody import fault_of


def _in_data_folder(*parts: str) -> Path:
    return data_dir().joinpath(*parts)


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
    metadata_seconds: float = Field(
        default=60.0,
        gt=0,
        description="Seconds that reading the metadata of a video, or of some photos at a time, "
        "may take; then it has failed.",
    )
    metadata_memory: int = Field(
        default=2048,
        ge=256,
        description="Megabytes of address space of a process that reads metadata.",
    )
    metadata_processes: int = Field(
        default=1,
        ge=1,
        description="Processes that read the dates of files indexed in place, in the background.",
    )
    home_zone: str = Field(
        default="",
        description="Where things happen whose place is not known, for example Europe/Berlin: "
        "dates that are told in UTC (videos without GPS, Takeout) become local by it. Empty: they "
        "stay in UTC, with little confidence.",
    )

    @field_validator("home_zone")
    @classmethod
    def _known_zone(cls, given: str) -> str:
        if given:
            try:
                ZoneInfo(given)
            except (ZoneInfoNotFoundError, ValueError, OSError) as error:
                raise ValueError(f"{given} is no time zone of the IANA database") from error
        return given

    derivatives: Path | None = Field(
        default=None,
        description="The folder of thumbnails and previews. Empty: `Storage/Derivatives` in the "
        "data folder.",
    )
    thumbnail_processes: int = Field(
        default=1, ge=0, description="Child processes that make thumbnails. 0: one a core."
    )
    thumbnail_seconds: float = Field(
        default=60.0,
        gt=0,
        description="Seconds that the thumbnails of one file may take; then they have failed.",
    )
    thumbnail_memory: int = Field(
        default=3072,
        ge=512,
        description="Megabytes of address space of each process that makes thumbnails.",
    )
    originals: Path = Field(
        default_factory=lambda: _in_data_folder("Storage", "Originals"),
        description="Where received originals are filed. Default: Storage/Originals in the data "
        "folder. Inboxes on the same filesystem need no copying.",
    )
    originals_template: str = Field(
        default="{YYYY}/{YYYY-MM-DD}/{filename}",
        description="Where below `originals` a file goes, by the day on the clock where it was "
        "taken: {YYYY}, {MM}, {DD}, {YYYY-MM}, {YYYY-MM-DD}, at the end {filename}.",
    )
    duplicates: Literal["set-aside", "remove"] = Field(
        default="set-aside",
        description="What happens to a received file whose content the ledger has: `set-aside` "
        "moves it to `duplicates_folder`; `remove` removes it, after the first copy has been read "
        "and found to be the same at that moment. Either way its name and path are kept.",
    )
    duplicates_folder: Path = Field(
        default_factory=lambda: _in_data_folder("Duplicates"),
        description="Where duplicates are set aside. Default: Duplicates in the data folder.",
    )
    set_aside_folder: Path = Field(
        default_factory=lambda: _in_data_folder("Set_Aside"),
        description="Where received files are put that are no photos or videos, or that are "
        "empty. Default: Set_Aside in the data folder.",
    )

    @field_validator("originals", "duplicates_folder", "set_aside_folder")
    @classmethod
    def _absolute(cls, given: Path) -> Path:
        return given.expanduser().absolute()

    @field_validator("originals_template")
    @classmethod
    def _fit(cls, given: str) -> str:
        if fault := fault_of(given):
            raise ValueError(fault)
        return given


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
