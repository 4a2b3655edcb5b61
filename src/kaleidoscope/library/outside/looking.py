"""What a child of the ML service does with a photo of the library: its faces, and by the way its
thumbnail and preview, since for a large photo decoding is the larger part of either.

The name of a derivative is made of the content's hash: what is hashed are the very bytes that are
decoded, whatever happens to the file meanwhile.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress

from kaleidoscope.kernel.errors import KaleidoscopeError, UnreadableMedia
from kaleidoscope.kernel.paths import to_bytes
from kaleidoscope.kernel.settings import load
from kaleidoscope.library.outside import derivatives
from kaleidoscope.ml import work
from kaleidoscope.ml.decode import Decoded, decode_sizes, probe
from kaleidoscope.ml.engine import timed
from kaleidoscope.ml.files import Content, opened
from kaleidoscope.ml.settings import MlSettings
from kaleidoscope.ml.work import Answer, Opened, Task
from kaleidoscope.ml.work import on_idle as on_idle

MOST = 128 << 20
"""Bytes of a file that is held in memory; a larger one is decoded twice, as it is read."""


def look(task: Task) -> Answer:
    """What `ml.work.analyse` answers. `task` has `photo_id`, too, where the photo is the library's.

    Of such a one, where it is larger than a preview, the derivatives are made unless they are
    there; `timings` then tells what writing them took. Where they cannot be written, or should
    tell of a damage, `derivatives.make` has its turn later as for every other photo.
    """
    return work.analyse(task, _opened)


def look_all(tasks: Sequence[Task]) -> list[Answer | Exception]:
    """What `look` makes of each, or raises."""
    return work.analyse_all(tasks, _opened)


def _opened(task: Task) -> Opened:
    timings: dict[str, float] = {}
    with timed(timings, "decode"):
        wanting = _wanting(to_bytes(task["path"])) if "photo_id" in task else None
    if wanting is None:
        return work.open_photo(task)
    file_hash, large, photo = wanting
    if large.damage is None:
        with (
            suppress(derivatives.StorageProblem, MemoryError),
            timed(timings, "derivatives"),
        ):
            derivatives.write(large.image, file_hash, derivatives.folder())
    return photo, timings


def _wanting(path: bytes) -> tuple[str, Decoded, Decoded] | None:
    """The hash of a large photo whose derivatives are wanting, and its picture as large as a
    preview and as faces are sought in it. None: it is none, or is better looked at alone.
    """
    content = _content(path)
    if content is None:
        return None
    file_hash = hashlib.sha256(content.data).hexdigest()
    if derivatives.are_made(file_hash):
        return None
    try:
        return file_hash, *_decoded(content)
    except UnreadableMedia:  # smaller it may fit in its memory, and tells of itself if it does not
        return None


def _content(path: bytes) -> Content | None:
    """All that a large photo's file holds; None: it is none, or there is no folder to write to.

    On another machine than the library's there is none, and nobody who would sweep it.
    """
    try:
        if not derivatives.folder().is_dir():
            return None
        found = probe(path)
        if found.media_type == "video" or max(found.width, found.height) <= derivatives.LARGEST:
            return None
        with opened(path) as (file, _):
            small = os.fstat(file.fileno()).st_size <= MOST
            return Content(path, file.read()) if small else None
    except (KaleidoscopeError, OSError, MemoryError):  # told by who decodes it
        return None


def _decoded(content: Content) -> tuple[Decoded, Decoded]:
    """The picture as large as a preview, and as faces are sought in it."""
    settings = load(MlSettings)
    sides = (derivatives.LARGEST, settings.decode_side)
    largest_first = sorted(sides, reverse=True)
    made = decode_sizes(content, largest_first, memory=settings.photo_memory)
    by_side = dict(zip(largest_first, made, strict=True))
    return by_side[sides[0]], by_side[sides[1]]
