"""XMP: the packet that editors and phones write, in a file or beside it."""

from __future__ import annotations

import html
import math
import re
from datetime import datetime
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from kaleidoscope.library.outside.exif import place
from kaleidoscope.library.rules import dates
from kaleidoscope.library.rules.dates import Candidate, Confidence

MAX_BYTES = 16 << 20

_NAMESPACES = {
    "http://ns.adobe.com/exif/1.0/": "exif",
    "http://ns.adobe.com/photoshop/1.0/": "photoshop",
    "http://ns.adobe.com/xap/1.0/": "xmp",
    "http://ns.adobe.com/tiff/1.0/": "tiff",
    "http://ns.google.com/photos/1.0/camera/": "GCamera",
}
_WANTED = {
    "exif:DateTimeOriginal", "exif:DateTimeDigitized", "photoshop:DateCreated", "xmp:CreateDate",
    "exif:GPSLatitude", "exif:GPSLongitude", "exif:GPSLatitudeRef", "exif:GPSLongitudeRef",
    "exif:GPSTimeStamp", "tiff:Make", "tiff:Model", "GCamera:MotionPhoto", "GCamera:MicroVideo",
}  # fmt: skip
_DATES: tuple[tuple[str, Confidence], ...] = (
    ("exif:DateTimeOriginal", "high"),
    ("photoshop:DateCreated", "high"),
    ("exif:DateTimeDigitized", "medium"),
    ("xmp:CreateDate", "medium"),
)
_COORDINATE = re.compile(r"(\d+(?:\.\d+)?)(?:,(\d+(?:\.\d+)?))?(?:,(\d+(?:\.\d+)?))?\s*([NSEW])?")
_PACKET = re.compile(rb"<(\w+:)?xmpmeta\b.*?</(\w+:)?xmpmeta>|<rdf:RDF\b.*?</rdf:RDF>", re.S)

Properties = dict[str, str]
"""The properties that matter here, under their usual prefixes."""


def packet_in(content: bytes) -> bytes | None:
    """The first packet in a stretch of a file."""
    match = _PACKET.search(content)
    return match.group() if match else None


def read(packet: bytes) -> Properties:
    """The properties of a packet; of one that is no whole XML, those that can be made out."""
    packet = packet[:MAX_BYTES].strip(b"\0 \r\n")
    try:
        return _properties(fromstring(packet))
    except (ParseError, DefusedXmlException, ValueError, LookupError):
        return _made_out(packet.decode("utf-8", "replace"))


def candidates(properties: Properties, prefix: str) -> list[Candidate]:
    """The dates, their sources beginning with `prefix` (xmp, sidecar)."""
    found = []
    for name, confidence in _DATES:
        known = dates.read(properties.get(name, ""))
        if known is not None:
            found.append(Candidate(f"{prefix}:{name}", *known, confidence))
    return found


def location(properties: Properties) -> tuple[float, float] | None:
    """The position, signed: the reference stands in the value (33,30.0S) or beside it."""
    lat = _coordinate(properties, "exif:GPSLatitude", "NS")
    lon = _coordinate(properties, "exif:GPSLongitude", "EW")
    return None if lat is None or lon is None else place(lat, lon)


def gps_time(properties: Properties) -> datetime | None:
    """The instant of the position as naive UTC."""
    known = dates.read(properties.get("exif:GPSTimeStamp", ""))
    if known is None or known[1] is None:
        return None
    return known[0] - known[1]


def is_motion_photo(properties: Properties) -> bool:
    """Whether a video follows the picture in the same file (Google's two ways to say so)."""
    return "1" in (properties.get("GCamera:MotionPhoto"), properties.get("GCamera:MicroVideo"))


def _properties(root: Element) -> Properties:
    found: Properties = {}
    for element in root.iter():
        pairs = [(element.tag, element.text or ""), *element.attrib.items()]
        for qualified, value in pairs:
            uri, _, local = qualified.removeprefix("{").rpartition("}")
            name = f"{_NAMESPACES.get(uri)}:{local}"
            if name in _WANTED and value.strip():
                found.setdefault(name, value.strip())
    return found


def _made_out(content: str) -> Properties:
    found: Properties = {}
    for name in _WANTED:
        mark = re.escape(name)
        match = re.search(rf"""{mark}\s*=\s*(["'])(.*?)\1|<{mark}>([^<]*)</{mark}>""", content)
        if match and (value := html.unescape(match[2] or match[3] or "").strip()):
            found[name] = value
    return found


def _coordinate(properties: Properties, name: str, sides: str) -> float | None:
    match = _COORDINATE.fullmatch(properties.get(name, "").strip())
    if match is None:
        signed = re.fullmatch(r"\s*-\d+(\.\d+)?\s*", properties.get(name, ""))
        return float(signed.group()) if signed else None
    degrees = math.fsum(float(part) / 60**n for n, part in enumerate(match.groups()[:3]) if part)
    side = match[4] or properties.get(f"{name}Ref", sides[0])[:1].upper()
    if side not in sides:
        return None
    return -degrees if side == sides[1] else degrees
