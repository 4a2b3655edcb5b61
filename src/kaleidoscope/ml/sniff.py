"""What a file is, told from its first bytes. Pure and quick: a scanner asks for every file."""

from __future__ import annotations

import re
from typing import Literal

MediaType = Literal["photo", "video"]

HEAD = 4096
"""How many bytes of a file are enough to tell."""

# Raw photos that are TIFF files outside: only the name tells them from any other TIFF.
_RAW_BY_SUFFIX = {
    "nef": "image/x-nikon-nef",
    "nrw": "image/x-nikon-nrw",
    "cr2": "image/x-canon-cr2",
    "dng": "image/x-adobe-dng",
    "arw": "image/x-sony-arw",
    "pef": "image/x-pentax-pef",
    "srw": "image/x-samsung-srw",
    "3fr": "image/x-hasselblad-3fr",
}

_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"IIRO", "image/x-olympus-orf"),
    (b"IIRS", "image/x-olympus-orf"),
    (b"MMOR", "image/x-olympus-orf"),
    (b"IIU\0", "image/x-panasonic-rw2"),
    (b"FUJIFILMCCD-RAW", "image/x-fujifilm-raf"),
    (b"FOVb", "image/x-sigma-x3f"),
    (b"8BPS", "image/vnd.adobe.photoshop"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "image/jp2"),
    (b"\xff\x4f\xff\x51", "image/x-j2c"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "image/jxl"),
    (b"\xff\x0a", "image/jxl"),
    (b"\x1aE\xdf\xa3", "video/x-matroska"),
    (b"FLV\x01", "video/x-flv"),
    (b"\0\0\x01\xba", "video/mpeg"),
    (b"\0\0\x01\xb3", "video/mpeg"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video/x-ms-asf"),
)

_PATTERNS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"RIFF.{4}WEBP", re.S), "image/webp"),
    (re.compile(rb"RIFF.{4}AVI ", re.S), "video/x-msvideo"),
    (re.compile(rb"(II|MM).{4}HEAPCCDR", re.S), "image/x-canon-crw"),
    # The header's size (12, 40, 108 …) follows: "BM" alone begins many a text.
    (re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.S), "image/bmp"),
    (re.compile(rb"\0\0[\x01\x02]\0[^\0]\0.{3}\0", re.S), "image/x-icon"),
    (re.compile(rb"P[1-6]\s"), "image/x-portable-anymap"),
    (re.compile(rb"G.{187}G.{187}G", re.S), "video/mp2t"),
    (
        re.compile(rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<svg", re.S),
        "image/svg+xml",
    ),
)

_OLD_QUICKTIME = {b"moov", b"mdat", b"wide", b"pnot", b"free", b"skip"}
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_HEIF = {b"mif1", b"msf1", b"mif2", b"mif3", b"miaf", b"1pic", b"unif"}
_AVIF = {b"avif", b"avis"}


def sniff(head: bytes, name: str = "") -> tuple[str, MediaType] | None:
    """MIME type and kind of a file whose first `HEAD` bytes are `head`; None: not media.

    The bytes decide; `name` only tells raw photos from other TIFF files, and knows TGA, which has
    no mark of its own.
    """
    suffix = name.rpartition(".")[2].lower()
    mime = _by_start(head) or _by_box(head) or _by_tiff(head, suffix)
    if mime is None and suffix == "tga" and len(head) >= 18 and head[2] in (1, 2, 3, 9, 10, 11):
        mime = "image/x-tga"
    if mime is None:
        return None
    if mime == "video/x-matroska" and b"webm" in head[:64]:
        mime = "video/webm"
    return mime, "video" if mime.startswith("video/") else "photo"


def is_raw(mime: str) -> bool:
    """Whether a MIME type given by `sniff` is a camera's raw photo."""
    return mime in _RAW or mime in _RAW_BY_SUFFIX.values()


_RAW = {
    "image/x-olympus-orf",
    "image/x-panasonic-rw2",
    "image/x-fujifilm-raf",
    "image/x-sigma-x3f",
    "image/x-canon-crw",
    "image/x-canon-cr3",
}


def _by_start(head: bytes) -> str | None:
    for start, mime in _STARTS:
        if head.startswith(start):
            return mime
    for pattern, mime in _PATTERNS:
        if pattern.match(head):
            return mime
    return None


def _by_tiff(head: bytes, suffix: str) -> str | None:
    if head[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return None
    if head[8:10] == b"CR":
        return "image/x-canon-cr2"
    return _RAW_BY_SUFFIX.get(suffix, "image/tiff")


def _by_box(head: bytes) -> str | None:
    """ISO base media: HEIF, AVIF, MP4, QuickTime."""
    kind, major = head[4:8], head[8:12]
    if kind in _OLD_QUICKTIME and len(head) >= 16:
        return "video/quicktime"
    if kind != b"ftyp" or len(head) < 12:
        return None
    length = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[i : i + 4] for i in range(16, length - 3, 4)} | {major}
    if major == b"crx ":
        return "image/x-canon-cr3"
    if major in _AVIF or (major in _HEIF and brands & _AVIF):
        return "image/avif"
    if major in _HEIC or (major in _HEIF and brands & _HEIC):
        return "image/heic"
    if major in _HEIF:
        return "image/heif"
    if major == b"qt  ":
        return "video/quicktime"
    if major[:3] in (b"3gp", b"3g2"):
        return "video/3gpp" if major[:3] == b"3gp" else "video/3gpp2"
    if major[:3] in (b"M4V",):
        return "video/x-m4v"
    return "video/mp4"
