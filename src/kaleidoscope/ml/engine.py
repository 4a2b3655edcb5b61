"""The engine: a picture in, its faces out, by one pack of networks."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kaleidoscope.kernel.settings import load
from kaleidoscope.ml import catalog, weights
from kaleidoscope.ml.catalog import Pack
from kaleidoscope.ml.errors import ChecksumMismatch, NotPulled
from kaleidoscope.ml.models import align, quality
from kaleidoscope.ml.models.align import View
from kaleidoscope.ml.models.faces import Detector, Found
from kaleidoscope.ml.models.mtcnn import Mtcnn
from kaleidoscope.ml.models.pyramid import Pyramid
from kaleidoscope.ml.models.quality import Quality
from kaleidoscope.ml.models.recogniser import Recogniser, unit
from kaleidoscope.ml.models.scrfd import Scrfd
from kaleidoscope.ml.models.session import Session
from kaleidoscope.ml.models.yunet import YuNet
from kaleidoscope.ml.settings import MlSettings, PresetName

Pixels = npt.NDArray[np.uint8]
Vector = npt.NDArray[np.float32]
Vectors = npt.NDArray[np.float32]

GREY = 128
MARGIN = 0.25  # of grey on each side, when nothing was found in the plain picture
FILLING = 0.4  # of the shorter side: the least that a face then takes up


@dataclass(frozen=True)
class Preset:
    """How much is spent on a photo. The first view is the plain one; the others, and if `mirrored`
    the mirror image of each, are taken of faces whose quality is below `unsure`. `min_face`: times
    the pack's own.
    """

    name: PresetName
    views: tuple[View, ...]
    mirrored: bool
    unsure: float
    min_face: float


FAST = Preset("fast", (View(),), mirrored=False, unsure=0.0, min_face=1.0)
BALANCED = Preset("balanced", (View(),), mirrored=True, unsure=0.8, min_face=1.0)
THOROUGH = Preset(
    "thorough",
    (View(), View(dx=4, dy=-3, zoom=1.04), View(dx=-4, dy=3, zoom=1.08)),
    mirrored=True,
    unsure=math.inf,
    min_face=0.5,
)
PRESETS: dict[str, Preset] = {preset.name: preset for preset in (FAST, BALANCED, THOROUGH)}


@dataclass(frozen=True)
class Face:
    """A face in pixels of the picture given: `bbox` x1 y1 x2 y2 (it may reach beyond the picture),
    `landmarks` [5, 2] (eye left in the picture, other eye, nose, mouth left, mouth right),
    `embedding` float32 [d] of length 1, `confidence` 0..1 of the detector.
    """

    bbox: tuple[float, float, float, float]
    landmarks: npt.NDArray[np.float32]
    embedding: Vector
    confidence: float
    quality: Quality


@dataclass(frozen=True)
class Seen:
    """The faces found in a picture, before they are embedded: `plain` [n, s, s, 3] in the first
    view, those that are `unsure` [n] in `more` [m · further views, s, s, 3] as well. `timings` in
    milliseconds.
    """

    found: Found
    qualities: list[Quality]
    plain: Pixels
    unsure: npt.NDArray[np.bool_]
    more: Pixels
    timings: dict[str, float]

    def faces(self, plain: Vectors, more: Vectors) -> list[Face]:
        """The faces, whose vectors [n, d] and [m · further views, d] these are."""
        if len(more):
            number = int(self.unsure.sum())
            plain[self.unsure] += more.reshape(number, -1, more.shape[1]).sum(axis=1)
        found = self.found
        rows = zip(
            found.boxes.tolist(),
            found.points,
            unit(plain),
            found.scores.tolist(),
            self.qualities,
            strict=True,
        )
        return [Face(tuple(box), *rest) for box, *rest in rows]


@contextmanager
def timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    """Note the milliseconds that a stage takes."""
    start = time.perf_counter()
    yield
    timings[stage] = 1000 * (time.perf_counter() - start)


class FaceEngine:
    """One pack in memory, for one thread. The networks are loaded with the first picture."""

    def __init__(self, pack: Pack, preset: Preset = BALANCED, *, min_face: int = 0) -> None:
        """`min_face`: side in pixels of the smallest face sought, in the picture shrunk to the
        side at which the detector looks at it; 0: the pack's own, by the preset.
        """
        self.pack = pack
        self.preset = preset
        self.min_face = min_face or max(12, round(pack.detector.min_face * preset.min_face))
        self.timings: dict[str, float] = {}
        self.last_used = time.monotonic()
        self._networks: tuple[Detector, Recogniser] | None = None

    @property
    def model_version(self) -> str:
        """Pack, detector and recogniser, each file by the head of its checksum."""
        detector, recogniser = self.pack.detector, self.pack.recogniser
        eyes = self.pack.file(detector.file).sha256[:8] if detector.file else mtcnn_version()
        mind = self.pack.file(recogniser.file).sha256[:8]
        return f"{self.pack.name}/{detector.kind}-{eyes}/{Path(recogniser.file).stem}-{mind}"

    @property
    def loaded(self) -> bool:
        return self._networks is not None

    def load(self) -> None:
        """Load the networks now. Raises a `ModelError` that says which file is at fault."""
        if self._networks is None:
            files = locate(self.pack)
            self._networks = self._detector(files), self._recogniser(files)

    def unload(self) -> None:
        """Free the networks' memory; the next picture loads them again."""
        self._networks = None

    def unload_if_idle(self, seconds: float) -> bool:
        """Unload when no picture came for so long. Says whether it did."""
        idle = self.loaded and time.monotonic() - self.last_used >= seconds
        if idle:
            self.unload()
        return idle

    def analyse(self, image: Pixels) -> list[Face]:
        """The faces of a picture, uint8 [h, w, 3] RGB, the surest first.

        `timings` then holds the milliseconds of detect, align and embed. Raises a `ModelError`
        when the pack cannot be loaded.
        """
        seen = self.look(image)
        (faces,) = self.embed([seen])
        self.timings = seen.timings
        return faces

    def look(self, image: Pixels) -> Seen:
        """What `embed` makes the faces of a picture of; the picture is no longer needed then."""
        detector, recogniser = self._loaded()
        timings: dict[str, float] = {}
        with timed(timings, "detect"):
            picture = Pyramid(image)
            found = detect(detector, picture)
        with timed(timings, "align"):
            first, *others = self.preset.views
            plain = align.chips(picture, found.points, recogniser.template, (first,))[:, 0]
            qualities = quality.judge(found.points, plain, found.scores)
            unsure = np.array([q.score < self.preset.unsure for q in qualities], np.bool_)
            every = np.concatenate(
                [
                    plain[unsure][:, None],
                    align.chips(picture, found.points[unsure], recogniser.template, others),
                ],
                axis=1,
            )
            more = every[:, 1:]
            if self.preset.mirrored:
                more = np.concatenate([more, every[:, :, :, ::-1]], axis=1)
        self.last_used = time.monotonic()
        return Seen(found, qualities, plain, unsure, more.reshape(-1, *plain.shape[1:]), timings)

    def embed(self, pictures: Sequence[Seen]) -> list[list[Face]]:
        """The faces of each of these pictures; all are embedded together, which takes less time."""
        if not pictures:
            return []
        _, recogniser = self._loaded()
        spent: dict[str, float] = {}
        with timed(spent, "embed"):
            chips = [chips for seen in pictures for chips in (seen.plain, seen.more)]
            vectors = iter(_split(recogniser.embed(np.concatenate(chips)), chips))
            faces = [seen.faces(next(vectors), next(vectors)) for seen in pictures]
        for seen in pictures:
            seen.timings["embed"] = spent["embed"] / len(pictures)
        self.last_used = time.monotonic()
        return faces

    def _loaded(self) -> tuple[Detector, Recogniser]:
        self.load()
        assert self._networks is not None
        return self._networks

    def _detector(self, files: dict[str, Path]) -> Detector:
        described = self.pack.detector
        if described.kind != "mtcnn":
            return detector_of(described, Session(files[described.file]), self.min_face)
        nets = {Path(n).stem: Session(files[n]) for n in ("pnet.lz4", "rnet.lz4", "onet.lz4")}
        confidence, side = described.confidence, described.side
        return Mtcnn(nets, confidence=confidence, side=side, min_face=self.min_face)

    def _recogniser(self, files: dict[str, Path]) -> Recogniser:
        described = self.pack.recogniser
        return Recogniser(
            Session(files[described.file]),
            template=align.TEMPLATES[described.template],
            dimension=described.dimension,
            bgr=described.order == "bgr",
            mean=described.mean,
            deviation=described.deviation,
        )


def _split(vectors: Vectors, like: Sequence[Pixels]) -> list[Vectors]:
    """Rows of one array as several, each of as many rows as its counterpart has."""
    return np.split(vectors, np.cumsum([len(part) for part in like])[:-1])


def detector_of(described: catalog.Detector, session: Session, min_face: int) -> Detector:
    """A detector of one network."""
    network = YuNet if described.kind == "yunet" else Scrfd
    confidence, side = described.confidence, described.side
    return network(session, confidence=confidence, side=side, min_face=min_face)


def blank() -> Pyramid:
    """A picture with nothing in it, to see whether a network runs."""
    return Pyramid(np.full((64, 64, 3), GREY, np.uint8))


def detect(detector: Detector, picture: Pyramid) -> Found:
    """The faces of a picture; one without any is looked at again with a margin of grey.

    A detector wants to see what is around a face, and crops often end at the hair. Such a face
    fills its picture: nothing small is sought the second time.
    """
    found = detector.detect(picture)
    if len(found):
        return found
    margin = round(MARGIN * max(picture.width, picture.height))
    image = np.asarray(picture.level(0))
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), constant_values=GREY)
    at_least = FILLING * min(picture.width, picture.height)
    return detector.detect(Pyramid(padded), at_least).moved(1.0, -margin, -margin)


def load_engine(pack_name: str | None = None, preset: str | None = None) -> FaceEngine:
    """An engine for the pack of this name (none: the one in use), by the settings of `[ml]`.

    Raises `UnknownPack` or `BadPack`; missing or wrong files show when the engine loads.
    """
    settings = load(MlSettings)
    pack = catalog.find(pack_name or catalog.active())
    return FaceEngine(pack, PRESETS[preset or settings.preset], min_face=settings.min_face)


def locate(pack: Pack) -> dict[str, Path]:
    """The files of a pack as ONNX on this machine, each checked, by their names in the pack.

    Those of `builtin` are converted when they are not yet. Raises `NotPulled` or
    `ChecksumMismatch`.
    """
    files = {}
    sources = {}
    if pack.detector.kind == "mtcnn" and pack.name != catalog.BUILTIN.name:
        sources = {f.name: f for f in catalog.BUILTIN.files if f.name.endswith(".lz4")}
    for file in pack.files:
        if file.url.startswith("wheel:"):
            sources[file.name] = file
        else:
            files[file.name] = check(pack, file)
    if sources:
        wheel = {weights.in_wheel(f.url.removeprefix("wheel:")): f.sha256 for f in sources.values()}
        files |= weights.converted(wheel, pack.folder)
    return files


def check(pack: Pack, file: catalog.ModelFile) -> Path:
    """The path of a pack's file, which is the right one. Raises `NotPulled`, `ChecksumMismatch`."""
    path = pack.folder / file.name
    if not path.is_file():
        hint = f"run `kaleidoscope models pull {pack.name}`" if file.url else "import it again"
        raise NotPulled(f"{path} of the pack {pack.name} is not there", hint=hint, pack=pack.name)
    if (found := weights.sha256(path)) != file.sha256:
        raise ChecksumMismatch(
            f"{path} is not the file that the pack {pack.name} names "
            f"(SHA-256 {found}, not {file.sha256})",
            hint=f"remove it and run `kaleidoscope models pull {pack.name}`"
            if file.url
            else "import the pack again",
            path=str(path),
        )
    return path


def mtcnn_version() -> str:
    """The head of ONet's checksum, which stands for the three networks of one wheel."""
    return catalog.BUILTIN.file("onet.lz4").sha256[:8]
