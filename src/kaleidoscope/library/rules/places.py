"""Decisions about places: whether files that are gone are gone, or the whole place is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kaleidoscope.library.settings import LibrarySettings

# What a family's plain tools, and every file system, can hold in a name.
UNFIT = re.compile(r'[\\/:*?"<>|\x00-\x1f\x7f]')
LONGEST_NAME = 100


@dataclass(frozen=True)
class Seen:
    """What a look at a place itself found. `trouble`: why it could not be looked at."""

    exists: bool
    is_empty: bool = False
    device: str | None = None
    trouble: str | None = None


def unwell(seen: Seen, device: str | None, files: int) -> str | None:
    """Why a place that holds so many of the ledger's files is not itself; None: it is.

    `device` is the one it was on when all was well.
    """
    if seen.trouble is not None:
        return f"the folder cannot be read: {seen.trouble}"
    if not files:
        return None
    if not seen.exists:
        return f"the folder is gone, with {files} files"
    if seen.is_empty:
        return f"the folder is empty, where {files} files were: is a disk not mounted?"
    if device is not None and seen.device is not None and not same_device(device, seen.device):
        return f"the folder is on another device than before: {seen.device}, not {device}"
    return None


def too_many(gone: int, files: int, settings: LibrarySettings) -> str | None:
    """Why so many vanished files out of `files` are not believed; None: they are."""
    if gone < settings.vanished_files or gone <= settings.vanished_share * files:
        return None
    return f"{gone} of {files} files are gone at once ({100 * gone / files:.0f} %)"


def same_device(before: str, now: str) -> bool:
    """Whether two looks at a device saw the same one.

    A device is told as "TYPE IDENTITY at MOUNT POINT". A file system that has an identity of its
    own is the same wherever it is mounted; of another one the mount point must be the same, too.
    """
    (kind, name, point), (kind_now, name_now, point_now) = _parts(before), _parts(now)
    if kind != kind_now or name != name_now:
        return False
    return bool(name) or point == point_now


def _parts(device: str) -> tuple[str, str, str]:
    what, _, point = device.partition(" at ")
    kind, _, name = what.partition(" ")
    return kind, name, point


def copy_location(file_hash: str, name: str, day: str | None) -> str:
    """Where the backup keeps a content, for plain eyes: its day, its name, a part of its hash."""
    stem, dot, extension = UNFIT.sub("_", name).rpartition(".")
    if not dot or len(extension) > 10:
        stem, extension = UNFIT.sub("_", name), ""
    short = stem.strip(" .")[:LONGEST_NAME] or "unnamed"
    folder = f"{day[:4]}/{day}" if day else "undated"
    ending = f".{extension}" if extension else ""
    return f"originals/{folder}/{short}.{file_hash[:16]}{ending}"
