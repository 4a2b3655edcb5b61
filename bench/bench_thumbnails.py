"""How long it takes to make the thumbnails of a library.

usage: bench_thumbnails.py [--photos 60] [--processes 1]

Generates JPEGs of 4000 × 3000 pixels that are noisy like a camera's, and makes of each a preview
of 1440 pixels and a thumbnail of 250, in one run, in milliseconds a photo:

* Pillow, straightforward: open, turn upright, `thumbnail()`, save; once for each size;
* our one decoding for both, in this process, with its fsyncs;
* the whole pass: ledger, child processes with their start, flags and events (the files are hashed
  beforehand).

The ratio is the loop's time over ours, for one process. Each way's size on disk is printed, and
what the preview would take in each encoding, by which the encoder was chosen.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from scratch_database import scratch_database

from kaleidoscope.ingest.outside.scan import Filter, scan
from kaleidoscope.ingest.settings import IngestSettings
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.paths import to_text
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library
from kaleidoscope.library.outside import derivatives
from kaleidoscope.library.service import ScannedFile

SIZE = (4000, 3000)
ENCODERS: Sequence[tuple[str, str, dict[str, Any]]] = (
    ("JPEG 82", "JPEG", {"quality": 82}),
    ("WebP 80, method 0", "WEBP", {"quality": 80, "method": 0}),
    ("WebP 80, method 2", "WEBP", {"quality": 80, "method": 2}),
    ("WebP 80, method 4", "WEBP", {"quality": 80, "method": 4}),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=60)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kaleidoscope-photos-") as name:
        folder = Path(name)
        os.environ["KALEIDOSCOPE_LIBRARY_DERIVATIVES"] = str(folder / "derivatives")
        os.environ["KALEIDOSCOPE_LIBRARY_THUMBNAIL_PROCESSES"] = str(options.processes)
        load.cache_clear()
        photos = fill(folder / "photos", options.photos)
        encodings(photos[:10])
        against = report("Pillow, each size by itself", *plain(photos, folder / "plain"))
        report("one decoding for both", *one_decoding(photos), against=against)
        with scratch_database() as url:
            took, size = asyncio.run(whole_pass(url, folder / "photos"))
            what = f"the whole pass, {options.processes} process(es)"
            report(what, took, size, len(photos), against=against)


def report(what: str, took: float, size: int, photos: int, against: float = 0.0) -> float:
    """One line; answers milliseconds a photo."""
    each = took * 1000 / photos
    ratio = f", ratio {against / each:.2f}" if against else ""
    print(f"{what:<34} {each:7.1f} ms a photo, {size / photos / 1000:6.0f} kB{ratio}", flush=True)
    return each


def fill(folder: Path, count: int) -> list[Path]:
    """Photos with shapes of every size, a light that falls off, and a sensor's noise."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    paths = []
    for number in range(count):
        picture = np.zeros((SIZE[1], SIZE[0], 3), np.float32)
        for cells in (4, 16, 64, 256):
            shape = (cells * SIZE[1] // SIZE[0], cells, 3)
            coarse = Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8))
            picture += np.asarray(coarse.resize(SIZE, Image.Resampling.BICUBIC), np.float32) / 4
        picture += random.normal(0, 4, (SIZE[1], SIZE[0], 1)).astype(np.float32)
        path = folder / f"IMG_{number:04}.jpg"
        exif = Image.Exif()
        exif[0x0112] = (1, 6, 8, 3)[number % 4]
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(path, quality=90, exif=exif)
        paths.append(path)
    return paths


def encodings(photos: Sequence[Path]) -> None:
    """What the preview costs in each encoding."""
    previews = []
    for path in photos:
        with Image.open(path) as image:
            image.thumbnail((1440, 1440))
            previews.append(image.convert("RGB"))
    for what, kind, options in ENCODERS:
        began, size = time.perf_counter(), 0
        for preview in previews:
            file = BytesIO()
            preview.save(file, kind, **options)
            size += file.tell()
        took = time.perf_counter() - began
        report(f"  preview as {what}", took, size, len(previews))


def plain(photos: Sequence[Path], folder: Path) -> tuple[float, int, int]:
    folder.mkdir()
    began, size = time.perf_counter(), 0
    for path in photos:
        for side, suffix, options in ((1440, "jpg", {"quality": 82}), (250, "webp", {})):
            with Image.open(path) as image:
                shown = ImageOps.exif_transpose(image)
                shown.thumbnail((side, side))
                target = folder / f"{path.stem}-{side}.{suffix}"
                shown.save(target, **options)
                size += target.stat().st_size
    return time.perf_counter() - began, size, len(photos)


def one_decoding(photos: Sequence[Path]) -> tuple[float, int, int]:
    began, size = time.perf_counter(), 0
    for number, path in enumerate(photos):
        found = path.stat()
        task = derivatives.task_of(to_text(path), found.st_size, None, "photo", f"{number:064x}")
        size += derivatives.make(task)["bytes"]
    return time.perf_counter() - began, size, len(photos)


async def whole_pass(url: str, folder: Path) -> tuple[float, int]:
    db = Database(url)
    items = scan(os.fsencode(folder), Filter.of(IngestSettings()))
    plan = await library.plan(db, [item for item in items if isinstance(item, ScannedFile)])
    async with db.transaction() as session:
        await library.register(session, plan.files)
    await library.hash_pending(db)
    began = time.perf_counter()
    done = await library.thumbnail_pending(db)
    took = time.perf_counter() - began
    assert done == {"thumbnailed": len(plan.files)}, done
    made = [p for p in derivatives.folder().rglob("*-*") if int(p.name[:8], 16)]
    await db.close()
    return took, sum(p.stat().st_size for p in made)


if __name__ == "__main__":
    main()
