"""Weights of other programs, turned into ONNX by our own readers.

The networks of `builtin` are converted when they are first needed, in a second or two, and kept in
the data folder with their checksums. Several processes may start at once: one converts, the others
wait. What was damaged, or made by another version of the readers, is made again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import onnx

from kaleidoscope.ml.errors import BadWeights, ChecksumMismatch
from kaleidoscope.ml.weights import dlib, mtcnn

CONVERTER = "1"  # raise it when a reader writes other networks: caches are then made again
CHECKSUMS = "checksums.json"

Convert = Callable[[Path], onnx.ModelProto]
CONVERTERS: dict[str, Convert] = {
    **{f"{name}.lz4": partial(mtcnn.to_onnx, net=net) for name, net in mtcnn.NETS.items()},
    "dlib_face_recognition_resnet_model_v1.dat": dlib.to_onnx,
}


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def in_wheel(place: str) -> Path:
    """The file at `package/path`, of a package that is installed and never imported."""
    package, _, inner = place.partition("/")
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        if (path := Path(folder) / inner).is_file():
            return path
    raise BadWeights(f"the package {package} with {inner} is not installed", package=package)


def converted(sources: Mapping[Path, str], folder: Path) -> dict[str, Path]:
    """The networks of some files of weights as ONNX files in `folder`, by the sources' names.

    `sources` are the files with the SHA-256 that each must have, or `ChecksumMismatch`.
    """
    with _locked(folder):
        wanted = {path.name: digest for path, digest in sources.items()}
        if (made := _made(folder, wanted)) is None:
            made = _convert(sources, folder)
    return made


def _made(folder: Path, wanted: dict[str, str]) -> dict[str, Path] | None:
    """What is in the cache, if it was made of these sources and nothing in it has changed."""
    try:
        kept = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
        made = {name: _onnx(folder, name) for name in wanted}
        whole = kept == {
            "converter": CONVERTER,
            "sources": wanted,
            "networks": {name: sha256(path) for name, path in made.items()},
        }
    except (OSError, ValueError):
        return None
    return made if whole else None


def _convert(sources: Mapping[Path, str], folder: Path) -> dict[str, Path]:
    (folder / CHECKSUMS).unlink(missing_ok=True)
    made = {}
    for path, digest in sources.items():
        if (found := sha256(path)) != digest:
            raise ChecksumMismatch(
                f"{path} is not the file in the catalogue (SHA-256 {found}, not {digest})",
                hint="reinstall the package it belongs to",
                path=str(path),
            )
        made[path.name] = _onnx(folder, path.name)
        write(made[path.name], CONVERTERS[path.name](path).SerializeToString())
    kept = {
        "converter": CONVERTER,
        "sources": {path.name: digest for path, digest in sources.items()},
        "networks": {name: sha256(path) for name, path in made.items()},
    }
    write(folder / CHECKSUMS, json.dumps(kept, indent=1).encode())
    return made


def _onnx(folder: Path, source: str) -> Path:
    return folder / f"{Path(source).stem}.onnx"


def write(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise BadWeights(f"cannot write {path}: {error.strerror}", path=str(path)) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time; the lock goes with the process that dies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise BadWeights(f"cannot write {folder}: {error.strerror}", path=str(folder)) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
