"""What it costs to look for faces in a photo and to make its thumbnail and preview.

usage: bench_one_decoding.py [FOLDER] [--photos 3] [--times 2] [--pack builtin]

Milliseconds of processor time a photo, in one process and one thread, fsyncs included. Ways take
turns at each photo, and of each the best time counts:

* apart: the ML service decodes it and looks, the thumbnails' round decodes it again (the ratio's
  baseline);
* shared: the ML service decodes it once, looks and writes both derivatives; the round only measures
  it (mostly not even that: the ledger knows its size by then);
* again, faces alone (the second ratio's baseline), and again: looked at once more when its
  derivatives are there; to know that, a large photo is read and hashed.

The photos are pictures of the folder (by default `../shared/faces/photos` beside the checkout, of
one or a few faces mostly), made larger or smaller, with a sensor's noise. Of 4032 pixels a JPEG's
decoder gives half for a preview and for faces, of 5184 half and a quarter.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from kaleidoscope.kernel.paths import to_text
from kaleidoscope.library.outside import derivatives, looking
from kaleidoscope.ml import work

SHARED = Path(os.environ.get("KALEIDOSCOPE_SHARED") or Path(__file__).parents[2] / "shared")
KINDS = (
    ("JPEG", (4032, 3024), {"quality": 90}),
    ("JPEG", (5184, 3888), {"quality": 90}),
    ("JPEG", (1024, 768), {"quality": 90}),
    ("HEIF", (4032, 3024), {"quality": 60}),
)
SLOW = {"HEIF": 1}
"""Of a kind that takes half a minute to be written, so many photos at most."""
ENDINGS = {".jpg", ".jpeg", ".png"}
Task = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=SHARED / "faces" / "photos")
    parser.add_argument("--photos", type=int, default=3)
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--pack", default="builtin")
    options = parser.parse_args()
    if not options.folder.is_dir():
        raise SystemExit(f"skipped: no photographs in {options.folder}")
    with tempfile.TemporaryDirectory(prefix="kaleidoscope-photos-") as name:
        os.environ["KALEIDOSCOPE_DATA_DIR"] = name
        derivatives.prepare()
        pictures = chosen(options.folder, options.photos)
        work.analyse({"pack": options.pack})  # the networks are loaded
        for kind, size, how in KINDS:
            few = pictures[: SLOW.get(kind)]
            compare(tasks(few, kind, size, how, options.pack), kind, size, options.times)


def compare(photos: Sequence[Task], kind: str, size: tuple[int, int], times: int) -> None:
    ways: dict[str, Callable[[Task], object]] = {
        "apart": apart,
        "shared": shared,
        "again, faces alone": work.analyse,
        "again": looking.look,
    }
    spent = dict.fromkeys(ways, 0.0)
    for photo in photos:
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(times):
            for what, way in ways.items():
                if not what.startswith("again"):
                    derivatives.forget(photo["file_hash"])
                began = time.process_time()
                way(photo)
                best[what] = min(best[what], 1000 * (time.process_time() - began))
        for what, milliseconds in best.items():
            spent[what] += milliseconds / len(photos)
    print(f"{kind}, {size[0]} × {size[1]} pixels, {len(photos)} photos")
    for what, baseline in (("shared", "apart"), ("again", "again, faces alone")):
        print(f"  {baseline:<20} {spent[baseline]:7.1f} ms a photo")
        ratio = spent[baseline] / spent[what]
        print(f"  {what:<20} {spent[what]:7.1f} ms a photo, ratio {ratio:.2f}", flush=True)


def apart(photo: Task) -> None:
    work.analyse(photo)
    derivatives.make(photo)


def shared(photo: Task) -> None:
    looking.look(photo)
    derivatives.make({**photo, "only_measure": derivatives.are_made(photo["file_hash"])})


def chosen(folder: Path, count: int) -> list[Image.Image]:
    """Always the same pictures of a folder, upright."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    pictures = []
    for path in random.Random(1).sample(found, min(count, len(found))):
        with Image.open(path) as image:
            pictures.append(ImageOps.exif_transpose(image).convert("RGB"))
    return pictures


def tasks(
    pictures: Sequence[Image.Image], kind: str, size: tuple[int, int], how: Task, pack: str
) -> list[Task]:
    """The pictures as photos of a size: what both ways are asked to do."""
    noise, asked = np.random.default_rng(1), []
    for number, picture in enumerate(pictures):
        path = Path(os.environ["KALEIDOSCOPE_DATA_DIR"]) / f"{kind}-{size[0]}-{number}"
        large = np.asarray(ImageOps.fit(picture, size, Image.Resampling.BICUBIC), np.float32)
        noisy = large + noise.normal(0, 4, (*large.shape[:2], 1)).astype(np.float32)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, kind, **how)
        file_hash = hashlib.sha256(path.read_bytes()).hexdigest()
        task = derivatives.task_of(to_text(path), path.stat().st_size, None, "photo", file_hash)
        asked.append({**task, "pack": pack, "photo_id": number})
    return asked


if __name__ == "__main__":
    main()
