"""The catalogue of face packs: which networks, where from, under which licence, how to read them.

A pack is a detector, a recogniser and the thresholds measured for the two. Those of the product
stand here; the user's own are `pack.toml` files in `data_dir()/models/<name>/`, with the same
fields. Similarities of different packs say nothing about each other.
"""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kaleidoscope.kernel.settings import data_dir, load
from kaleidoscope.ml.errors import BadPack, UnknownPack
from kaleidoscope.ml.settings import MlSettings, PresetName

PACK_FILE = "pack.toml"
CALIBRATION_FILE = "calibration.toml"
REGULAR = 4  # faces of a person who counts for the size of a library
NAME = r"^[a-z0-9][a-z0-9._-]{0,62}$"


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelFile(_Data):
    """One file of a pack. `url` starts with https:, or with `wheel:` for a file that a Python
    package carries; a `member` is the name inside the zip at `url`. Without `url`: the user's own.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(gt=0)
    url: str = ""
    member: str = ""


class Detector(_Data):
    """`mtcnn` lives in the wheel of that name and has no `file`. `side`: the network looks at
    the photo shrunk to so many pixels; `min_face`: pixels there of the smallest face sought;
    `confidence` 0..1: the least that counts as a face.
    """

    kind: Literal["mtcnn", "yunet", "scrfd"]
    file: str = ""
    confidence: float = Field(gt=0, lt=1)
    side: int = Field(default=640, ge=64, le=4096)
    min_face: int = Field(default=14, ge=8, le=1000)


class Recogniser(_Data):
    """Channels in `order`, (x - mean) / deviation of 0..255, aligned to a `template`."""

    file: str
    dimension: int = Field(gt=0, le=4096)
    template: Literal["dlib", "arcface"]
    order: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    deviation: tuple[float, float, float] = (1.0, 1.0, 1.0)


class Step(_Data):
    """In libraries of up to `persons` (0: any number) a face joins the most similar person from
    `join` on, and two persons are merged from `merge` on (None: the same); at `even` it is as
    likely as not that the two are one.

    Persons count who have `REGULAR` faces or more: passers-by make no library large. `merge` may be
    the lower one: what is split by a strict `join` is merged when all faces can be seen.
    """

    persons: int = Field(ge=0)
    join: float = Field(gt=-1, lt=1)
    merge: float | None = Field(default=None, gt=-1, lt=1)
    even: float = Field(gt=-1, lt=1)


class Thresholds(_Data):
    """What similarities of this pack mean: cosines, between a face and a person's faces on average.

    They rise with the library: among more strangers one is more likely to come close. They are
    those of faces seen by the preset `balanced`; seen by `fast` or `thorough` the same faces lie
    higher by so much (below 0: lower). When persons are merged, `rival` times their lead over the
    next most similar persons counts as well (who has nobody near leads over `lonely`; None: over
    `merge`), and for each doubling of the smaller they must be more similar by `caution`.
    `slope`: how fast the odds of "the same person" rise with the similarity (odds = exp(slope ·
    (similarity - even))). `found_quality` 0..1: a poorer face may join a person,
    never found one; one below `legible_quality` joins nobody but who has the very face.
    `measured` says on what, or that nobody could.
    """

    steps: tuple[Step, ...] = Field(min_length=1)
    slope: float = Field(gt=0)
    fast: float = Field(default=0.0, gt=-1, lt=1)
    thorough: float = Field(default=0.0, gt=-1, lt=1)
    rival: float = Field(default=0.0, ge=0, le=3)
    caution: float = Field(default=0.0, ge=0, lt=1)
    lonely: float | None = Field(default=None, gt=-1, lt=1)
    found_quality: float = Field(default=0.2, ge=0, le=1)
    legible_quality: float = Field(default=0.05, ge=0, le=1)
    measured: str = ""

    @model_validator(mode="before")
    @classmethod
    def _without_former_names(cls, stated: dict[str, Any]) -> dict[str, Any]:
        """Packs imported by earlier versions state two shifts by other names, always as 0."""
        return {k: v for k, v in stated.items() if k not in ("one_view", "six_views")}

    @model_validator(mode="after")
    def _ordered(self) -> Thresholds:
        limits = [step.persons or math.inf for step in self.steps]
        if limits != sorted(set(limits)) or limits[-1] != math.inf:
            raise ValueError("`steps` must rise in `persons` and end with persons = 0 (any number)")
        return self

    def join_at(self, persons: int, *, preset: PresetName = "balanced") -> float:
        """The least similarity at which a face joins a person in a library of so many persons."""
        return self._step(persons).join + self.shift(preset)

    def merge_at(self, persons: int, *, preset: PresetName = "balanced") -> float:
        """The least average similarity at which two persons of such a library are one."""
        step = self._step(persons)
        return (step.join if step.merge is None else step.merge) + self.shift(preset)

    def lonely_at(self, persons: int, *, preset: PresetName = "balanced") -> float:
        """How similar the next persons are taken to be where there is nobody near."""
        if self.lonely is None:
            return self.merge_at(persons, preset=preset)
        return self.lonely + self.shift(preset)

    def even_at(self, persons: int, *, preset: PresetName = "balanced") -> float:
        """The similarity at which it is as likely as not that a face is of the person."""
        return self._step(persons).even + self.shift(preset)

    def probability(
        self, similarity: float, persons: int, *, preset: PresetName = "balanced"
    ) -> float:
        """How likely a face is of the person it is most similar to, 0..1, in such a library."""
        above = similarity - self.even_at(persons, preset=preset)
        return 1 / (1 + math.exp(max(-700.0, min(700.0, -self.slope * above))))

    def _step(self, persons: int) -> Step:
        return next(s for s in self.steps if s.persons == 0 or persons <= s.persons)

    def shift(self, preset: PresetName) -> float:
        """How much higher than by `balanced` the similarities of faces seen by a preset lie."""
        return {"fast": self.fast, "balanced": 0.0, "thorough": self.thorough}[preset]


class Pack(_Data):
    """A detector, a recogniser, their files and their thresholds."""

    name: str = Field(pattern=NAME)
    summary: str
    licence: str
    non_commercial: bool = False
    files: tuple[ModelFile, ...]
    detector: Detector
    recogniser: Recogniser
    thresholds: Thresholds

    @model_validator(mode="after")
    def _complete(self) -> Pack:
        known = {file.name for file in self.files}
        needed = {self.recogniser.file} | ({self.detector.file} - {""})
        if missing := needed - known:
            raise ValueError(f"no [[files]] entry for {', '.join(sorted(missing))}")
        if (self.detector.kind == "mtcnn") != (self.detector.file == ""):
            raise ValueError("a yunet or scrfd detector needs its `file`, mtcnn has none")
        return self

    @property
    def dimension(self) -> int:
        """How many numbers an embedding has."""
        return self.recogniser.dimension

    @property
    def folder(self) -> Path:
        """Where its files lie on this machine."""
        return models_dir() / self.name

    def file(self, name: str) -> ModelFile:
        return next(file for file in self.files if file.name == name)

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.bytes for file in self.files)


def models_dir() -> Path:
    """Where packs lie."""
    return data_dir() / "models"


def packs() -> dict[str, Pack]:
    """Every pack by name: the product's, then the user's own. Raises `BadPack`."""
    own = {}
    for file in sorted(models_dir().glob(f"*/{PACK_FILE}")):
        own[file.parent.name] = read_pack(file)
    return {pack.name: pack for pack in CATALOGUE} | {
        name: pack for name, pack in own.items() if name not in OFFICIAL
    }


class Calibration(_Data):
    """What similarities of a pack mean on this machine's own faces: the `slope`, and the `even` of
    each of the pack's steps; `measured` says on what.
    """

    slope: float = Field(gt=0)
    even: tuple[float, ...]
    measured: str

    def applied(self, pack: Pack) -> Pack:
        """The pack with these figures; unchanged if it has other steps by now."""
        stated = pack.thresholds
        if len(self.even) != len(stated.steps):
            return pack
        steps = tuple(
            step.model_copy(update={"even": even})
            for step, even in zip(stated.steps, self.even, strict=True)
        )
        thresholds = stated.model_copy(update={"steps": steps, "slope": self.slope})
        return pack.model_copy(update={"thresholds": thresholds})


def find(name: str) -> Pack:
    """The pack of this name, as it was calibrated here. Raises `UnknownPack` or `BadPack`."""
    pack = _find(name)
    file = pack.folder / CALIBRATION_FILE
    if not file.is_file():
        return pack
    try:
        return Calibration.model_validate(read_toml(file)).applied(pack)
    except ValidationError as error:
        raise BadPack(f"{file}: {error.errors()[0]['msg']}", path=str(file)) from error


def _find(name: str) -> Pack:
    if name == FAKE.name:
        return FAKE
    own = models_dir() / name / PACK_FILE
    if name not in OFFICIAL and "/" not in name and own.is_file():
        return read_pack(own)
    for pack in CATALOGUE:
        if pack.name == name:
            return pack
    known = ", ".join(sorted(packs()))
    raise UnknownPack(f"no model pack is called {name!r}", hint=f"known are: {known}", pack=name)


def read_pack(file: Path) -> Pack:
    """The pack that a `pack.toml` describes; its name is its folder's. Raises `BadPack`."""
    pack = validated({"name": file.parent.name, **read_toml(file)}, str(file))
    if pack.name != file.parent.name:
        raise BadPack(f"{file}: the pack is called {pack.name!r}, its folder {file.parent.name!r}")
    return pack


def read_toml(file: Path) -> dict[str, Any]:
    """The fields of a `pack.toml`, not looked at yet. Raises `BadPack`."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadPack(f"cannot read {file}: {error}", path=str(file)) from error


def validated(fields: dict[str, Any], where: str) -> Pack:
    """The pack with these fields. Raises `BadPack` that names `where` and the field at fault."""
    try:
        return Pack.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise BadPack(f"{where}: {place}: {first['msg']}", pack=where) from error


def active() -> str:
    """The name of the pack in use: the setting `ml.pack`, else the one chosen, else `builtin`."""
    chosen: str = load(MlSettings).pack
    if chosen:
        return chosen
    try:
        return (models_dir() / "active").read_text(encoding="utf-8").strip() or "builtin"
    except OSError:
        return "builtin"


_ZOO = "https://github.com/opencv/opencv_zoo/raw/main/models"
_BUFFALO = "https://github.com/deepinsight/insightface/releases/download/v0.7"
_RESEARCH = (
    "insightface model zoo: for non-commercial research purposes only "
    "(https://github.com/deepinsight/insightface#license)"
)
_HALF = (127.5, 127.5, 127.5)

_YUNET = ModelFile(
    name="face_detection_yunet_2023mar.onnx",
    sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    bytes=232_589,
    url=f"{_ZOO}/face_detection_yunet/face_detection_yunet_2023mar.onnx",
)

BUILTIN = Pack(
    name="builtin",
    summary="MTCNN and dlib's face ResNet: nothing to download",
    licence="MTCNN weights MIT (wheel mtcnn), dlib weights CC0 (wheel face_recognition_models)",
    files=(
        ModelFile(
            name="pnet.lz4",
            sha256="ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
            bytes=27_119,
            url="wheel:mtcnn/assets/weights/pnet.lz4",
        ),
        ModelFile(
            name="rnet.lz4",
            sha256="cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
            bytes=401_659,
            url="wheel:mtcnn/assets/weights/rnet.lz4",
        ),
        ModelFile(
            name="onet.lz4",
            sha256="94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
            bytes=1_557_637,
            url="wheel:mtcnn/assets/weights/onet.lz4",
        ),
        ModelFile(
            name="dlib_face_recognition_resnet_model_v1.dat",
            sha256="55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
            bytes=22_466_066,
            url="wheel:face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
        ),
    ),
    detector=Detector(kind="mtcnn", confidence=0.9, side=1024, min_face=40),
    recogniser=Recogniser(
        file="dlib_face_recognition_resnet_model_v1.dat", dimension=128, template="dlib"
    ),
    thresholds=Thresholds(
        steps=(
            Step(persons=40, join=0.948, merge=0.914, even=0.918),
            Step(persons=80, join=0.948, merge=0.926, even=0.92),
            Step(persons=0, join=0.948, merge=0.93, even=0.926),
        ),
        legible_quality=0.1,
        rival=1.0,
        caution=0.0056,
        lonely=0.903,
        slope=240.0,
        fast=0.0,
        thorough=0.0055,
        measured="3 600 labelled photographs of 1 017 people, most of them press photographs of "
        "the years around 2003; the network mixes up East Asian faces more often than others",
    ),
)


def _insightface(name: str, sha256: str, size: int, zipped: str) -> ModelFile:
    url = f"{_BUFFALO}/{zipped}.zip"
    return ModelFile(name=name, sha256=sha256, bytes=size, url=url, member=name)


def _arcface(file: str) -> Recogniser:
    return Recogniser(
        file=file, dimension=512, template="arcface", order="rgb", mean=_HALF, deviation=_HALF
    )


def _prior(join: float) -> Thresholds:
    """Thresholds of a pack that could not be measured: the form of those that could, moved to where
    publications draw the line.
    """
    return Thresholds(
        steps=(
            Step(persons=300, join=join, even=join),
            Step(persons=800, join=join + 0.015, even=join + 0.02),
            Step(persons=0, join=join + 0.03, even=join + 0.03),
        ),
        slope=45.0,
        measured="not measured: a prior from published operating points; calibrate it on confirmed "
        "faces",
    )


YUNET_SFACE = Pack(
    name="yunet-sface",
    summary="YuNet and SFace: small, fast, free; weaker on children and across ages",
    licence="YuNet MIT, SFace Apache-2.0 (OpenCV Zoo)",
    files=(
        _YUNET,
        ModelFile(
            name="face_recognition_sface_2021dec.onnx",
            sha256="0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
            bytes=38_696_353,
            url=f"{_ZOO}/face_recognition_sface/face_recognition_sface_2021dec.onnx",
        ),
    ),
    detector=Detector(kind="yunet", file=_YUNET.name, confidence=0.85),
    recogniser=Recogniser(
        file="face_recognition_sface_2021dec.onnx", dimension=128, template="arcface", order="bgr"
    ),
    thresholds=_prior(0.36),  # OpenCV's own threshold for a pair is 0.363
)

AURAFACE = Pack(
    name="auraface",
    summary="YuNet and AuraFace: the most accurate pack whose licence allows all use",
    licence="YuNet MIT, AuraFace Apache-2.0 (fal)",
    files=(
        _YUNET,
        ModelFile(
            name="glintr100.onnx",
            sha256="a7933ea5330113b01c9b60351d8f4c33003f145d8470ac5f0e52ee2effe25c60",
            bytes=260_694_151,
            url="https://huggingface.co/fal/AuraFace-v1/resolve/main/glintr100.onnx",
        ),
    ),
    detector=Detector(kind="yunet", file=_YUNET.name, confidence=0.85),
    recogniser=_arcface("glintr100.onnx"),
    thresholds=_prior(0.36),
)

BUFFALO_L = Pack(
    name="buffalo_l",
    summary="SCRFD 10G and ArcFace R50: the most accurate, research only",
    licence=_RESEARCH,
    non_commercial=True,
    files=(
        _insightface(
            "det_10g.onnx",
            "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91",
            16_923_827,
            "buffalo_l",
        ),
        _insightface(
            "w600k_r50.onnx",
            "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43",
            174_383_860,
            "buffalo_l",
        ),
    ),
    detector=Detector(kind="scrfd", file="det_10g.onnx", confidence=0.5),
    recogniser=_arcface("w600k_r50.onnx"),
    thresholds=_prior(0.38),
)

BUFFALO_S = Pack(
    name="buffalo_s",
    summary="SCRFD 500M and ArcFace MobileFaceNet: small and good, research only",
    licence=_RESEARCH,
    non_commercial=True,
    files=(  # the smaller buffalo_sc.zip carries the same two files
        _insightface(
            "det_500m.onnx",
            "5e4447f50245bbd7966bd6c0fa52938c61474a04ec7def48753668a9d8b4ea3a",
            2_524_817,
            "buffalo_sc",
        ),
        _insightface(
            "w600k_mbf.onnx",
            "9cc6e4a75f0e2bf0b1aed94578f144d15175f357bdc05e815e5c4a02b319eb4f",
            13_616_099,
            "buffalo_sc",
        ),
    ),
    detector=Detector(kind="scrfd", file="det_500m.onnx", confidence=0.5),
    recogniser=_arcface("w600k_mbf.onnx"),
    thresholds=_prior(0.38),
)

# For tests of everything around the networks (`ml.fakes`); never listed.
FAKE = Pack(
    name="fake",
    summary="No networks: finds the people that `kaleidoscope.ml.fakes.picture` drew",
    licence="Apache-2.0",
    files=(ModelFile(name="fake.onnx", sha256="0" * 64, bytes=1),),
    detector=Detector(kind="mtcnn", confidence=0.5),
    recogniser=Recogniser(file="fake.onnx", dimension=128, template="arcface"),
    thresholds=Thresholds(steps=(Step(persons=0, join=0.8, even=0.75),), slope=40.0),
)

CATALOGUE = (BUILTIN, YUNET_SFACE, AURAFACE, BUFFALO_L, BUFFALO_S)
OFFICIAL = {pack.name for pack in CATALOGUE}
