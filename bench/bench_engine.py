"""What the engine finds, and what each stage of it costs: processor time of one thread.

usage: bench_engine.py [FACES] [--pack builtin] [--preset balanced] [--every 10] [--native 40]

FACES is a folder with `manifest.csv` (columns path, kind, identity, target_box_xyxy), by default
`../shared/faces` beside the checkout. Of the largest kind every so many photos are looked at, of
the others all. A labelled face counts as found when a face overlaps its box by 0.3. Baseline of the
ratios, over the first `--native` of the same photos in the same process: dlib's own code, its
default HOG detector with one upsampling and its descriptor of the same aligned faces.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from kaleidoscope.ml import packs
from kaleidoscope.ml.catalog import BUILTIN
from kaleidoscope.ml.engine import PRESETS, FaceEngine, load_engine
from kaleidoscope.ml.models import align
from kaleidoscope.ml.models.pyramid import Pyramid
from kaleidoscope.ml.weights import in_wheel

SHARED = Path(os.environ.get("KALEIDOSCOPE_SHARED") or Path(__file__).parents[2] / "shared")
Pixels = npt.NDArray[np.uint8]


@dataclass
class Kind:
    """What was seen of one kind of photo."""

    photos: int = 0
    faces: int = 0
    with_faces: int = 0
    labelled: int = 0
    found: int = 0
    spent: dict[str, float] = field(default_factory=lambda: defaultdict(float))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("faces", type=Path, nargs="?", default=SHARED / "faces")
    parser.add_argument("--pack", default="builtin", help="a name, or files to import, by commas")
    parser.add_argument("--preset", default="balanced", choices=PRESETS)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--native", type=int, default=40)
    options = parser.parse_args()
    if not (options.faces / "manifest.csv").is_file():
        raise SystemExit(f"skipped: no labelled photographs in {options.faces}")
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["KALEIDOSCOPE_DATA_DIR"] = scratch
        looking = load_engine(imported(options.pack), options.preset)
        began = time.process_time()
        looking.load()
        print(f"{looking.model_version}, {options.preset}; first load {since(began):.0f} ms")
        rows = chosen(options.faces, options.every)
        report(measure(looking, options.faces, rows))
        ratios(looking, [read(options.faces / row["path"]) for row in rows[: options.native]])


def imported(pack: str) -> str:
    if not pack.endswith((".onnx", ".dat")):
        return pack
    return packs.import_files([Path(p) for p in pack.split(",")], name="imported").name


def chosen(faces: Path, every: int) -> list[dict[str, str]]:
    """All photos but of the largest kind, of which every so many; the larger kinds later."""
    with (faces / "manifest.csv").open(newline="") as file:
        kinds = defaultdict(list)
        for row in csv.DictReader(file):
            kinds[row["kind"]].append(row)
    ordered = sorted(kinds.values(), key=len)
    ordered[-1] = ordered[-1][::every]
    return [row for rows in ordered for row in rows]


def read(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def measure(looking: FaceEngine, faces: Path, rows: list[dict[str, str]]) -> dict[str, Kind]:
    kinds: dict[str, Kind] = defaultdict(Kind)
    for row in rows:
        kind = kinds[row["kind"]]
        began = time.process_time()
        image = read(faces / row["path"])
        kind.spent["decode"] += since(began)
        found = looking.analyse(image)
        for stage, spent in looking.timings.items():
            kind.spent[stage] += spent
        kind.photos += 1
        kind.faces += len(found)
        kind.with_faces += bool(found)
        if row["target_box_xyxy"]:
            box = [float(v) for v in row["target_box_xyxy"].split()]
            kind.labelled += 1
            kind.found += any(overlap(face.bbox, box) >= 0.3 for face in found)
    return kinds


def report(kinds: dict[str, Kind]) -> None:
    print("kind     photos  faces  labelled found      decode  detect (ms a photo)")
    for name, kind in kinds.items():
        share = "-"
        if kind.labelled:
            share = f"{kind.found}/{kind.labelled} {kind.found / kind.labelled:.2%}"
        decode, detect = (kind.spent[s] / kind.photos for s in ("decode", "detect"))
        line = f"{name:8} {kind.photos:6} {kind.faces:6}  {share:18}{decode:7.1f} {detect:7.1f}"
        print(line)
    faces = sum(kind.faces for kind in kinds.values())
    aligned, embedded = (sum(k.spent[s] for k in kinds.values()) for s in ("align", "embed"))
    print(f"a face: align and judge {aligned / faces:.2f}, embed {embedded / faces:.2f} ms")
    if strangers := kinds.get("noface"):
        print(f"photos without a face in which one was found: {strangers.with_faces}")


def ratios(looking: FaceEngine, images: list[Pixels]) -> None:
    """Our detector and, with dlib's network, our descriptor against dlib's own code."""
    if importlib.util.find_spec("dlib") is None:
        print("no ratios: dlib-bin is not installed")
        return
    import dlib

    assert looking._networks is not None
    detector, recogniser = looking._networks
    ours = timed(lambda image: detector.detect(Pyramid(image)), images)
    native = dlib.get_frontal_face_detector()
    theirs = timed(lambda image: native(image, 1), images)
    print(f"detect  ours {ours:6.1f}  dlib HOG {theirs:6.1f} ms a photo  RATIO {theirs / ours:.1f}")
    if looking.pack.recogniser.template != "dlib":
        return
    chips = [
        align.chips(Pyramid(image), np.array([face.landmarks]), recogniser.template,
                    (align.View(),))[0]
        for image in images
        for face in looking.analyse(image)
    ][:60]  # fmt: skip
    weights_file = in_wheel(BUILTIN.files[-1].url.removeprefix("wheel:"))
    network = dlib.face_recognition_model_v1(str(weights_file))
    ours = timed(recogniser.embed, chips)
    theirs = timed(lambda chip: network.compute_face_descriptor(chip[0]), chips)
    print(f"embed   ours {ours:6.1f}  dlib     {theirs:6.1f} ms a face   RATIO {theirs / ours:.1f}")
    every = np.concatenate(chips)
    for number in (2, 4, 8, 16):
        lots = [every[i : i + number] for i in range(0, len(every) - number + 1, number)]
        spent = timed(recogniser.embed, lots) / number
        print(
            f"        ours {spent:6.1f} ms a face in batches of {number}   RATIO {ours / spent:.2f}"
        )


def timed(work: Callable[[Pixels], object], pictures: list[Pixels]) -> float:
    """Milliseconds a picture."""
    work(pictures[0])
    began = time.process_time()
    for picture in pictures:
        work(picture)
    return since(began) / len(pictures)


def since(began: float) -> float:
    return 1000 * (time.process_time() - began)


def overlap(a: tuple[float, ...], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b))
    return width * height / (areas - width * height)


if __name__ == "__main__":
    main()
