"""Face regions in XMP, as the Metadata Working Group has them: read, and written into a packet
that stays as it is in all else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from lxml import etree

from kaleidoscope.library.rules import regions
from kaleidoscope.library.rules.regions import Named

MAX_BYTES = 16 << 20
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
X = "adobe:ns:meta/"
MWG = "http://www.metadataworkinggroup.com/schemas/regions/"
AREA = "http://ns.adobe.com/xmp/sType/Area#"
DIMENSIONS = "http://ns.adobe.com/xap/1.0/sType/Dimensions#"
DIGIKAM = "http://www.digikam.org/ns/1.0/"
LIGHTROOM = "http://ns.adobe.com/lightroom/1.0/"
DC = "http://purl.org/dc/elements/1.1/"
PREFIXES = {
    "rdf": RDF, "x": X, "mwg-rs": MWG, "stArea": AREA, "stDim": DIMENSIONS,
    "digiKam": DIGIKAM, "lr": LIGHTROOM, "dc": DC,
}  # fmt: skip
# Where programs keep who is in a photo besides: list, kind of list, spelling of a name.
TAGS = (
    (DIGIKAM, "TagsList", "Seq", "People/{}"),
    (LIGHTROOM, "hierarchicalSubject", "Bag", "People|{}"),
    (DC, "subject", "Bag", "{}"),
)
NEW = (
    f'<x:xmpmeta xmlns:x="{X}" x:xmptk="Kaleidoscope">\n <rdf:RDF xmlns:rdf="{RDF}">\n'
    '  <rdf:Description rdf:about=""/>\n </rdf:RDF>\n</x:xmpmeta>\n'
)


class BadPacket(Exception):
    """A packet that is no XMP, or that nobody should read; says why."""


@dataclass
class Found:
    """The face regions of a packet, and the size of the image that they were drawn on."""

    applied: tuple[float, float] | None = None
    faces: list[Named] = field(default_factory=list)


@dataclass
class Edited:
    """A packet with names in it (None: it had them all), how many are new, and the names that
    stand there already at the place of another.
    """

    packet: bytes | None
    added: int
    conflicts: list[tuple[str, str]]


def read(packet: bytes) -> Found:
    """The face regions of a packet. Raises `BadPacket`."""
    root = _parsed(packet).getroot()
    found = Found()
    for element in root.iter(_tag(MWG, "Regions")):
        _, faces = _faces(element)
        found.applied = found.applied or _applied(element)
        found.faces += [face for _, face in faces if face.name]
    return found


def write(
    packet: bytes | None,
    names: Sequence[Named],
    size: tuple[int, int] | None,
    orientation: int,
    *,
    replace: bool = False,
) -> Edited:
    """A packet (None: a new one) with these names at their places in the displayed image.

    A region that stands at a place keeps its measures, and the name it has unless `replace`; all
    else in the packet stays. Raises `BadPacket`.
    """
    tree = _parsed(NEW.encode() if packet is None else packet)
    element = next(tree.getroot().iter(_tag(MWG, "Regions")), None)
    if element is None and size is not None:
        applied: tuple[float, float] | None = _turned(size, orientation)
    else:
        applied = None if element is None else _applied(element)
    turn = regions.orientation_of(applied, size, orientation)
    wanted = [regions.stored(name, turn) for name in names]
    there = [] if element is None else _faces(element)[1]
    places = regions.pairs(wanted, [face for _, face in there])
    edited = Edited(None, 0, [])
    changed = False
    for number, name in enumerate(wanted):
        if number in places:
            item, known = there[places[number]]
            if known.name not in ("", name.name) and not replace:
                edited.conflicts.append((name.name, known.name))
                continue
            if known.name != name.name:
                _set(item, _tag(MWG, "Name"), name.name)
                still = [w.name for w in wanted]
                if known.name and known.name not in still:
                    _untag(tree.getroot(), known.name)
                edited.added += 1
                changed = True
        else:
            if element is None:
                element = _new_regions(tree.getroot(), applied)
            _append(element, name)
            edited.added += 1
            changed = True
        changed = _tagged(tree.getroot(), name.name) or changed
    if changed:
        edited.packet = _written(tree, packet)
    return edited


def _parsed(packet: bytes) -> Any:
    """The tree of a packet: no entity is resolved, nothing is fetched, no type is declared."""
    if len(packet) > MAX_BYTES:
        raise BadPacket(f"it has more than {MAX_BYTES >> 20} MiB")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    try:
        tree = etree.ElementTree(etree.fromstring(packet.strip(b"\0 \r\n\t"), parser))
    except (etree.XMLSyntaxError, ValueError) as error:
        raise BadPacket(f"it is no whole XML: {error}") from None
    if tree.docinfo.internalDTD is not None or tree.docinfo.doctype:
        raise BadPacket("it declares a document type, as no XMP does")
    if next(tree.getroot().iter(_tag(RDF, "RDF")), None) is None:
        raise BadPacket("it is XML, but no XMP: there is no rdf:RDF in it")
    return tree


def _written(tree: Any, was: bytes | None) -> bytes:
    declared = was is None or was.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<?xml")
    written: bytes = etree.tostring(tree, encoding="UTF-8", xml_declaration=False)
    head = b'<?xml version="1.0" encoding="UTF-8"?>\n' if declared else b""
    return head + written.rstrip(b"\n") + b"\n"


def _tag(namespace: str, name: str) -> str:
    return f"{{{namespace}}}{name}"


def _body(element: Any) -> Any:
    """What has the properties of a structure: itself, or the rdf:Description in it."""
    inner = element.find(_tag(RDF, "Description"))
    return element if inner is None else inner


def _property(element: Any, namespace: str, name: str) -> str | None:
    """A property in either of its spellings, as an attribute or as an element."""
    body, tag = _body(element), _tag(namespace, name)
    for one in (body, element):
        written = one.get(tag)
        if written is None:
            child = one.find(tag)
            written = None if child is None else child.text or ""
        if written is not None:
            return str(written).strip()
    return None


def _number(element: Any, namespace: str, name: str) -> float | None:
    try:
        number = float(_property(element, namespace, name) or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _applied(element: Any) -> tuple[float, float] | None:
    dimensions = _body(element).find(_tag(MWG, "AppliedToDimensions"))
    if dimensions is None:
        return None
    w, h = (_number(dimensions, DIMENSIONS, side) for side in ("w", "h"))
    return None if not w or not h or w < 0 or h < 0 else (w, h)


def _faces(element: Any) -> tuple[Any | None, list[tuple[Any, Named]]]:
    """The list of a Regions structure, and of its items those that are faces."""
    holder = _body(element).find(_tag(MWG, "RegionList"))
    lists = [] if holder is None else [e for e in holder if e.tag in _LISTS]
    if not lists:
        return None, []
    return lists[0], [(i, face) for i in lists[0] for face in _face(i)]


def _face(item: Any) -> Iterator[Named]:
    if item.tag != _tag(RDF, "li") or _property(item, MWG, "Type") not in (None, "", "Face"):
        return
    area = _body(item).find(_tag(MWG, "Area"))
    if area is None or _property(area, AREA, "unit") not in (None, "", "normalized"):
        return
    x, y, w, h = (_number(area, AREA, name) for name in "xywh")
    if x is None or y is None or not w or not h or w < 0 or h < 0 or max(x, y, w, h) > 2:
        return
    yield Named(_property(item, MWG, "Name") or "", x, y, w, h)


_LISTS = frozenset(_tag(RDF, name) for name in ("Bag", "Seq", "Alt"))


def _set(item: Any, tag: str, value: str) -> None:
    """Give a property a value, in the spelling that it has."""
    body = _body(item)
    child = body.find(tag)
    if child is not None:
        child.text = value
    elif body is item and item.get(_tag(RDF, "parseType")) == "Resource":
        etree.SubElement(item, tag).text = value
    else:
        body.set(tag, value)


def _description(root: Any) -> Any:
    """A description to add to: the first, which every packet should have."""
    rdf = next(root.iter(_tag(RDF, "RDF")))
    found = rdf.find(_tag(RDF, "Description"))
    if found is None:
        found = etree.SubElement(rdf, _tag(RDF, "Description"), {_tag(RDF, "about"): ""})
    return found


def _sub(parent: Any, namespace: str, name: str) -> Any:
    """A new element under its usual prefix."""
    known = {p: n for p, n in PREFIXES.items() if n == namespace and n not in parent.nsmap.values()}
    return etree.SubElement(parent, _tag(namespace, name), nsmap=known)


def _new_regions(root: Any, applied: tuple[float, float] | None) -> Any:
    element = _sub(_description(root), MWG, "Regions")
    element.set(_tag(RDF, "parseType"), "Resource")
    if applied is not None:
        size = _sub(element, MWG, "AppliedToDimensions")
        size.set(_tag(RDF, "parseType"), "Resource")
        for side, pixels in (("w", f"{applied[0]:g}"), ("h", f"{applied[1]:g}"), ("unit", "pixel")):
            _sub(size, DIMENSIONS, side).text = pixels
    return element


def _append(element: Any, name: Named) -> None:
    body = _body(element)
    items, _ = _faces(element)
    if items is None:
        holder = body.find(_tag(MWG, "RegionList"))
        holder = _sub(body, MWG, "RegionList") if holder is None else holder
        items = _sub(holder, RDF, "Bag")
    item = _sub(items, RDF, "li")
    item.set(_tag(RDF, "parseType"), "Resource")
    area = _sub(item, MWG, "Area")
    area.set(_tag(RDF, "parseType"), "Resource")
    for side, number in (("x", name.x), ("y", name.y), ("w", name.w), ("h", name.h)):
        _sub(area, AREA, side).text = f"{number:.6f}"
    _sub(area, AREA, "unit").text = "normalized"
    _sub(item, MWG, "Name").text = name.name
    _sub(item, MWG, "Type").text = "Face"


def _tagged(root: Any, name: str) -> bool:
    """Have a name in the lists of keywords as well; whether one was lacking."""
    lacking = False
    for namespace, tag, kind, spelling in TAGS:
        value = spelling.format(name)
        holder = next(root.iter(_tag(namespace, tag)), None)
        if holder is None:
            holder = _sub(_description(root), namespace, tag)
        items = next((e for e in holder if e.tag in _LISTS), None)
        if items is None:
            items = _sub(holder, RDF, kind)
        if value not in [(item.text or "").strip() for item in items]:
            _sub(items, RDF, "li").text = value
            lacking = True
    return lacking


def _untag(root: Any, name: str) -> None:
    """Take a name that stands at no face any more out of the lists of keywords."""
    for namespace, tag, _, spelling in TAGS:
        for holder in root.iter(_tag(namespace, tag)):
            for items in holder:
                for item in list(items):
                    if (item.text or "").strip() == spelling.format(name):
                        items.remove(item)


def _turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    return (size[1], size[0]) if orientation in regions.TURNED else size
