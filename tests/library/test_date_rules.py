"""Dates as they are written, and which of several is believed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaleidoscope.library.rules import dates
from kaleidoscope.library.rules.dates import Candidate

AT = datetime(2024, 5, 3, 14, 30, 5)
HOUR = timedelta(hours=1)
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def candidate(
    source: str,
    confidence: dates.Confidence = "high",
    at: datetime = AT,
    offset: timedelta | None = None,
) -> Candidate:
    return Candidate(source, at, offset, confidence)


@pytest.mark.parametrize(
    ("written", "at", "offset"),
    [
        ("2024:05:03 14:30:05", AT, None),
        ("2024-05-03T14:30:05Z", AT, timedelta(0)),
        ("2024-05-03T14:30:05+02:00", AT, 2 * HOUR),
        ("2024-05-03T14:30:05.25-0800", AT.replace(microsecond=250_000), -8 * HOUR),
        ("2024/05/03 14:30:05", AT, None),
        ("2024:05:03:14:30:05", AT, None),
        ("2024:05:03 14:30:05\0junk", AT, None),
        ("  2024:05:03 14:30:05  ", AT, None),
        ("2024-05-03T14:30", AT.replace(second=0), None),
        ("2024:05:03", datetime(2024, 5, 3), None),
        ("2024:05:03 in the evening", datetime(2024, 5, 3), None),
        ("2024:05:03 14:30:05+99:59", AT, None),
        ("2020:02:29 12:34:56", datetime(2020, 2, 29, 12, 34, 56), None),
    ],
)
def test_dates_are_read(written: str, at: datetime, offset: timedelta | None) -> None:
    assert dates.read(written) == (at, offset)


@pytest.mark.parametrize(
    "written",
    ["", "    :  :     :  :  ", "0000:00:00 00:00:00", "2019:02:29 10:00:00", "2016:03:04 24:00:00",
     "2016:12:31 23:59:60", "2019:13:45 25:61:61", "9999:99:99 99:99:99", "Unknown Date", "2024",
     "20240503", "2024:05", "\0"],
)  # fmt: skip
def test_what_no_calendar_has_is_no_date(written: str) -> None:
    assert dates.read(written) is None


@given(st.datetimes(), st.timedeltas(dates.WEST, dates.EAST))
def test_what_is_written_is_read(at: datetime, offset: timedelta) -> None:
    offset = round(offset / timedelta(minutes=1)) * timedelta(minutes=1)
    written = at.replace(tzinfo=timezone(offset)).isoformat()
    assert dates.read(written) == (at, offset)


@given(st.text() | st.from_regex(dates._WRITTEN))
def test_reading_anything_raises_nothing(written: str) -> None:
    found = dates.read(written)
    assert found is None or (found[0].tzinfo is None and written.strip()[:4].isdecimal())
    dates.read_offset(written)
    dates.read_shift(written)
    dates.with_fraction(AT, written)


@pytest.mark.parametrize(
    ("written", "offset"),
    [("Z", timedelta(0)), ("+0200", 2 * HOUR), ("-08:00", -8 * HOUR), ("+13:45", 13.75 * HOUR),
     ("   :  ", None), ("+99:59", None), ("+05:99", None), ("-12:30", None), ("", None)],
)  # fmt: skip
def test_offsets(written: str, offset: timedelta | None) -> None:
    assert dates.read_offset(written) == offset


@pytest.mark.parametrize(
    ("digits", "microseconds"),
    [("123", 123_000), ("7", 700_000), ("00", 0), (" 5 ", 500_000), ("123456789", 123_456),
     ("", 0), ("x", 0)],
)  # fmt: skip
def test_fractions_of_a_second(digits: str, microseconds: int) -> None:
    assert dates.with_fraction(AT, digits).microsecond == microseconds


def test_the_source_decides_among_equals() -> None:
    for better, worse in zip(dates.SOURCES, dates.SOURCES[1:], strict=False):
        told = [candidate(worse), candidate(better)]
        assert dates.choose(told).source == better


def test_confidence_comes_before_the_source() -> None:
    told = [candidate("exif:DateTimeOriginal", "low"), candidate("name", "medium")]
    assert dates.choose(told).source == "name"


def test_nothing_tells_nothing() -> None:
    assert dates.choose([]) == dates.Chosen(None, None, "none", "low")


@pytest.mark.parametrize("ahead", [timedelta(0), 2 * HOUR, -8 * HOUR, 5.75 * HOUR, 14 * HOUR])
def test_the_offset_follows_from_an_instant(ahead: timedelta) -> None:
    gps = candidate("gps:GPSDateTime", "medium", AT - ahead + timedelta(seconds=40), timedelta(0))
    chosen = dates.choose([candidate("exif:DateTimeOriginal"), gps])
    assert (chosen.captured_at, chosen.captured_offset) == (AT, ahead)


@pytest.mark.parametrize("ahead", [timedelta(minutes=7), 15 * HOUR, -13 * HOUR, timedelta(days=3)])
def test_an_instant_of_another_event_says_nothing(ahead: timedelta) -> None:
    gps = candidate("gps:GPSDateTime", "medium", AT - ahead, timedelta(0))
    assert dates.choose([candidate("exif:DateTimeOriginal"), gps]).captured_offset is None


def test_an_offset_that_is_told_stays() -> None:
    gps = candidate("gps:GPSDateTime", "medium", AT, timedelta(0))
    told = candidate("exif:DateTimeOriginal", offset=HOUR)
    assert dates.choose([told, gps]).captured_offset == HOUR


@pytest.mark.parametrize(
    ("at", "possible"),
    [
        (datetime(1825, 12, 31, 23, 59), False),
        (datetime(1826, 1, 1), True),
        (datetime(2026, 11, 25, 11), True),
        (datetime(2026, 11, 25, 13), False),
        (datetime(2099, 1, 1), False),
    ],
)
def test_when_a_photo_can_have_been_taken(at: datetime, possible: bool) -> None:
    assert dates.possible(at, NOW) == possible


def test_a_clock_that_was_never_set_is_not_believed() -> None:
    unset = candidate("exif:DateTimeOriginal", at=datetime(2000, 1, 1))
    assert dates.guarded(unset).confidence == "low"
    assert dates.guarded(candidate("exif:DateTimeOriginal")).confidence == "high"
    told = [dates.guarded(unset), candidate("name", "medium")]
    assert dates.choose(told).source == "name"


def test_an_instant_is_told_as_the_clocks_there_showed_it() -> None:
    berlin = dates.told(
        "quicktime:CreateDate", datetime(2024, 7, 1, 22, 30), ZoneInfo("Europe/Berlin")
    )
    assert (berlin.at, berlin.offset) == (datetime(2024, 7, 2, 0, 30), 2 * HOUR)
    assert berlin.confidence == "medium"
    nowhere = dates.told("quicktime:CreateDate", AT, None)
    assert (nowhere.at, nowhere.offset, nowhere.confidence) == (AT, timedelta(0), "low")


@pytest.mark.parametrize(
    ("written", "shift"),
    [("+1h30m", 1.5 * HOUR), ("-2d", timedelta(days=-2)), ("45s", timedelta(seconds=45)),
     ("+1d2h3m4s", timedelta(days=1, hours=2, minutes=3, seconds=4)),
     ("", None), ("+", None), ("1", None), ("1h-30m", None), ("99999999999d", None)],
)  # fmt: skip
def test_shifts(written: str, shift: timedelta | None) -> None:
    assert dates.read_shift(written) == shift


@given(
    st.datetimes(),
    st.none() | st.integers(-720, 840).map(lambda m: timedelta(minutes=m)),
    st.sampled_from(dates.SOURCES),
)
def test_plain_data_and_back(at: datetime, offset: timedelta | None, source: str) -> None:
    one = Candidate(source, at, offset, "medium")
    assert dates.from_plain([dates.to_plain(one)]) == [one]
