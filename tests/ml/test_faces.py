"""Detection, alignment, embedding and quality of faces."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from kaleidoscope.ml import engine
from kaleidoscope.ml.engine import BALANCED, FAST, THOROUGH, Face, FaceEngine, load_engine
from kaleidoscope.ml.errors import BadWeights
from kaleidoscope.ml.models import align, quality
from kaleidoscope.ml.models.faces import Found, best, merged, overlaps
from kaleidoscope.ml.models.letterbox import cells, letterbox
from kaleidoscope.ml.models.pyramid import Pyramid
from kaleidoscope.ml.models.recogniser import Recogniser
from kaleidoscope.ml.models.scrfd import Scrfd
from kaleidoscope.ml.models.session import Session
from kaleidoscope.ml.models.yunet import YuNet
from kaleidoscope.ml.work import specimen

Pixels = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float32]


class Scripted(Session):
    """A network whose answer is written down; it remembers what it was shown."""

    def __init__(self, answer: dict[str, Array], side: tuple[int, int] | None) -> None:
        self.path = Path("scripted.onnx")
        self.outputs = list(answer)
        self.shape = (1, 3, *(side or ("h", "w")))
        self.input = "input"
        self.answer = list(answer.values())
        self.seen: list[Array] = []

    def run(self, pictures: Array) -> list[Array]:
        self.seen.append(pictures)
        return self.answer


@pytest.fixture(scope="module")
def builtin(tmp_path_factory: pytest.TempPathFactory) -> FaceEngine:
    """The default engine, its networks converted once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KALEIDOSCOPE_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        loaded = load_engine("builtin", "balanced")
        loaded.load()
    return loaded


def photo(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def portrait(shared: Path) -> Pixels:
    return photo(min((shared / "faces/photos/lfw250").glob("*/*")))


# --- boxes ----------------------------------------------------------------------------------------

BOXES = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30], [2, 2, 6, 6]], np.float32)


def test_overlaps_are_shares_of_the_union_or_of_the_smaller() -> None:
    union, smaller = overlaps(BOXES), overlaps(BOXES, of_smaller=True)
    assert union[0, 1] == pytest.approx(81 / 119)
    assert union[0, 2] == 0
    assert smaller[0, 3] == pytest.approx(1)
    assert np.allclose(np.diag(union), 1)


def test_the_best_of_overlapping_boxes_stays() -> None:
    scores = np.array([0.7, 0.9, 0.5, 0.8], np.float32)
    assert best(BOXES, scores, 0.5).tolist() == [1, 3, 2]
    assert best(BOXES, scores, 0.5, of_smaller=True).tolist() == [1, 2]
    assert best(BOXES[:0], scores[:0], 0.5).tolist() == []


def test_a_suppressed_box_suppresses_nothing() -> None:
    row = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], np.float32)
    assert best(row, np.array([0.9, 0.8, 0.7], np.float32), 0.3).tolist() == [0, 2]


def test_faces_smaller_than_asked_for_are_left_out() -> None:
    found = Found(BOXES, np.zeros((4, 5, 2), np.float32), np.array([0.9, 0.2, 0.8, 0.7]))
    assert len(merged([Found.nothing(), found], 0.5, 5)) == 2


# --- sampling -------------------------------------------------------------------------------------


def test_a_pyramid_keeps_places(tmp_path: Path) -> None:
    """A bright square is found where it is, whatever level is sampled, in pictures of odd sides."""
    image = np.zeros((401, 603, 3), np.uint8)
    image[96:160, 200:296] = 255
    picture = Pyramid(image)
    inside = np.array([[200, 96, 296, 160], [216, 112, 280, 144]], np.float32)
    assert picture.patches(inside, 12)[:, 2:-2, 2:-2].min() > 250
    beside = np.array([[104, 96, 198, 160], [-50, -50, 40, 40]], np.float32)
    assert picture.patches(beside, 12)[:, :, :-1].max() < 5
    assert picture.resized(60, 40).shape == (40, 60, 3)


def test_shrinking_does_not_alias() -> None:
    """One-pixel stripes become grey, not stripes of another width."""
    image = np.zeros((512, 512, 3), np.uint8)
    image[:, ::2] = 255
    picture = Pyramid(image)
    whole = np.array([[0, 0, 512, 512]], np.float32)
    assert np.abs(picture.patches(whole, 24)[0].astype(int) - 127).max() <= 2
    chip = picture.warped(np.array([[3.0, 0, 20], [0, 3.0, 20]]), 100)
    assert np.abs(chip.astype(int) - 127).max() <= 2


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-3.1, 3.1), st.floats(0.05, 20), st.floats(-1000, 1000), st.floats(-1000, 1000),
    st.integers(0, 2**16),
)  # fmt: skip
def test_a_similarity_is_found_again(
    angle: float, scale: float, dx: float, dy: float, seed: int
) -> None:
    points = np.random.default_rng(seed).uniform(-50, 50, (5, 2))
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = points @ turn.T + [dx, dy]
    matrix = align.similarity(points, moved)
    np.testing.assert_allclose(points @ matrix[:, :2].T + matrix[:, 2], moved, atol=1e-6)


def test_a_similarity_never_mirrors() -> None:
    points = np.array(align.TEMPLATES["arcface"].points)
    matrix = align.similarity(points, points * [-1, 1])
    assert np.linalg.det(matrix[:, :2]) > 0
    same = np.ones((5, 2))
    np.testing.assert_allclose(align.similarity(same, same + 3), [[1, 0, 3], [0, 1, 3]])


@pytest.mark.parametrize("name", ["dlib", "arcface"])
def test_aligned_points_lie_on_the_template(name: str) -> None:
    """Five dots in a turned, enlarged picture appear where the template has them."""
    template = align.TEMPLATES[name]
    angle = 0.5
    turn = 2.5 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = np.array(template.points) @ turn.T + [300, 150]
    image = np.zeros((800, 800, 3), np.uint8)
    for x, y in points:
        image[int(y) - 4 : int(y) + 5, int(x) - 4 : int(x) + 5] = 255
    views = (align.View(), align.View(dx=5, dy=3))
    (plain, moved), *_ = align.chips(
        Pyramid(image), points[None].astype(np.float32), template, views
    )
    for x, y in template.points:
        assert plain[int(y), int(x)].min() > 200
        assert moved[int(y) - 3, int(x) - 5].min() > 200


# --- decoding what networks answer ----------------------------------------------------------------


@pytest.mark.parametrize("fixed", [None, (64, 64)])
def test_a_letterbox_fits_the_network(fixed: tuple[int, int] | None) -> None:
    boxed = letterbox(Pyramid(np.full((300, 200, 3), 9, np.uint8)), 100, fixed)
    height, width = fixed or (128, 96)
    assert boxed.pixels.shape == (height, width, 3)
    inner = round(300 * boxed.scale), round(200 * boxed.scale)
    assert inner == ((64, 43) if fixed else (100, 67))
    assert boxed.pixels[inner[0] - 1, inner[1] - 1, 0] == 9
    assert boxed.pixels[inner[0] :].max(initial=0) == 0


def test_cells_count_row_by_row() -> None:
    assert cells(16, 24, 8).tolist() == [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]]


POINTS = np.array([[0.1, 0.2], [0.6, 0.2], [0.3, 0.5], [0.2, 0.8], [0.5, 0.8]], np.float32)


def test_yunet_answers_are_decoded() -> None:
    """One face at stride 16, in column 2 and row 1 of a picture shrunk to half."""
    answer: dict[str, Array] = {}
    for kind, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        for stride in (8, 16, 32):
            count = (96 // stride) * (64 // stride)
            answer[f"{kind}_{stride}"] = np.zeros((1, count, width), np.float32)
    cell = 1 * (96 // 16) + 2
    answer["cls_16"][0, cell], answer["obj_16"][0, cell] = 0.81, 1.0
    answer["bbox_16"][0, cell] = [0.5, 0.25, np.log(2), np.log(3)]
    answer["kps_16"][0, cell] = POINTS.ravel()
    network = Scripted(answer, None)
    image = np.zeros((128, 192, 3), np.uint8)
    image[..., 0] = 200
    detector = YuNet(network, confidence=0.7, side=96, min_face=8)
    found = detector.detect(Pyramid(image))
    assert found.scores.tolist() == pytest.approx([0.9])
    centre, half = np.array([2.5, 1.25]) * 16, np.array([1.0, 1.5]) * 16
    np.testing.assert_allclose(found.boxes[0], 2 * np.concatenate([centre - half, centre + half]))
    np.testing.assert_allclose(found.points[0], 2 * 16 * (POINTS + np.array([2, 1])), rtol=1e-5)
    shown = network.seen[0]
    assert shown.shape == (1, 3, 64, 96)
    assert shown[0, :, 0, 0].tolist() == [0, 0, 200], "BGR, 0 to 255"
    detector.confidence = 0.95
    assert len(detector.detect(Pyramid(image))) == 0


@pytest.mark.parametrize("batched", [True, False], ids=["[1, n, c]", "[n, c]"])
@pytest.mark.parametrize("interleaved", [True, False], ids=["by stride", "by kind"])
def test_scrfd_answers_are_decoded(batched: bool, interleaved: bool) -> None:
    """One face at stride 32, second anchor of column 1 and row 2; exports differ in their order."""
    answer: dict[str, Array] = {}
    for kind, width in (("score", 1), ("box", 4), ("points", 10)):
        for stride in (8, 16, 32):
            count = 2 * (128 // stride) * (128 // stride)
            answer[f"{kind}_{stride}"] = np.zeros((count, width), np.float32)
    row = 2 * (2 * (128 // 32) + 1) + 1
    answer["score_32"][row] = 0.8
    answer["box_32"][row] = [0.5, 1.0, 0.75, 0.25]
    answer["points_32"][row] = POINTS.ravel()
    if batched:
        answer = {name: array[None] for name, array in answer.items()}
    if interleaved:
        answer = {
            f"{kind}_{stride}": answer[f"{kind}_{stride}"]
            for stride in (8, 16, 32)
            for kind in ("score", "box", "points")
        }
    network = Scripted(answer, (128, 128))
    detector = Scrfd(network, confidence=0.5, side=640, min_face=8)
    found = detector.detect(Pyramid(np.full((128, 128, 3), 255, np.uint8)))
    assert found.scores.tolist() == pytest.approx([0.8])
    np.testing.assert_allclose(found.boxes[0], [32 - 16, 64 - 32, 32 + 24, 64 + 8])
    np.testing.assert_allclose(found.points[0], np.array([32, 64]) + POINTS * 32)
    assert network.seen[0].max() == pytest.approx(127.5 / 128)


def test_a_detector_without_points_is_refused() -> None:
    boxes_only = {f"{k}_{n}": np.zeros((n, k), np.float32) for k in (1, 4) for n in (2, 8, 32)}
    detector = Scrfd(Scripted(boxes_only, (32, 32)), confidence=0.5, side=64, min_face=8)
    with pytest.raises(BadWeights, match="no SCRFD with five points"):
        detector.detect(engine.blank())


def test_a_recogniser_gets_the_channels_it_wants() -> None:
    network = Scripted({"v": np.array([[3.0, 4.0]], np.float32)}, (112, 112))
    chip = np.zeros((1, 112, 112, 3), np.uint8)
    chip[..., 0] = 255
    recogniser = Recogniser(
        network,
        template=align.TEMPLATES["arcface"],
        dimension=2,
        bgr=True,
        mean=(0, 0, 5),
        deviation=(1, 1, 10),
    )
    np.testing.assert_allclose(recogniser.embed(chip), [[0.6, 0.8]])
    assert network.seen[0][0, :, 0, 0].tolist() == [0, 0, 25]
    recogniser.dimension = 3
    with pytest.raises(BadWeights, match="answers 2 numbers a face, its pack says 3"):
        recogniser.embed(chip)
    assert recogniser.embed(chip[:0]).shape == (0, 3)


# --- quality --------------------------------------------------------------------------------------


def test_quality_falls_with_blur_size_and_pose() -> None:
    rng = np.random.default_rng(0)
    chip = np.repeat(rng.integers(0, 256, (150, 150, 1), dtype=np.uint8), 3, axis=2)
    blurred = np.asarray(Image.fromarray(chip).resize((9, 9)).resize((150, 150)))
    frontal = np.array(align.TEMPLATES["dlib"].points, np.float32)
    turned = frontal + np.array([[0, 0]] * 2 + [[25, 0]] + [[0, 0]] * 2, np.float32)
    small = frontal / 5
    faces = np.stack([frontal, frontal, turned, small])
    chips = np.stack([chip, blurred, chip, chip])
    good, blurry, sideways, tiny = quality.judge(faces, chips, np.full(4, 0.99, np.float32))
    assert good.score > 0.9
    assert good.size == pytest.approx(53.1, abs=0.1)
    assert abs(good.yaw) < 0.05
    assert sideways.yaw > 0.4
    assert max(blurry.score, sideways.score, tiny.score) < 0.5 * good.score
    unsure = quality.judge(faces[:1], chips[:1], np.array([0.6], np.float32))[0]
    assert unsure.score < 0.5 * good.score


# --- the whole engine -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (3, 2000), (11, 11), (64, 64), (700, 500)])
def test_pictures_without_a_face_have_none(builtin: FaceEngine, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    assert builtin.analyse(np.full((*shape, 3), 90, np.uint8)) == []
    assert builtin.analyse(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)) == []
    assert set(builtin.timings) == {"detect", "align", "embed"}


def test_a_face_is_told_completely(builtin: FaceEngine, shared: Path) -> None:
    image = portrait(shared)
    face = builtin.analyse(image)[0]
    assert face.embedding.shape == (128,)
    assert face.embedding.dtype == np.float32
    assert np.linalg.norm(face.embedding) == pytest.approx(1, abs=1e-5)
    assert 0.9 <= face.confidence <= 1
    x1, y1, x2, y2 = face.bbox
    assert x1 < face.landmarks[0, 0] < face.landmarks[1, 0] < x2
    assert y1 < face.landmarks[0, 1] < face.landmarks[3, 1] < y2
    assert face.quality.size == pytest.approx(
        np.hypot(*(face.landmarks[1] - face.landmarks[0])), abs=0.01
    )
    assert 0.5 < face.quality.score <= 1


def test_the_same_picture_gives_the_same_faces_at_any_size(
    builtin: FaceEngine, shared: Path
) -> None:
    image = portrait(shared)
    one = builtin.analyse(image)[0]
    for side in (500, 1500):
        larger = np.asarray(Image.fromarray(image).resize((side, side)))
        other = builtin.analyse(larger)[0]
        np.testing.assert_allclose(np.array(other.bbox) * 250 / side, one.bbox, atol=6)
        assert other.embedding @ one.embedding > 0.98
    mirrored = builtin.analyse(np.ascontiguousarray(image[:, ::-1]))[0]
    assert mirrored.embedding @ one.embedding > 0.98


def test_a_tight_crop_is_found_in_a_margin_of_grey(builtin: FaceEngine, shared: Path) -> None:
    image = photo(
        shared / "faces/photos/crop/Madonna/celeb5_httpwwwetonlinecomphotomadonnabdayjpg.jpg"
    )
    detector = builtin._networks[0]  # type: ignore[index]
    assert len(detector.detect(Pyramid(image))) == 0
    (face,) = builtin.analyse(image)
    assert all(0 < v < 150 for v in face.landmarks.ravel())


def test_only_an_unsure_face_is_seen_in_further_views(builtin: FaceEngine) -> None:
    def seen(unsure: float) -> Face:
        looking = FaceEngine(builtin.pack, replace(BALANCED, unsure=unsure))
        looking._networks = builtin._networks
        (face,) = looking.analyse(specimen())
        return face

    plain = seen(0.0)
    assert plain.quality.score > 0
    both = seen(plain.quality.score + 0.01)
    assert seen(plain.quality.score).embedding @ plain.embedding == pytest.approx(1, abs=1e-6)
    assert both.embedding @ plain.embedding < 0.9999
    recogniser = builtin._networks[1]  # type: ignore[index]
    (view,), *_ = align.chips(
        Pyramid(specimen()), plain.landmarks[None], recogniser.template, BALANCED.views
    )
    mean = recogniser.embed(np.stack([view, view[:, ::-1]])).sum(axis=0)
    np.testing.assert_allclose(both.embedding, mean / np.linalg.norm(mean), atol=1e-5)


def test_engines_load_late_and_unload_when_idle(builtin: FaceEngine) -> None:
    fresh = FaceEngine(builtin.pack, FAST)
    assert not fresh.loaded
    assert not fresh.unload_if_idle(0)
    fresh._networks, fresh.last_used = builtin._networks, 0
    assert not fresh.unload_if_idle(1e12)
    assert fresh.unload_if_idle(1)
    assert not fresh.loaded


def test_the_version_names_pack_detector_and_recogniser(builtin: FaceEngine) -> None:
    assert builtin.model_version == (
        "builtin/mtcnn-94f6ea2f/dlib_face_recognition_resnet_model_v1-55533b28"
    )


def test_presets_differ_in_views_and_smallest_face(builtin: FaceEngine) -> None:
    assert [len(p.views) for p in (FAST, BALANCED, THOROUGH)] == [1, 1, 3]
    assert [p.mirrored for p in (FAST, BALANCED, THOROUGH)] == [False, True, True]
    assert FaceEngine(builtin.pack, FAST).min_face == 40
    assert FaceEngine(builtin.pack, THOROUGH).min_face == 20
    assert FaceEngine(builtin.pack, THOROUGH, min_face=60).min_face == 60


# --- real photographs -----------------------------------------------------------------------------


def iou(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    return float(overlaps(np.array([a, b], np.float32))[0, 1])


def labelled(shared: Path, every: int) -> list[dict[str, str]]:
    """Photos of each kind: every so many of the largest kind, most of the others."""
    with (shared / "faces/manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    large = [r for r in rows if r["kind"] == "lfw250"]
    whole = [r for r in rows if r["kind"] == "whole"]
    others = [r for r in rows if r["kind"] in ("crop", "noface")]
    return large[::every] + whole[::2] + others


def test_labelled_faces_are_found_and_nothing_else(builtin: FaceEngine, shared: Path) -> None:
    wanted: dict[str, int] = defaultdict(int)
    found: dict[str, int] = defaultdict(int)
    false = []
    for row in labelled(shared, every=25):
        faces = builtin.analyse(photo(shared / "faces" / row["path"]))
        if row["kind"] == "noface" and faces:
            false.append(row["path"])
        if row["target_box_xyxy"]:
            box = [float(v) for v in row["target_box_xyxy"].split()]
            wanted[row["kind"]] += 1
            found[row["kind"]] += any(iou(f.bbox, box) >= 0.3 for f in faces)
    share = {kind: found[kind] / wanted[kind] for kind in wanted}
    assert not false
    assert share["whole"] >= 0.98, share
    assert share["crop"] >= 0.95, share
    assert share["lfw250"] >= 0.999, share


def test_faces_of_one_person_are_closer_than_of_two(builtin: FaceEngine, shared: Path) -> None:
    rows = [r for r in labelled(shared, every=9) if r["kind"] == "lfw250"]
    people, vectors = [], []
    for row in rows:
        people.append(row["identity"])
        vectors.append(builtin.analyse(photo(shared / "faces" / row["path"]))[0].embedding)
    similar = np.array(vectors) @ np.array(vectors).T
    same = np.equal.outer(people, people)
    np.fill_diagonal(same, False)
    other = ~np.equal.outer(people, people)
    threshold = builtin.pack.thresholds.even_at(100)
    assert (similar[same] >= threshold).mean() > 0.85
    assert (similar[other] >= threshold).mean() < 0.005
