"""Model packs on this machine: pull, import, verify, use.

What is pulled or imported lies in `data_dir()/models/<name>/` and is there only whole and checked.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kaleidoscope.ml import catalog, engine, weights
from kaleidoscope.ml.catalog import Calibration, ModelFile, Pack, Step, Thresholds
from kaleidoscope.ml.download import Progress, fetch
from kaleidoscope.ml.errors import (
    BadPack,
    BadWeights,
    ChecksumMismatch,
    DownloadFailed,
    LicenceNotAccepted,
    ModelError,
    NotPulled,
)
from kaleidoscope.ml.models.session import Session
from kaleidoscope.ml.models.yunet import NAMES as YUNET_OUTPUTS
from kaleidoscope.ml.weights import dlib


@dataclass(frozen=True)
class State:
    """One file of a pack on this machine; `reason` says what is wrong with it."""

    name: str
    state: Literal["ok", "missing", "wrong"]
    reason: str = ""


def find_whole(name: str) -> Pack:
    """A pack that is here, each file looked at. Raises a `ModelError`."""
    pack = catalog.find(name)
    if pack.name != catalog.FAKE.name:
        engine.locate(pack)
    return pack


def use(name: str) -> Pack:
    """Make a pack the one in use, after looking at every file of it. Raises a `ModelError`."""
    pack = find_whole(name)
    catalog.models_dir().mkdir(parents=True, exist_ok=True)
    weights.write(catalog.models_dir() / "active", f"{pack.name}\n".encode())
    return pack


def verify(pack: Pack) -> list[State]:
    """Hash every file of a pack again. Files inside a wheel are checked where they lie."""
    return [_state(pack, file) for file in pack.files]


def is_here(pack: Pack) -> bool:
    """Whether every file of a pack is on this machine (by its size; `verify` reads them)."""
    return all(
        file.url.startswith("wheel:")
        or ((path := pack.folder / file.name).is_file() and path.stat().st_size == file.bytes)
        for file in pack.files
    )


def _state(pack: Pack, file: ModelFile) -> State:
    try:
        if file.url.startswith("wheel:"):
            path = weights.in_wheel(file.url.removeprefix("wheel:"))
            if (found := weights.sha256(path)) != file.sha256:
                return State(file.name, "wrong", f"SHA-256 {found}, not {file.sha256}")
        else:
            engine.check(pack, file)
    except NotPulled as error:
        return State(file.name, "missing", error.message)
    except ModelError as error:
        return State(file.name, "wrong", error.message)
    return State(file.name, "ok")


def pull(
    pack: Pack, *, accept_licence: bool = False, progress: Progress = lambda *_: None
) -> list[State]:
    """Fetch the files of a pack that are not here yet; those that are, are checked.

    Raises `LicenceNotAccepted` before anything is fetched from a pack whose licence forbids
    commercial use, unless `accept_licence`; `DownloadFailed` when the network or the server fails
    (the next call continues); `ChecksumMismatch` when what came is not what was asked for.
    """
    if pack.non_commercial and not accept_licence:
        raise LicenceNotAccepted(
            f"{pack.name} may not be used commercially: {pack.licence}",
            hint="pull it with --accept-licence when that is your use",
            pack=pack.name,
        )
    missing = [
        file
        for file in pack.files
        if not file.url.startswith("wheel:") and _state(pack, file).state != "ok"
    ]
    if own := [file.name for file in missing if not file.url]:
        raise NotPulled(f"{own[0]} of {pack.name} has no URL", hint="import the pack again")
    pack.folder.mkdir(parents=True, exist_ok=True)
    for file in (f for f in missing if not f.member):
        fetch(file.url, pack.folder / file.name, file.bytes, progress)
        _accept(pack, file)
    for url in dict.fromkeys(f.url for f in missing if f.member):
        _fetch_members(pack, url, [f for f in missing if f.url == url], progress)
    return verify(pack)


def _fetch_members(pack: Pack, url: str, files: list[ModelFile], progress: Progress) -> None:
    """Fetch a zip and take some files out of it."""
    archive = pack.folder / url.rpartition("/")[2]
    fetch(url, archive, 0, progress)
    try:
        with zipfile.ZipFile(archive) as zipped:
            for file in files:
                _extract(zipped, file, pack.folder / file.name)
    except (zipfile.BadZipFile, KeyError) as error:
        raise DownloadFailed(f"{url} is not the archive expected: {error}", url=url) from error
    finally:
        archive.unlink(missing_ok=True)
    for file in files:
        _accept(pack, file)


def _extract(zipped: zipfile.ZipFile, file: ModelFile, target: Path) -> None:
    names = [n for n in zipped.namelist() if n.rpartition("/")[2] == file.member]
    if not names or zipped.getinfo(names[0]).file_size != file.bytes:
        raise KeyError(f"no {file.member} of {file.bytes} bytes in it")
    part = target.with_name(target.name + ".part")
    with zipped.open(names[0]) as source, part.open("wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
    part.replace(target)


def _accept(pack: Pack, file: ModelFile) -> None:
    """Keep a file that was fetched if it is the right one, else remove it."""
    try:
        engine.check(pack, file)
    except ChecksumMismatch:
        (pack.folder / file.name).unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class Reading:
    """How a recogniser wants its faces, and what its similarities mean until calibrated."""

    recogniser: dict[str, Any]
    thresholds: Thresholds


READINGS = {
    "arcface": Reading(
        {
            "template": "arcface",
            "order": "rgb",
            "mean": (127.5, 127.5, 127.5),
            "deviation": (127.5, 127.5, 127.5),
        },
        catalog.BUFFALO_S.thresholds,
    ),
    "sface": Reading({"template": "arcface", "order": "bgr"}, catalog.YUNET_SFACE.thresholds),
    "imagenet": Reading(
        {
            "template": "arcface",
            "order": "rgb",
            "mean": (123.675, 116.28, 103.53),
            "deviation": (58.395, 57.12, 57.375),
        },
        Thresholds(
            steps=(
                Step(persons=40, join=0.42, merge=0.245, even=0.313),
                Step(persons=120, join=0.42, merge=0.30, even=0.338),
                Step(persons=300, join=0.42, merge=0.32, even=0.353),
                Step(persons=0, join=0.42, merge=0.34, even=0.367),
            ),
            caution=0.05,
            legible_quality=0.0,
            slope=41.0,
            measured="a MobileFaceNet of 128 dimensions on the photographs of `builtin`",
        ),
    ),
    "dlib": Reading({"template": "dlib"}, catalog.BUILTIN.thresholds),
}


def import_folder(folder: Path, *, name: str = "", replace: bool = False) -> Pack:
    """Take over a folder: one with a `pack.toml`, or one with two ONNX files and nothing said.

    In `pack.toml`, what a look at the files can tell may be left out: sizes and checksums, kinds,
    dimension, thresholds. Raises `BadPack` that says what is missing.
    """
    described: dict[str, Any] = {}
    if (file := folder / catalog.PACK_FILE).is_file():
        described = catalog.read_toml(file)
        networks = _named(file, described)
    elif folder.is_dir():
        networks = sorted(p for p in folder.iterdir() if p.suffix in (".onnx", ".dat"))
    else:
        raise BadPack(f"{folder} is no folder", path=str(folder))
    return import_files(
        networks,
        name=name or described.get("name") or folder.name,
        given=described,
        replace=replace,
    )


def _named(file: Path, described: dict[str, Any]) -> list[Path]:
    """The networks that a `pack.toml` names, which lie beside it."""
    found = []
    for part in ("detector", "recogniser"):
        fields = described.get(part, {})
        name = fields.pop("file", None) if isinstance(fields, dict) else 0
        if not isinstance(name, str | None) or (name and Path(name).name != name):
            raise BadPack(f"{file}: [{part}] must name a file beside it", path=str(file))
        if name:
            found.append(file.parent / name)
    return found


def import_files(
    networks: Iterable[Path],
    *,
    name: str,
    reading: str = "",
    given: dict[str, Any] | None = None,
    replace: bool = False,
) -> Pack:
    """Make a pack of the user's own networks: a recogniser (ONNX or dlib's `.dat`) and a detector
    (YuNet or SCRFD; without one MTCNN detects). Which is which shows in their inputs and outputs.

    `reading` (a key of `READINGS`) says how the recogniser wants its faces where that is not
    guessed rightly; `given` holds fields of a `pack.toml`, which win over anything guessed. The
    networks are copied, looked at and run once. Raises a `ModelError`; nothing is left then.
    """
    given = given or {}
    if name in catalog.OFFICIAL or not re.match(catalog.NAME, name):
        raise BadPack(
            f"{name!r} cannot be the name of your own pack", hint="choose one with --name"
        )
    target = catalog.models_dir() / name
    if target.exists() and not replace:
        raise BadPack(f"there is a pack called {name!r} already", hint="choose another --name")
    catalog.models_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".import-", dir=catalog.models_dir()) as scratch:
        folder = Path(scratch) / name
        folder.mkdir()
        pack = _described(name, [_copied(p, folder) for p in networks], reading, given)
        weights.write(folder / catalog.PACK_FILE, _toml(pack).encode())
        if target.exists():
            target.rename(Path(scratch) / "old")
        folder.rename(target)
    return pack


def _copied(path: Path, folder: Path) -> Path:
    """The network in our folder, as ONNX."""
    target = folder / re.sub(r"[^A-Za-z0-9._-]", "_", path.name).lstrip("._-")
    if path.suffix == ".dat":
        target = target.with_suffix(".onnx")
        weights.write(target, dlib.to_onnx(path).SerializeToString())
        return target
    try:
        shutil.copyfile(path, target)
    except OSError as error:
        raise BadWeights(f"cannot copy {path}: {error.strerror}", path=str(path)) from error
    return target


def _described(name: str, networks: list[Path], reading: str, given: dict[str, Any]) -> Pack:
    """The pack that these networks make, with what was given about it."""
    detectors: dict[Path, Session] = {}
    recognisers: dict[Path, Session] = {}
    for path in networks:
        session = Session(path)
        kinds = detectors if len(session.outputs) > 1 else recognisers
        kinds[path] = session
    if len(recognisers) != 1 or len(detectors) > 1:
        raise BadPack(
            f"{name}: one recogniser and at most one detector are needed, found are "
            f"{[p.name for p in recognisers]} and {[p.name for p in detectors]}"
        )
    (recogniser,) = recognisers.values()
    guess = reading or given.get("reading") or guess_reading(recogniser)
    if guess not in READINGS:
        raise BadPack(f"no reading is called {guess!r}", hint=f"known are {', '.join(READINGS)}")
    fields = {
        "summary": f"imported from {', '.join(p.name for p in networks)}",
        "licence": "not stated",
        "thresholds": READINGS[guess].thresholds.model_dump(),
        **{k: v for k, v in given.items() if k not in ("detector", "recogniser", "reading")},
        "name": name,
        "files": [_file(path, given) for path in networks],
        "detector": _detector(detectors) | given.get("detector", {}),
        "recogniser": _recogniser(recogniser, guess) | given.get("recogniser", {}),
    }
    return catalog.validated(fields, name)


def guess_reading(session: Session) -> str:
    """How a recogniser most likely wants its faces, by what it looks like from outside."""
    if session.side == (150, 150):
        return "dlib"
    by_input = {"data": "sface", "input0": "imagenet"}  # OpenCV's SFace, foamliu's exports
    width = _answer(session).shape[1]
    return by_input.get(session.input, "arcface") if width == 128 else "arcface"


def _answer(session: Session) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """What a recogniser answers for one blank face: [1, d]."""
    height, width = session.side or (112, 112)
    return session.run(np.zeros((1, 3, height, width), np.float32))[0].reshape(1, -1)


def _recogniser(session: Session, reading: str) -> dict[str, Any]:
    dimension = _answer(session).shape[1]
    return {"file": session.path.name, "dimension": dimension, **READINGS[reading].recogniser}


def _detector(sessions: dict[Path, Session]) -> dict[str, Any]:
    if not sessions:
        return catalog.BUILTIN.detector.model_dump()
    ((path, session),) = sessions.items()
    like = catalog.YUNET_SFACE if set(session.outputs) >= YUNET_OUTPUTS else catalog.BUFFALO_S
    described = like.detector.model_copy(update={"file": path.name})
    trial = engine.detector_of(described, session, described.min_face)
    trial.detect(engine.blank())  # tells what does not fit
    return described.model_dump()


def _file(path: Path, given: dict[str, Any]) -> dict[str, Any]:
    found = {"name": path.name, "sha256": weights.sha256(path), "bytes": path.stat().st_size}
    said = [f for f in given.get("files", []) if isinstance(f, dict) and f.get("name") == path.name]
    if any(f.get("sha256", found["sha256"]) != found["sha256"] for f in said):
        raise ChecksumMismatch(f"{path.name} is not the file that {catalog.PACK_FILE} names")
    return found


def calibrate(pack: Pack, calibration: Calibration) -> Path:
    """Keep what similarities of the pack mean on this machine's faces; the file it is in."""
    file = pack.folder / catalog.CALIBRATION_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{name} = {_value(value)}" for name, value in calibration.model_dump().items()]
    weights.write(file, ("\n".join(lines) + "\n").encode())
    return file


def _toml(pack: Pack) -> str:
    """A pack as TOML. Strings, numbers, truths and lists are spelled as in JSON."""
    fields = pack.model_dump(exclude_none=True)
    files = fields.pop("files")
    lines = []
    for name, value in sorted(fields.items(), key=lambda item: isinstance(item[1], dict)):
        if isinstance(value, dict):
            lines += ["", f"[{name}]", *(f"{k} = {_value(v)}" for k, v in value.items())]
        else:
            lines.append(f"{name} = {_value(value)}")
    for file in files:
        lines += ["", "[[files]]", *(f"{k} = {_value(v)}" for k, v in file.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
