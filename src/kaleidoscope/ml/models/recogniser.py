"""A network that turns an aligned face into a vector."""

from __future__ import annotations

import numpy as np

from kaleidoscope.ml.errors import BadWeights
from kaleidoscope.ml.models.align import Template
from kaleidoscope.ml.models.faces import Array
from kaleidoscope.ml.models.pyramid import Pixels
from kaleidoscope.ml.models.session import LOT, Session


class Recogniser:
    """`mean` and `deviation` are per channel, in the order the network wants (`bgr` or not)."""

    def __init__(
        self,
        session: Session,
        *,
        template: Template,
        dimension: int,
        bgr: bool,
        mean: tuple[float, float, float],
        deviation: tuple[float, float, float],
    ) -> None:
        if session.side not in (None, (template.side, template.side)):
            raise BadWeights(
                f"{session.path} takes {session.side} pixels, its pack says {template.side}",
                path=str(session.path),
            )
        self.session = session
        self.template = template
        self.dimension = dimension
        self.bgr = bgr
        self.mean = np.array(mean, np.float32).reshape(3, 1, 1)
        self.deviation = np.array(deviation, np.float32).reshape(3, 1, 1)

    def embed(self, chips: Pixels) -> Array:
        """Unit vectors [n, d] of aligned RGB faces uint8 [n, side, side, 3]."""
        parts = [self._embed(chips[i : i + LOT]) for i in range(0, len(chips), LOT)]
        return np.concatenate([np.zeros((0, self.dimension), np.float32), *parts])

    def _embed(self, chips: Pixels) -> Array:
        ordered = chips[..., ::-1] if self.bgr else chips
        planes = ordered.transpose(0, 3, 1, 2).astype(np.float32, order="C")
        planes -= self.mean
        planes /= self.deviation
        vectors = self.session.run(planes)[0].reshape(len(chips), -1)
        if vectors.shape[1] != self.dimension:
            raise BadWeights(
                f"{self.session.path} answers {vectors.shape[1]} numbers a face, its pack says "
                f"{self.dimension}",
                path=str(self.session.path),
            )
        return unit(vectors)


def unit(vectors: Array) -> Array:
    """Vectors [n, d] at length 1 (a vector of zeros stays)."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Array = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return scaled
