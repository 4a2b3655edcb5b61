"""Do ids stay? The same folder again, an overlapping one, and re-encoded copies under new names.

usage: bench_stability.py [--set household] [--quality 75] [--scale 0.7]
                          [--pack builtin|yunet-mobilefacenet]

Prints the persons made by ingesting a folder a second time and by an overlapping folder (both must
be 0 beyond the faces that are new), and the share of faces that get, in re-encoded copies, the id
they had. Needs the labelled photographs (KALEIDOSCOPE_SHARED, or `shared` beside the checkout).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench_identity import HELP, SHARED, pack_of
from PIL import Image, ImageOps
from product import Product, started

Faces = list[dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HELP)
    parser.add_argument("--set", default="household")
    parser.add_argument("--quality", type=int, default=75)
    parser.add_argument("--scale", type=float, default=0.7)
    parser.add_argument("--pack", default="builtin", choices=["builtin", "yunet-mobilefacenet"])
    options = parser.parse_args()
    env, pack = pack_of(options.pack)
    with tempfile.TemporaryDirectory() as scratch, started(env, pack) as product:
        first, overlap, copies = (Path(scratch) / n for n in ("first", "overlap", "copies"))
        make = [sys.executable, str(SHARED / "faces" / "make_set.py"), options.set, str(first)]
        subprocess.run(make, check=True)
        product.ingest(first)
        before = faces_of(product)
        ids = {f["person_id"] for faces in before.values() for f in faces} - {None}

        product.ingest(first)
        again = faces_of(product)
        print(
            f"the same folder again: {changed(before, again)} of {count(before)} faces changed id"
        )

        photos = sorted(p for p in first.rglob("*") if p.is_file())
        overlap.mkdir()
        for number, photo in enumerate(photos[::2]):
            shutil.copyfile(photo, overlap / f"{number:04}{photo.suffix}")
        product.ingest(overlap)
        later = faces_of(product)
        made = {f["person_id"] for faces in later.values() for f in faces} - ids - {None}
        print(f"an overlapping folder: {len(made)} new persons, {changed(before, later)} changed")

        names = recode(photos, copies, options.quality, options.scale)
        product.ingest(copies)
        after = faces_of(product)
        same, judged, lost = kept(before, after, names, options.scale)
        print(
            f"re-encoded (quality {options.quality}, {options.scale} of the size): "
            f"{same} of {judged} faces have the id they had, {100 * same / judged:.2f} %"
            f" ({lost} were not found in the copy: {100 * same / (judged - lost):.2f} % of the"
            f" others); {changed(before, after)} originals changed id"
        )


def faces_of(product: Product) -> dict[str, Faces]:
    lines = product.run("people", "export", "--jsonl").splitlines()
    return {o["path"]: o["faces"] for o in map(json.loads, lines)}


def count(faces: dict[str, Faces]) -> int:
    return sum(map(len, faces.values()))


def changed(before: dict[str, Faces], after: dict[str, Faces]) -> int:
    """Faces of `before` that carry another id now."""
    pairs = ((f, best(f["bbox"], after[path])) for path in before for f in before[path])
    return sum(g is None or f["person_id"] != g["person_id"] for f, g in pairs)


def recode(photos: list[Path], target: Path, quality: int, scale: float) -> dict[str, str]:
    """Copies of the photos, smaller and re-encoded; the original's path by the copy's."""
    target.mkdir()
    names = {}
    for number, photo in enumerate(photos):
        with Image.open(photo) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
        size = (round(picture.width * scale), round(picture.height * scale))
        copy = target / f"copy{number:04}.jpg"
        picture.resize(size, Image.Resampling.LANCZOS).save(copy, quality=quality)
        names[str(photo.resolve())] = str(copy.resolve())
    return names


def kept(
    before: dict[str, Faces], after: dict[str, Faces], names: dict[str, str], scale: float
) -> tuple[int, int, int]:
    """How many of the faces that had an id have it in the copy, how many were judged, and how many
    of them no face was found for.
    """
    same = judged = lost = 0
    for path, faces in before.items():
        for face in faces:
            if face["person_id"] is None:
                continue
            judged += 1
            found = best([v * scale for v in face["bbox"]], after.get(names[path], []))
            same += found is not None and found["person_id"] == face["person_id"]
            lost += found is None
    return same, judged, lost


def best(box: list[float], faces: Faces) -> dict[str, Any] | None:
    """The face that lies on `box` (IoU at least 0.4)."""
    found = max(faces, key=lambda f: iou(box, f["bbox"]), default=None)
    return found if found and iou(box, found["bbox"]) >= 0.4 else None


def iou(a: list[float], b: list[float]) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if wide <= 0 or high <= 0:
        return 0.0
    inter = wide * high
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


if __name__ == "__main__":
    main()
