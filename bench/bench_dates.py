"""How many real photos and videos get the folder of the right day, and how fast dates are read.

usage: bench_dates.py [--shared ../shared]

Takes the rows of `media/manifest.csv` that say by more than a modification time when they were
taken, and gives them, in one run and as copies of their own, to

* Kaleidoscope: `library.outside.metadata` in one child process, without ExifTool;
* `exiftool "-Directory<DateTimeOriginal"`, where it is installed: what a script would do;
* `phockup` and `elodie`, where they are installed: what users would pick instead.

What is not installed is skipped, with the reason. Where the manifest's ExifTool is known to be
wrong (tests/library/test_oracle.py), so is this measure, by the same few files for everybody.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kaleidoscope.kernel.paths import to_text
from kaleidoscope.library.rules import dates
from kaleidoscope.ml.pool import Pool

Expected = dict[str, str]
"""By the mark in a copy's name: the folder of its day."""

AT_ONCE = 20
DEFAULT = Path(__file__).parents[2] / "shared"
ELODIE = "[Directory]\nyear=%Y\ndate=%Y-%m-%d\nfull_path=%year/%date\n"


class Skipped(Exception):
    """Why a program was not measured."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    shared = Path(os.environ.get("KALEIDOSCOPE_SHARED", DEFAULT))
    parser.add_argument("--shared", type=Path, default=shared)
    media = parser.parse_args().shared / "media"
    if not media.is_dir():
        print(f"skipped: no files to measure with at {media} (--shared, KALEIDOSCOPE_SHARED)")
        return
    programs: dict[str, Callable[[Path, Path], None]] = {
        "exiftool": exiftool,
        "phockup": phockup,
        "elodie": elodie,
    }
    with copies(media) as (folder, expected):
        begun = time.perf_counter()
        ours = asyncio.run(kaleidoscope(folder))
        tell("kaleidoscope", ours, expected, time.perf_counter() - begun)
    for name, program in programs.items():
        with copies(media) as (folder, expected), tempfile.TemporaryDirectory() as out:
            begun = time.perf_counter()
            try:
                program(folder, Path(out))
            except Skipped as reason:
                print(f"{name:<14} skipped: {reason}")
                continue
            took = time.perf_counter() - begun
            tell(name, dict(filed(Path(out))), expected, took)


@contextmanager
def copies(media: Path) -> Iterator[tuple[Path, Expected]]:
    """The files in one folder, each with a mark in its name by which it is found again."""
    with tempfile.TemporaryDirectory() as name, (media / "manifest.csv").open() as manifest:
        expected: Expected = {}
        for number, row in enumerate(csv.DictReader(manifest)):
            if row["date_strength"] != "strong" or row["kind"] not in ("image", "raw", "video"):
                continue
            source = media / row["path"]
            mark = f"-k{number:04}"
            copy = Path(name) / f"{source.stem}{mark}{source.suffix}"
            shutil.copyfile(source, copy)
            expected[mark] = row["expected_folder"]
        yield Path(name), expected


def tell(name: str, found: Expected, expected: Expected, took: float) -> None:
    """One line: how many are right, and how fast it was."""
    right = sum(found.get(mark) == folder for mark, folder in expected.items())
    share, speed = right / len(expected), len(expected) / took
    print(f"{name:<14} {right} of {len(expected)} in the right folder ({share:.1%})", end="")
    print(f", {speed:.0f} files/s")


async def kaleidoscope(folder: Path) -> Expected:
    found: Expected = {}
    tasks = [{"path": to_text(p), "name": p.name, "sidecars": []} for p in folder.iterdir()]
    async with Pool("kaleidoscope.library.outside.metadata:read_files", size=1) as pool:
        await pool.warm()
        for start in range(0, len(tasks), AT_ONCE):
            portion = tasks[start : start + AT_ONCE]
            answers = await pool.run(portion, name=str(portion[0]["path"]))
            for task, answer in zip(portion, answers, strict=True):
                at = dates.choose(dates.from_plain(answer["candidates"])).captured_at
                if at is not None:
                    found[mark_in(str(task["name"]))] = f"{at:%Y/%Y-%m-%d}"
    return found


def exiftool(folder: Path, out: Path) -> None:
    run(
        "exiftool",
        *("-q", "-q", "-o", f"{out}/"),
        *("-d", f"{out}/%Y/%Y-%m-%d", "-Directory<DateTimeOriginal"),
        str(folder),
    )


def phockup(folder: Path, out: Path) -> None:
    run("phockup", str(folder), str(out), "-d", "YYYY/YYYY-MM-DD")


def elodie(folder: Path, out: Path) -> None:
    with tempfile.TemporaryDirectory() as home:
        config = Path(home) / ".elodie" / "config.ini"
        config.parent.mkdir()
        config.write_text(ELODIE)
        run("elodie", "import", f"--destination={out}", f"--source={folder}", home=home)


def run(program: str, *arguments: str, home: str | None = None) -> None:
    found = shutil.which(program)
    if found is None:
        raise Skipped("not installed")
    env = {**os.environ, **({"HOME": home} if home else {})}
    done = subprocess.run([found, *arguments], capture_output=True, text=True, env=env)
    if "ModuleNotFoundError" in done.stderr:
        raise Skipped(f"installed, and does not start: {done.stderr.strip().splitlines()[-1]}")


def filed(out: Path) -> Iterator[tuple[str, str]]:
    """Each file's mark and the two folders in which it lies."""
    for path in out.rglob("*"):
        if path.is_file() and (mark := mark_in(path.name)):
            yield mark, "/".join(path.relative_to(out).parts[:-1])


def mark_in(name: str) -> str:
    match = re.search(r"-k\d{4}", name)
    return match.group() if match else ""


if __name__ == "__main__":
    main()
