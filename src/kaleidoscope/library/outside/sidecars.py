"""Names of faces in photos and the XMP files beside them: read and written in a child process."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kaleidoscope.kernel.errors import KaleidoscopeError
from kaleidoscope.kernel.paths import to_bytes
from kaleidoscope.kernel.store import sync_folder
from kaleidoscope.library.outside import metadata, regions
from kaleidoscope.library.outside.custody import Identity
from kaleidoscope.library.outside.metadata import Listings
from kaleidoscope.library.outside.regions import BadPacket
from kaleidoscope.library.rules import regions as geometry
from kaleidoscope.library.rules.regions import Named
from kaleidoscope.ml import decode
from kaleidoscope.ml.files import opened
from kaleidoscope.ml.sniff import HEAD, is_raw, sniff

Plain = dict[str, Any]


def read_files(tasks: Sequence[Plain]) -> list[Plain]:
    """The named faces of each photo; a task has its `path`.

    Answers `names` (name and box in the image as displayed, 0 to 1), of what is embedded and of
    the XMP files beside it, and `errors` with the file and the cause.
    """
    listings: Listings = {}
    return [_read(task["path"], listings) for task in tasks]


def write_files(tasks: Sequence[Plain]) -> list[Plain]:
    """Write names beside photos. A task has `path`, `names`, `replace` and `dry_run`.

    Answers `written` (files), `added` (names), `conflicts` (file, our name, the name there) and
    `errors`. An original is only ever read.
    """
    listings: Listings = {}
    return [_write(task, listings) for task in tasks]


def _read(path: str, listings: Listings) -> Plain:
    errors: list[str] = []
    size, orientation, embedded = _look(path, errors)
    names: list[Named] = []
    packets = [] if embedded is None else [(path, embedded)]
    for sidecar in _sidecars(path, listings):
        if (content := _content(sidecar, errors)) is not None:
            packets.append((sidecar, content))
    for name, packet in reversed(packets):  # what lies beside is newer than what is embedded
        try:
            found = regions.read(packet)
        except BadPacket as error:
            errors.append(f"{name}: {error}")
            continue
        turn = geometry.orientation_of(found.applied, size, orientation)
        faces = [geometry.displayed(face, turn) for face in found.faces]
        known = geometry.pairs(faces, names)
        names += [face for i, face in enumerate(faces) if i not in known]
    return {"names": [asdict(name) for name in names], "errors": errors}


def _write(task: Plain, listings: Listings) -> Plain:
    path, errors = task["path"], list[str]()
    answer: Plain = {"written": [], "added": 0, "conflicts": [], "errors": errors}
    size, orientation, _ = _look(path, errors)
    if size is None:
        return answer
    names = [Named(**name) for name in task["names"]]
    for sidecar in _sidecars(path, listings) or [f"{path}.xmp"]:
        try:
            status, packet = _open_sidecar(sidecar)
            edited = regions.write(packet, names, size, orientation, replace=task["replace"])
            if edited.packet is not None:
                if not task["dry_run"]:
                    _put(sidecar, edited.packet, status)
                answer["written"].append(sidecar)
            answer["added"] += edited.added
            answer["conflicts"] += [[sidecar, *pair] for pair in edited.conflicts]
        except (BadPacket, KaleidoscopeError) as error:
            errors.append(f"{sidecar}: {error}")
        except OSError as error:
            errors.append(f"{sidecar}: {error.strerror or error}")
    return answer


def _look(path: str, errors: list[str]) -> tuple[tuple[int, int] | None, int, bytes | None]:
    """The size as displayed, the orientation, and the XMP packet of a photo."""
    try:
        with opened(to_bytes(path)) as (file, name):
            mime, _ = sniff(file.read(HEAD), name) or (None, None)
            if mime is None or (mime not in decode.FORMATS and not is_raw(mime)):
                errors.append(f"{path}: is no photo that is known here")
                return None, 1, None
            if is_raw(mime):
                width, height, _ = decode.raw_header(file)
                orientation = metadata.raw_orientation(file, mime) or 1
                return (width, height), orientation, None
            with decode.open_header(file, mime) as image:
                info = image.info
                facts = metadata.exif_of(image, mime)
                orientation = info.get("original_orientation") or facts.orientation or 1
                size = image.size
                if mime not in _UPRIGHT and orientation in geometry.TURNED:
                    size = (size[1], size[0])
                packet = info.get("xmp") or info.get("XML:com.adobe.xmp")
                if isinstance(packet, str):
                    packet = packet.encode()
                return size, orientation, packet
    except KaleidoscopeError as error:
        errors.append(error.message)
    except Exception as error:  # decoders raise anything; a batch goes on
        errors.append(f"{path}: cannot be read: {error or type(error).__name__}")
    return None, 1, None


# Their decoders turn what they open.
_UPRIGHT = frozenset({"image/heic", "image/heif", "image/tiff"})


def _sidecars(path: str, listings: Listings) -> list[str]:
    beside = metadata.sidecars_beside(path, listings)
    return [name for name in beside if name.lower().endswith(".xmp")]


def _content(sidecar: str, errors: list[str]) -> bytes | None:
    try:
        with opened(to_bytes(sidecar)) as (file, _):
            return file.read(regions.MAX_BYTES + 1)
    except KaleidoscopeError as error:
        errors.append(error.message)
        return None


def _open_sidecar(path: str) -> tuple[os.stat_result | None, bytes | None]:
    """A sidecar with its status; neither where there is none. A link is not followed."""
    name = to_bytes(path)
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None, None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BadPacket("it is no plain file")
        content = file.read(regions.MAX_BYTES + 1)
    return status, content or None


def _put(path: str, content: bytes, was: os.stat_result | None) -> None:
    """Have this content under a name, whole or not at all: written and on disk beside it first.

    A file that another program has changed since it was read is left alone.
    """
    name = Path(os.fsdecode(to_bytes(path)))
    draft = name.with_name(f".kaleidoscope-{secrets.token_hex(8)}.xmp.part")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if was is not None:
                os.fchmod(descriptor, stat.S_IMODE(was.st_mode))
                with suppress(OSError):  # only its owner and root may
                    os.fchown(descriptor, was.st_uid, was.st_gid)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        if was is None:
            os.link(draft, name)  # which fails where one has come meanwhile
            draft.unlink()
        else:
            if Identity.of(name.lstat()) != Identity.of(was):
                raise BadPacket("another program has changed it meanwhile")
            draft.replace(name)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(name.parent)
