"""How fast an inbox is filed with full custody, against what users would pick instead.

usage: bench_custody.py [--files 5000] [--folder /where/there/is/room] [--only NAME]...

Generates JPEG files of 0.1 to 2 MB with varied EXIF (cameras, dates over three years, some with an
offset, a position, or none of all that), reads them once so that everybody starts warm, and files
copies of them, one tool after the other, in one run:

* floor: scandir, SHA-256, EXIF, batched rows, link and unlink, folders synced in batches, in two
  processes; nothing is resumed, checked or published;
* ours: the librarian's whole sweep, on PostgreSQL with `fsync` and the like on, until the inbox is
  empty and every file is in the ledger and published;
* exiftool: `-Directory<DateTimeOriginal`;
* sortphotos, where it is installed (`pip install sortphotos`), and phockup, where it is.

Prints files/s, the ratio to exiftool and to the floor, and how many contents each tool lost.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
from PIL import ExifTags, Image
from scratch_database import scratch_database
from sqlalchemy import text

from kaleidoscope.ingest.service import Librarian
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library

AT_ONCE = 256
CAMERAS = [("Canon", "EOS 5D"), ("NIKON CORPORATION", "D850"), ("Apple", "iPhone 12"), ("", "")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--only", action="append", default=[])
    options = parser.parse_args()
    tools: dict[str, Callable[[Path, Path], float]] = {
        "floor": floor,
        "ours": ours,
        "exiftool": exiftool,
        "sortphotos": sortphotos,
        "phockup": phockup,
    }
    with tempfile.TemporaryDirectory(prefix="custody-bench-", dir=options.folder) as name:
        place = Path(name)
        place.chmod(0o755)
        size, contents = generate(place / "photos", options.files)
        print(f"{options.files} files, {size / 1e9:.2f} GB", flush=True)
        rates: dict[str, float] = {}
        for tool, run in tools.items():
            if options.only and tool not in options.only:
                continue
            home = place / tool
            shutil.copytree(place / "photos", home / "inbox", copy_function=shutil.copy2)
            os.sync()
            took = run(home / "inbox", home / "sorted")
            if took:
                rates[tool] = options.files / took
                report(tool, took, rates, options.files, lost(home, contents))
            else:
                print(f"{tool:<12} is not installed", flush=True)
            shutil.rmtree(home)


def report(tool: str, took: float, rates: dict[str, float], files: int, lost: int) -> None:
    against = [
        f"{rates[tool] / rates[other]:5.2f} × {other}"
        for other in ("exiftool", "floor", "ours")
        if other in rates and other != tool
    ]
    rate = f"{rates[tool]:7.0f} files/s"
    print(f"{tool:<12} {took:7.2f} s {rate}  {lost} lost  {', '.join(against)}", flush=True)


# -- the photos


def generate(folder: Path, count: int) -> tuple[int, set[str]]:
    """Photos a hundred to a folder; their size in all, and the hashes of their contents."""
    dice = random.Random(4)
    picture = Image.effect_noise((640, 480), 60).convert("RGB")
    size, contents = 0, set()
    for number in range(count):
        shard = folder / f"{number // 100:03}"
        shard.mkdir(parents=True, exist_ok=True)
        data = photo(dice, picture.size, number)
        path = shard / f"IMG_{dice.randrange(10_000):04}_{number}.jpg"
        path.write_bytes(data)
        when = 1_500_000_000 + dice.randrange(10**8)
        os.utime(path, (when, when))
        size += len(data)
        contents.add(hashlib.sha256(data).hexdigest())
    return size, contents


def photo(dice: random.Random, size: tuple[int, int], number: int) -> bytes:
    small = Image.new("RGB", (64, 48), (number % 256, number // 256 % 256, 90))
    make, model = CAMERAS[number % len(CAMERAS)]
    exif = Image.Exif()
    if make:
        exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = make, model
    exif[ExifTags.Base.Orientation] = 1 + number % 8
    if number % 20:  # one in twenty has no date
        day = f"20{18 + number % 3}:{1 + dice.randrange(12):02}:{1 + dice.randrange(28):02}"
        clock = f"{dice.randrange(24):02}:{dice.randrange(60):02}:{dice.randrange(60):02}"
        inner = exif.get_ifd(ExifTags.IFD.Exif)
        inner[ExifTags.Base.DateTimeOriginal] = f"{day} {clock}"
        inner[ExifTags.Base.SubsecTimeOriginal] = f"{number % 1000:03}"
        if number % 3 == 0:
            inner[ExifTags.Base.OffsetTimeOriginal] = "+02:00"
    if number % 4 == 0:
        place = exif.get_ifd(ExifTags.IFD.GPSInfo)
        place[1], place[2] = "N", (48.0, float(number % 60), 12.5)
        place[3], place[4] = "E", (11.0, float(number % 60), 30.5)
    out = io.BytesIO()
    small.save(out, "JPEG", exif=exif, quality=80)
    padding = dice.randrange(100_000, 2_000_000)
    return out.getvalue() + dice.randbytes(padding)


def lost(home: Path, contents: set[str]) -> int:
    found = set()
    for path in home.rglob("*"):
        if path.is_file() and path.stat().st_size > 50_000:
            found.add(hashlib.sha256(path.read_bytes()).hexdigest())
    return len(contents - found)


# -- ours


def ours(inbox: Path, target: Path) -> float:
    target.mkdir()
    with scratch_database() as url:
        os.environ["KALEIDOSCOPE_DATA_DIR"] = str(target)
        os.environ["KALEIDOSCOPE_INBOX_FOLDERS"] = str(inbox)
        os.environ["KALEIDOSCOPE_INBOX_SETTLE_SECONDS"] = "0"
        load.cache_clear()
        return asyncio.run(_ours(url))


async def _ours(url: str) -> float:
    db = Database(url)
    async with library.children(2) as work:
        await work.warm()
        librarian = Librarian(db, work)
        await librarian.open()
        began = time.perf_counter()
        await librarian.sweep()
        took = time.perf_counter() - began
    async with db.transaction() as session:
        rows = await session.execute(text("SELECT state, count(*) FROM custody_moves GROUP BY 1"))
        assert [row.state for row in rows] == ["RELEASED"]
    await db.close()
    return took


# -- the floor


def floor(inbox: Path, target: Path) -> float:
    with (
        scratch_database() as url,
        psycopg.connect(url) as connection,
        ProcessPoolExecutor(2) as children,
    ):
        connection.execute(
            "CREATE TABLE bare (path text, hash text UNIQUE, size bigint, at text, make text)"
        )
        connection.commit()
        list(children.map(_read, [[]] * 2))
        began = time.perf_counter()
        paths = list(_walk(os.fsencode(inbox)))
        portions = [paths[i : i + AT_ONCE] for i in range(0, len(paths), AT_ONCE)]
        for portion, facts in zip(portions, children.map(_read, portions), strict=True):
            _file(connection, target, portion, facts)
        return time.perf_counter() - began


def _walk(folder: bytes) -> Iterator[bytes]:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path)
        else:
            yield entry.path


def _read(paths: Sequence[bytes]) -> list[tuple[str, int, str, str]]:
    found = []
    for path in paths:
        data = Path(os.fsdecode(path)).read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            exif = image.getexif()
        inner: dict[int, Any] = exif.get_ifd(ExifTags.IFD.Exif)
        at = str(inner.get(ExifTags.Base.DateTimeOriginal) or "1970:01:01 00:00:00")
        make = str(exif.get(ExifTags.Base.Make) or "")
        found.append((hashlib.sha256(data).hexdigest(), len(data), at, make))
    return found


def _file(
    connection: psycopg.Connection,
    target: Path,
    paths: Sequence[bytes],
    facts: Sequence[tuple[str, int, str, str]],
) -> None:
    folders, laid = set(), []
    for path, fact in zip(paths, facts, strict=True):
        folder = target / fact[2][:4] / fact[2][:10].replace(":", "-")
        folder.mkdir(parents=True, exist_ok=True)
        goal = folder / os.fsdecode(path).rpartition("/")[2]
        os.link(path, goal)
        folders.add(folder)
        laid.append((str(goal), *fact))
    for folder in folders:
        opened = os.open(folder, os.O_RDONLY)
        os.fsync(opened)
        os.close(opened)
    values = ", ".join(["(%s, %s, %s, %s, %s)"] * len(laid))
    connection.execute(
        f"INSERT INTO bare VALUES {values}",  # type: ignore[arg-type]
        [value for row in laid for value in row],
    )
    connection.commit()
    for path in paths:
        os.unlink(path)  # noqa: PTH108


# -- the others


def exiftool(inbox: Path, target: Path) -> float:
    program = shutil.which("exiftool")
    if program is None:
        return 0.0
    words = [program, "-q", "-q", "-r", "-d", f"{target}/%Y/%Y-%m-%d"]
    return _timed([*words, "-Directory<FileModifyDate", "-Directory<DateTimeOriginal", str(inbox)])


def sortphotos(inbox: Path, target: Path) -> float:
    program = shutil.which("sortphotos")
    if program is None:
        return 0.0
    target.mkdir()
    return _timed([program, "-r", "--sort", "%Y/%Y-%m-%d", str(inbox), str(target)])


def phockup(inbox: Path, target: Path) -> float:
    program = shutil.which("phockup")
    if program is None:
        return 0.0
    target.mkdir()
    return _timed([program, str(inbox), str(target), "--move", "-d", "YYYY/YYYY-MM-DD"])


def _timed(words: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
