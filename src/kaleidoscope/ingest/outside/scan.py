"""Looking through a folder: which photos and videos are in it, and what cannot be read.

The walk works on bytes, since a name is any bytes but "/" and NUL. It never follows a link, so it
leaves the folder nowhere and comes to its end. Nothing that it meets ends it: what could not be
taken in becomes a `Trouble` with its cause, what was not meant to be, a `Skip`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kaleidoscope.ingest.settings import VIDEOS, IngestSettings
from kaleidoscope.kernel.paths import to_text
from kaleidoscope.library.service import OPEN, ScannedFile, ends_of, modified_at, sample_hash
from kaleidoscope.ml.sniff import HEAD, MediaType, sniff

# What a file is taken for whose first bytes tell nothing: recognition will say what is wrong.
MIME_BY_EXTENSION = {
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "heic": "image/heic",
    "heif": "image/heif",
    "nef": "image/x-nikon-nef",
    "cr2": "image/x-canon-cr2",
    "webp": "image/webp",
    "avif": "image/avif",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "dng": "image/x-adobe-dng",
    "arw": "image/x-sony-arw",
    "mp4": "video/mp4",
    "mov": "video/quicktime",
}
KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that should have been taken in and could not be.

    `path` is spelled by `kernel.paths.to_text`, `code` is the cause in a word, `cause` in a
    sentence.
    """

    path: str
    code: str
    cause: str


@dataclass(frozen=True, slots=True)
class Skip:
    """Something that was passed over on purpose: a link, another kind of file, a hidden one …"""

    cause: str


Item = ScannedFile | Trouble | Skip


@dataclass(frozen=True)
class Filter:
    """What the walk takes in. Names are bytes; `without` are folders passed over by their path."""

    extensions: frozenset[bytes]
    skip_folders: frozenset[bytes] = frozenset()
    without: frozenset[bytes] = frozenset()
    hidden: bool = False

    @staticmethod
    def of(settings: IngestSettings, *without: Path) -> Filter:
        """What the settings say. Resolves the links of `without`."""
        return Filter(
            frozenset(map(os.fsencode, settings.extensions)),
            frozenset(map(os.fsencode, settings.skip_folders)),
            frozenset(os.path.realpath(os.fsencode(folder)) for folder in without),
            settings.hidden,
        )


def scan(root: bytes, wanted: Filter, *, recursive: bool = True) -> Iterator[Item]:
    """Every photo and video below `root`, whose own links are resolved, as the disk lists them.

    Raises `OSError` when `root` itself cannot be read. Memory grows with the number of folders
    still to be read, not of files.
    """
    os.scandir(root).close()
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    found = _look(entry, wanted, recursive)
                    if isinstance(found, bytes):
                        folders.append(found)
                    else:
                        yield found
        except OSError as error:
            yield _trouble(folder, error, "folder")


def _look(entry: os.DirEntry[bytes], wanted: Filter, recursive: bool) -> Item | bytes:
    """What an entry of a folder is; its path, if it is a folder to go into."""
    try:
        if entry.is_symlink():
            return Skip("link")
        if entry.is_dir(follow_symlinks=False):
            return _look_at_folder(entry, wanted, recursive)
        if entry.name.startswith(b".") and not wanted.hidden:
            return Skip("hidden")
        extension = _extension(entry.name)
        if extension and extension not in wanted.extensions:
            return Skip("extension")
        if not entry.is_file(follow_symlinks=False):
            kind = KINDS.get(stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode), "no file")
            return Trouble(to_text(entry.path), "special-file", f"it is {kind}, not a file")
        return _look_at_file(entry.path, extension)
    except OSError as error:
        return _trouble(entry.path, error, "file")


def _look_at_folder(entry: os.DirEntry[bytes], wanted: Filter, recursive: bool) -> Item | bytes:
    if not recursive:
        return Skip("subfolder")
    if entry.name.startswith(b".") and not wanted.hidden:
        return Skip("hidden-folder")
    if entry.name in wanted.skip_folders or entry.path in wanted.without:
        return Skip("system-folder")
    return entry.path


def _look_at_file(path: bytes, extension: bytes) -> Item:
    text = to_text(path)
    descriptor = os.open(path, OPEN)
    try:
        before = os.fstat(descriptor)
        size = before.st_size
        if not stat.S_ISREG(before.st_mode):
            return Trouble(text, "special-file", "it is no plain file any more")
        ends = ends_of(descriptor, size)
        after = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if ends is None or (size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        return Trouble(text, "changing", "it was written to while it was read; scan it again")
    first, last = ends
    kind = _kind(first, extension)
    if kind is None:
        return Skip("extension")
    mime, media = kind
    return ScannedFile(
        path=text,
        size=size,
        modified_at=modified_at(before),
        sample_hash=sample_hash(first, last, size),
        mime_type=mime,
        media_type=media,
    )


def _kind(first: bytes, extension: bytes) -> tuple[str | None, MediaType] | None:
    """What a file is: by its first bytes, else by its extension; None: nothing for us."""
    name = "." + extension.decode("ascii", "replace")
    known = sniff(first[:HEAD], name)
    if known or not extension:
        return known
    suffix = name[1:]
    return MIME_BY_EXTENSION.get(suffix), "video" if suffix in VIDEOS else "photo"


def _extension(name: bytes) -> bytes:
    """The extension in lower case and without blanks around it; empty where there is none."""
    stem, dot, extension = name.rpartition(b".")
    return extension.strip().lower() if dot and stem else b""


def _trouble(path: bytes, error: OSError, kind: str) -> Trouble:
    text = to_text(path)
    if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
        # ELOOP and ENOTDIR: replaced by a link or a file; ENXIO: by a socket.
        return Trouble(text, "vanished", f"the {kind} was gone before it could be read")
    code = "path-too-long" if error.errno == errno.ENAMETOOLONG else f"unreadable-{kind}"
    return Trouble(text, code, f"the {kind} cannot be read: {error.strerror or error}")
