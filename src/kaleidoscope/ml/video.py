"""What a video says about itself, and its first picture, by FFmpeg's libraries (PyAV).

Like `decode`, for a child process: `ml.pool` runs `read_file`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import av
import numpy as np
import numpy.typing as npt

from kaleidoscope.kernel.errors import UnreadableMedia
from kaleidoscope.kernel.paths import to_bytes
from kaleidoscope.ml.files import Source
from kaleidoscope.ml.files import opened as opened_file

MAX_PIXELS = 200_000_000

_POSTER_AT = (0.1, 0.4, 0.0)  # parts of a film where its poster is sought
_POSTER_SECONDS = 3.0  # … and not later than so many seconds for the first of them
_TELLING = 12.0  # deviation of the brightness from which a picture shows something
_UNSAID = 2  # AVCOL_SPC_UNSPECIFIED

av.logging.set_level(av.logging.PANIC)  # what is wrong comes as exceptions


@dataclass(frozen=True)
class VideoInfo:
    """`width`, `height` as displayed (upright), `duration` in seconds, `frame_rate` a second.

    `tags` are the texts of the container and its streams, by their names in small letters.
    """

    width: int
    height: int
    duration: float | None
    frame_rate: float | None
    codec: str
    tags: dict[str, str]


def read(source: Source) -> VideoInfo:
    """The metadata of a video whose first picture can be decoded.

    Raises `UnreadableMedia` that names file and cause; `NotFound` or `Unavailable` when the file
    cannot be reached.
    """
    with opened_file(source) as (file, name):
        return read_open(file, name)


def read_open(file: BinaryIO, name: str) -> VideoInfo:
    """`read` for an open file, called `name` in messages."""
    file.seek(0)
    try:
        with opened(file) as container:
            stream = picture_stream(container)
            return _info(container, stream, first_frame(container, stream))
    except (av.FFmpegError, LookupError, ValueError) as error:
        raise _unreadable(name, error) from error


def tags_open(file: BinaryIO) -> dict[str, str]:
    """The texts of a video of which nothing else may be readable; none of one that is none."""
    file.seek(0)
    try:
        with opened(file) as container:
            return _tags(container)
    except (av.FFmpegError, LookupError, ValueError):
        return {}


def read_file(path: str) -> dict[str, Any]:
    """`read` for the pool: a path spelled by `kernel.paths`, the metadata as plain data."""
    return asdict(read(to_bytes(path)))


def opened(file: BinaryIO) -> AbstractContextManager[Any]:
    """An open container. Strings in it may be in any encoding."""
    container: AbstractContextManager[Any] = av.open(file, metadata_errors="replace")
    return container


def picture_stream(container: Any) -> Any:
    """The stream with the pictures; LookupError when there is none, ValueError for a giant."""
    stream = next(iter(container.streams.video), None)
    if stream is None:
        raise LookupError("it has no pictures")
    if stream.codec_context is None:
        raise LookupError("no decoder here knows its pictures")
    stream.codec_context.thread_count = 1
    if stream.width * stream.height > MAX_PIXELS:
        raise ValueError(f"{stream.width} × {stream.height} pixels are too many")
    return stream


def first_frame(container: Any, stream: Any) -> Any:
    """The first picture; LookupError when none can be decoded."""
    for frame in container.decode(stream):
        return frame
    raise LookupError("no picture in it can be decoded")


def poster(source: Source, *, max_side: int) -> tuple[int, int, npt.NDArray[np.uint8]]:
    """A picture that stands for a video: displayed width and height, and its pixels.

    uint8 [h, w, 3] RGB, upright, at most `max_side` long. Not the first one, which is black as
    often as not. Raises as `read`.
    """
    with opened_file(source) as (file, name):
        file.seek(0)
        try:
            with opened(file) as container:
                stream = picture_stream(container)
                chosen = _most_telling(_candidates(container, stream))
                turned = round(chosen.rotation / 90) % 2 == 1
                size = (chosen.width, chosen.height)
                return *(size[::-1] if turned else size), upright(chosen, max_side)
        except (av.FFmpegError, LookupError, ValueError) as error:
            raise _unreadable(name, error) from error


def upright(frame: Any, max_side: int | None = None) -> npt.NDArray[np.uint8]:
    """A frame's pixels, uint8 [h, w, 3] RGB, turned as it is to be displayed."""
    longest = max(frame.width, frame.height)
    scale = min(1.0, max_side / longest) if max_side else 1.0
    # Films of this size that do not say how their colours are spelled use that of HDTV.
    unsaid = frame.colorspace == _UNSAID and longest >= 1280
    rgb = frame.reformat(
        width=max(1, round(frame.width * scale)),
        height=max(1, round(frame.height * scale)),
        format="rgb24",
        src_colorspace="ITU709" if unsaid else None,
        interpolation="AREA" if scale < 1 else "BICUBIC",
        threads=1,
    )
    pixels: npt.NDArray[np.uint8] = rgb.to_ndarray()
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


def _unreadable(name: str, error: Exception) -> UnreadableMedia:
    cause = getattr(error, "strerror", None) or str(error)
    return UnreadableMedia(
        f"{name}: the video cannot be read: {cause}", path=name, reason="damaged"
    )


def _candidates(container: Any, stream: Any) -> Iterator[Any]:
    """Pictures from a few places of a film, the first one last. Not all of them can be had."""
    seconds = container.duration / av.time_base if container.duration else 0.0
    for part in _POSTER_AT:
        at = min(part * seconds, _POSTER_SECONDS) if part == _POSTER_AT[0] else part * seconds
        try:
            container.seek(round(at * av.time_base))
            yield first_frame(container, stream)
        except (av.FFmpegError, LookupError):
            if part == 0.0:
                raise


def _most_telling(frames: Iterator[Any]) -> Any:
    """The first picture that shows something, else the one that shows most."""
    best, most = None, -1.0
    for frame in frames:
        shown = float(frame.reformat(width=64, height=64, format="gray").to_ndarray().std())
        if shown > most:
            best, most = frame, shown
        if most >= _TELLING:
            break
    return best


def _info(container: Any, stream: Any, frame: Any) -> VideoInfo:
    turned = round(frame.rotation / 90) % 2 == 1
    size = (frame.height, frame.width) if turned else (frame.width, frame.height)
    duration = container.duration / av.time_base if container.duration else None
    rate = float(stream.average_rate) if stream.average_rate else None
    return VideoInfo(*size, duration, rate, stream.codec_context.name, _tags(container))


def _tags(container: Any) -> dict[str, str]:
    """The container's own stand before those of its streams."""
    tags: dict[str, str] = {}
    for told in (container.metadata, *(stream.metadata for stream in container.streams)):
        for name, text in told.items():
            tags.setdefault(name.lower(), text)
    return tags
