"""dlib's face recognition network, read from its own serialisation and written as ONNX.

`dlib_face_recognition_resnet_model_v1.dat` is a C++ object graph: integers are a control byte (low
four bits: how many bytes follow; 0x80: negative) and a little-endian magnitude, floats a mantissa
and an exponent of 2, strings a length and bytes, tensors a version, four sides and raw float32.
Behind a header come the layers from input to output. What is read here is the architecture of that
file, a ResNet of basic blocks, with any number of blocks and filters (dlib's `deserialize` for
`loss_metric`, `con_`, `affine_`, `fc_`, `max_pool_`, `avg_pool_`; Boost Software License).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from kaleidoscope.ml.errors import BadWeights

Array = npt.NDArray[np.float32]
OPSET = 17


@dataclass(frozen=True)
class Layer:
    """One layer as it stands in the file; `ints` are its sizes (see `_read_layer`)."""

    kind: str
    ints: tuple[int, ...] = ()
    weights: Array | None = None


@dataclass(frozen=True)
class Network:
    """`side`: pixels of the square RGB input, which becomes (x - mean) / 256."""

    mean: tuple[float, float, float]
    side: int
    layers: tuple[Layer, ...]


def read(path: Path) -> Network:
    """Read the network in a `.dat` file. Raises `BadWeights` when it is none of this kind."""
    stream = _Stream(path)
    try:
        return _read_network(stream)
    except (struct.error, IndexError, UnicodeDecodeError, OverflowError) as error:
        raise stream.bad(f"the file is cut short or no dlib network ({error})") from error


def to_onnx(path: Path) -> onnx.ModelProto:
    """The network as ONNX: `faces` float32 [n, 3, side, side] RGB 0..255 → `descriptors` [n, d]."""
    network = read(path)
    try:
        return _Graph(network).model()
    except _Shape as error:
        raise BadWeights(
            f"{path} is not dlib's face recognition architecture: {error}", path=str(path)
        ) from error


class _Stream:
    """dlib's serialisation, one value after another."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.data = path.read_bytes()
        except OSError as error:
            raise BadWeights(f"cannot read {path}: {error.strerror}", path=str(path)) from error
        self.at = 0

    def bad(self, why: str) -> BadWeights:
        return BadWeights(f"{self.path}, byte {self.at}: {why}", path=str(self.path))

    def take(self, count: int) -> bytes:
        if count < 0 or self.at + count > len(self.data):
            raise self.bad(f"{count} bytes expected, {len(self.data) - self.at} left")
        self.at += count
        return self.data[self.at - count : self.at]

    def read_int(self) -> int:
        control = self.take(1)[0]
        size = control & 0x0F
        if control & 0x70 or not 1 <= size <= 8:
            raise self.bad(f"no integer starts with 0x{control:02x}")
        value = int.from_bytes(self.take(size), "little")
        return -value if control & 0x80 else value

    def ints(self, count: int) -> tuple[int, ...]:
        return tuple(self.read_int() for _ in range(count))

    def expect(self, *values: int) -> None:
        for value in values:
            if (found := self.read_int()) != value:
                raise self.bad(f"{value} expected, {found} found")

    def read_float(self) -> float:
        mantissa, exponent = self.ints(2)
        if abs(exponent) > 1100:
            raise self.bad(f"no float has the exponent {exponent}")
        return float(mantissa) * 2.0**exponent

    def floats(self, count: int) -> None:
        for _ in range(count):
            self.read_float()

    def text(self) -> str:
        length = self.read_int()
        if not 0 < length < 100:
            raise self.bad(f"no name is {length} bytes long")
        return self.take(length).decode("ascii")

    def read_bool(self) -> bool:
        flag = self.take(1)
        if flag not in (b"0", b"1"):
            raise self.bad(f"no truth value is {flag!r}")
        return flag == b"1"

    def tensor(self) -> Array:
        self.expect(2)
        sides = self.ints(4)
        if min(sides) < 0:
            raise self.bad(f"no tensor has the sides {sides}")
        raw = self.take(4 * sides[0] * sides[1] * sides[2] * sides[3])
        return np.frombuffer(raw, "<f4").reshape(sides).astype(np.float32)

    def aliases(self, count: int) -> None:
        """Views into a layer's parameters: their sides, which the layer's sizes say already."""
        for _ in range(count):
            self.expect(1)
            self.ints(4)


def _read_network(stream: _Stream) -> Network:
    stream.expect(1)
    if (loss := stream.text()) != "loss_metric_2":
        raise stream.bad(f"a network with loss_metric_2 expected, {loss!r} found")
    stream.floats(2)
    # A version number for each layer, tag and skip, outermost first; then the innermost, the input.
    while (number := stream.read_int()) <= 3:
        if number < 1:
            raise stream.bad(f"no layer has the version {number}")
    name = stream.take(number).decode("ascii")
    if name != "input_rgb_image_sized":
        raise stream.bad(f"an input of input_rgb_image_sized expected, {name!r} found")
    red, green, blue = stream.read_float(), stream.read_float(), stream.read_float()
    height, width = stream.ints(2)
    if height != width or not 16 <= height <= 1024:
        raise stream.bad(f"a square input expected, {width}×{height} found")
    layers: list[Layer] = []
    while not layers or layers[-1].kind != "fc_2":
        layers.append(_read_layer(stream))
        if len(layers) == 1:
            stream.read_int()  # how many copies of each image the input makes
    return Network((red, green, blue), height, tuple(layers))


def _read_layer(stream: _Stream) -> Layer:
    kind = stream.text()
    ints: tuple[int, ...] = ()
    weights: Array | None = None
    if kind == "con_4":
        weights = stream.tensor()
        ints = stream.ints(7)  # filters, height, width, strides y x, paddings y x
        stream.aliases(2)
        stream.floats(4)
    elif kind == "affine_":
        weights = stream.tensor()
        stream.aliases(2)
        stream.read_int()
    elif kind in ("max_pool_2", "avg_pool_2"):
        ints = stream.ints(6)  # height, width (0: all of it), strides y x, paddings y x
    elif kind == "fc_2":
        ints = stream.ints(2)  # outputs, inputs
        weights = stream.tensor()
        stream.aliases(2)
        stream.read_int()
        stream.floats(4)
    elif kind not in ("relu_", "add_prev_"):
        raise stream.bad(f"no layer of this architecture is called {kind!r}")
    for _ in range(3):
        stream.read_bool()  # set up, gradient stale, output disabled: matters of training
    for _ in range(3):
        stream.tensor()  # gradients and cached outputs: empty in a trained network
    return Layer(kind, ints, weights)


class _Shape(Exception):
    """The layers do not fit together."""


class _Graph:
    """The ONNX nodes, made layer by layer; affine layers are folded into their convolutions.

    `shape` is (channels, height, width) of `value`, the last node's output.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.layers = list(network.layers)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.value = "faces"
        self.shape = (3, network.side, network.side)

    def model(self) -> onnx.ModelProto:
        """The whole graph, checked."""
        side = self.network.side
        self._normalise()
        self._convolve()
        self._relu()
        self._pool(self._next("max_pool_2"))
        while self._peek() == "con_4":
            self._block()
        self._pool(self._next("avg_pool_2"))
        dimension = self._project(self._next("fc_2"))
        graph = helper.make_graph(
            self.nodes,
            "dlib face recognition",
            [helper.make_tensor_value_info("faces", TensorProto.FLOAT, ["n", 3, side, side])],
            [helper.make_tensor_value_info("descriptors", TensorProto.FLOAT, ["n", dimension])],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = 8
        onnx.checker.check_model(model, full_check=True)
        return model

    def _peek(self) -> str:
        return self.layers[0].kind if self.layers else "the end"

    def _next(self, kind: str) -> Layer:
        if self._peek() != kind:
            raise _Shape(f"{kind} expected, {self._peek()} found")
        return self.layers.pop(0)

    def _node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def _constant(self, array: npt.NDArray[np.float32] | npt.NDArray[np.int64]) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def _normalise(self) -> None:
        mean = np.array(self.network.mean, np.float32).reshape(1, 3, 1, 1)
        centred = self._node("Sub", self.value, self._constant(mean))
        self.value = self._node("Mul", centred, self._constant(np.array(1 / 256, np.float32)))

    def _relu(self) -> None:
        self._next("relu_")
        self.value = self._node("Relu", self.value)

    def _convolve(self) -> None:
        """A convolution and the affine layer behind it, as one convolution."""
        layer, affine = self._next("con_4"), self._next("affine_")
        assert layer.weights is not None and affine.weights is not None
        filters, height, width, stride_y, stride_x, pad_y, pad_x = layer.ints
        channels = self.shape[0]
        count = filters * channels * height * width
        if layer.weights.size != count + filters or affine.weights.size != 2 * filters:
            raise _Shape(f"a convolution of {filters} filters does not fit {channels} channels")
        flat = layer.weights.ravel().astype(np.float64)
        gamma, beta = affine.weights.ravel().astype(np.float64).reshape(2, filters)
        kernel = flat[:count].reshape(filters, channels, height, width) * gamma[:, None, None, None]
        bias = flat[count:] * gamma + beta
        self.value = self._node(
            "Conv",
            self.value,
            self._constant(kernel.astype(np.float32)),
            self._constant(bias.astype(np.float32)),
            kernel_shape=[height, width],
            strides=[stride_y, stride_x],
            pads=[pad_y, pad_x, pad_y, pad_x],
        )
        self._slide(filters, (height, width), (stride_y, stride_x), (pad_y, pad_x))

    def _slide(
        self, channels: int, window: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int]
    ) -> None:
        """The shape behind a window that slides over this one."""
        sides = [
            (side + 2 * p - w) // s + 1 if s > 0 else 0
            for side, w, s, p in zip(self.shape[1:], window, stride, pad, strict=True)
        ]
        if min(sides) < 1:
            raise _Shape(f"a window of {window} does not fit {self.shape[1:]} pixels")
        self.shape = (channels, sides[0], sides[1])

    def _pool(self, layer: Layer) -> None:
        height, width, stride_y, stride_x, pad_y, pad_x = layer.ints
        if height == 0 and width == 0:
            self.value = self._node("GlobalAveragePool", self.value)
            self.shape = (self.shape[0], 1, 1)
            return
        operator = "MaxPool" if layer.kind == "max_pool_2" else "AveragePool"
        self.value = self._node(
            operator,
            self.value,
            kernel_shape=[height, width],
            strides=[stride_y, stride_x],
            pads=[pad_y, pad_x, pad_y, pad_x],
        )
        self._slide(self.shape[0], (height, width), (stride_y, stride_x), (pad_y, pad_x))

    def _block(self) -> None:
        """Two convolutions whose result is added to what went in (pooled, when it shrinks)."""
        skip, skip_shape = self.value, self.shape
        self._convolve()
        self._relu()
        self._convolve()
        value, shape = self.value, self.shape
        if self._peek() == "avg_pool_2":
            self.value, self.shape = skip, skip_shape
            self._pool(self._next("avg_pool_2"))
            skip, skip_shape = self.value, self.shape
        self._next("add_prev_")
        # dlib adds tensors of different sides as if the smaller went on with zeros.
        self.shape = tuple(map(max, zip(shape, skip_shape, strict=True)))  # type: ignore[assignment]
        self.value = self._node("Add", self._pad(value, shape), self._pad(skip, skip_shape))
        self._relu()

    def _pad(self, value: str, shape: tuple[int, int, int]) -> str:
        if shape == self.shape:
            return value
        more = [0, *(new - old for new, old in zip(self.shape, shape, strict=True))]
        pads = np.array([0, 0, 0, 0, *more], np.int64)
        return self._node("Pad", value, self._constant(pads))

    def _project(self, layer: Layer) -> int:
        assert layer.weights is not None
        outputs, inputs = layer.ints
        if self.shape != (inputs, 1, 1) or layer.weights.size != inputs * outputs:
            raise _Shape(f"a projection of {inputs} values does not fit {self.shape}")
        matrix = layer.weights.reshape(inputs, outputs)
        flat = self._node("Flatten", self.value, axis=1)
        self.nodes.append(
            helper.make_node("MatMul", [flat, self._constant(matrix)], ["descriptors"])
        )
        return outputs
