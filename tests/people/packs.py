"""A pack of the user's own, for tests: its networks are never run."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from album import face

WIDTH = 64  # of the vectors of such a pack
JOIN = 0.8


def lay_pack(data_dir: Path, name: str = "mine", width: int = WIDTH, join: float = JOIN) -> None:
    """Put the pack into the data folder."""
    folder = data_dir / "models" / name
    folder.mkdir(parents=True)
    (folder / "net.onnx").write_bytes(name.encode())
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    (folder / "pack.toml").write_text(
        f"""
        summary = "for tests"
        licence = "a licence of our own"
        [detector]
        kind = "mtcnn"
        confidence = 0.5
        [recogniser]
        file = "net.onnx"
        dimension = {width}
        template = "arcface"
        [thresholds]
        slope = 40.0
        measured = "not measured: for tests"
        steps = [{{persons = 0, join = {join}, even = 0.75}}]
        [[files]]
        name = "net.onnx"
        sha256 = "{sha256}"
        bytes = {len(name)}
        """
    )


def view_of(person: int, view: int, width: int, noise: float = 0.15) -> np.ndarray:
    """A view of a person's face as a pack of this width sees it."""
    vector = face(person, view, noise)[:width]
    return (vector / np.linalg.norm(vector)).astype(np.float32)
