"""Which received files belong together: told by their names, in one folder.

A photo travels with its raw, its video (Live Photo), its edits and its sidecars:

    IMG_1234.HEIC IMG_1234.MOV IMG_1234.CR2 IMG_E1234.JPG IMG_1234.AAE IMG_1234.xmp
    IMG_1234.HEIC.xmp IMG_1234.jpg.json IMG_1234.jpg.supplemental-metadata.json
    IMG_1234-edited.jpg IMG_1234(1).jpg with IMG_1234.jpg(1).json
    PXL_20210304_050607123.MP.jpg PXL_20210304_050607123.MP.mp4 PXL_20210304_050607123.MP
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kaleidoscope.library.rules.custody import stem_length

SIDECARS = frozenset({b"xmp", b"json", b"aae", b"thm"})
START = 16
TAKEOUT_NAME = 46  # characters: Takeout cuts the name of a sidecar there, before .json

_EDITED = re.compile(
    rb"^(.+?)(?:[-_ ](?:edited|bearbeitet|edit|modifi\xc3\xa9|editado))(\(\d+\))?$"
)
_APPLE_EDIT = re.compile(rb"^(IMG_)E(\d{4,})(.*)$", re.S)
# Google's motion photos are X.MP.jpg; their films X.MP.mp4, or X.MP where Takeout has cut them out.
_MOTION = re.compile(rb"^((?:PXL|MVIMG)_.+?)\.MP$")
_NUMBER = re.compile(rb"^(.*?)(\(\d+\))?$", re.S)
# Takeout writes .supplemental-metadata.json and cuts that anywhere to keep the name short.
_SUPPLEMENT = re.compile(
    rb"\.(?:s|su|sup|supp|suppl|supple|supplem|suppleme|supplemen|supplement"
    rb"|supplementa|supplemental(?:-[a-z]*)?)$"
)


@dataclass(frozen=True, slots=True)
class Named:
    """A file by its name alone. `stem`: where a number may be put in without parting it from its
    companions. `of`: for a sidecar, the names it may be one of.
    """

    name: bytes
    key: bytes
    stem: int
    is_sidecar: bool
    of: bytes | None = None


def is_sidecar(name: bytes) -> bool:
    """Whether a name is one of a file that tells about another."""
    return _extension(name) in SIDECARS


class Folder:
    """The photos and videos of a folder, found by what a sidecar is called."""

    def __init__(self, media: Iterable[bytes]) -> None:
        self.names: set[bytes] = set()
        self._by_stem: dict[bytes, bytes] = {}
        self._by_start: dict[bytes, list[bytes]] = {}
        for name in media:
            self.names.add(name)
            self._by_stem.setdefault(name[: stem_length(name)], name)
            if len(name) > TAKEOUT_NAME:
                self._by_start.setdefault(name[:START], []).append(name)

    def owner(self, sidecar: bytes) -> bytes | None:
        """What a sidecar tells about."""
        inner = sidecar[: stem_length(sidecar)]
        for candidate in _candidates(inner):
            if candidate in self.names:
                return candidate
            if candidate in self._by_stem:
                return self._by_stem[candidate]
        return self._cut_owner(inner) if _extension(sidecar) == b"json" else None

    def _cut_owner(self, inner: bytes) -> bytes | None:
        whole, number = _numbered(inner)
        whole = _SUPPLEMENT.sub(b"", whole)
        if len(whole) < TAKEOUT_NAME:
            return None
        for name in self._by_start.get(whole[:START], []):
            if name.startswith(whole) and name[: stem_length(name)].endswith(number):
                return name
        return None


def groups(names: Sequence[bytes]) -> list[list[Named]]:
    """The names of one folder, those that belong together in one list, media before sidecars."""
    media = [name for name in names if not is_sidecar(name)]
    folder = Folder(media)
    found: dict[bytes, list[Named]] = {}
    for name in media:
        found.setdefault(named(name).key, []).append(named(name))
    for name in names:
        if is_sidecar(name):
            one = beside(name, folder.owner(name))
            found.setdefault(one.key, []).append(one)
    return list(found.values())


def beside(sidecar: bytes, owner: bytes | None) -> Named:
    """A sidecar and what it tells about, if that is known."""
    inner = sidecar[: stem_length(sidecar)]
    if owner is None:
        return Named(sidecar, _base(inner), len(inner), is_sidecar=True)
    of = named(owner)
    stem = of.stem if sidecar.startswith(owner[: of.stem]) else len(inner)
    return Named(sidecar, of.key, stem, is_sidecar=True, of=owner)


def owners(sidecar: bytes) -> list[bytes]:
    """Names, with or without their extension, of what a sidecar may tell about."""
    return list(dict.fromkeys(_candidates(sidecar[: stem_length(sidecar)])))


def stems(media: bytes) -> list[bytes]:
    """What may stand before the extension of a photo's film, and of a film's photo."""
    base = named(media).key
    return [base, base + b".MP"] if _MOTION.match(base + b".MP") else [base]


def is_edit(name: bytes) -> bool:
    """Whether a photo was made from another one, as its name says."""
    stem = name[: stem_length(name)]
    return _base(stem) != stem


def named(name: bytes) -> Named:
    """A photo or video by its name."""
    stem = name[: stem_length(name)]
    base = _unmoved(_base(stem))
    return Named(name, base, len(base) if stem.startswith(base) else len(stem), is_sidecar=False)


def _unmoved(stem: bytes) -> bytes:
    """The stem of a motion photo without what tells that it is one."""
    match = _MOTION.match(stem)
    return match[1] if match else stem


def _base(stem: bytes) -> bytes:
    """The stem of the photo that an edit was made from; of any other its own."""
    if match := _APPLE_EDIT.match(stem):
        return match[1] + match[2] + match[3]
    if match := _EDITED.match(stem):
        return match[1] + (match[2] or b"")
    return stem


def _candidates(inner: bytes) -> Iterable[bytes]:
    """Names, with or without extension, of what a sidecar called `inner.EXT` may be about."""
    yield inner
    short = _SUPPLEMENT.sub(b"", inner)
    yield short
    # IMG.jpg(1).json tells of IMG(1).jpg; so does IMG.jpg.supplemental-metadata(1).json.
    whole, number = _numbered(inner)
    whole = _SUPPLEMENT.sub(b"", whole)
    if number:
        stem = stem_length(whole)
        yield whole[:stem] + number + whole[stem:]
    yield _base(inner)
    yield short[: stem_length(short)]  # IMG.jpg.json beside IMG.HEIC


def _numbered(text: bytes) -> tuple[bytes, bytes]:
    match = _NUMBER.match(text)
    assert match is not None
    return match[1], match[2] or b""


def _extension(name: bytes) -> bytes:
    return name[stem_length(name) + 1 :].lower()
