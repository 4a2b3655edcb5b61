"""What one writes with the same ONNX files and a free afternoon: photo by photo, face by face.

MTCNN as its papers and ports tell it, set as they are (`USUAL`) or as the product found out by
measuring (`MEASURED`); each face in one view, or in two as one would do who wants the product's
accuracy and does not know which faces need them. Nothing is matched or recorded.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from PIL import Image, ImageOps

from kaleidoscope.ml import catalog
from kaleidoscope.ml.engine import locate
from kaleidoscope.ml.models.align import TEMPLATES, similarity
from kaleidoscope.ml.models.mtcnn import THRESHOLDS

SIDE, STEP = 1024, 0.709


class Settings(NamedTuple):
    """Thresholds of PNet, RNet and ONet, and pixels of the smallest face sought."""

    thresholds: tuple[float, float, float]
    min_face: int


USUAL = Settings((0.6, 0.7, 0.7), 20)
MEASURED = Settings(
    (*THRESHOLDS, catalog.BUILTIN.detector.confidence), catalog.BUILTIN.detector.min_face
)


def load() -> None:
    """The networks, in this process."""
    global nets
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    files = locate(catalog.BUILTIN)
    described = catalog.BUILTIN.recogniser.file
    names = {n: f"{n}.lz4" for n in ("pnet", "rnet", "onet")} | {"descriptor": described}
    nets = {
        short: ort.InferenceSession(str(files[name]), options, providers=["CPUExecutionProvider"])
        for short, name in names.items()
    }


def encode(photo: Path, views: int, settings: Settings) -> int:
    """How many faces of a photo have been turned into vectors."""
    try:
        with Image.open(photo) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except OSError:
        return 0
    picture.thumbnail((SIDE, SIDE))
    points = landmarks(picture, settings)
    for face in points:
        vector(picture, face, views)
    return len(points)


def landmarks(picture: Image.Image, settings: Settings) -> np.ndarray:
    """Five points a face: [n, 5, 2]."""
    propose, refine, accept = settings.thresholds
    scale, found = 12 / settings.min_face, [np.zeros((0, 5))]
    while min(picture.size) * scale >= 12:
        size = round(picture.width * scale), round(picture.height * scale)
        shifts, scores = run("pnet", np.asarray(picture.resize(size))[None])
        rows, columns = np.nonzero(scores[0, 0] > propose)
        corner = np.stack([columns, rows], axis=1) * 2.0 + 1
        boxes = np.concatenate([corner, corner + 11], axis=1)
        boxes += shifts[0, :, rows, columns] * 11
        rated = np.concatenate([boxes / scale, scores[0, 0, rows, columns, None]], axis=1)
        found.append(rated[distinct(rated, 0.5)])
        scale *= STEP
    boxes = np.concatenate(found)
    boxes = square(boxes[distinct(boxes, 0.7)])
    if not len(boxes):
        return np.zeros((0, 5, 2))
    shifts, scores = run("rnet", cut(picture, boxes, 24))
    likely = scores[:, 0] > refine
    rated = np.concatenate([moved(boxes, shifts), scores[:, :1]], axis=1)[likely]
    boxes = square(rated[distinct(rated, 0.7)])
    if not len(boxes):
        return np.zeros((0, 5, 2))
    shifts, points, scores = run("onet", cut(picture, boxes, 48))
    likely = scores[:, 0] >= accept
    rated = np.concatenate([moved(boxes, shifts), scores[:, :1]], axis=1)[likely]
    size = (boxes[likely, 2:] - boxes[likely, :2])[:, None]
    places = boxes[likely, None, :2] + points[likely].reshape(-1, 2, 5).transpose(0, 2, 1) * size
    return places[distinct(rated, 0.7)]


def vector(picture: Image.Image, face: np.ndarray, views: int) -> np.ndarray:
    """A face, and for two views its mirror image, as one vector."""
    described = catalog.BUILTIN.recogniser
    template = TEMPLATES[described.template]
    back = similarity(np.array(template.points), face.astype(np.float64))
    chip = picture.transform(
        (template.side, template.side), Image.Transform.AFFINE, tuple(back.ravel()), resample=2
    )
    total = np.zeros(described.dimension)
    for view in (chip, ImageOps.mirror(chip))[:views]:
        planes = (np.asarray(view, np.float32) - described.mean) / described.deviation
        (answer,) = run("descriptor", planes[None])
        total += answer[0] / np.linalg.norm(answer[0])
    return total / np.linalg.norm(total)


def run(net: str, pictures: np.ndarray) -> list[np.ndarray]:
    """The outputs of a network for pictures [n, h, w, 3]."""
    planes = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2), np.float32)
    return nets[net].run(None, {nets[net].get_inputs()[0].name: planes})


def cut(picture: Image.Image, boxes: np.ndarray, side: int) -> np.ndarray:
    return np.stack(
        [np.asarray(picture.crop(tuple(b)).resize((side, side))) for b in boxes.round().tolist()]
    )


def moved(boxes: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    size = boxes[:, 2:4] - boxes[:, :2]
    return boxes[:, :4] + shifts * np.concatenate([size, size], axis=1)


def square(boxes: np.ndarray) -> np.ndarray:
    centre = (boxes[:, :2] + boxes[:, 2:4]) / 2
    half = (boxes[:, 2:4] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def distinct(rated: np.ndarray, overlap: float) -> list[int]:
    """Non-maximum suppression of [n, 5], box and score: the rows to keep."""
    order, kept = np.argsort(-rated[:, 4]), []
    while len(order):
        first, order = order[0], order[1:]
        kept.append(int(first))
        low = np.maximum(rated[first, :2], rated[order, :2])
        high = np.minimum(rated[first, 2:4], rated[order, 2:4])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        area = np.prod(rated[order, 2:4] - rated[order, :2], axis=1)
        own = np.prod(rated[first, 2:4] - rated[first, :2])
        order = order[shared / np.maximum(area + own - shared, 1e-9) <= overlap]
    return kept
