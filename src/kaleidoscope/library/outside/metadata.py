"""What a file says of itself: when and where it was taken, by which camera, how large it is.

For a child process (`ml.pool` runs `read_file` or `read_files`): decoders are C, and files come
from anywhere. Bad content never raises: what can be had is answered, with `error` beside it.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from PIL import ImageFile, IptcImagePlugin

from kaleidoscope.kernel.errors import KaleidoscopeError, Unavailable, UnreadableMedia
from kaleidoscope.kernel.paths import to_bytes, to_text
from kaleidoscope.library.outside import blocks, exif, xmp
from kaleidoscope.library.rules import dates, names
from kaleidoscope.library.rules.dates import Candidate
from kaleidoscope.ml import decode, video
from kaleidoscope.ml.files import opened
from kaleidoscope.ml.sniff import HEAD, is_raw, sniff

Plain = dict[str, Any]
Listings = dict[str, dict[str, str]]
"""By folder: the files in it that may be sidecars, as `names.folded` has them."""

MAX_TEXT, MAX_ERROR = 200, 2000
MAX_SIDECAR = 16 << 20
RESCUE = 512 << 10  # of a file that no decoder opens: where its EXIF may still be found

_ISO_6709 = re.compile(r"([+-])(\d{2}|\d{4}|\d{6})(\.\d+)?([+-])(\d{3}|\d{5}|\d{7})(\.\d+)?(?!\d)")
_TAIL = 64 << 10
_SAMSUNG_MOTION = b"MotionPhoto_Data"
_TURNED = {5, 6, 7, 8}
_IN_BOXES = {"image/jp2", "image/heic", "image/heif", "image/avif", "image/jxl"}
_PHOTOSHOP_EXIF = 0x0422


@dataclass
class _Found:
    """What is known so far. `instants`: dates told as naive UTC, until the zone is known."""

    width: int | None = None
    height: int | None = None
    orientation: int | None = None
    duration: float | None = None
    frame_rate: float | None = None
    location: tuple[float, float] | None = None
    candidates: list[Candidate] = field(default_factory=list)
    instants: list[tuple[str, datetime]] = field(default_factory=list)
    make: str | None = None
    model: str | None = None
    serial: str | None = None
    content_id: str | None = None
    is_motion_photo: bool = False
    error: str | None = None
    error_code: str | None = None

    def went_wrong(self, error: str, code: str = UnreadableMedia.code) -> None:
        """Note the first thing that is wrong with the file."""
        if self.error is None:
            self.error, self.error_code = error, code


def read_files(tasks: Sequence[Plain]) -> list[Plain]:
    """`read_file` of each: one hand-over to a child carries many."""
    listings: Listings = {}
    return [read_file(task, listings) for task in tasks]


def read_file(task: Plain, listings: Listings | None = None) -> Plain:
    """The metadata of one file, as plain data.

    `task`: `path` (spelled by `kernel.paths.to_text`), `mime_type`, `media_type` (photo, video),
    `name` (the original file name), `modified_at` (ISO), `sidecars` (paths; None: those that lie
    beside it), `zone` (where instants are told whose place is not; "" or absent: UTC). Answers
    `width` and `height` as displayed, `orientation`, `duration_seconds`, `frame_rate`, `location`
    ({lat, lon}), `candidates` (each `source`, `at`, `offset_minutes`, `confidence`; the first of a
    source), `camera_make`, `camera_model`, `camera_serial`, `content_id`, `is_motion_photo`,
    `error` and its `error_code` (unreadable-media: the content; else the file was not reached).
    """
    found = _Found()
    try:
        with opened(to_bytes(task["path"])) as (file, name):
            _read_media(file, name, task, found)
    except KaleidoscopeError as error:
        found.went_wrong(error.message, error.code)
    except OSError as error:
        found.went_wrong(f"{task['path']}: {error.strerror or error}", Unavailable.code)
    except Exception as error:  # decoders raise anything; a batch goes on
        found.went_wrong(f"{task['path']}: cannot be read: {type(error).__name__}: {error}")
    for sidecar in _sidecars(task, {} if listings is None else listings):
        with suppress(Exception):  # a sidecar that is none
            _read_sidecar(sidecar, found)
    return _answer(found, task)


def sidecars_beside(path: str, listings: Listings) -> list[str]:
    """The files beside a media file that hold its metadata: XMP, Takeout JSON.

    `listings` keeps what was seen in each folder.
    """
    folder, _, name = path.rpartition("/")
    if folder not in listings:
        with suppress(OSError), os.scandir(to_bytes(folder) or b"/") as entries:
            listings[folder] = names.folded(to_text(entry.name) for entry in entries)
    return [f"{folder}/{other}" for other in names.sidecars_of(name, listings.get(folder, {}))]


# Photos


def exif_of(image: ImageFile.ImageFile, mime: str) -> exif.Facts:
    """What the EXIF of an open photo says; nothing where it is broken."""
    try:
        return _exif_of(image, {str(key): value for key, value in image.info.items()}, mime)
    except Exception:  # Pillow raises anything
        return exif.Facts()


def raw_orientation(file: BinaryIO, mime: str) -> int | None:
    """How a raw photo is turned, as its EXIF says."""
    try:
        return _raw_facts(file, mime).orientation
    except Exception:
        return None


def _read_media(file: BinaryIO, name: str, task: Plain, found: _Found) -> None:
    mime, media_type = sniff(file.read(HEAD), task.get("name") or name) or (None, None)
    if media_type == "video" or (mime is None and task.get("media_type") == "video"):
        _read_video(file, name, found)
    elif mime is None:
        found.went_wrong(f"{name}: is neither a photo nor a video that is known here")
        _rescue(file, found)
    elif is_raw(mime):
        _read_raw(file, name, mime, found)
    else:
        _read_photo(file, name, mime, found)


def _read_photo(file: BinaryIO, name: str, mime: str, found: _Found) -> None:
    try:
        with decode.open_header(file, mime) as image:
            found.width, found.height = _on_screen(image, file, mime)
            info: Plain = {str(key): value for key, value in image.info.items()}
            if mime == "image/png":  # Pillow would decode all pixels to look behind them
                info |= blocks.in_png(file)
            _take_exif(_exif_of(image, info, mime), found)
            _take_xmp(info.get("xmp") or info.get("XML:com.adobe.xmp"), found)
            _take_iptc(image, found)
            # HEIF is upright when it comes from its decoder, and Pillow turns a TIFF's size.
            if mime in ("image/heic", "image/heif"):
                found.orientation = info.get("original_orientation") or found.orientation
            elif mime != "image/tiff" and found.orientation in _TURNED:
                found.width, found.height = found.height, found.width
    except Exception as error:  # Pillow raises anything: struct.error, KeyError, SyntaxError …
        cause = f"no decoder here reads {mime}" if mime not in decode.FORMATS else str(error)
        found.went_wrong(f"{name}: its header cannot be read: {cause or type(error).__name__}")
        _rescue(file, found)
    if mime in _IN_BOXES:
        _take_boxes(file, found)
    if mime in ("image/jpeg", "image/heic") and not found.is_motion_photo:
        # Samsung lists what follows the picture at the file's very end.
        listed = blocks.tail(file, 4) == b"SEFT"
        found.is_motion_photo = listed and _SAMSUNG_MOTION in blocks.tail(file, _TAIL)


def _on_screen(image: ImageFile.ImageFile, file: BinaryIO, mime: str) -> tuple[int, int]:
    """The size; of a GIF without what lies beyond its logical screen."""
    if mime != "image/gif":
        return image.size
    file.seek(6)
    screen = struct.unpack("<HH", file.read(4))
    beyond = 0 < screen[0] < image.width or 0 < screen[1] < image.height
    return screen if beyond else image.size


def _exif_of(image: ImageFile.ImageFile, info: Plain, mime: str) -> exif.Facts:
    if mime == "image/tiff":
        return exif.read(image.getexif())
    if mime == "image/vnd.adobe.photoshop":
        resources = getattr(image, "resources", [])
        info["exif"] = next((data for code, _, data in resources if code == _PHOTOSHOP_EXIF), None)
    block = info.get("exif")
    return exif.read_block(block) if block else exif.Facts()


def _read_raw(file: BinaryIO, name: str, mime: str, found: _Found) -> None:
    try:
        _take_exif(_raw_facts(file, mime), found)
    except Exception as error:
        cause = str(error) or type(error).__name__
        found.went_wrong(f"{name}: its metadata cannot be read: {cause}")
        _rescue(file, found)
    try:
        found.width, found.height, taken = decode.raw_header(file)
        if taken is not None and not found.candidates:
            found.candidates.append(Candidate("raw:DateTimeOriginal", taken, None, "high"))
    except Exception as error:
        found.went_wrong(f"{name}: the raw photo cannot be opened: {error}")


def _raw_facts(file: BinaryIO, mime: str) -> exif.Facts:
    file.seek(0)
    if mime == "image/x-canon-crw":
        return exif.ciff(file)
    if mime == "image/x-canon-cr3":
        return exif.read_parts(blocks.in_cr3(file.read(RESCUE)))
    if mime in ("image/x-fujifilm-raf", "image/x-sigma-x3f"):
        block = blocks.exif_inside(file.read(RESCUE))
        if block is None and mime == "image/x-sigma-x3f":
            return exif.sigma(blocks.tail(file, _TAIL))
        return exif.read_block(block) if block else exif.Facts()
    return exif.read_tiff(blocks.as_tiff(file))


def _rescue(file: BinaryIO, found: _Found) -> None:
    """Of a file that cannot be opened as what it is: EXIF and XMP that stand near its start, and
    its size where FFmpeg shows a picture.
    """
    with suppress(KaleidoscopeError):
        info = video.read_open(file, "the file")
        found.width, found.height = info.width, info.height
    with suppress(Exception):
        file.seek(0)
        head = file.read(RESCUE)
        _take_xmp(xmp.packet_in(head), found)
        if (block := blocks.exif_inside(head)) is not None:
            _take_exif(exif.read_block(block), found)


# What the groups of metadata say


def _take_exif(facts: exif.Facts, found: _Found) -> None:
    found.candidates += facts.candidates
    found.location = found.location or facts.location
    found.orientation = found.orientation or facts.orientation
    found.make, found.model = found.make or facts.make, found.model or facts.model
    found.serial = found.serial or facts.serial
    found.content_id = found.content_id or facts.content_id
    if facts.gps_time is not None:
        found.instants.append(("gps:GPSDateTime", facts.gps_time))


def _take_xmp(packet: Any, found: _Found, prefix: str = "xmp") -> None:
    if not packet:
        return
    properties = xmp.read(packet.encode() if isinstance(packet, str) else bytes(packet))
    found.candidates += xmp.candidates(properties, prefix)
    found.location = found.location or xmp.location(properties)
    found.make = found.make or properties.get("tiff:Make")
    found.model = found.model or properties.get("tiff:Model")
    found.is_motion_photo = found.is_motion_photo or xmp.is_motion_photo(properties)
    if (instant := xmp.gps_time(properties)) is not None:
        found.instants.append(("gps:GPSDateTime", instant))


def _take_iptc(image: ImageFile.ImageFile, found: _Found) -> None:
    with suppress(Exception):  # a broken block of no importance
        fields = IptcImagePlugin.getiptcinfo(image) or {}
        day, clock = (fields.get((2, n)) for n in (55, 60))
        if isinstance(day, bytes) and re.fullmatch(rb"\d{8}", day):
            clock = clock if isinstance(clock, bytes) and len(clock) >= 6 else b"000000"
            d, c = day.decode("ascii"), clock.decode("ascii")
            written = f"{d[:4]}-{d[4:6]}-{d[6:]}T{c[:2]}:{c[2:4]}:{c[4:6]}{c[6:]}"
            if (known := dates.read(written)) is not None:
                found.candidates.append(Candidate("iptc:DateCreated", *known, "high"))


def _take_boxes(file: BinaryIO, found: _Found) -> None:
    """What lies in boxes: XMP, a film's date, a motion photo's video."""
    with suppress(OSError, ValueError):
        boxes = blocks.in_boxes(file)
        found.is_motion_photo = found.is_motion_photo or boxes.has_motion
        if boxes.xmp is not None and not any(c.source.startswith("xmp:") for c in found.candidates):
            _take_xmp(boxes.xmp, found)
        if (known := dates.read(boxes.date or "")) is not None:
            found.candidates.append(Candidate("quicktime:DateTimeOriginal", *known, "high"))
        if boxes.is_film and not found.instants:  # a burst, an animation
            _take_tags(video.tags_open(file), found)


# Videos


def _read_video(file: BinaryIO, name: str, found: _Found) -> None:
    try:
        info = video.read_open(file, name)
        found.width, found.height = info.width, info.height
        found.duration, found.frame_rate = info.duration, info.frame_rate
        tags = info.tags
    except KaleidoscopeError as error:
        found.went_wrong(error.message, error.code)
        tags = video.tags_open(file)
    _take_tags(tags, found)
    _take_boxes(file, found)


def _take_tags(tags: dict[str, str], found: _Found) -> None:
    apple = "com.apple.quicktime."
    for source, key in (
        ("quicktime:CreationDate", f"{apple}creationdate"),
        ("quicktime:DateTimeOriginal", "date"),
    ):
        if (known := dates.read(tags.get(key, ""))) is not None:
            found.candidates.append(Candidate(source, *known, "high"))
    if (known := dates.read(tags.get("creation_time", ""))) is not None:
        found.instants.append(("quicktime:CreateDate", known[0] - (known[1] or timedelta(0))))
    for key in (f"{apple}location.iso6709", "location", "location-eng"):
        found.location = found.location or _iso_6709(tags.get(key, ""))
    found.make = found.make or tags.get(f"{apple}make") or tags.get("com.android.manufacturer")
    found.model = found.model or tags.get(f"{apple}model") or tags.get("com.android.model")
    found.content_id = found.content_id or tags.get(f"{apple}content.identifier")


def _iso_6709(written: str) -> tuple[float, float] | None:
    """A position such as +51.5334-000.1255/; also with minutes and seconds."""
    match = _ISO_6709.match(written)
    if match is None:
        return None
    values = []
    for sign, whole, fraction, width in (
        (match[1], match[2], match[3], 2),
        (match[4], match[5], match[6], 3),
    ):
        parts = [whole[:width], *(whole[i : i + 2] for i in range(width, len(whole), 2))]
        numbers = [float(part) for part in parts]
        numbers[-1] += float(fraction or 0)
        degrees = sum(number / 60**power for power, number in enumerate(numbers))
        values.append(-degrees if sign == "-" else degrees)
    return exif.place(*values)


# Sidecars


def _sidecars(task: Plain, listings: Listings) -> list[str]:
    given = task.get("sidecars")
    return sidecars_beside(task["path"], listings) if given is None else list(given)


def _read_sidecar(path: str, found: _Found) -> None:
    with opened(to_bytes(path)) as (file, _):
        content = file.read(MAX_SIDECAR)
    if path.lower().endswith(".xmp"):
        _take_xmp(content, found, "sidecar")
    elif path.lower().endswith(".json"):
        _take_takeout(json.loads(content), found)


def _take_takeout(document: Plain, found: _Found) -> None:
    """What Google Photos knew: its instant, and a position where the file has none."""
    for key in ("geoDataExif", "geoData"):
        there = document.get(key) or {}
        if found.location is None and "latitude" in there and "longitude" in there:
            found.location = exif.place(float(there["latitude"]), float(there["longitude"]))
    taken = int(document["photoTakenTime"]["timestamp"])
    instant = datetime(1970, 1, 1) + timedelta(seconds=taken)
    found.instants.append(("takeout:photoTakenTime", instant))


# The answer


def _answer(found: _Found, task: Plain) -> Plain:
    place = found.location
    return {
        **dates.NOTHING,
        "width": _pixels(found.width),
        "height": _pixels(found.height),
        "orientation": found.orientation,
        "duration_seconds": _measure(found.duration),
        "frame_rate": _measure(found.frame_rate),
        "location": place and {"lat": place[0], "lon": place[1]},
        "candidates": [dates.to_plain(c) for c in _all_candidates(found, task)],
        "camera_make": _text(found.make),
        "camera_model": _text(found.model),
        "camera_serial": _text(found.serial),
        "content_id": _text(found.content_id),
        "is_motion_photo": found.is_motion_photo,
        "error": _text(found.error, MAX_ERROR),
        "error_code": found.error_code,
    }


def _pixels(number: int | None) -> int | None:
    """A width or height that a database holds."""
    return number if number is not None and 0 < number < 2**31 else None


def _measure(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) and number >= 0 else None


def _text(written: str | None, length: int = MAX_TEXT) -> str | None:
    """Text from a file as any database and JSON hold it."""
    if written is None:
        return None
    return written.replace("\0", "").encode("utf-8", "replace").decode()[:length].strip() or None


def _all_candidates(found: _Found, task: Plain) -> list[Candidate]:
    """Every date that is possible, one a source."""
    zone = _zone_at(found.location) or _zone(task.get("zone") or "")
    now = datetime.now(UTC)
    told = [
        *found.candidates,
        *(dates.told(*one, zone) for one in found.instants if dates.possible(one[1], now)),
    ]
    told += names.outer_candidates(task.get("name") or task["path"], task.get("modified_at"), zone)
    first: dict[str, Candidate] = {}
    for candidate in told:
        if dates.possible(candidate.at, now):
            first.setdefault(candidate.source, dates.guarded(candidate))
    return list(first.values())


def _zone_at(place: tuple[float, float] | None) -> tzinfo | None:
    if place is None:
        return None
    import tzfpy  # its table takes 100 ms and 20 MB: only where a position needs it

    return _zone(tzfpy.get_tz(place[1], place[0]))


@lru_cache
def _zone(name: str) -> tzinfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError):
        return None
