"""Reading a received file once for all that custody needs: its hash, what it is, what it tells.

For a child process of `ml.pool`: one hand-over carries many files.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from typing import Any

from kaleidoscope.kernel.paths import to_bytes
from kaleidoscope.library.outside.custody import Identity, is_written
from kaleidoscope.library.outside.files import CHUNK, OPEN, ends_of, modified_at, sample_hash
from kaleidoscope.ml.sniff import HEAD, sniff

Plain = dict[str, Any]


def examine(task: Plain) -> list[Plain]:
    """Each file of `task["files"]`: `path`, `name`, `identity`, what its name lets expect
    (`mime_type`, `media_type` or None), `sidecars` (paths), `tells` (False: only hash it) and
    `hash` (False: it is hashed elsewhere).

    Answers `file_hash`, `sample_hash`, `mime_type`, `media_type` (None: no photo or video),
    `links` (names that its content has), `metadata` (as `metadata.read_file` has it) or `trouble`
    [kind, cause].
    """
    return [_examine(file) for file in task["files"]]


def read_content(path: str, expected: Identity, *, hashed: bool = True) -> Plain:
    """Hashes and the first bytes of a file that is still the expected one; or `trouble`."""
    try:
        descriptor = os.open(to_bytes(path), OPEN)
    except FileNotFoundError:
        return _trouble("vanished", "the file is gone")
    except OSError as error:
        return _trouble("unreadable", f"it cannot be read: {error.strerror or error}")
    try:
        return _read(descriptor, expected, hashed)
    except OSError as error:
        return _trouble("unreadable", f"it cannot be read: {error.strerror or error}")
    finally:
        os.close(descriptor)


def _examine(file: Plain) -> Plain:
    found = read_content(file["path"], Identity.parse(file["identity"]), hashed=file["hash"])
    if "trouble" in found:
        return found
    known = sniff(found.pop("head"), file["name"])
    mime, media = known or (file["mime_type"], file["media_type"])
    found |= {"mime_type": mime, "media_type": media, "metadata": None}
    if media is not None and file["tells"]:
        # Only a child needs the decoders; whoever asks it would wait a second for them.
        from kaleidoscope.library.outside import metadata

        known_so_far = {"mime_type": mime, "media_type": media, "modified_at": found["modified_at"]}
        found["metadata"] = metadata.read_file({**file, **known_so_far})
    return found


def _read(descriptor: int, expected: Identity, hashed: bool) -> Plain:
    before = os.fstat(descriptor)
    if not stat.S_ISREG(before.st_mode):
        return _trouble("special", "it is no plain file any more")
    if Identity.of(before) != expected or is_written(descriptor):
        return _trouble("busy", "it is still being written")
    ends = ends_of(descriptor, before.st_size)
    if ends is None:
        return _trouble("busy", "it is still being written")
    first, last = ends
    digest = _digest(descriptor, first) if hashed else None
    if Identity.of(os.fstat(descriptor)) != expected:
        return _trouble("busy", "it is still being written")
    return {
        "file_hash": digest,
        "sample_hash": sample_hash(first, last, before.st_size),
        "modified_at": modified_at(before).isoformat(),
        "links": before.st_nlink,
        "head": first[:HEAD],
    }


def _digest(descriptor: int, first: bytes) -> str:
    digest = hashlib.sha256(first)
    while chunk := os.read(descriptor, CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _trouble(kind: str, cause: str) -> Plain:
    return {"trouble": [kind, cause]}


def names(files: Sequence[Plain]) -> str:
    """What errors call a hand-over."""
    return files[0]["path"] if len(files) == 1 else f"{files[0]['path']} and {len(files) - 1} more"
