"""What the child processes of the ML service do: a photo in, its faces out, as plain data."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from kaleidoscope.kernel.paths import to_bytes
from kaleidoscope.kernel.settings import load
from kaleidoscope.ml import catalog, fakes
from kaleidoscope.ml.decode import Decoded, decode
from kaleidoscope.ml.engine import Face, FaceEngine, Seen, load_engine, timed
from kaleidoscope.ml.picture import perceptual_hash
from kaleidoscope.ml.settings import MlSettings

SPECIMEN_SIDE = 192

_engine: FaceEngine | None = None


def engine(pack: str) -> FaceEngine:
    """The engine of a pack. One is kept; asking for another pack replaces it."""
    global _engine
    if _engine is None or _engine.pack.name != pack:
        _engine = fakes.FakeEngine() if pack == catalog.FAKE.name else load_engine(pack)
    return _engine


def on_idle() -> None:
    """Free the networks' memory."""
    if _engine is not None:
        _engine.unload()


Task = dict[str, Any]
Answer = dict[str, Any]
Opened = tuple[Decoded, dict[str, float]]
"""A photo's picture, and the milliseconds of what was done to have it."""


def open_photo(task: Task) -> Opened:
    """The photo at the task's `path`, as large as faces are sought in it. Raises as `decode`."""
    timings: dict[str, float] = {}
    with timed(timings, "decode"):
        settings, path = load(MlSettings), to_bytes(task["path"])
        photo = decode(path, max_side=settings.decode_side, memory=settings.photo_memory)
    return photo, timings


def analyse(task: Task, opening: Callable[[Task], Opened] = open_photo) -> Answer:
    """The faces of the photo at `path`, or of `specimen()` where there is none, by `pack`.

    Answers `faces` (bbox, landmarks in displayed pixels of the original, embedding in base64,
    confidence, quality), `width`, `height`, `mime_type`, `damage`, `pack`, `model_version`,
    `picture_hash` where there are faces (see `perceptual_hash`), `timings` in milliseconds.
    Raises as `opening` and the engine do.
    """
    (answer,) = analyse_all([task], opening)
    if isinstance(answer, Exception):
        raise answer
    return answer


def analyse_all(
    tasks: Sequence[Task], opening: Callable[[Task], Opened] = open_photo
) -> list[Answer | Exception]:
    """What `analyse` makes of each, or raises; their faces are embedded together."""
    answers: list[Answer | Exception] = []
    for pack, those in groupby(tasks, itemgetter("pack")):
        looking = engine(pack)
        looked = [_look(looking, task, opening) for task in those]
        faces = iter(looking.embed([one.seen for one in looked if isinstance(one, _Looked)]))
        for one in looked:
            answers.append(
                one if isinstance(one, Exception) else _answer(looking, one, next(faces))
            )
    return answers


@dataclass(frozen=True)
class _Looked:
    """A photo in which faces have been sought; `timings` of what was done before."""

    photo: Decoded
    timings: dict[str, float]
    seen: Seen


def _look(
    looking: FaceEngine, task: Task, opening: Callable[[Task], Opened]
) -> _Looked | Exception:
    """One photo; that it cannot be read is nothing to the others."""
    try:
        photo, timings = opening(task) if "path" in task else (_drawing(), {"decode": 0.0})
        return _Looked(photo, timings, looking.look(photo.image))
    except Exception as error:
        return error


def _answer(looking: FaceEngine, looked: _Looked, faces: list[Face]) -> Answer:
    photo = looked.photo
    return {
        "width": photo.width,
        "height": photo.height,
        "mime_type": photo.mime_type,
        "damage": photo.damage,
        "pack": looking.pack.name,
        "model_version": looking.model_version,
        "picture_hash": perceptual_hash(photo.image) if faces else None,
        "faces": [plain for face in faces if (plain := _plain(face, photo)) is not None],
        "timings": {**looked.timings, **looked.seen.timings},
    }


def _drawing() -> Decoded:
    return Decoded(specimen(), SPECIMEN_SIDE, SPECIMEN_SIDE, "image/x-specimen", "photo")


@cache
def specimen() -> npt.NDArray[np.uint8]:
    """A drawn face that every detector takes for one: to try the networks without a photo."""
    y, x = np.mgrid[0:SPECIMEN_SIDE, 0:SPECIMEN_SIDE] / SPECIMEN_SIDE
    image = np.full((SPECIMEN_SIDE, SPECIMEN_SIDE, 3), (110, 130, 150), np.float64)

    def blot(cx: float, cy: float, rx: float, ry: float, colour: tuple[int, int, int]) -> None:
        distance = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2
        cover = np.clip((1.15 - distance) / 0.3, 0, 1)[..., None]
        image[:] = image * (1 - cover) + np.array(colour) * cover

    blot(0.5, 0.42, 0.30, 0.36, (50, 38, 30))  # hair
    blot(0.5, 0.52, 0.24, 0.32, (214, 170, 142))  # face
    for side in (-1, 1):
        blot(0.5 + 0.105 * side, 0.40, 0.075, 0.016, (70, 50, 40))  # brow
        blot(0.5 + 0.100 * side, 0.455, 0.058, 0.028, (245, 240, 235))  # eye
        blot(0.5 + 0.100 * side, 0.455, 0.026, 0.027, (40, 30, 25))  # iris
        blot(0.5 + 0.028 * side, 0.615, 0.014, 0.010, (120, 75, 62))  # nostril
    blot(0.5, 0.54, 0.020, 0.085, (232, 192, 166))  # nose
    blot(0.5, 0.70, 0.090, 0.024, (168, 80, 78))  # mouth
    return image.astype(np.uint8)


def _plain(face: Face, photo: Decoded) -> dict[str, Any] | None:
    """A face as data, in pixels of the original; None for one that lies outside of it."""
    scale = np.array(photo.scale)
    size = np.array([photo.width, photo.height])
    corners = np.clip(np.array(face.bbox).reshape(2, 2) * scale, 0, size).round(2)
    if (corners[1] - corners[0]).min() < 1:
        return None
    return {
        "bbox": corners.reshape(4).tolist(),
        "landmarks": (face.landmarks * scale).round(2).tolist(),
        "embedding": base64.b64encode(face.embedding.astype("<f4").tobytes()).decode(),
        "confidence": min(1.0, round(face.confidence, 5)),
        "quality": face.quality.as_dict(),
    }
