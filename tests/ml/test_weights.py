"""Our readers of dlib's and MTCNN's weights, and the cache of what they make."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kaleidoscope.ml import catalog, weights
from kaleidoscope.ml.errors import BadWeights, ChecksumMismatch
from kaleidoscope.ml.models.session import Session
from kaleidoscope.ml.weights import dlib, mtcnn

Array = npt.NDArray[np.float32]

DAT = "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat"


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Session:
    target = tmp_path_factory.mktemp("resnet") / "resnet.onnx"
    target.write_bytes(dlib.to_onnx(weights.in_wheel(DAT)).SerializeToString())
    return Session(target)


# --- dlib -----------------------------------------------------------------------------------------


def difference(resnet: Session, chips: npt.NDArray[np.uint8]) -> float:
    """The largest difference between dlib's own descriptors and ours."""
    native = pytest.importorskip("dlib").face_recognition_model_v1(str(weights.in_wheel(DAT)))
    theirs = np.array([np.array(native.compute_face_descriptor(chip)) for chip in chips])
    ours = resnet.run(chips.transpose(0, 3, 1, 2).astype(np.float32))[0]
    assert ours.shape == (len(chips), 128)
    return float(np.abs(ours - theirs).max())


def test_descriptors_equal_dlibs_on_any_picture(resnet: Session) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (3, 150, 150, 3), dtype=np.uint8)
    coarse = rng.integers(0, 256, (3, 7, 7, 3), dtype=np.uint8)
    smooth = [np.asarray(Image.fromarray(c).resize((150, 150))) for c in coarse]
    flat = np.full((1, 150, 150, 3), 255, np.uint8)
    assert difference(resnet, np.concatenate([noise, smooth, flat])) <= 1e-5


def test_descriptors_equal_dlibs_on_real_faces(resnet: Session, shared: Path) -> None:
    photos = sorted((shared / "faces/photos/crop").glob("*/*"))[::6]
    chips = [np.asarray(Image.open(p).convert("RGB").resize((150, 150))) for p in photos]
    assert len(chips) > 10
    assert difference(resnet, np.stack(chips)) <= 1e-5


@settings(max_examples=200, deadline=None)
@given(st.integers(-(2**62), 2**62))
def test_integers_survive(number: int) -> None:
    stream = dlib._Stream.__new__(dlib._Stream)
    stream.path, stream.data, stream.at = Path("x"), integer(number), 0
    assert stream.read_int() == number
    assert stream.at == len(stream.data)


def integer(number: int) -> bytes:
    magnitude = abs(number).to_bytes(8, "little").rstrip(b"\0") or b"\0"
    return bytes([len(magnitude) | (0x80 if number < 0 else 0)]) + magnitude


def integers(*numbers: int) -> bytes:
    return b"".join(map(integer, numbers))


def text(value: str) -> bytes:
    return integer(len(value)) + value.encode()


def tensor(array: Array) -> bytes:
    sides = array.shape if array.ndim == 4 else (1, 1, 1, array.size)
    return integers(2, *sides) + array.astype("<f4").tobytes()


EMPTY = tensor(np.zeros((0, 0, 0, 0), np.float32))


class Writer:
    """A network of dlib's architecture with random weights, in its format and computed in numpy."""

    def __init__(self, side: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.side = side
        self.layers: list[bytes] = []
        self.mean = (120.0, 115.0, 100.0)

    def layer(self, kind: str, content: bytes = b"") -> None:
        first = integer(1) if not self.layers else b""
        self.layers.append(text(kind) + content + b"100" + EMPTY * 3 + first)

    def con(self, x: Array, filters: int, size: int, stride: int, pad: int) -> Array:
        """A convolution and its affine layer; what they make of x [c, h, w]."""
        kernel = self.rng.normal(0, 0.1, (filters, len(x), size, size)).astype(np.float32)
        bias, gamma, beta = self.rng.normal(0, 1, (3, filters)).astype(np.float32)
        sizes = integers(filters, size, size, stride, stride, pad, pad)
        aliases = integers(1, 1, 1, 1, 1) * 2
        parameters = tensor(np.concatenate([kernel.ravel(), bias]))
        self.layer("con_4", parameters + sizes + aliases + integers(0, 0) * 4)
        self.layer("affine_", tensor(np.concatenate([gamma, beta])) + aliases + integer(0))
        made = slide(np.pad(x, ((0, 0), (pad, pad), (pad, pad))), size, stride)
        made = np.einsum("ocij,chwij->ohw", kernel, made) + bias[:, None, None]
        return made * gamma[:, None, None] + beta[:, None, None]

    def pool(self, x: Array, kind: str, size: int, stride: int) -> Array:
        self.layer(f"{kind}_pool_2", integers(size, size, stride, stride, 0, 0))
        if size == 0:
            return x.mean(axis=(1, 2), keepdims=True)
        windows = slide(x, size, stride)
        return windows.max(axis=(3, 4)) if kind == "max" else windows.mean(axis=(3, 4))

    def relu(self, x: Array) -> Array:
        self.layer("relu_")
        return np.maximum(x, 0)

    def block(self, x: Array, filters: int, shrink: bool) -> Array:
        made = self.con(x, filters, 3, 2 if shrink else 1, 0 if shrink else 1)
        made = self.con(self.relu(made), filters, 3, 1, 1)
        skip = self.pool(x, "avg", 2, 2) if shrink else x
        self.layer("add_prev_")
        sides = np.maximum(made.shape, skip.shape)
        return self.relu(grown(made, sides) + grown(skip, sides))

    def run(self, picture: Array, outputs: int) -> Array:
        x = (picture - np.array(self.mean, np.float32)[:, None, None]) / 256
        x = self.relu(self.con(x, 4, 7, 2, 0))
        x = self.pool(x, "max", 3, 2)
        for filters, shrink in ((4, False), (6, True), (6, False), (9, True)):
            x = self.block(x, filters, shrink)
        x = self.pool(x, "avg", 0, 1)
        matrix = self.rng.normal(0, 1, (x.shape[0], outputs)).astype(np.float32)
        aliases = integers(1, 1, 1, 1, 1) * 2
        self.layer(
            "fc_2",
            integers(outputs, x.shape[0])
            + tensor(matrix[:, :, None, None])
            + aliases
            + integer(0)
            + integers(0, 0) * 4,
        )
        result: Array = x[:, 0, 0] @ matrix
        return result

    def file(self) -> bytes:
        means = b"".join(integers(round(m * 2**16), -16) for m in self.mean)
        return (
            integer(1) + text("loss_metric_2") + integers(41, -10, 3, -2) + integers(2, 1, 2, 3)
            + text("input_rgb_image_sized") + means + integers(self.side, self.side)
            + b"".join(self.layers)
        )  # fmt: skip


def slide(x: Array, size: int, stride: int) -> Array:
    """Windows [c, h, w, size, size] over x [c, h, w]."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    return windows[:, ::stride, ::stride]


def grown(x: Array, sides: npt.NDArray[np.int_]) -> Array:
    return np.pad(x, [(0, int(new - old)) for new, old in zip(sides, x.shape, strict=True)])


@pytest.mark.parametrize("side", [150, 96, 131])
def test_other_sizes_of_the_architecture_import(tmp_path: Path, side: int) -> None:
    """Sides and channels that differ where a block shrinks are filled up with zeros, as in dlib."""
    writer = Writer(side, seed=side)
    picture = writer.rng.uniform(0, 255, (3, side, side)).astype(np.float32)
    wanted = writer.run(picture, outputs=5)
    (tmp_path / "net.dat").write_bytes(writer.file())
    (tmp_path / "net.onnx").write_bytes(dlib.to_onnx(tmp_path / "net.dat").SerializeToString())
    (found,) = Session(tmp_path / "net.onnx").run(picture[None])
    np.testing.assert_allclose(found[0], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"loss_metric_2", b"loss_mmod_abc", "loss_mmod_abc"),
        (b"input_rgb_image_sized", b"input_rgb_image_other", "input_rgb_image_other"),
        (b"max_pool_2", b"min_pool_2", "min_pool_2"),
        (b"\x09add_prev_", b"\x05relu_", "add_prev_ expected"),
    ],
)
def test_another_architecture_is_refused_by_name(
    tmp_path: Path, old: bytes, new: bytes, said: str
) -> None:
    writer = Writer(96, seed=1)
    writer.run(np.zeros((3, 96, 96), np.float32), outputs=5)
    path = tmp_path / "other.dat"
    path.write_bytes(writer.file().replace(old, new))
    with pytest.raises(BadWeights, match=said) as caught:
        dlib.to_onnx(path)
    assert str(path) in caught.value.message


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    writer = Writer(96, seed=1)
    writer.run(np.zeros((3, 96, 96), np.float32), outputs=5)
    whole, path = writer.file(), tmp_path / "cut.dat"
    for length in (0, 1, 5, 30, 60, 100, 1000, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:length])
        with pytest.raises(BadWeights, match=r"cut\.dat"):
            dlib.to_onnx(path)
    with pytest.raises(BadWeights, match="No such file"):
        dlib.read(tmp_path / "absent.dat")


# --- MTCNN ----------------------------------------------------------------------------------------


def keras(net: mtcnn.Net, arrays: list[Array], picture: Array) -> list[Array]:
    """A network computed as Keras lays it out: picture [h, w, 3] in, its heads out."""
    left = iter(arrays)
    x = (picture.transpose(2, 0, 1) - 127.5) / 128
    for pool in net.pools:
        kernel, bias, slope = next(left), next(left), next(left)
        made = slide(x, kernel.shape[0], 1)
        x = np.einsum("ijco,chwij->ohw", kernel, made) + bias[:, None, None]
        x = np.where(x > 0, x, x * slope.reshape(-1, 1, 1))
        if pool:
            size, padding = pool
            if padding == "SAME_UPPER":
                need = [max(0, (-(-s // 2) - 1) * 2 + size - s) for s in x.shape[1:]]
                around = [(0, 0), *((n // 2, n - n // 2) for n in need)]
                x = np.pad(x, around, constant_values=-np.inf)
            x = slide(x, size, 2).max(axis=(3, 4))
    if net.side:
        flat = x.transpose(2, 1, 0).ravel()  # Keras: permute to W, H, C, then flatten
        matrix, bias, slope = next(left), next(left), next(left)
        x = flat @ matrix + bias
        x = np.where(x > 0, x, x * slope)
    heads = []
    for name, _ in net.heads:
        matrix, bias = next(left), next(left)
        out = np.tensordot(matrix.reshape(matrix.shape[-2:]), x, axes=(0, 0))
        out = out + bias.reshape(-1, *[1] * (x.ndim - 1))
        if name == "faces":
            grown = np.exp(out - out.max(axis=0))
            out = (grown / grown.sum(axis=0))[1:]
        heads.append(out)
    return heads


@pytest.mark.parametrize("name", ["pnet", "rnet", "onet"])
def test_mtcnn_computes_what_keras_would(tmp_path: Path, name: str) -> None:
    net = mtcnn.NETS[name]
    source = weights.in_wheel(f"mtcnn/assets/weights/{name}.lz4")
    (tmp_path / "net.onnx").write_bytes(mtcnn.to_onnx(source, net).SerializeToString())
    session = Session(tmp_path / "net.onnx")
    rng = np.random.default_rng(3)
    height, width = (net.side, net.side) if net.side else (47, 38)
    pictures = rng.uniform(0, 255, (2, height, width, 3)).astype(np.float32)
    found = session.run(pictures.transpose(0, 3, 1, 2))
    for row, picture in enumerate(pictures):
        wanted = keras(net, mtcnn._arrays(source), picture)
        for ours, theirs in zip(found, wanted, strict=True):
            np.testing.assert_allclose(ours[row], theirs, rtol=1e-3, atol=1e-4)


def test_another_file_is_no_mtcnn(tmp_path: Path) -> None:
    onet = weights.in_wheel("mtcnn/assets/weights/onet.lz4")
    with pytest.raises(BadWeights, match="not MTCNN's pnet"):
        mtcnn.to_onnx(onet, mtcnn.PNET)
    broken = tmp_path / "pnet.lz4"
    broken.write_bytes(onet.read_bytes()[:1000])
    with pytest.raises(BadWeights, match="cannot read"):
        mtcnn.to_onnx(broken, mtcnn.PNET)


# --- the cache ------------------------------------------------------------------------------------


def sources() -> dict[Path, str]:
    return {weights.in_wheel(f.url.removeprefix("wheel:")): f.sha256 for f in catalog.BUILTIN.files}


def convert(folder: Path) -> dict[str, str]:
    made = weights.converted(sources(), folder)
    return {name: weights.sha256(path) for name, path in made.items()}


def test_the_cache_is_kept_and_a_damaged_one_is_made_again(tmp_path: Path) -> None:
    first = convert(tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.onnx")}
    assert len(stamps) == 4
    assert convert(tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.onnx")} == stamps

    with (tmp_path / "onet.onnx").open("r+b") as file:
        file.seek(1000)
        file.write(b"damaged")
    assert convert(tmp_path) == first

    (tmp_path / "rnet.onnx").unlink()
    assert convert(tmp_path) == first

    (tmp_path / weights.CHECKSUMS).write_text("{")
    assert convert(tmp_path) == first
    assert not list(tmp_path.glob("*.part"))


def test_another_version_of_the_readers_converts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(tmp_path)
    monkeypatch.setattr(weights, "CONVERTER", "next")
    convert(tmp_path)
    assert json.loads((tmp_path / weights.CHECKSUMS).read_text())["converter"] == "next"


def test_a_source_that_is_not_the_one_in_the_catalogue_is_refused(tmp_path: Path) -> None:
    false = dict.fromkeys(sources(), "0" * 64)
    with pytest.raises(ChecksumMismatch, match=r"pnet\.lz4 is not the file in the catalogue"):
        weights.converted(false, tmp_path)
    assert not list(tmp_path.glob("*.onnx"))


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(BadWeights, match="no_such_package"):
        weights.in_wheel("no_such_package/weights.bin")


def test_several_processes_may_start_at_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        made = pool.starmap(weights.converted, [(sources(), tmp_path)] * 4)
    assert all(each == made[0] for each in made)
    assert len(convert(tmp_path)) == 4
