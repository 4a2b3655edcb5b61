"""What the name of a file tells: when it was taken, and which files beside it belong to it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo

from kaleidoscope.library.rules import dates
from kaleidoscope.library.rules.dates import Candidate

_DAY = r"(?P<year>19\d\d|20\d\d)(?P<s>[-_.]?)(?P<month>[01]\d)(?P=s)(?P<day>[0-3]\d)"
_TIME = (
    r"(?P<hour>[0-2]\d|\d(?=[.:]))(?P<t>[-_.:h ]?)(?P<minute>[0-5]\d)(?P<u>[-_.:m ]?)"
    r"(?P<second>[0-5]\d)"
)

# Phones, cameras and apps: IMG_20130809_050900, VID_…, PXL_20130809_050900678, 20130809_050900,
# Screenshot_2013-08-09-05-09-00, signal-2013-08-09-050900, "2013-08-09 05.09.00", "WhatsApp Image
# 2013-08-09 at 05.09.00", "Screen Shot 2013-08-09 at 5.09.00 PM", 20130809T050900.
_INSTANT = re.compile(
    rf"(?:^|(?<=[^0-9])){_DAY}(?:[-_ T.]|[_ ](?:at|um|à|om|alle|a las|kl\.)[_ ])*"
    rf"{_TIME}(?P<milli>\d{{3}})?(?!\d)(?:[ _\u202f]?(?P<half>AM|PM)\b)?",
    re.ASCII,
)
# WhatsApp's own names carry the day it was received, some apps' the day alone.
_DATED = re.compile(rf"(?:^|(?<=[^0-9])){_DAY}(?!\d)", re.ASCII)
_PIXEL = re.compile(r"PXL_\d{8}_\d{9}", re.ASCII)

_EDITED = re.compile(
    r"-(edited|bearbeitet|modifié|editado|modificato|bewerkt|edytowane|редактировано|編集済み|已修改)$"
)
_NUMBERED = re.compile(r"(.*)(\(\d+\))(\.[^.]*)?$", re.S)
_SUPPLEMENT = "supplemental-metadata"
_TAKEOUT_LENGTHS = range(48, 43, -1)  # 46 characters of a name Google keeps, give or take some


def date_in(name: str) -> Candidate | None:
    """The date in a file's name as cameras, phones and apps write it.

    A Pixel's names tell UTC, so that their offset is 0; all others a wall clock.
    """
    stem = name.rpartition(".")[0] or name
    if match := _INSTANT.search(stem):
        clock = (_hour(match), int(match["minute"]), int(match["second"]))
        at = _date(match, *clock, 1000 * int(match["milli"] or 0))
        offset = timedelta(0) if _PIXEL.match(stem) else None
        return None if at is None else Candidate("name", at, offset, "medium")
    if match := _DATED.search(stem):
        at = _date(match)
        return None if at is None else Candidate("name:day", at, None, "medium")
    return None


def outer_candidates(name: str, modified_at: str | None, zone: tzinfo | None) -> list[Candidate]:
    """The dates that a file's name and its modification time (ISO) tell, without opening it."""
    told = []
    named = date_in(name.rpartition("/")[2])
    if named is not None:
        told.append(named if named.offset is None else dates.told("name", named.at, zone))
    if modified_at:
        instant = datetime.fromisoformat(modified_at).astimezone(UTC).replace(tzinfo=None)
        told.append(Candidate("mtime", *dates.local(instant, zone), "low"))
    return told


def folded(others: Iterable[str]) -> dict[str, str]:
    """Those of a folder's names that a sidecar may have, by their spelling in small letters."""
    return {name.lower(): name for name in others if name.lower().endswith((".xmp", ".json"))}


def sidecars_of(name: str, others: Mapping[str, str]) -> list[str]:
    """Which files of its folder (`folded`) are metadata of the file `name`: XMP and Takeout JSON.

    `IMG_1.jpg` has `IMG_1.jpg.xmp` and `IMG_1.xmp`; `IMG_1.jpg.json` and Google's longer, cut and
    numbered spellings of it. An edited copy shares the JSON of what it was made from.
    """
    wanted = [f"{name}.xmp".lower(), f"{_stem(name)}.xmp".lower()]
    found = [others[w] for w in wanted if w in others]
    takeout = _takeout(name, others)
    if takeout is None and (unedited := _unedited(name)) is not None:
        takeout = _takeout(unedited, others)
    if takeout is not None:
        found.append(takeout)
    return list(dict.fromkeys(found))


def _takeout(name: str, known: Mapping[str, str]) -> str | None:
    """Google's JSON of a file, by the ways in which it has been naming them."""
    bare, number = name, ""
    if match := _NUMBERED.fullmatch(name):  # c(1).jpg has c.jpg(1).json
        bare, number = match[1] + (match[3] or ""), match[2]
    for exact in (f"{bare}{number}.json", f"{bare}.{_SUPPLEMENT}{number}.json", f"{name}.json"):
        if exact.lower() in known:
            return known[exact.lower()]
    whole = f"{bare}.{_SUPPLEMENT}"
    for length in _TAKEOUT_LENGTHS:
        cut = f"{whole[:length]}{number}.json".lower()
        if length < len(whole) and cut in known:
            return known[cut]
    return None


def _unedited(name: str) -> str | None:
    stem, dot, suffix = name.rpartition(".")
    original = _EDITED.sub("", stem)
    return f"{original}{dot}{suffix}" if original != stem else None


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _hour(match: re.Match[str]) -> int:
    hour = int(match["hour"])
    if match["half"] is None or not 1 <= hour <= 12:
        return hour
    return hour % 12 + (12 if match["half"] == "PM" else 0)


def _date(
    match: re.Match[str], hour: int = 0, minute: int = 0, second: int = 0, micro: int = 0
) -> datetime | None:
    year, month, day = int(match["year"]), int(match["month"]), int(match["day"])
    try:
        return datetime(year, month, day, hour, minute, second, micro)
    except ValueError:
        return None
