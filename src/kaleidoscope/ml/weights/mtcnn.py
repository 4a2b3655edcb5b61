"""MTCNN's three networks, read from the arrays in the wheel `mtcnn` and written as ONNX.

The wheel keeps each network as a list of numpy arrays (joblib, lz4) in the order of its Keras
layers: kernel HWIO, bias and PReLU slope of each convolution, then the same of the dense layers,
then its heads. The networks follow the paper (Zhang et al., "Joint Face Detection and Alignment
using Multitask Cascaded Convolutional Networks", 2016): PNet slides over a picture of any size,
RNet and ONet look at patches of 24 and 48 pixels. All take float32 RGB 0..255 [n, 3, h, w]; the
normalisation (x - 127.5) / 128 is folded into their first convolution.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from kaleidoscope.ml.errors import BadWeights

Array = npt.NDArray[np.float32]
OPSET = 17


@dataclass(frozen=True)
class Net:
    """`pools`: window, stride and padding behind each convolution (None: no pool there).

    `heads`: name and size of each output in the file's order; `side` 0: a picture of any size.
    """

    name: str
    side: int
    pools: tuple[tuple[int, str] | None, ...]
    heads: tuple[tuple[str, int], ...]


PNET = Net("pnet", 0, ((2, "SAME_UPPER"), None, None), (("boxes", 4), ("faces", 2)))
RNET = Net("rnet", 24, ((3, "SAME_UPPER"), (3, "VALID"), None), (("boxes", 4), ("faces", 2)))
ONET = Net(
    "onet",
    48,
    ((3, "SAME_UPPER"), (3, "VALID"), (2, "SAME_UPPER"), None),
    (("boxes", 4), ("points", 10), ("faces", 2)),
)
NETS = {net.name: net for net in (PNET, RNET, ONET)}


def to_onnx(path: Path, net: Net) -> onnx.ModelProto:
    """One network as ONNX: `image` → `boxes` (4), `points` (10, ONet only), `faces` (1, 0..1).

    PNet's heads are maps [n, c, h, w], the others' rows [n, c]. Raises `BadWeights`.
    """
    graph = _Graph(net, path, _arrays(path))
    return graph.model()


def _arrays(path: Path) -> list[Array]:
    try:
        loaded: Any = joblib.load(path)
    except Exception as error:  # joblib answers a broken file with whatever the unpickler meets
        raise BadWeights(f"cannot read {path}: {error}", path=str(path)) from error
    if not isinstance(loaded, list) or not all(isinstance(a, np.ndarray) for a in loaded):
        raise BadWeights(f"{path} is no list of arrays", path=str(path))
    return loaded


class _Graph:
    def __init__(self, net: Net, path: Path, arrays: list[Array]) -> None:
        self.net = net
        self.path = path
        self.arrays: Iterator[Array] = iter(arrays)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def model(self) -> onnx.ModelProto:
        """The whole graph, checked."""
        side = self.net.side
        value, channels = "image", 3
        for number, pool in enumerate(self.net.pools):
            value, channels = self._convolve(value, channels, first=number == 0)
            if pool is not None:
                window, padding = pool
                value = self._node(
                    "MaxPool", value, kernel_shape=[window] * 2, strides=[2, 2], auto_pad=padding
                )
        if side:
            value, channels = self._dense(value, channels)
        for name, size in self.net.heads:
            self._head(value, channels, name, size)
        if next(self.arrays, None) is not None:
            raise self._bad("more arrays than the network has")
        sides: list[str | int] = [side, side] if side else ["height", "width"]
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, *sides])
        maps: list[str] = [] if side else ["rows", "columns"]
        outputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", _width(name, size), *maps])
            for name, size in self.net.heads
        ]
        graph = helper.make_graph(self.nodes, self.net.name, [image], outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = 8
        onnx.checker.check_model(model, full_check=True)
        return model

    def _bad(self, why: str) -> BadWeights:
        return BadWeights(f"{self.path} is not MTCNN's {self.net.name}: {why}", path=str(self.path))

    def _take(self, *shape: int) -> Array:
        """The next array, which must have this shape (-1: any side)."""
        array = next(self.arrays, None)
        if array is None:
            raise self._bad("it ends too early")
        fits = len(array.shape) == len(shape) and all(
            want in (-1, side) for want, side in zip(shape, array.shape, strict=True)
        )
        if not fits:
            raise self._bad(f"an array of {shape} expected, {array.shape} found")
        return array.astype(np.float32)

    def _node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def _constant(self, array: Array) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _convolve(self, value: str, channels: int, *, first: bool) -> tuple[str, int]:
        kernel = self._take(-1, -1, channels, -1).transpose(3, 2, 0, 1)
        bias = self._take(kernel.shape[0])
        if first:
            bias = bias - kernel.sum(axis=(1, 2, 3)) * np.float32(127.5 / 128)
            kernel = kernel / np.float32(128)
        value = self._node("Conv", value, self._constant(kernel), self._constant(bias))
        slope = self._take(1, 1, kernel.shape[0]).reshape(-1, 1, 1)
        return self._prelu(value, slope), kernel.shape[0]

    def _dense(self, value: str, channels: int) -> tuple[str, int]:
        """The dense layer; its rows are in the order column, row, channel and become ONNX's."""
        matrix = self._take(-1, -1)
        side = round((matrix.shape[0] / channels) ** 0.5)
        if side * side * channels != matrix.shape[0]:
            raise self._bad(f"{matrix.shape[0]} values are no square of {channels} channels")
        rows = matrix.reshape(side, side, channels, -1).transpose(2, 1, 0, 3)
        value = self._node("Flatten", value, axis=1)
        value = self._linear(value, rows.reshape(matrix.shape), self._take(matrix.shape[1]))
        return self._prelu(value, self._take(matrix.shape[1])), matrix.shape[1]

    def _linear(self, value: str, matrix: Array, bias: Array, output: str = "") -> str:
        return self._node(
            "Gemm", value, self._constant(matrix), self._constant(bias), output=output
        )

    def _prelu(self, value: str, slope: Array) -> str:
        """slope·x + (1 - slope)·max(x, 0): ONNX Runtime's own PRelu takes twice the time."""
        above = self._node("Mul", self._node("Relu", value), self._constant(1 - slope))
        return self._node("Add", self._node("Mul", value, self._constant(slope)), above)

    def _head(self, value: str, channels: int, name: str, size: int) -> None:
        shape = (channels, size) if self.net.side else (1, 1, channels, size)
        matrix, bias = self._take(*shape).reshape(channels, size), self._take(size)
        face = name == "faces"
        if face:  # a softmax of two is the sigmoid of their difference
            matrix, bias = matrix[:, 1:] - matrix[:, :1], bias[1:] - bias[:1]
        output = "" if face else name
        if self.net.side:
            value = self._linear(value, matrix, bias, output)
        else:
            kernel = self._constant(matrix.T[:, :, None, None])
            value = self._node("Conv", value, kernel, self._constant(bias), output=output)
        if face:
            self._node("Sigmoid", value, output=name)


def _width(head: str, size: int) -> int:
    return 1 if head == "faces" else size
