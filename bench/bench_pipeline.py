"""Photos per second of the whole product, against two programs that one could write instead.

usage: bench_pipeline.py [FOLDER] [--photos 200] [--side 1024]

Both baselines work in the same run, over the same photos, one process a core. The first makes the
calls that `face_recognition.face_locations` (its default HOG detector, one upsampling) and
`face_encodings` make, through dlib itself, on the photo decoded to the same size. The second is a
plain loop over the same ONNX files (`plain_loop.py`), with MTCNN set as it usually is and as the
product sets it. Product: scan, ledger, queue, ML service, callback, persons.
The order is product, baselines, product, so that a machine that warms up favours neither.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import shutil
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import plain_loop
from PIL import Image, ImageOps
from product import started

HELP = argparse.RawTextHelpFormatter
ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("KALEIDOSCOPE_SHARED", ROOT.parent / "shared"))
ENDINGS = {".jpg", ".jpeg", ".png"}
LOOPS = {
    "usual loop, 1 view": (1, plain_loop.USUAL),
    "usual loop, 2 views": (2, plain_loop.USUAL),
    "measured loop, 1 view": (1, plain_loop.MEASURED),
    "measured loop, 2 views": (2, plain_loop.MEASURED),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=SHARED / "faces" / "photos")
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--side", type=int, default=1024)
    options = parser.parse_args()
    found = sorted(p for p in options.folder.rglob("*") if p.suffix.lower() in ENDINGS)
    photos = random.Random(1).sample(found, min(options.photos, len(found)))
    with tempfile.TemporaryDirectory() as scratch:
        for number, photo in enumerate(photos):
            shutil.copyfile(photo, Path(scratch) / f"{number:05}{photo.suffix.lower()}")
        first = product_rate(Path(scratch))
        copies = sorted(Path(scratch).iterdir())
        baseline, faces = baseline_rate(copies, options.side)
        loops = {name: loop_rate(copies, *how) for name, how in LOOPS.items()}
        second = product_rate(Path(scratch))
    ours = [first[0], second[0]]
    print(f"{len(photos)} photos, {os.cpu_count()} cores")
    print(f"baseline face_recognition calls  {baseline:6.2f} photos/s  {faces} faces")
    for name, (rate, found_faces) in loops.items():
        print(f"baseline {name:23} {rate:6.2f} photos/s  {found_faces} faces")
    for rate, found_faces in (first, second):
        print(f"product, from files to persons   {rate:6.2f} photos/s  {found_faces} faces")
    print(f"RATIO {min(ours) / baseline:.2f} to {max(ours) / baseline:.2f}")
    for name, (rate, _) in loops.items():
        print(f"RATIO to {name} {min(ours) / rate:.2f} to {max(ours) / rate:.2f}")


def product_rate(folder: Path) -> tuple[float, int]:
    with started() as product:
        # A first photo alone: conversion and loading of the model are set-up, not throughput.
        with tempfile.TemporaryDirectory() as warm:
            Image.new("RGB", (320, 240), "grey").save(Path(warm) / "warm.jpg")
            product.ingest(Path(warm))
        began = time.perf_counter()
        summary = product.ingest(folder)
        seconds = time.perf_counter() - began
    return summary["scanned"] / seconds, summary["faces_detected"]


def baseline_rate(photos: list[Path], side: int) -> tuple[float, int]:
    with get_context("spawn").Pool(os.cpu_count(), initializer=load_dlib) as pool:
        pool.map(touch, range(os.cpu_count() or 1))
        began = time.perf_counter()
        faces = pool.starmap(encode, [(p, side) for p in photos], chunksize=1)
        seconds = time.perf_counter() - began
    return len(photos) / seconds, sum(faces)


def loop_rate(photos: list[Path], views: int, settings: plain_loop.Settings) -> tuple[float, int]:
    with get_context("spawn").Pool(os.cpu_count(), initializer=plain_loop.load) as pool:
        work = [(photo, views, settings) for photo in photos]
        pool.starmap(plain_loop.encode, work[: 2 * (os.cpu_count() or 1)], chunksize=1)
        began = time.perf_counter()
        faces = pool.starmap(plain_loop.encode, work, chunksize=1)
        seconds = time.perf_counter() - began
    return len(photos) / seconds, sum(faces)


def load_dlib() -> None:
    global dlib, detector, predictor, encoder
    import dlib

    spec = importlib.util.find_spec("face_recognition_models")
    assert spec is not None and spec.origin is not None
    models = Path(spec.origin).parent / "models"
    detector = dlib.get_frontal_face_detector()
    predictor = dlib.shape_predictor(str(models / "shape_predictor_68_face_landmarks.dat"))
    encoder = dlib.face_recognition_model_v1(
        str(models / "dlib_face_recognition_resnet_model_v1.dat")
    )


def touch(_: int) -> None:
    detector(np.zeros((80, 80, 3), np.uint8), 1)


def encode(photo: Path, side: int) -> int:
    try:
        with Image.open(photo) as opened:
            opened.draft("RGB", (side, side))
            picture = ImageOps.exif_transpose(opened).convert("RGB")
            picture.thumbnail((side, side))
    except OSError:
        return 0
    pixels = np.asarray(picture)
    boxes = detector(pixels, 1)
    for box in boxes:
        np.array(encoder.compute_face_descriptor(pixels, predictor(pixels, box), 1))
    return len(boxes)


if __name__ == "__main__":
    main()
