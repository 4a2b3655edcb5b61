"""Faces turned upright: five points brought to the places where a network expects them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kaleidoscope.ml.models.faces import Array
from kaleidoscope.ml.models.pyramid import Matrix, Pixels, Pyramid


@dataclass(frozen=True)
class Template:
    """Where the five points lie in a square chip of `side` pixels."""

    side: int
    points: tuple[tuple[float, float], ...]


TEMPLATES = {
    # Where the five points of MTCNN come to lie in the chips of dlib's `get_face_chip` (150 pixels,
    # padding 0.25): the median over 700 photographs aligned by dlib's own 68 points. In dlib's
    # mean shape the same five are (47.5 46.6) (100.5 46.6) (74.0 76.6) (50.4 103.0) (97.6 103.0).
    "dlib": Template(
        150, ((48.1, 45.8), (101.2, 45.8), (75.1, 77.5), (51.1, 103.8), (97.9, 103.8))
    ),
    # The one of ArcFace and all who follow it (insightface, face_align.py).
    "arcface": Template(
        112,
        (
            (38.2946, 51.6963),
            (73.5318, 51.5014),
            (56.0252, 71.7366),
            (41.5493, 92.3655),
            (70.7299, 92.2041),
        ),
    ),
}


@dataclass(frozen=True)
class View:
    """One way to look at an aligned face: mirrored, moved by pixels of the chip, enlarged."""

    mirrored: bool = False
    dx: float = 0.0
    dy: float = 0.0
    zoom: float = 1.0


def similarity(source: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> Matrix:
    """The rotation, uniform scale and shift [2, 3] that bring points [n, 2] closest to others.

    Least squares after Umeyama, "Least-squares estimation of transformation parameters between
    two point patterns" (1991); never a mirror image. Points that all coincide are only shifted.
    """
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    centred = source - source_mean
    spread = float((centred**2).sum(axis=1).mean())
    if spread < 1e-12:
        return np.concatenate([np.eye(2), (target_mean - source_mean)[:, None]], axis=1)
    left, strengths, right = np.linalg.svd((target - target_mean).T @ centred / len(source))
    signs = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right)) or 1.0])
    turn = left @ np.diag(signs) @ right
    turn = turn * float((strengths * signs).sum()) / spread
    return np.concatenate([turn, (target_mean - turn @ source_mean)[:, None]], axis=1)


def chips(picture: Pyramid, points: Array, template: Template, views: tuple[View, ...]) -> Pixels:
    """The faces with these points [n, 5, 2]: uint8 [n, len(views), side, side, 3]."""
    side = template.side
    target = np.array(template.points, np.float64)
    out = np.empty((len(points), len(views), side, side, 3), np.uint8)
    for row, face in zip(out, points.astype(np.float64), strict=True):
        back = similarity(target, face)  # from the chip to the picture
        for chip, view in zip(row, views, strict=True):
            chip[:] = picture.warped(back @ _view_to_chip(view, side), side)
    return out


def _view_to_chip(view: View, side: int) -> Matrix:
    """Where in the plain chip a point of the view lies: [3, 3]."""
    middle = side / 2
    across = (-1.0 if view.mirrored else 1.0) / view.zoom
    down = 1.0 / view.zoom
    return np.array(
        [
            [across, 0.0, middle - across * middle + view.dx],
            [0.0, down, middle - down * middle + view.dy],
            [0.0, 0.0, 1.0],
        ]
    )
