"""Thumbnails and previews: where they lie, and how they are made.

Their names are made of the content's hash, so that duplicates share them and a file with other
content has others. `make` runs in a child of `ml.pool`: decoders are C, and files come from
anywhere.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from kaleidoscope.kernel.errors import Conflict, KaleidoscopeError, UnreadableMedia
from kaleidoscope.kernel.paths import to_bytes, to_text
from kaleidoscope.kernel.settings import data_dir, load
from kaleidoscope.library.outside.files import modified_at
from kaleidoscope.library.schemas import DerivativeKind as Kind
from kaleidoscope.library.settings import LibrarySettings
from kaleidoscope.ml.files import opened

if TYPE_CHECKING:
    from PIL import Image

    from kaleidoscope.ml.decode import Pixels

KINDS: tuple[Kind, ...] = ("thumbnail", "preview")

SIDES: dict[Kind, int] = {"thumbnail": 250, "preview": 1440}
"""Pixels of the longer side; a smaller picture stays as small as it is."""

LARGEST = max(SIDES.values())

TYPES: dict[Kind, str] = {"thumbnail": "image/webp", "preview": "image/jpeg"}

# Measured (bench/bench_thumbnails.py): at 1440 pixels JPEG takes a tenth of the time of WebP and
# 1.3 to 1.8 times its room, and time is what a million photos lack.
_ENCODERS: dict[Kind, tuple[str, dict[str, Any]]] = {
    "thumbnail": ("WEBP", {"quality": 80, "method": 2}),
    "preview": ("JPEG", {"quality": 82}),
}
_SUFFIXES: dict[Kind, str] = {"thumbnail": "250.webp", "preview": "1440.jpg"}
_MAKING = "making"
_ABANDONED = timedelta(hours=1)
_LONG = timedelta(days=1)

SHARDS = 256
"""Parts of the folder, by the first two digits of the hash."""


class StorageProblem(KaleidoscopeError):
    """Where our own files go, nothing can be written."""

    code, status, exit_code = "storage", 507, 15


def folder() -> Path:
    """Where derivatives lie: `library.derivatives`, else `Storage/Derivatives` of the data."""
    return load(LibrarySettings).derivatives or data_dir() / "Storage" / "Derivatives"


def path_of(file_hash: str, kind: Kind, root: Path | None = None) -> Path:
    """Where the derivative of a content lies, whether or not it has been made."""
    return (root or folder()) / file_hash[:2] / file_hash[2:4] / f"{file_hash}-{_SUFFIXES[kind]}"


def are_made(file_hash: str) -> bool:
    """Whether every derivative of a content lies there."""
    return bytes_of(file_hash) is not None


def bytes_of(file_hash: str) -> int | None:
    """What the derivatives of a content take; None: one of them does not lie there."""
    try:
        return sum(path_of(file_hash, kind).stat().st_size for kind in KINDS)
    except OSError:  # a folder that cannot be entered is told of by who writes there
        return None


def forget(file_hash: str) -> None:
    """Remove a content's derivatives: they are made anew when they are next asked for."""
    for kind in KINDS:
        path_of(file_hash, kind).unlink(missing_ok=True)


def prepare() -> None:
    """Make the folder, where that is possible.

    Whoever else comes by a large picture writes its derivatives where the folder is, and only there
    (see `outside.looking`).
    """
    with suppress(OSError):
        folder().mkdir(parents=True, exist_ok=True)


def task_of(
    path: str,
    size: int,
    modified: datetime | None,
    media_type: str,
    file_hash: str,
    *,
    only_measure: bool = False,
) -> dict[str, Any]:
    """What `make` is asked to do; `path` spelled by `kernel.paths.to_text`."""
    return {
        "only_measure": only_measure,
        "path": path,
        "size": size,
        "modified_at": modified and modified.isoformat(),
        "media_type": media_type,
        "file_hash": file_hash,
        "folder": to_text(folder()),
    }


def make(task: dict[str, Any]) -> dict[str, Any]:
    """Write every derivative of a file: one decoding makes them all.

    Answers `width` and `height` as displayed, `ms`, `bytes` and `damage` (what is wrong with a
    file that is not whole). Asked to `only_measure` a file whose derivatives lie there, it answers
    `width` and `height` from its header, where that tells them. Raises as `ml.decode.decode`;
    `Conflict` for a file that is not what the ledger knows; `StorageProblem` where nothing can be
    written.
    """
    started = time.monotonic()
    path = to_bytes(task["path"])
    _check_unchanged(path, task)
    if task["only_measure"] and (size := _measured(path)) is not None:
        _check_unchanged(path, task)
        return size
    width, height, pixels, damage = _picture(path, task["media_type"])
    _check_unchanged(path, task)
    written = write(pixels, task["file_hash"], Path(os.fsdecode(to_bytes(task["folder"]))))
    return {
        "width": width,
        "height": height,
        "ms": round((time.monotonic() - started) * 1000),
        "bytes": written,
        "damage": damage,
    }


def write(pixels: Pixels, file_hash: str, root: Path) -> int:
    """Write every derivative of a content into a folder; answers how many bytes.

    `pixels`: its picture, at most `LARGEST` long. Raises `StorageProblem`.
    """
    from PIL import Image

    image, written = Image.fromarray(pixels), 0
    for kind in reversed(KINDS):  # the small one is made of the large one
        image = _shrunk(image, SIDES[kind])
        written += _write(image, root, file_hash, kind)
    return written


def sweep() -> int:
    """Remove what processes that died left half made; answers how many files."""
    number, now = 0, time.time()
    with suppress(FileNotFoundError, NotADirectoryError):
        for entry in os.scandir(folder() / _MAKING):
            if now - entry.stat().st_mtime > _ABANDONED.total_seconds():
                Path(entry).unlink(missing_ok=True)
                number += 1
    return number


def old_ones(shard: int) -> dict[str, list[Path]]:
    """Derivatives that have lain for a day, by the hash of their content.

    Only those of the `shard`th of `SHARDS` parts of the folder.
    """
    found: dict[str, list[Path]] = {}
    for path in (folder() / f"{shard:02x}").glob("*/*-*"):
        if time.time() - path.stat().st_mtime > _LONG.total_seconds():
            found.setdefault(path.name.partition("-")[0], []).append(path)
    return found


def _picture(path: bytes, media_type: str) -> tuple[int, int, Pixels, str | None]:
    # Decoders are imported by the child alone: every process knows where derivatives lie.
    from kaleidoscope.ml import video
    from kaleidoscope.ml.decode import MEMORY, decode

    if media_type == "video":
        return *video.poster(path, max_side=LARGEST), None
    found = decode(path, max_side=LARGEST, memory=MEMORY)
    return found.width, found.height, found.image, found.damage


def _measured(path: bytes) -> dict[str, Any] | None:
    from kaleidoscope.ml.decode import probe

    try:
        found = probe(path)
    except UnreadableMedia:  # there are headers that only a thorough decoder reads
        return None
    return {"width": found.width, "height": found.height}


def _check_unchanged(path: bytes, task: dict[str, Any]) -> None:
    """The file is the one that was hashed, so that the derivative bears the right name."""
    with opened(path) as (file, name):
        status = os.fstat(file.fileno())
    seen = modified_at(status).isoformat()
    if status.st_size != task["size"] or task["modified_at"] not in (None, seen):
        raise Conflict(f"{name}: the file has changed since it was scanned", path=name)


def _shrunk(image: Image.Image, side: int) -> Image.Image:
    from PIL import Image

    if max(image.size) <= side:
        return image
    factor = side / max(image.size)
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def _write(image: Image.Image, root: Path, file_hash: str, kind: Kind) -> int:
    """All of it or nothing under its name, whatever dies in between; answers its size."""
    encoder, options = _ENCODERS[kind]
    target, half_made = path_of(file_hash, kind, root), root / _MAKING / uuid4().hex
    try:
        half_made.parent.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with half_made.open("wb") as file:
                image.save(file, encoder, **options)
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            half_made.replace(target)
        except BaseException:
            half_made.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageProblem(
            f"derivatives cannot be written to {root}: {error.strerror or error}",
            hint="make room there, or name another folder as library.derivatives",
        ) from error
    return size
