"""What a file says of itself: when and where it was taken, by which camera, how large it is.

For a child process (`ml.pool` runs `read_file` or `read_files`): decoders are C, and files come
from anywhere. Bad content is never an error that ends the work: what can be had is answered, with
`error` beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from PIL import ExifTags, Image

from kaleidoscope.kernel.errors import KaleidoscopeError
from kaleidoscope.kernel.paths import to_bytes
from kaleidoscope.ml.files import opened

Plain = dict[str, Any]


def read_files(tasks: Sequence[Plain]) -> list[Plain]:
    """`read_file` of each: one hand-over to a child carries many."""
    return [read_file(task) for task in tasks]


def read_file(task: Plain) -> Plain:
    """The metadata of one file, as plain data.

    `task`: `path` (spelled by `kernel.paths.to_text`), `mime_type`, `media_type` (photo, video),
    `name` (the original file name), `modified_at` (ISO), `sidecars` (paths). Answers `width` and
    `height` as displayed, `orientation`, `duration_seconds`, `frame_rate`, `location` ({lat, lon}),
    `candidates` (each `source`, `at`, `offset_minutes`, `confidence`), `camera_make`,
    `camera_model`, `camera_serial`, `content_id`, `is_motion_photo`, `error`.
    """
    found: Plain = {
        "width": None,
        "height": None,
        "orientation": None,
        "duration_seconds": None,
        "frame_rate": None,
        "location": None,
        "candidates": [],
        "camera_make": None,
        "camera_model": None,
        "camera_serial": None,
        "content_id": None,
        "is_motion_photo": False,
        "error": None,
    }
    try:
        with opened(to_bytes(task["path"])) as (file, _), Image.open(file) as image:
            exif = image.getexif()
            orientation = exif.get(ExifTags.Base.Orientation)
            turned = isinstance(orientation, int) and 5 <= orientation <= 8
            found["orientation"] = orientation
            found["width"], found["height"] = image.size[::-1] if turned else image.size
            written = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)
            if isinstance(written, str):
                at = datetime.strptime(written.strip("\0 "), "%Y:%m:%d %H:%M:%S")
                found["candidates"].append(_candidate("exif:DateTimeOriginal", at, None, "high"))
            found["camera_make"], found["camera_model"] = exif.get(271), exif.get(272)
    except KaleidoscopeError as error:
        found["error"] = error.message
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {error}"
    if task.get("modified_at"):
        modified = datetime.fromisoformat(task["modified_at"]).astimezone(UTC)
        found["candidates"].append(_candidate("mtime", modified.replace(tzinfo=None), 0, "low"))
    return found


def _candidate(source: str, at: datetime, offset_minutes: int | None, confidence: str) -> Plain:
    return {
        "source": source,
        "at": at.isoformat(),
        "offset_minutes": offset_minutes,
        "confidence": confidence,
    }
