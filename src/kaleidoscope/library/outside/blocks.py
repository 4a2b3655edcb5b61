"""Where in a file its EXIF and XMP lie, for the containers that Pillow does not look into."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO

from kaleidoscope.library.outside.xmp import packet_in

MAX_BLOCK = 16 << 20

_XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_EXIF = re.compile(rb"Exif\0\0(?:\0\0)?(?=II\*\0|MM\0\*)")  # in JPEG; in boxes with two more
_FILM_DATE = re.compile(rb"date(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:?\d\d)?)")
_TIFF = {b"II": b"II*\0", b"MM": b"MM\0*"}


def in_png(file: BinaryIO) -> dict[str, Any]:
    """`exif` and `xmp` of a PNG, also where they stand behind the pixels."""
    found: dict[str, Any] = {}
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind not in (b"eXIf", b"iTXt", b"zTXt", b"tEXt") or length > MAX_BLOCK:
            file.seek(length + 4, 1)
            continue
        data = file.read(length)
        file.seek(4, 1)
        if kind == b"eXIf":
            found.setdefault("exif", data)
            continue
        keyword, _, rest = data.partition(b"\0")
        if keyword == b"XML:com.adobe.xmp":
            packed, rest = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
            found.setdefault("xmp", _inflated(rest) if packed else rest)
        elif keyword in (b"Raw profile type exif", b"Raw profile type APP1"):
            profile = _inflated(rest[1:]) if kind == b"zTXt" else rest
            found.setdefault("exif", bytes.fromhex("".join(profile.decode("latin-1").split()[2:])))
    return found


def in_cr3(head: bytes) -> list[bytes]:
    """The blocks of a Canon CR3: the camera's, the photo's and GPS, each a TIFF of its own."""
    blocks = []
    for mark in (b"CMT1", b"CMT2", b"CMT4"):
        at = head.find(mark)
        size = int.from_bytes(head[at - 4 : at], "big") if at >= 4 else 8
        blocks.append(head[at + 4 : at - 4 + size])
    return blocks


def exif_inside(head: bytes) -> bytes | None:
    """The first EXIF block that stands anywhere in `head`."""
    match = _EXIF.search(head)
    return head[match.end() :] if match else None


def as_tiff(file: BinaryIO) -> BinaryIO:
    """A raw photo with the mark of a TIFF, where its maker wrote another (Olympus, Panasonic)."""
    file.seek(0)
    head = file.read(4)
    plain = _TIFF.get(head[:2])
    if plain is None or head == plain:
        return file
    file.seek(0)
    return BytesIO(plain + file.read(MAX_BLOCK)[4:])


@dataclass
class Boxes:
    """What the boxes of an ISO media file (MP4, HEIF, JPEG 2000) say.

    `xmp` lies in a box of its own or in the user's data of a film, as `date` does; `is_film`: it
    has a time line; `has_motion`: a motion photo's video is in it.
    """

    xmp: bytes | None = None
    date: str | None = None
    is_film: bool = False
    has_motion: bool = False


def in_boxes(file: BinaryIO) -> Boxes:
    """What stands in the outermost boxes of a file."""
    found = Boxes()
    for kind, start, size in _boxes(file):
        found.has_motion = found.has_motion or kind == b"mpvd"
        found.is_film = found.is_film or kind == b"moov"
        if kind not in (b"uuid", b"moov", b"udta") or size > MAX_BLOCK:
            continue
        file.seek(start)
        content = file.read(size)
        if kind != b"uuid" or content.startswith(_XMP_UUID):
            found.xmp = found.xmp or packet_in(content)
        if kind != b"uuid" and found.date is None and (match := _FILM_DATE.search(content)):
            found.date = match[1].decode("ascii")
    return found


def tail(file: BinaryIO, length: int) -> bytes:
    """The last bytes of a file."""
    size = file.seek(0, 2)
    file.seek(max(0, size - length))
    return file.read()


def _boxes(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """The outermost boxes: kind, where the content begins, its length."""
    end = file.seek(0, 2)
    at = 0
    for _ in range(1000):
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            return
        size, kind = struct.unpack_from(">I4s", head)
        start = at + 8
        if size == 1 and len(head) == 16:
            size, start = struct.unpack_from(">Q", head, 8)[0], at + 16
        elif size == 0:
            size = end - at
        if size < start - at:
            return
        yield kind, start, size - (start - at)
        at += size


def _inflated(data: bytes) -> bytes:
    return zlib.decompressobj().decompress(data, MAX_BLOCK)
