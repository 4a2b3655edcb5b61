"""What a file's name tells."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaleidoscope.library.rules import names

AT = datetime(2013, 8, 9, 5, 9, 0)


@pytest.mark.parametrize(
    "name",
    ["IMG_20130809_050900.jpg", "VID_20130809_050900.mp4", "20130809_050900.jpg",
     "20130809_050900(0).jpg", "Screenshot_2013-08-09-05-09-00.png",
     "Screenshot_2013-08-09-05-09-00-123_com.app.jpg", "Screenshot_20130809-050900.png",
     "signal-2013-08-09-050900.jpg", "signal-2013-08-09-05-09-00-123.jpg",
     "2013-08-09 05.09.00.jpg", "2013-08-09 05.09.00-1.jpg", "2013-08-09_05-09-00.jpg",
     "WhatsApp Image 2013-08-09 at 05.09.00.jpeg", "WhatsApp Image 2013-08-09 at 5.09.00 AM.jpeg",
     "Screen Shot 2013-08-09 at 5.09.00 AM.png", "Bildschirmfoto 2013-08-09 um 05.09.00.png",
     "Screenshot from 2013-08-09 05-09-00.png", "20130809T050900.jpg", "20130809050900.jpg",
     "IMG_20130809_050900_HDR.jpg", "MVIMG_20130809_050900.jpg", "C360_2013-08-09-05-09-00.jpg"],
)  # fmt: skip
def test_date_and_time(name: str) -> None:
    found = names.date_in(name)
    assert found is not None
    assert (found.source, found.at, found.offset, found.confidence) == ("name", AT, None, "medium")


def test_the_afternoon() -> None:
    found = names.date_in("Screen Shot 2013-08-09 at 12.09.00 PM.png")
    assert found is not None and found.at.hour == 12
    found = names.date_in("WhatsApp Image 2013-08-09 at 5.09.00 PM.jpeg")
    assert found is not None and found.at.hour == 17


@pytest.mark.parametrize(
    "name",
    ["IMG-20130809-WA0001.jpg", "VID-20130809-WA0012.mp4", "VID-20130809-notreally.jpg",
     "2013-08-09 birthday.jpg"],
)  # fmt: skip
def test_a_day_alone(name: str) -> None:
    found = names.date_in(name)
    assert found is not None
    assert (found.source, found.at) == ("name:day", datetime(2013, 8, 9))


def test_a_pixel_tells_utc() -> None:
    found = names.date_in("PXL_20130809_050900678.MP.jpg")
    assert found is not None
    assert (found.at, found.offset) == (AT.replace(microsecond=678_000), timedelta(0))


@pytest.mark.parametrize(
    "name",
    ["DSC_0001.jpg", "1700000000000.jpg", "20231345_120000.jpg", "IMG_99999999_999999.jpg",
     "IMG_1234.HEIC", "2013.jpg", "201308.jpg", "120130809.jpg", "FB_IMG_1512345678901.jpg",
     "20130229.jpg", "37EC2D77-1111-2222-3333-444455556666.jpg", ".jpg", ""],
)  # fmt: skip
def test_names_without_a_date(name: str) -> None:
    assert names.date_in(name) is None


@given(st.text())
def test_any_name_is_looked_at(name: str) -> None:
    found = names.date_in(name)
    assert found is None or 1900 <= found.at.year <= 2099
    names.sidecars_of(name, names.folded([name, f"{name}.json", f"{name}.xmp"]))


def test_the_name_and_the_file_time_without_opening_it() -> None:
    zone = ZoneInfo("Europe/Berlin")
    modified = datetime(2024, 1, 1, 12, tzinfo=UTC).isoformat()
    told = names.outer_candidates("/a/PXL_20130809_050900678.jpg", modified, zone)
    assert [(c.source, c.at.hour, c.confidence) for c in told] == [
        ("name", 7, "medium"),
        ("mtime", 13, "low"),
    ]
    assert names.outer_candidates("a.jpg", None, None) == []


CUT = "e_original_name_long_enough.jpg"
LONG = "IMG_20210203_040506_very_long_name_over_forty_s.jpg"


@pytest.mark.parametrize(
    ("name", "sidecars"),
    [
        ("a.jpg", ["a.jpg.json"]),
        ("a-edited.jpg", ["a.jpg.json"]),
        ("a-bearbeitet.jpg", ["a.jpg.json"]),
        ("b.jpg", ["b.jpg.supplemental-metadata.json"]),
        ("c(1).jpg", ["c.jpg(1).json"]),
        ("d(2).jpg", ["d.jpg.supplemental-metadata(2).json"]),
        (CUT, [f"{CUT}.supplemental-me.json"]),
        (LONG, ["IMG_20210203_040506_very_long_name_over_forty_.json"]),
        ("f.CR2", ["f.CR2.xmp", "f.xmp"]),
        ("f.jpg", ["f.xmp"]),
        ("G.JPG", ["g.jpg.JSON"]),
        ("h.jpg", []),
        ("a(1).jpg", []),
    ],
)  # fmt: skip
def test_sidecars(name: str, sidecars: list[str]) -> None:
    folder = names.folded(
        ["a.jpg", "a.jpg.json", "b.jpg.supplemental-metadata.json", "c.jpg(1).json",
         "d.jpg.supplemental-metadata(2).json",
         f"{CUT}.supplemental-me.json",
         "IMG_20210203_040506_very_long_name_over_forty_.json", "metadata.json", "f.xmp",
         "f.CR2.xmp", "g.jpg.JSON", "orphan.jpg.json"]
    )  # fmt: skip
    assert names.sidecars_of(name, folder) == sidecars
