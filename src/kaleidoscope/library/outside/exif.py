"""EXIF: from a block of tags, wherever in a file it lies, to dates, position and camera."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, BinaryIO

from PIL import Image

from kaleidoscope.library.rules import dates
from kaleidoscope.library.rules.dates import Candidate, Confidence

EXIF_IFD, GPS_IFD = 0x8769, 0x8825

_MAKE, _MODEL, _ORIENTATION, _SERIAL, _CAMERA_SERIAL = 0x10F, 0x110, 0x112, 0xA431, 0xC62F
_MAKER_NOTE = 0x927C
_DATES: tuple[tuple[str, int, int, int, Confidence], ...] = (
    # source, date, fraction of a second, offset, confidence
    ("exif:DateTimeOriginal", 0x9003, 0x9291, 0x9011, "high"),
    ("exif:DateTimeDigitized", 0x9004, 0x9292, 0x9012, "medium"),
    ("exif:DateTime", 0x132, 0x9290, 0x9010, "low"),
)
_APPLE, _APPLE_IFD, _CONTENT_ID = b"Apple iOS\0\0\1MM", 14, 0x11


@dataclass
class Facts:
    """What the tags of a block say."""

    candidates: list[Candidate] = field(default_factory=list)
    gps_time: datetime | None = None
    location: tuple[float, float] | None = None
    orientation: int | None = None
    make: str | None = None
    model: str | None = None
    serial: str | None = None
    content_id: str | None = None


def read_block(block: bytes) -> Facts:
    """The facts of EXIF as it lies in a file: a TIFF header, perhaps after "Exif"."""
    return read(_parsed(block))


def read_tiff(file: BinaryIO) -> Facts:
    """The facts of a file that is a TIFF outside, as most raw photos are."""
    file.seek(0)
    exif = Image.Exif()
    exif.load_from_fp(file)
    return read(exif)


def read(exif: Image.Exif, detail: Image.Exif | None = None, gps: Any = None) -> Facts:
    """The facts of tags that Pillow has parsed.

    `detail` and `gps`: where the photo keeps those two groups in blocks of their own (CR3).
    """
    tags = {**_group(exif, EXIF_IFD), **dict(exif)}
    if detail is not None:
        tags |= dict(detail)
    facts = Facts(candidates=_candidates(tags))
    orientation = tags.get(_ORIENTATION)
    facts.orientation = orientation if isinstance(orientation, int) else None
    facts.make, facts.model = text(tags.get(_MAKE)), text(tags.get(_MODEL))
    facts.serial = text(tags.get(_SERIAL)) or text(tags.get(_CAMERA_SERIAL))
    facts.content_id = _apple_content_id(tags.get(_MAKER_NOTE))
    where = _group(exif, GPS_IFD) if gps is None else dict(gps)
    facts.location = _location(where)
    facts.gps_time = _gps_time(where)
    return facts


def read_parts(parts: Sequence[bytes]) -> Facts:
    """The facts of a file that keeps camera, photo and GPS in blocks of their own (CR3)."""
    camera, photo, gps = (_parsed(part) for part in parts)
    return read(camera, photo, gps)


def ciff(file: BinaryIO) -> Facts:
    """The facts of Canon's first raw format (CRW), whose records are no TIFF tags."""
    file.seek(0)
    data = file.read()
    order = "<" if data[:2] == b"II" else ">"
    facts = Facts()
    _ciff_records(data, struct.unpack_from(order + "I", data, 2)[0], len(data), order, facts, 0)
    return facts


def sigma(end: bytes) -> Facts:
    """The facts of Sigma's raw format (X3F) before it had EXIF: properties near its end."""
    told = {}
    for name in ("TIME", "CAMMANUF", "CAMMODEL", "CAMSERIAL"):
        mark = f"\0{name}\0".encode("utf-16-le")
        _, found, rest = end.partition(mark)
        value = rest[: rest.find(b"\0\0\0") + 1 or None][:200] if found else b""
        told[name] = value.decode("utf-16-le", "replace").partition("\0")[0]
    facts = Facts(
        make=told["CAMMANUF"] or None,
        model=told["CAMMODEL"] or None,
        serial=told["CAMSERIAL"] or None,
    )
    if told["TIME"].isdecimal() and len(told["TIME"]) < 12:  # seconds, by the camera's clock
        at = datetime(1970, 1, 1) + timedelta(seconds=int(told["TIME"]))
        facts.candidates.append(Candidate("raw:DateTimeOriginal", at, None, "high"))
    return facts


def text(value: Any) -> str | None:
    """A tag's text without padding; None for none."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return None
    return value.partition("\0")[0].strip() or None


def place(lat: float, lon: float) -> tuple[float, float] | None:
    """A position, unless it is none: not on earth, or 0, 0, which cameras write without a fix."""
    if not (math.isfinite(lat) and math.isfinite(lon)):
        return None
    if abs(lat) > 90 or abs(lon) > 180 or (lat == 0 and lon == 0):
        return None
    return round(lat, 7), round(lon, 7)


def _parsed(block: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(block)
    return exif


def _group(exif: Image.Exif, ifd: int) -> dict[int, Any]:
    try:
        return dict(exif.get_ifd(ifd))
    except Exception:  # a broken pointer: what else is there is still worth having
        return {}


def _candidates(tags: Mapping[int, Any]) -> list[Candidate]:
    found = []
    for source, date_tag, fraction_tag, offset_tag, confidence in _DATES:
        written = text(tags.get(date_tag))
        known = dates.read(written) if written else None
        if known is None:
            continue
        at, offset = known
        if (fraction := text(tags.get(fraction_tag))) is not None:
            at = dates.with_fraction(at, fraction)
        if offset is None and (zone := text(tags.get(offset_tag))) is not None:
            offset = dates.read_offset(zone)
        found.append(Candidate(source, at, offset, confidence))
    return found


def _location(gps: Mapping[int, Any]) -> tuple[float, float] | None:
    """Signed by the references; without them it is not known on which side it lies."""
    signs = []
    for tag, positive, negative in ((1, "N", "S"), (3, "E", "W")):
        reference = (text(gps.get(tag)) or " ")[0].upper()
        if reference not in (positive, negative):
            return None
        signs.append(1 if reference == positive else -1)
    lat, lon = _degrees(gps.get(2)), _degrees(gps.get(4))
    if lat is None or lon is None:
        return None
    return place(signs[0] * lat, signs[1] * lon)


def _degrees(value: Any) -> float | None:
    """Degrees, minutes and seconds; 0/0 for the last ones means that the others hold it all."""
    parts = value if isinstance(value, tuple | list) else (value,)
    numbers = [_number(part) for part in parts[:3]]
    if not numbers or numbers[0] is None or any(n is not None and n < 0 for n in numbers):
        return None
    return math.fsum((n or 0.0) / 60**power for power, n in enumerate(numbers))


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _gps_time(gps: Mapping[int, Any]) -> datetime | None:
    """The instant of the position, which is UTC."""
    day = dates.read(text(gps.get(29)) or "")
    clock = gps.get(7)
    if day is None or not isinstance(clock, tuple | list) or len(clock) != 3:
        return None
    numbers = [_number(n) for n in clock]
    if any(n is None for n in numbers):
        return None
    hours, minutes, seconds = (n or 0.0 for n in numbers)
    if not (0 <= hours < 24 and 0 <= minutes < 60 and 0 <= seconds < 61):
        return None
    midnight = day[0].replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + timedelta(hours=hours, minutes=minutes, seconds=round(seconds, 3))


def _apple_content_id(note: Any) -> str | None:
    """What ties a Live Photo to its video, in Apple's maker note."""
    if not isinstance(note, bytes) or not note.startswith(_APPLE):
        return None
    (count,) = struct.unpack_from(">H", note, _APPLE_IFD)
    for entry in range(_APPLE_IFD + 2, _APPLE_IFD + 2 + 12 * min(count, 200), 12):
        tag, kind, length, offset = struct.unpack_from(">HHII", note, entry)
        if (tag, kind) == (_CONTENT_ID, 2):
            return text(note[offset : offset + min(length, 64)])
    return None


def _ciff_records(data: bytes, start: int, end: int, order: str, facts: Facts, depth: int) -> None:
    """Records of one heap: their directory lies at its end."""
    if depth > 8:
        return
    directory = start + struct.unpack_from(order + "I", data, end - 4)[0]
    (count,) = struct.unpack_from(order + "H", data, directory)
    for entry in range(directory + 2, directory + 2 + 10 * min(count, 1000), 10):
        tag, size, offset = struct.unpack_from(order + "HII", data, entry)
        kind, first = tag & 0x3FFF, start + offset
        if tag & 0x3800 in (0x2800, 0x3000):
            _ciff_records(data, first, first + size, order, facts, depth + 1)
        elif kind == 0x180E:  # seconds since 1970, by the camera's clock
            (seconds,) = struct.unpack_from(order + "I", data, first)
            at = datetime(1970, 1, 1) + timedelta(seconds=seconds)
            facts.candidates.append(Candidate("raw:DateTimeOriginal", at, None, "high"))
        elif kind == 0x080A:
            make, model = data[first : first + size].split(b"\0")[:2]
            facts.make, facts.model = text(make), text(model)
