"""Opening a file that somebody else put there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from kaleidoscope.kernel.errors import NotFound, Unavailable, UnreadableMedia
from kaleidoscope.kernel.paths import to_text


@dataclass(frozen=True)
class Content:
    """What has been read of the file at `path`: all of it."""

    path: bytes
    data: bytes


Source = bytes | Path | BinaryIO | Content
"""The path of a file, as `Path` or as its bytes, a file that is open already, or what it holds."""


@contextmanager
def opened(source: Source) -> Iterator[tuple[BinaryIO, str]]:
    """The open file, at its start, and its name for messages.

    Raises `NotFound` or `Unavailable` when it cannot be reached, `UnreadableMedia` when it is no
    regular file or empty. All name it.
    """
    if isinstance(source, Content):
        yield BytesIO(source.data), to_text(source.path)
        return
    if not isinstance(source, bytes | Path):
        source.seek(0)
        yield source, "the file"
        return
    name = to_text(source)
    try:
        # A FIFO would block here for ever, a device may never end.
        descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"{name}: no such file", path=name) from error
    except OSError as error:
        raise Unavailable(f"{name}: {error.strerror}", path=name) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise UnreadableMedia(f"{name}: is not a regular file", path=name, reason="not-media")
    with os.fdopen(descriptor, "rb") as file:
        if status.st_size == 0:
            raise UnreadableMedia(f"{name}: is an empty file", path=name, reason="empty")
        yield file, name
