"""Files that lie beside the originals, as the disk shows them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from kaleidoscope.kernel.paths import to_bytes, to_text
from kaleidoscope.library.outside.files import modified_at
from kaleidoscope.library.outside.originals import content_hash, is_damaged_one
from kaleidoscope.library.outside.places import GONE
from kaleidoscope.library.rules import companions


@dataclass(frozen=True)
class Beside:
    """A file on the disk. `owner`: the path of the photo that its name tells of, if it does."""

    path: str
    size: int
    modified_at: datetime
    owner: str | None = None


def files(root: bytes) -> Iterator[list[Beside]]:
    """Every plain file below a folder, folder by folder; hidden ones are left out."""
    for folder, names in _folders(root):
        found = [_look(folder, name) for name in names]
        yield [one for one in found if one is not None]


def sidecars(root: bytes) -> Iterator[list[Beside]]:
    """The files below a folder that tell, by their names, of a file beside them."""
    for folder, names in _folders(root):
        telling = [name for name in names if companions.is_sidecar(name)]
        if not telling:
            continue
        media = companions.Folder([name for name in names if not companions.is_sidecar(name)])
        found = []
        for name in telling:
            owner = media.owner(name)
            if owner is not None:
                found.append(_look(folder, name, to_text(folder + b"/" + owner)))
        yield [one for one in found if one is not None]


def seen(paths: Sequence[str]) -> list[Beside | Literal["gone", "unknown"]]:
    """Each of these files as it lies there; `unknown` where the system does not say."""
    return [_seen(path) for path in paths]


def _seen(path: str) -> Beside | Literal["gone", "unknown"]:
    try:
        status = os.lstat(to_bytes(path))
    except OSError as error:
        return "gone" if error.errno in GONE else "unknown"
    return Beside(path, status.st_size, modified_at(status))


def content(path: str) -> tuple[int, datetime, str] | None:
    """Size, time and SHA-256 of a file; None: it cannot be read, or was written to meanwhile."""
    try:
        before = os.lstat(to_bytes(path))
        digest = content_hash(path)
        after = os.lstat(to_bytes(path))
    except OSError:
        return None
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        return None
    return after.st_size, modified_at(after), digest


def _folders(root: bytes) -> Iterator[tuple[bytes, Sequence[bytes]]]:
    """Every folder below, links not followed, with the names of its plain files."""
    folders = [root]
    while folders:
        folder = folders.pop()
        names: list[bytes] = []
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(b"."):
                    continue
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.is_file(follow_symlinks=False) and not is_damaged_one(entry.name):
                        names.append(entry.name)
        yield folder, sorted(names)


def _look(folder: bytes, name: bytes, owner: str | None = None) -> Beside | None:
    path = folder + b"/" + name
    try:
        status = os.lstat(path)
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return Beside(to_text(path), status.st_size, modified_at(status), owner)
