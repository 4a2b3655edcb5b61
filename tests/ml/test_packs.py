"""Packs on disk: pulled over HTTP, imported, verified, used."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from kaleidoscope.ml import catalog, engine, packs, weights
from kaleidoscope.ml.catalog import ModelFile, Pack
from kaleidoscope.ml.engine import FaceEngine, load_engine
from kaleidoscope.ml.errors import (
    BadPack,
    BadWeights,
    ChecksumMismatch,
    DownloadFailed,
    LicenceNotAccepted,
    NotPulled,
)

# --- a server of files ----------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Serves `files` with ranges; closes the connection after `cut` bytes of an answer."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cut: int | None = None
        self.ranges = True
        self.asked: list[tuple[str, str | None]] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name, asked = self.path.lstrip("/"), self.headers.get("Range")
        self.server.asked.append((name, asked))
        if name == "moved":
            self.send_response(302)
            self.send_header("Location", self.server.url("a.onnx"))
            self.end_headers()
            return
        content = self.server.files.get(name)
        if content is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if asked and self.server.ranges and start >= len(content):
            self.send_error(416)
            return
        partial = asked is not None and self.server.ranges
        body = content[start:] if partial else content
        self.send_response(206 if partial else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


A = np.random.default_rng(0).bytes(300_000)
B = np.random.default_rng(1).bytes(5_000)


def file(name: str, content: bytes, url: str, member: str = "") -> ModelFile:
    digest = hashlib.sha256(content).hexdigest()
    return ModelFile(name=name, sha256=digest, bytes=len(content), url=url, member=member)


def pack_of(*files: ModelFile, non_commercial: bool = False) -> Pack:
    described = catalog.YUNET_SFACE.model_dump() | {
        "name": "tested",
        "licence": "only on Sundays",
        "non_commercial": non_commercial,
        "files": [f.model_dump() for f in files],
    }
    described["detector"]["file"] = files[0].name
    described["recogniser"]["file"] = files[-1].name
    return Pack.model_validate(described)


def states(pack: Pack) -> list[str]:
    return [each.state for each in packs.verify(pack)]


# --- pull -----------------------------------------------------------------------------------------


def test_pull_fetches_checks_and_then_keeps(data_dir: Path, server: Server) -> None:
    server.files = {"a.onnx": A, "b.onnx": B}
    pack = pack_of(file("a.onnx", A, server.url("moved")), file("b.onnx", B, server.url("b.onnx")))
    assert states(pack) == ["missing", "missing"]
    assert not packs.is_here(pack)
    with pytest.raises(NotPulled, match=r"a\.onnx of the pack tested") as caught:
        engine.locate(pack)
    assert caught.value.hint == "run `kaleidoscope models pull tested`"
    seen: list[tuple[str, int, int]] = []
    done = packs.pull(pack, progress=lambda *step: seen.append(step))
    assert [state.state for state in done] == ["ok", "ok"]
    assert seen[-1] == ("b.onnx", len(B), len(B))
    assert ("a.onnx", len(A), len(A)) in seen
    assert packs.is_here(pack)
    assert sorted(p.name for p in pack.folder.iterdir()) == ["a.onnx", "b.onnx"]
    server.asked.clear()
    packs.pull(pack)
    assert server.asked == []


def test_an_interrupted_pull_is_continued(data_dir: Path, server: Server) -> None:
    server.files, server.cut = {"a.onnx": A}, 100_000
    pack = pack_of(file("a.onnx", A, server.url("a.onnx")))
    with pytest.raises(DownloadFailed, match=r"a\.onnx") as caught:
        packs.pull(pack)
    assert caught.value.hint == "call again to continue"
    assert (pack.folder / "a.onnx.part").stat().st_size == 100_000
    assert states(pack) == ["missing"]
    server.cut = None
    packs.pull(pack)
    assert server.asked[-1] == ("a.onnx", "bytes=100000-")
    assert states(pack) == ["ok"]


def test_a_server_without_ranges_sends_it_all_again(data_dir: Path, server: Server) -> None:
    server.files, server.cut, server.ranges = {"a.onnx": A}, 100_000, False
    pack = pack_of(file("a.onnx", A, server.url("a.onnx")))
    with pytest.raises(DownloadFailed):
        packs.pull(pack)
    server.cut = None
    packs.pull(pack)
    assert states(pack) == ["ok"]


def test_another_file_is_refused_and_removed(data_dir: Path, server: Server) -> None:
    false = bytes(len(A))
    server.files = {"a.onnx": false}
    pack = pack_of(file("a.onnx", A, server.url("a.onnx")))
    with pytest.raises(ChecksumMismatch, match=r"a\.onnx is not the file"):
        packs.pull(pack)
    assert list(pack.folder.iterdir()) == []


@pytest.mark.parametrize("content", [A + b"more", A[:-1]], ids=["longer", "shorter"])
def test_a_file_of_another_size_is_not_even_fetched(
    data_dir: Path, server: Server, content: bytes
) -> None:
    server.files = {"a.onnx": content}
    pack = pack_of(file("a.onnx", A, server.url("a.onnx")))
    with pytest.raises(DownloadFailed, match=f"{len(content)} bytes, {len(A)} expected"):
        packs.pull(pack)
    assert list(pack.folder.iterdir()) == []


def test_what_the_network_says_is_told(data_dir: Path, server: Server) -> None:
    pack = pack_of(file("a.onnx", A, server.url("absent")))
    with pytest.raises(DownloadFailed, match="404"):
        packs.pull(pack)
    nobody = pack_of(file("a.onnx", A, "http://127.0.0.1:1/a.onnx"))
    with pytest.raises(DownloadFailed, match="cannot fetch http://127"):
        packs.pull(nobody)


def zipped(**contents: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in contents.items():
            archive.writestr(f"buffalo/{name}.onnx", content)
    return out.getvalue()


def test_members_of_a_zip_are_taken_out_of_it(data_dir: Path, server: Server) -> None:
    server.files = {"pack.zip": zipped(a=A, other=b"no", b=B)}
    url = server.url("pack.zip")
    pack = pack_of(file("a.onnx", A, url, "a.onnx"), file("b.onnx", B, url, "b.onnx"))
    packs.pull(pack)
    assert states(pack) == ["ok", "ok"]
    assert sorted(p.name for p in pack.folder.iterdir()) == ["a.onnx", "b.onnx"]
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "content", [b"no zip", zipped(b=B), zipped(a=A[:-1])], ids=["no zip", "absent", "shorter"]
)
def test_a_zip_without_the_member_is_refused(
    data_dir: Path, server: Server, content: bytes
) -> None:
    server.files = {"pack.zip": content}
    pack = pack_of(file("a.onnx", A, server.url("pack.zip"), "a.onnx"))
    with pytest.raises(DownloadFailed, match=r"pack\.zip is not the archive expected"):
        packs.pull(pack)
    assert list(pack.folder.iterdir()) == []


def test_nothing_non_commercial_is_fetched_unaccepted(data_dir: Path, server: Server) -> None:
    server.files = {"a.onnx": A}
    pack = pack_of(file("a.onnx", A, server.url("a.onnx")), non_commercial=True)
    with pytest.raises(LicenceNotAccepted, match="only on Sundays"):
        packs.pull(pack)
    assert server.asked == []
    packs.pull(pack, accept_licence=True)
    assert states(pack) == ["ok"]


def test_a_changed_file_never_loads_and_is_pulled_again(data_dir: Path, server: Server) -> None:
    server.files = {"a.onnx": A}
    pack = pack_of(file("a.onnx", A, server.url("a.onnx")))
    packs.pull(pack)
    (pack.folder / "a.onnx").write_bytes(bytes(len(A)))
    assert states(pack) == ["wrong"]
    with pytest.raises(ChecksumMismatch):
        FaceEngine(pack).load()
    packs.pull(pack)
    assert states(pack) == ["ok"]


# --- the user's own -------------------------------------------------------------------------------


def saved(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, object],
    sides: list[int | str],
    outputs: list[str],
) -> Path:
    image = helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["n", 3, *sides])
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    infos = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
    graph = helper.make_graph(nodes, "made", [image], infos, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def made_recogniser(path: Path, dimension: int = 512) -> Path:
    """A network that answers the mean colours of a face, mixed."""
    matrix = np.random.default_rng(5).normal(size=(3, dimension)).astype(np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["picture"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["vector"]),
    ]
    return saved(path, nodes, {"matrix": matrix}, [112, 112], ["vector"])


def made_yunet(path: Path) -> Path:
    """A network with YuNet's outputs that finds a face wherever a cell is white."""
    nodes, constants, outputs = [], {}, []
    for kind, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        for stride in (8, 16, 32):
            name = f"{kind}_{stride}"
            outputs.append(name)
            kernel = np.zeros((width, 3, 1, 1), np.float32)
            if kind in ("cls", "obj"):
                kernel[:] = 1 / 765
            constants |= {f"{name}_kernel": kernel, f"{name}_shape": np.array([1, -1, width])}
            nodes += [
                helper.make_node("AveragePool", ["picture"], [f"{name}_pool"],
                                 kernel_shape=[stride] * 2, strides=[stride] * 2),
                helper.make_node("Conv", [f"{name}_pool", f"{name}_kernel"], [f"{name}_map"]),
                helper.make_node("Transpose", [f"{name}_map"], [f"{name}_last"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"{name}_last", f"{name}_shape"], [name]),
            ]  # fmt: skip
    return saved(path, nodes, constants, ["h", "w"], outputs)


def test_two_networks_make_a_pack_whatever_their_order(data_dir: Path, tmp_path: Path) -> None:
    networks = [made_recogniser(tmp_path / "r.onnx"), made_yunet(tmp_path / "d.onnx")]
    pack = packs.import_files(networks, name="mine")
    assert (pack.detector.kind, pack.detector.file) == ("yunet", "d.onnx")
    assert (pack.recogniser.file, pack.dimension) == ("r.onnx", 512)
    assert pack.recogniser.mean == (127.5, 127.5, 127.5)
    assert catalog.find("mine") == pack
    assert catalog.packs()["mine"] == pack
    assert states(pack) == ["ok", "ok"]
    assert packs.use("mine") == pack
    assert catalog.active() == "mine"

    image = np.zeros((256, 256, 3), np.uint8)
    image[96:128, 160:192] = 255
    (face,) = FaceEngine(catalog.find(catalog.active()), engine.FAST, min_face=20).analyse(image)
    assert face.embedding.shape == (512,)
    assert np.array(face.bbox) == pytest.approx([144, 80, 176, 112])


def test_a_folder_with_a_description_says_more(data_dir: Path, tmp_path: Path) -> None:
    made_recogniser(tmp_path / "r.onnx", dimension=64)
    made_yunet(tmp_path / "d.onnx")
    (tmp_path / "pack.toml").write_text(
        """
        name = "described"
        summary = "colours"
        licence = "mine"
        [detector]
        file = "d.onnx"
        confidence = 0.6
        [recogniser]
        file = "r.onnx"
        order = "bgr"
        [thresholds]
        steps = [{ persons = 0, join = 0.5, even = 0.4 }]
        slope = 10
        """
    )
    pack = packs.import_folder(tmp_path)
    assert (pack.name, pack.licence, pack.dimension) == ("described", "mine", 64)
    assert (pack.detector.confidence, pack.recogniser.order) == (0.6, "bgr")
    assert pack.thresholds.join_at(5) == 0.5
    assert catalog.find("described") == pack
    with pytest.raises(BadPack, match="there is a pack called 'described' already"):
        packs.import_folder(tmp_path)
    assert packs.import_folder(tmp_path, replace=True) == pack
    assert packs.import_folder(tmp_path, name="second").name == "second"


@pytest.mark.parametrize(
    "text",
    ["detector = 3", "[recogniser]\nfile = 3", '[recogniser]\nfile = "../r.onnx"', "summary = ["],
)
def test_a_description_that_names_no_file_beside_it_is_refused(
    data_dir: Path, tmp_path: Path, text: str
) -> None:
    (tmp_path / "pack.toml").write_text(text)
    with pytest.raises(BadPack, match=r"pack\.toml"):
        packs.import_folder(tmp_path, name="mine")


def test_a_description_with_the_checksum_of_another_file_is_refused(
    data_dir: Path, tmp_path: Path
) -> None:
    made_recogniser(tmp_path / "r.onnx")
    text = '[recogniser]\nfile = "r.onnx"\n[[files]]\nname = "r.onnx"\nsha256 = "%s"\n'
    (tmp_path / "pack.toml").write_text(text % ("0" * 64))
    with pytest.raises(ChecksumMismatch, match=r"r\.onnx"):
        packs.import_folder(tmp_path, name="mine")


def test_dlibs_own_format_imports_with_mtcnn_before_it(data_dir: Path) -> None:
    source = "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat"
    pack = packs.import_files([weights.in_wheel(source)], name="dlib-again")
    assert (pack.detector.kind, pack.recogniser.template) == ("mtcnn", "dlib")
    own, builtin = load_engine("dlib-again", "fast"), load_engine("builtin", "fast")
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)
    own.load()
    builtin.load()
    assert own.analyse(image) == builtin.analyse(image) == []
    assert own.model_version != builtin.model_version


@pytest.mark.parametrize(
    ("name", "networks", "said"),
    [
        ("builtin", ["r"], "cannot be the name"),
        ("../up", ["r"], "cannot be the name"),
        ("mine", ["d"], "one recogniser and at most one detector are needed"),
        ("mine", ["r", "r2"], "one recogniser and at most one detector are needed"),
        ("mine", ["broken"], "cannot load"),
        ("mine", ["absent"], "cannot copy"),
    ],
)
def test_what_is_no_pack_is_refused_and_leaves_nothing(
    data_dir: Path, tmp_path: Path, name: str, networks: list[str], said: str
) -> None:
    made_recogniser(tmp_path / "r.onnx")
    made_recogniser(tmp_path / "r2.onnx")
    made_yunet(tmp_path / "d.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"broken")
    with pytest.raises((BadPack, BadWeights), match=said):
        packs.import_files([tmp_path / f"{n}.onnx" for n in networks], name=name)
    assert not catalog.models_dir().exists() or list(catalog.models_dir().iterdir()) == []


def test_a_reading_can_be_chosen(data_dir: Path, tmp_path: Path) -> None:
    network = made_recogniser(tmp_path / "r.onnx")
    assert packs.import_files([network], name="one").recogniser.deviation == (127.5,) * 3
    chosen = packs.import_files([network], name="two", reading="sface").recogniser
    assert (chosen.order, chosen.deviation) == ("bgr", (1.0,) * 3)
    with pytest.raises(BadPack, match="no reading is called 'braille'"):
        packs.import_files([network], name="three", reading="braille")


def test_verify_finds_what_changed_in_an_imported_pack(data_dir: Path, tmp_path: Path) -> None:
    pack = packs.import_files([made_recogniser(tmp_path / "r.onnx")], name="mine")
    path = pack.folder / "r.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert states(pack) == ["wrong"]
    with pytest.raises(ChecksumMismatch) as caught:
        load_engine("mine").load()
    assert caught.value.hint == "import the pack again"
    path.unlink()
    assert states(pack) == ["missing"]
    with pytest.raises(NotPulled, match="has no URL"):
        packs.pull(pack)


def test_builtin_verifies_where_it_lies(data_dir: Path) -> None:
    assert states(catalog.BUILTIN) == ["ok"] * 4
    assert packs.is_here(catalog.BUILTIN)
    assert [s.state for s in packs.pull(catalog.BUILTIN)] == ["ok"] * 4


@pytest.mark.parametrize("detector", ["yunet_n_dynamic", "scrfd_500m_kps"])
def test_real_networks_work_end_to_end(data_dir: Path, shared: Path, detector: str) -> None:
    """Four photographs of two people: the faces of one person are the most similar."""
    models = [shared / "models" / f"{n}.onnx" for n in (detector, "MobileFaceNet_foamliu")]
    pack = packs.import_files(models, name="real")
    assert pack.dimension == 128
    assert pack.recogniser.mean == (123.675, 116.28, 103.53)
    looking = load_engine("real", "balanced")
    people = sorted((shared / "faces/photos/whole").iterdir())
    people = [p for p in people if p.is_dir() and len(list(p.iterdir())) >= 4][:2]
    vectors = []
    for person in people:
        for path in sorted(person.iterdir())[:3]:
            image = np.asarray(Image.open(path).convert("RGB"))
            faces = looking.analyse(image)
            assert faces, path
            largest = max(faces, key=lambda f: f.bbox[2] - f.bbox[0])
            vectors.append(largest.embedding)
    similar = np.array(vectors) @ np.array(vectors).T
    same = (
        similar[:3, :3][np.triu_indices(3, 1)].tolist()
        + similar[3:, 3:][np.triu_indices(3, 1)].tolist()
    )
    assert min(same) > similar[:3, 3:].max()
    assert np.mean(same) > pack.thresholds.join_at(10)
