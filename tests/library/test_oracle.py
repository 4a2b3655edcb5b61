"""Dates, positions, sizes and cameras of real files, against ExifTool's answers in the manifest.

Where the maker of a file says the truth (`truth`) and ExifTool differs, the truth is right. Every
disagreement stands here with its reason; one that is none any more fails the test as well.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from manifest import MANIFEST_ERRS

from kaleidoscope.kernel.paths import to_text
from kaleidoscope.library.outside import metadata, xmp
from kaleidoscope.library.rules import dates
from kaleidoscope.ml.pool import Pool

FUTURE = "is in the future, as a camera's broken clock tells it: refused"

# Where ExifTool is wrong, as can be seen in the file: what is told here counts as right.
ORACLE_ERRS = MANIFEST_ERRS | {
    "video/media__sample.mkv": "2025 is when mkvmerge was run; the film says 2016",
    "formats/metadata-extra__ecf22eaecaf11fc75938973745138868.tif": "overlooks the time in "
    "1997:08:25:13:12:50",
    "sidecar/photoprism__date.heic.xmp": "47.7 N 122.3 W, Seattle: overlooks the W",
    "synthetic/gps/null_island.jpg": "0, 0 is what cameras write without a fix",
}
DATES = {
    "synthetic/dates/dto_edge_2038.jpg": FUTURE,
    "synthetic/dates/dto_edge_future2099.jpg": FUTURE,
    "synthetic/dates/only_gps_utc.jpg": "UTC, told by the clocks at its position, an hour ahead",
}
ORIENTATIONS = {"broken/image__TODO hpredict_cmyk.tiff": "Pillow refuses the damaged header"}
SIZES = {
    "broken/mp4parse-rust__hdlr-not-first.avif": "neither libavif nor FFmpeg opens it",
    "formats/exiv2__issue_2233_poc1.jxl": "no decoder here reads JPEG XL",
    "formats/libavif__clap_irot_imir_non_essential.avif": "12 × 34 before it is cut and turned",
    "synthetic/wrongext/svg_script.svg": "no decoder here reads SVG",
}
# What the maker of a file calls true, and why it is told otherwise here.
TRUTHS = {
    "synthetic/dates/dto_edge_2038.jpg": FUTURE,
    "synthetic/dates/dto_edge_future2099.jpg": FUTURE,
    "synthetic/dates/only_gps_utc.jpg": DATES["synthetic/dates/only_gps_utc.jpg"],
    "synthetic/takeout/Google Photos/Photos from 2021/b.jpg": "UTC, told by the clocks at its "
    "position, two hours behind",
}

Row = dict[str, str]
Read = dict[str, tuple[Row, dict[str, Any]]]


@dataclass(frozen=True)
class Verdict:
    """How many rows were judged, and what is wrong with which."""

    judged: int
    wrong: dict[str, str]

    def of(self, known: dict[str, str], share: float, what: str) -> None:
        """At least so much is right, and all that is wrong is known."""
        ours = self.wrong.keys() - ORACLE_ERRS.keys()
        right = self.judged - len(ours)
        print(f"{what}: {right} of {self.judged}, {right / self.judged:.1%}")
        for path, difference in self.wrong.items():
            print(f"  {path}: {difference}; {(known | ORACLE_ERRS).get(path, 'WHY?')}")
        assert ours <= known.keys(), "not explained"
        assert right / self.judged >= share


@pytest.fixture(scope="module")
def rows(shared: Path) -> list[Row]:
    with (shared / "media" / "manifest.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
async def read(shared: Path, rows: list[Row]) -> Read:
    """Every photo and video as a child process reads it, by itself: without sidecars."""
    wanted = [r for r in rows if r["kind"] in ("image", "raw", "video", "clutter")]
    tasks = [_task(shared, row) | {"sidecars": []} for row in wanted]
    found: Read = {}
    async with Pool(
        "kaleidoscope.library.outside.metadata:read_files", size=1, seconds=240
    ) as pool:
        for start in range(0, len(tasks), 20):
            answers = await pool.run(tasks[start : start + 20], name=tasks[start]["path"])
            for row, answer in zip(wanted[start:], answers, strict=False):
                found[row["path"]] = row, answer
        assert pool.crashes == 0
    return found


def _task(shared: Path, row: Row) -> dict[str, Any]:
    path = shared / "media" / row["path"]
    return {"path": to_text(path), "name": path.name, "modified_at": None}


def judge(
    read: Read, asked: Callable[[Row], object], differs: Callable[..., str | None]
) -> Verdict:
    judged = [(row, answer) for row, answer in read.values() if asked(row)]
    wrong = {
        row["path"]: difference
        for row, answer in judged
        if (difference := differs(row, answer)) is not None
    }
    return Verdict(len(judged), wrong)


def chosen(answer: dict[str, Any]) -> dates.Chosen:
    return dates.choose(dates.from_plain(answer["candidates"]))


def wrong_date(row: Row, answer: dict[str, Any]) -> str | None:
    told = chosen(answer).captured_at
    expected = dates.read(row["best_date"])
    assert expected is not None
    if told == expected[0]:
        return None
    return f"{row['best_date']} of {row['best_date_source']}, was taken for {told}"


def test_dates_of_photos(read: Read) -> None:
    verdict = judge(
        read, lambda r: r["date_strength"] == "strong" and r["kind"] != "video", wrong_date
    )
    verdict.of(DATES, 0.985, "capture dates of photos")


def test_dates_of_videos(read: Read) -> None:
    """What a film says in UTC alone is UTC as long as nobody says where it was taken."""
    verdict = judge(read, lambda r: r["date_strength"] and r["kind"] == "video", wrong_date)
    verdict.of({}, 0.95, "dates of videos")


def test_dates_that_are_weak_or_in_utc(read: Read) -> None:
    verdict = judge(
        read,
        lambda r: r["date_strength"] in ("weak", "utc-only") and r["kind"] != "video",
        wrong_date,
    )
    verdict.of(DATES, 0.9, "dates that are weak or in UTC")


def test_dates_of_all_strong_rows(read: Read, shared: Path, rows: list[Row]) -> None:
    """Photos, videos and sidecars together."""
    verdict = judge(read, lambda r: r["date_strength"] == "strong", wrong_date)
    sidecars = [r for r in rows if r["kind"] == "sidecar" and r["date_strength"] == "strong"]
    wrong = dict(verdict.wrong)
    for row in sidecars:
        told = dates.choose(xmp.candidates(_packet(shared, row), "sidecar")).captured_at
        if (expected := dates.read(row["best_date"])) is None or told != expected[0]:
            wrong[row["path"]] = f"{row['best_date']}, was taken for {told}"
    Verdict(verdict.judged + len(sidecars), wrong).of(DATES, 0.985, "all strong rows")


def test_positions(read: Read, shared: Path, rows: list[Row]) -> None:
    verdict = judge(read, lambda r: r["gps_lat"], wrong_position)
    sidecars = [r for r in rows if r["kind"] == "sidecar" and r["gps_lat"]]
    wrong = dict(verdict.wrong)
    for row in sidecars:
        place = xmp.location(_packet(shared, row))
        answer = {"location": place and {"lat": place[0], "lon": place[1]}}
        if (difference := wrong_position(row, answer)) is not None:
            wrong[row["path"]] = difference
    Verdict(verdict.judged + len(sidecars), wrong).of({}, 0.99, "positions")


def wrong_position(row: Row, answer: dict[str, Any]) -> str | None:
    place = answer["location"]
    expected = float(row["gps_lat"]), float(row["gps_lon"])
    if place and abs(place["lat"] - expected[0]) + abs(place["lon"] - expected[1]) < 1e-5:
        return None
    return f"{expected}, was taken for {place}"


def test_orientations(read: Read) -> None:
    def differs(row: Row, answer: dict[str, Any]) -> str | None:
        if str(answer["orientation"]) == row["orientation"]:
            return None
        return f"{row['orientation']}, was taken for {answer['orientation']}"

    verdict = judge(read, lambda r: r["orientation"] and r["readable"] == "yes", differs)
    verdict.of(ORIENTATIONS, 0.99, "orientations")


def test_displayed_sizes(read: Read) -> None:
    def differs(row: Row, answer: dict[str, Any]) -> str | None:
        size = f"{answer['width']} × {answer['height']}"
        expected = f"{row['width']} × {row['height']}"
        return None if size == expected else f"{expected}, was taken for {size}"

    verdict = judge(read, lambda r: r["width"] and r["height"] and r["readable"] == "yes", differs)
    verdict.of(SIZES, 0.99, "displayed sizes")


def test_the_folder_is_that_of_the_local_day(read: Read) -> None:
    def differs(row: Row, answer: dict[str, Any]) -> str | None:
        at = chosen(answer).captured_at
        folder = f"{at:%Y/%Y-%m-%d}" if at else "none"
        return (
            None if folder == row["expected_folder"] else f"{row['expected_folder']}, not {folder}"
        )

    verdict = judge(
        read, lambda r: r["expected_folder"] and r["date_strength"] != "utc-only", differs
    )
    verdict.of(DATES, 0.985, "folders")


def test_what_is_said_of_live_and_motion_photos(read: Read) -> None:
    pairs = {p: a["content_id"] for p, (r, a) in read.items() if r["content_id"]}
    assert pairs and pairs == {p: read[p][0]["content_id"] for p in pairs}
    moving = {path for path, (_, answer) in read.items() if answer["is_motion_photo"]}
    assert moving == {path for path, (row, _) in read.items() if row["is_motion_photo"] == "yes"}


def test_fractions_and_offsets(read: Read) -> None:
    """To the microsecond, and the offset where one is told."""
    wrong = []
    for path, (row, answer) in read.items():
        told = chosen(answer)
        expected = dates.read(row["best_date"])
        if expected is None or told.captured_at is None or told.source.startswith("gps:"):
            continue
        if told.captured_at.replace(microsecond=0) == expected[0].replace(microsecond=0):
            offset = dates.read_offset(row["best_date_offset"])
            if told.captured_at != expected[0]:
                wrong.append(f"{path}: {row['best_date']} is not {told.captured_at}")
            if offset is not None and told.captured_offset != offset:
                wrong.append(f"{path}: {row['best_date_offset']} is not {told.captured_offset}")
    assert not wrong


def made(rows: list[Row]) -> Iterator[tuple[Row, dict[str, Any]]]:
    """The rows whose maker says what is true."""
    for row in rows:
        if row["truth"] and row["kind"] in ("image", "video"):
            yield row, json.loads(row["truth"])


def test_the_truth_with_sidecars_and_names(shared: Path, rows: list[Row]) -> None:
    """Synthetic files with all that lies beside them."""
    wrong, judged = {}, 0
    for row, truth in made(rows):
        if "best" not in truth:
            continue
        judged += 1
        task = _task(shared, row) | {"sidecars": None, "modified_at": "2020-01-01T00:00:00+00:00"}
        told = chosen(metadata.read_file(task))
        expected = truth["best"] and dates.read(truth["best"])
        found = None if told.source == "mtime" else told.captured_at
        if "filename" in (truth.get("src"), row["path"].split("/")[-2]) and found is not None:
            found = found.replace(microsecond=0)  # the maker leaves out what a Pixel's name has
        if found != (expected[0] if expected else None):
            wrong[row["path"]] = f"{truth['best']}, was taken for {told}"
    Verdict(judged, wrong).of(TRUTHS, 0.95, "truths")
    assert wrong.keys() == TRUTHS.keys()


def test_true_positions(shared: Path, rows: list[Row]) -> None:
    judged = 0
    for row, truth in made(rows):
        if "lat" not in truth or truth["lat"] == "ambiguous":
            continue
        judged += 1
        place = metadata.read_file(_task(shared, row) | {"sidecars": None})["location"]
        if truth["lat"] is None or (truth["lat"], truth["lon"]) == (0, 0):
            assert place is None, row["path"]
        else:
            assert place is not None, row["path"]
            there = place["lat"], place["lon"]
            assert there == pytest.approx((truth["lat"], truth["lon"]), abs=1e-5), row["path"]
    assert judged > 20


def test_real_takeout_folders(shared: Path, rows: list[Row]) -> None:
    """The instant of Google's sidecar is that of the EXIF date."""
    folder = shared / "media" / "takeout"
    photos = [r for r in rows if r["path"].startswith("takeout/") and r["kind"] == "image"]
    for row in photos:
        answer = metadata.read_file(_task(shared, row) | {"sidecars": None})
        told = {c.source: c for c in dates.from_plain(answer["candidates"])}
        takeout, exif = told["takeout:photoTakenTime"], told["exif:DateTimeOriginal"]
        assert abs(takeout.at - exif.at).total_seconds() < 1, row["path"]
        assert takeout.offset == exif.offset
    assert photos and folder.is_dir()


def _packet(shared: Path, row: Row) -> dict[str, str]:
    return xmp.read((shared / "media" / row["path"]).read_bytes())


def test_every_listed_disagreement_is_one(read: Read, rows: list[Row]) -> None:
    """The lists hold no file that is gone or right."""
    listed = {**ORACLE_ERRS, **DATES, **ORIENTATIONS, **SIZES, **TRUTHS}
    assert listed.keys() <= {row["path"] for row in rows}
    for path in DATES:
        assert wrong_date(*read[path]) is not None, path
