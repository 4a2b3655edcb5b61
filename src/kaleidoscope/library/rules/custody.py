"""Where a received file goes, and what it is called there."""

from __future__ import annotations

import re
from datetime import datetime

MAX_NAME = 255  # bytes, on every usual filesystem
_PART = re.compile(r"\{([^{}]*)\}")
_PARTS = {
    "YYYY": "{0:04}",
    "MM": "{1:02}",
    "DD": "{2:02}",
    "YYYY-MM": "{0:04}-{1:02}",
    "YYYY-MM-DD": "{0:04}-{1:02}-{2:02}",
}
UNDATED = "undated"


def fault_of(template: str) -> str | None:
    """What is wrong with a template of paths below the originals; None: nothing."""
    parts = template.split("/")
    if parts[-1] != "{filename}" or "{filename}" in "/".join(parts[:-1]):
        return "it must end with /{filename}, and have that once"
    if any(part in ("", ".", "..") for part in parts):
        return "it must be a path below the originals, without . and .."
    for name in _PART.findall(template):
        if name != "filename" and name not in _PARTS:
            return (
                f"{{{name}}} is none of {', '.join('{' + p + '}' for p in [*_PARTS, 'filename'])}"
            )
    if re.sub(_PART, "", template).strip("{}") != re.sub(_PART, "", template):
        return "a { or } is left over"
    return None


def folder_of(template: str, day: datetime | None) -> str:
    """The folder, below the originals, of what was taken on a day of the wall clock there."""
    folder = template.rpartition("/")[0]
    if day is None:
        return UNDATED
    return _PART.sub(lambda m: _PARTS[m[1]].format(day.year, day.month, day.day), folder)


def numbered(name: bytes, stem: int, number: int) -> bytes:
    """A name with `_number` behind its first `stem` bytes; itself for 0.

    Where that makes it too long, its stem is shortened, between characters if it is UTF-8.
    """
    if number == 0:
        return name
    mark = b"_%d" % number
    room = MAX_NAME - len(name) + stem - len(mark)
    return _cut(name[:stem], room) + mark + name[stem:]


def stem_length(name: bytes) -> int:
    """How many bytes of a name stand before its extension."""
    stem, dot, extension = name.rpartition(b".")
    return len(stem) if dot and stem and extension else len(name)


def _cut(stem: bytes, room: int) -> bytes:
    if len(stem) <= room:
        return stem
    cut = stem[: max(room, 0)]
    while cut and (stem[len(cut)] & 0xC0) == 0x80:  # in the middle of a character
        cut = cut[:-1]
    return cut or stem[: max(room, 0)]
