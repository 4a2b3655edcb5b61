"""Where the processor time of a photo goes, by process and by stage, in a run of the whole product.

usage: profile_pipeline.py [FOLDER] [--photos 500]

Processor time (user and system) is read from the kernel before and after the ingest, so that other
load of the machine hardly changes it. The stages are what the ML service measures of its own.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

import psutil
from product import Product, started

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("KALEIDOSCOPE_SHARED", ROOT.parent / "shared"))
ENDINGS = {".jpg", ".jpeg", ".png"}
SERVICES = ("api", "worker", "mlserver", "scheduler", "librarian")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=SHARED / "faces" / "photos")
    parser.add_argument("--photos", type=int, default=500)
    options = parser.parse_args()
    found = sorted(p for p in options.folder.rglob("*") if p.suffix.lower() in ENDINGS)
    photos = random.Random(1).sample(found, min(options.photos, len(found)))
    with tempfile.TemporaryDirectory() as scratch, started() as product:
        for number, photo in enumerate(photos):
            shutil.copyfile(photo, Path(scratch) / f"{number:05}{photo.suffix.lower()}")
        warm = Path(scratch) / "warm"
        warm.mkdir()
        (Path(scratch) / "00000.jpg").rename(warm / "warm.jpg")
        product.ingest(warm)
        before, stages, idle, began = cpu(product), measured(product), idle_seconds(), time.time()
        command = commands()
        summary = product.ingest(Path(scratch))
        seconds = time.time() - began
        idle = idle_seconds() - idle
        after, later = cpu(product), measured(product)
        before["command"], after["command"] = command, commands()
    count = summary["scanned"]
    print(f"{count} photos, {summary['faces_detected']} faces, {count / seconds:.1f} photos/s,")
    print(f"{os.cpu_count()} cores, {idle / seconds / (os.cpu_count() or 1):.0%} of them idle\n")
    spent = {name: 1000 * (after[name] - before[name]) / count for name in after}
    for name, milliseconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"{milliseconds:7.1f} ms/photo  {name}")
    print(f"{sum(spent.values()):7.1f} ms/photo  all processes\n")
    for stage, total in later.items():
        print(f"{1000 * (total - stages.get(stage, 0.0)) / count:7.1f} ms/photo  {stage} (elapsed)")


def cpu(product: Product) -> Counter[str]:
    """Seconds of processor time of the product's processes, by name."""
    spent: Counter[str] = Counter()
    folder = str(product.folder)
    for process in psutil.process_iter():
        try:
            name = name_of(process, folder)
            if name:
                times = process.cpu_times()
                spent[name] += times.user + times.system
                if name == "postgres":  # backends that have ended
                    spent[name] += times.children_user + times.children_system
        except psutil.Error:
            continue
    return spent


def commands() -> float:
    """Seconds of processor time of the commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def name_of(process: psutil.Process, folder: str) -> str | None:
    """What a process of the product does; None for others."""
    words = process.cmdline()
    parent = process.parent()
    if words and "postgres" in words[0]:
        mine = words if any(folder in word for word in words) else parent and parent.cmdline()
        return "postgres" if mine and any(folder in word for word in mine) else None
    if process.environ().get("KALEIDOSCOPE_DATA_DIR") != folder:
        return None
    if "kaleidoscope.ml.child" in words:
        work = words[words.index("kaleidoscope.ml.child") + 1]
        return f"child {work.rpartition('.')[2]}"
    return next((name for name in SERVICES if name in words), "supervisor")


def idle_seconds() -> float:
    return psutil.cpu_times().idle


def measured(product: Product) -> dict[str, float]:
    """Seconds that the ML service has measured of each stage."""
    url = next(
        word.partition("=")[2]
        for process in psutil.process_iter()
        for word in environment(process, str(product.folder))
        if word.startswith("KALEIDOSCOPE_ML_URL=")
    )
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    mine = [line for line in lines if line.startswith("kaleidoscope_ml_stage_seconds_sum{")]
    return {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in mine}


def environment(process: psutil.Process, folder: str) -> list[str]:
    try:
        found = process.environ()
    except psutil.Error:
        return []
    if found.get("KALEIDOSCOPE_DATA_DIR") != folder:
        return []
    return [f"{name}={value}" for name, value in found.items()]


if __name__ == "__main__":
    main()
