"""Photos that move: a film inside the photo's file, or beside it and perhaps later than it."""

from __future__ import annotations

import struct

import pytest
from custodian import Custodian, files, jpeg

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.paths import to_text
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library

DAY = 1_614_834_367  # 2021-03-04 05:06:07 UTC
FILM = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"f" * 400
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0heicmif1"
PAIRS = [
    ("IMG_1234.HEIC", "IMG_1234.MOV", "IMG_1234"),
    ("IMG_1234.JPG", "IMG_1234.mp4", "IMG_1234"),
    ("MVIMG_20210304_050607.jpg", "MVIMG_20210304_050607.MP4", "MVIMG_20210304_050607"),
    ("PXL_20210304_050607123.MP.jpg", "PXL_20210304_050607123.MP.mp4", "PXL_20210304_050607123"),
    ("PXL_20210304_050607123.MP.jpg", "PXL_20210304_050607123.MP", "PXL_20210304_050607123"),
]


def moving(
    number: int, taken: str | None = "2021:03:04 05:06:07", mark: str = "MotionPhoto"
) -> bytes:
    """A photo with its film behind it, as Google's cameras write it."""
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF'
        ' xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description'
        ' xmlns:GCamera="http://ns.google.com/photos/1.0/camera/"'
        f' GCamera:{mark}="1"/></rdf:RDF></x:xmpmeta>'
    ).encode()
    said = b"http://ns.adobe.com/xap/1.0/\0" + packet
    plain = jpeg(number, taken)
    return plain[:20] + b"\xff\xe1" + struct.pack(">H", len(said) + 2) + said + plain[20:] + FILM


def half(name: str, number: int) -> bytes:
    """A photo or a film, different for each number."""
    if name.endswith("HEIC"):
        return HEIC + b"%d" % number
    return jpeg(number) if name.lower().endswith(".jpg") else FILM + b"%d" % number


def names(custodian: Custodian) -> list[str]:
    return sorted(str(p.relative_to(custodian.originals)) for p in files(custodian.originals))


@pytest.mark.parametrize(
    ("name", "mark"),
    [
        ("MVIMG_20210304_050607.jpg", "MicroVideo"),
        ("PXL_20210304_050607123.MP.jpg", "MotionPhoto"),
    ],
)
async def test_one_with_its_film_inside_is_filed_whole(
    custodian: Custodian, name: str, mark: str
) -> None:
    content = moving(1, mark=mark)
    custodian.drop(f"DCIM/{name}", content)
    custodian.drop(f"DCIM/{name}.json", b"{}")
    (parcel,) = await library.read(custodian.work, library.parcels(custodian.candidates()))
    told = [f.metadata["is_motion_photo"] for f in parcel.files if f.metadata]
    assert told == [True]
    await custodian.sweep()
    assert names(custodian) == [f"2021/2021-03-04/{name}", f"2021/2021-03-04/{name}.json"]
    assert (custodian.originals / "2021/2021-03-04" / name).read_bytes() == content
    (photo,) = (await custodian.ledger()).values()
    assert (photo.media_type, photo.mime_type) == ("photo", "image/jpeg")
    assert str(photo.captured_at) == "2021-03-04 05:06:07"
    assert photo.captured_at_source == "exif:DateTimeOriginal"


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("MVIMG_20210304_233000.jpg", "2021-03-04 23:30:00"),  # a clock on a wall
        ("PXL_20210304_233000123.MP.jpg", "2021-03-05 00:30:00"),  # UTC
    ],
)
async def test_one_without_exif_is_dated_by_its_name(
    custodian: Custodian, monkeypatch: pytest.MonkeyPatch, name: str, day: str
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_LIBRARY_HOME_ZONE", "Europe/Berlin")
    load.cache_clear()
    custodian.drop(name, moving(1, None))
    await custodian.sweep()
    (photo,) = (await custodian.ledger()).values()
    assert str(photo.captured_at)[:19] == day
    assert names(custodian) == [f"2021/{day[:10]}/{name}"]


@pytest.mark.parametrize(("photo", "film", "stem"), PAIRS)
async def test_a_pair_gets_one_number(
    custodian: Custodian, photo: str, film: str, stem: str
) -> None:
    """With what tells about it, where another pair has its name already."""
    together = [photo, film, f"{photo}.xmp", f"{photo}.json"]
    for number, folder in enumerate("ab"):
        custodian.drop(f"{folder}/{photo}", half(photo, number), DAY)
        custodian.drop(f"{folder}/{film}", half(film, number), DAY)
        custodian.drop(f"{folder}/{photo}.xmp", b"<x:xmpmeta/>%d" % number, DAY)
        custodian.drop(f"{folder}/{photo}.json", b'{"a": %d}' % number, DAY)
    await custodian.sweep()
    second = [name.replace(stem, f"{stem}_1") for name in together]
    assert names(custodian) == sorted(f"2021/2021-03-04/{n}" for n in [*together, *second])
    folder = custodian.originals / "2021/2021-03-04"
    numbers = {(folder / n).read_bytes() == half(n, 0) for n in (photo, film)}
    assert len(numbers) == 1  # both halves of one pair
    assert len(await custodian.ledger()) == 4


@pytest.mark.parametrize("first", ["photo", "film"])
@pytest.mark.parametrize(("photo", "film", "stem"), PAIRS)
async def test_the_half_that_comes_later_gets_the_number_of_the_first(
    custodian: Custodian, db: Database, photo: str, film: str, stem: str, first: str
) -> None:
    """So that it does not pass for the other half of another photo; it travels with it, too."""
    early, late = (photo, film) if first == "photo" else (film, photo)
    for number, folder in enumerate("ab"):
        custodian.drop(f"{folder}/{early}", half(early, number), DAY)
        await custodian.sweep()
    custodian.drop(f"b/{late}", half(late, 1), DAY)
    custodian.drop(f"b/{late}.xmp", b"<x:xmpmeta/>", DAY)
    await custodian.sweep()
    other = [name.replace(stem, f"{stem}_1") for name in (early, late, f"{late}.xmp")]
    assert names(custodian) == sorted(f"2021/2021-03-04/{n}" for n in [early, *other])
    filed = await custodian.ledger()
    await custodian.rows(
        "UPDATE media_assets SET captured_at = '2022-05-06' WHERE photo_id = :id RETURNING 1",
        id=filed[f"2021/2021-03-04/{other[0]}"].photo_id,
    )
    await library.refile(db, [filed[f"2021/2021-03-04/{other[0]}"].photo_id])
    assert names(custodian) == sorted(
        [f"2021/2021-03-04/{early}", *(f"2022/2022-05-06/{n}" for n in other)]
    )


@pytest.mark.parametrize("why", ["it came long ago", "it was taken at another time"])
async def test_what_has_the_name_by_chance_is_no_other_half(custodian: Custodian, why: str) -> None:
    """Cameras count from 1 again and again."""
    is_old = why == "it came long ago"
    photo, film = (
        ("IMG_0001.JPG", "IMG_0001.MOV")
        if is_old
        else ("MVIMG_20230304_050607.jpg", "MVIMG_20230304_050607.mp4")
    )
    custodian.drop(photo, jpeg(1))
    await custodian.sweep()
    if is_old:
        await custodian.rows(
            "UPDATE custody_moves SET recorded_at = now() - interval '1 year' RETURNING 1"
        )
    custodian.drop(film, FILM)  # by its time of 2023-11-14, or by its name
    await custodian.sweep()
    day = "2023-11-14" if is_old else "2023-03-04"
    assert names(custodian) == [f"2021/2021-03-04/{photo}", f"2023/{day}/{film}"]
    groups = await custodian.rows("SELECT group_id FROM custody_moves WHERE group_id IS NOT NULL")
    assert groups == []


async def test_a_half_that_was_taken_on_the_same_day_is_one_however_late_it_comes(
    custodian: Custodian,
) -> None:
    photo, film = "PXL_20210304_050607123.MP.jpg", "PXL_20210304_050607123.MP.mp4"
    path = custodian.drop(photo, moving(1))
    await custodian.sweep()
    await custodian.rows(
        "UPDATE custody_moves SET recorded_at = now() - interval '1 year' RETURNING 1"
    )
    custodian.drop(film, FILM)
    (done,) = await custodian.sweep()
    assert done.what == "filed" and not path.exists()
    assert done.target == to_text(custodian.originals / "2021/2021-03-04" / film)
