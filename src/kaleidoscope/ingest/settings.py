"""What may be chosen about taking photos in."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

from kaleidoscope.kernel.settings import Section, data_dir

PHOTOS = ["jpg", "jpeg", "jpe", "jfif", "mpo", "png", "heic", "heif", "hif", "webp", "avif"]
PHOTOS += ["tif", "tiff", "gif", "bmp", "jp2", "j2k", "psd"]
RAWS = ["nef", "cr2", "cr3", "crw", "dng", "arw", "orf", "pef", "raf", "rw2", "srw", "x3f"]
VIDEOS = ["mp4", "mov", "m4v", "3gp", "3g2", "avi", "mkv", "webm"]
VIDEOS += ["mpg", "mpeg", "mts", "m2ts", "flv"]
SYSTEM_FOLDERS = [
    "@eaDir",
    "#recycle",
    "@Recycle",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
    "__MACOSX",
]


def _usual_roots() -> list[Path]:
    """Where a user's photos lie: their home, the data folder, and what is mounted."""
    mounts = map(Path, ("/media", "/mnt", "/srv", "/run/media", "/Volumes"))
    return [Path.home(), data_dir(), *(mount for mount in mounts if mount.is_dir())]


class IngestSettings(Section):
    """Taking folders in: what is allowed, what is looked at, how it is published."""

    section: ClassVar[str] = "ingest"

    roots: list[Path] = Field(
        default_factory=_usual_roots,
        description="Folders that requests may name, with all below them, links resolved. "
        "Default: the home folder, the data folder, /media, /mnt, /srv, /run/media and /Volumes. "
        "`kaleidoscope ingest` may name any folder: whoever can run it can read the files anyway.",
    )
    extensions: list[str] = Field(
        default=[*PHOTOS, *RAWS, *VIDEOS],
        description="File name extensions of what is taken in, in any case. A name without an "
        "extension is taken in when its first bytes are those of such a file.",
    )
    skip_folders: list[str] = Field(
        default=SYSTEM_FOLDERS,
        description="Names of folders that are passed over: thumbnails and bins of other programs.",
    )
    hidden: bool = Field(
        default=False,
        description="Whether files and folders whose names begin with a dot are taken in.",
    )
    batch_size: int = Field(
        default=50, ge=1, le=10_000, description="Photos in a batch, where a request says nothing."
    )
    batches_in_flight: int = Field(
        default=200,
        ge=1,
        description="Batches of one job that are registered and not yet looked at, at most: the "
        "scan waits for recognition.",
    )
    publish_tries: int = Field(
        default=3,
        ge=1,
        description="How often publishing a batch is tried at once before it is FAILED.",
    )
    publish_failures: int = Field(
        default=30,
        ge=1,
        description="After so many failed tries in all the photos of a batch become dead letters.",
    )
    publish_again_after: float = Field(
        default=30.0,
        gt=0,
        description="Seconds before a FAILED batch is published again; each further wait is twice "
        "as long, up to an hour.",
    )
    overdue_after: float = Field(
        default=120.0,
        gt=0,
        description="Seconds after which the ledger is asked about a photo whose end was not told, "
        "and a batch that is READY is published again.",
    )
    photos_per_second: float = Field(
        default=4.0,
        gt=0,
        description="Speed that a dry run reckons with while nothing has been measured.",
    )

    @field_validator("extensions")
    @classmethod
    def _plain(cls, given: list[str]) -> list[str]:
        return [extension.strip().lstrip(".").lower() for extension in given]

    @field_validator("roots")
    @classmethod
    def _absolute(cls, given: list[Path]) -> list[Path]:
        return [root.expanduser().absolute() for root in given]


def _default_inbox() -> list[Path]:
    return [data_dir() / "Photos_Inbox"]


# Unfinished downloads and copies, and what other programs keep for themselves.
UNFINISHED = ["*.part", "*.partial", "*.tmp", "*.temp", "*.crdownload", "*.download", "*.!qB"]
UNFINISHED += ["~*", ".*", "Thumbs.db", "desktop.ini", "Icon?"]


class InboxSettings(Section):
    """The inboxes that the librarian files photos from."""

    section: ClassVar[str] = "inbox"

    folders: list[Path] = Field(
        default_factory=_default_inbox,
        description="Folders whose files are filed, with all below them. Default: Photos_Inbox in "
        "the data folder. They are made where they are missing, in a folder that is there.",
    )
    settle_seconds: float = Field(
        default=5.0,
        ge=0,
        description="How long size and time of a file must stay the same before it is touched.",
    )
    sweep_seconds: float = Field(
        default=60.0,
        gt=0,
        description="How often every inbox is looked through whatever the system tells: network "
        "shares tell nothing.",
    )
    watch: bool = Field(
        default=True, description="Whether the system is asked to tell of changes at once."
    )
    ignore: list[str] = Field(
        default=UNFINISHED,
        description="Patterns of names that are passed over, files and folders; the folders of "
        "`ingest.skip_folders` are, too.",
    )
    sidecar_seconds: float = Field(
        default=600.0,
        ge=0,
        description="How long a sidecar waits for its photo before it is set aside.",
    )
    retry_seconds: float = Field(
        default=60.0,
        gt=0,
        description="How long a file that could not be filed waits for another try, unless it "
        "changes; so does everything where the originals' disk is full or cannot be written.",
    )
    portion: int = Field(
        default=256, ge=1, le=5000, description="Files that are filed in one transaction."
    )

    @field_validator("folders")
    @classmethod
    def _absolute(cls, given: list[Path]) -> list[Path]:
        return [folder.expanduser().absolute() for folder in given]
