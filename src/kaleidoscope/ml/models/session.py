"""ONNX Runtime with one thread a session: cores are filled by processes, not by threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from kaleidoscope.ml.errors import BadWeights

LOT = 32  # pictures a run: more of them cost memory and save no time


class Session:
    """One network in memory. `shape` is that of its only input (str: a side that may vary)."""

    def __init__(self, path: Path) -> None:
        """Load the network. Raises `BadWeights` when ONNX Runtime cannot."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        # Pictures come in many sizes: a plan of the memory for each would be kept for ever.
        options.enable_mem_pattern = False
        try:
            self._session: Any = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises its own classes, made in C++
            raise BadWeights(f"cannot load {path}: {error}", path=str(path)) from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 4:
            described = [(i.name, i.type, i.shape) for i in inputs]
            raise BadWeights(
                f"{path} takes {described}; one float32 picture [n, 3, h, w] is needed",
                path=str(path),
            )
        self.path = path
        self.input: str = inputs[0].name
        self.shape: tuple[int | str | None, ...] = tuple(inputs[0].shape)
        self.outputs: list[str] = [output.name for output in self._session.get_outputs()]

    @property
    def batches(self) -> bool:
        """Whether it takes several pictures at once."""
        return not isinstance(self.shape[0], int)

    @property
    def side(self) -> tuple[int, int] | None:
        """Height and width it insists on, if it does."""
        height, width = self.shape[2:]
        return (height, width) if isinstance(height, int) and isinstance(width, int) else None

    def run(self, pictures: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        """Its outputs, in the file's order, for pictures [n, 3, h, w], n > 0."""
        lot = LOT if self.batches else 1
        lots = [self._run(pictures[i : i + lot]) for i in range(0, len(pictures), lot)]
        return lots[0] if len(lots) == 1 else [np.concatenate(o) for o in zip(*lots, strict=True)]

    def _run(self, pictures: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        outputs: list[npt.NDArray[np.float32]] = self._session.run(
            None, {self.input: np.ascontiguousarray(pictures)}
        )
        return outputs
