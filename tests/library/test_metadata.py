"""What files say of themselves, read from files made here; the odd ones stand in test_oracle."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pillow_heif
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from kaleidoscope.kernel.paths import to_text
from kaleidoscope.library.outside import exif, metadata, xmp
from kaleidoscope.library.rules import dates

WRITTEN, ISO = "2024:05:03 14:30:05", "2024-05-03T14:30:05"
R = TiffImagePlugin.IFDRational
Gps = dict[int, Any]
BERLIN: Gps = {1: "N", 2: (R(52), R(31), R(12)), 3: "E", 4: (R(13), R(24), R(18))}

PACKET = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"
 {attributes}>{elements}</rdf:Description></rdf:RDF></x:xmpmeta>"""


def tags(main: Gps | None = None, detail: Gps | None = None, gps: Gps | None = None) -> Image.Exif:
    made = Image.Exif()
    made.update(main or {})
    made.get_ifd(exif.EXIF_IFD).update(detail or {})
    made.get_ifd(exif.GPS_IFD).update(gps or {})
    return made


def photo(path: Path, made: Image.Exif | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if made is not None:
        options["exif"] = made
    Image.new("RGB", (40, 20)).save(path, **options)
    return path


def read(path: Path, **task: Any) -> dict[str, Any]:
    return metadata.read_file({"path": to_text(path), "name": path.name, "sidecars": [], **task})


def sources(found: dict[str, Any]) -> dict[str, str]:
    return {c["source"]: c["at"] for c in found["candidates"]}


def packet(**properties: str) -> str:
    said = {name.replace("_", ":", 1): value for name, value in properties.items()}
    attributes = " ".join(f'{name}="{value}"' for name, value in said.items())
    return PACKET.format(attributes=attributes, elements="")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif", "heic"])
def test_exif_in_every_container(tmp_path: Path, suffix: str) -> None:
    pillow_heif.register_heif_opener()
    made = tags(
        {0x10F: "Canon", 0x110: "Canon EOS 7D"},
        {0x9003: WRITTEN, 0x9291: "25", 0x9011: "+02:00", 0xA431: "0123"},
        BERLIN,
    )
    found = read(photo(tmp_path / f"a.{suffix}", made))
    assert found["error"] is None
    assert found["candidates"] == [
        {
            "source": "exif:DateTimeOriginal",
            "at": ISO + ".250000",
            "offset_minutes": 120,
            "confidence": "high",
        }
    ]
    assert found["location"] == {"lat": 52.52, "lon": 13.405}
    assert (found["camera_make"], found["camera_model"]) == ("Canon", "Canon EOS 7D")
    assert (found["camera_serial"], found["width"], found["height"]) == ("0123", 40, 20)


@pytest.mark.parametrize(("orientation", "size"), [(1, (40, 20)), (6, (20, 40)), (9, (40, 20))])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "heic"])
def test_the_size_is_the_one_displayed(
    tmp_path: Path, suffix: str, orientation: int, size: tuple[int, int]
) -> None:
    pillow_heif.register_heif_opener()
    found = read(photo(tmp_path / f"a.{suffix}", tags({0x112: orientation})))
    if suffix == "heic":  # its encoder turns the pixels instead
        size = (found["width"], found["height"])
    assert (found["width"], found["height"]) == size
    if suffix not in ("heic", "tif"):
        assert found["orientation"] == orientation


def test_exif_behind_the_pixels_of_a_png(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.png")
    whole = path.read_bytes()
    block = tags({}, {0x9003: WRITTEN}).tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(block)) + b"eXIf" + block
    chunk += struct.pack(">I", zlib.crc32(b"eXIf" + block))
    end = whole.index(b"IEND") - 4
    path.write_bytes(whole[:end] + chunk + whole[end:])
    assert sources(read(path)) == {"exif:DateTimeOriginal": ISO}


@pytest.mark.parametrize(
    ("gps", "location"),
    [
        (BERLIN | {1: "S", 3: "W"}, {"lat": -52.52, "lon": -13.405}),
        (BERLIN | {1: "s", 3: "west"}, {"lat": -52.52, "lon": -13.405}),
        (BERLIN | {2: (R(52), R(0, 1), R(0, 0))}, {"lat": 52.0, "lon": 13.405}),
        (BERLIN | {2: (R(0, 0), R(0, 0), R(0, 0))}, None),
        (BERLIN | {2: (R(95), R(0), R(0))}, None),
        (BERLIN | {4: (R(200), R(0), R(0))}, None),
        (BERLIN | {1: "N", 2: (R(0), R(0), R(0)), 4: (R(0), R(0), R(0))}, None),
        (BERLIN | {2: (R(0), R(0), R(0))}, {"lat": 0.0, "lon": 13.405}),
        ({k: v for k, v in BERLIN.items() if k != 3}, None),
        ({k: v for k, v in BERLIN.items() if k != 4}, None),
        ({1: "S", 2: (R(90), R(0), R(0)), 3: "E", 4: (R(180), R(0), R(0))},
         {"lat": -90.0, "lon": 180.0}),
    ],
)  # fmt: skip
def test_positions(tmp_path: Path, gps: Gps, location: dict[str, float] | None) -> None:
    assert read(photo(tmp_path / "a.jpg", tags({}, {}, gps)))["location"] == location


def test_gps_time_becomes_local_by_its_place(tmp_path: Path) -> None:
    gps = BERLIN | {29: "2024:07:01", 7: (R(22), R(30), R(5))}
    (told,) = read(photo(tmp_path / "a.jpg", tags({}, {}, gps)))["candidates"]
    assert (told["source"], told["at"], told["offset_minutes"]) == (
        "gps:GPSDateTime",
        "2024-07-02T00:30:05",
        120,
    )


@pytest.mark.parametrize("written", ["2019:02:29 10:00:00", "0000:00:00 00:00:00",
                                     "1825:01:01 10:00:00", "2999:01:01 10:00:00"])  # fmt: skip
def test_impossible_dates_are_refused(tmp_path: Path, written: str) -> None:
    assert read(photo(tmp_path / "a.jpg", tags({}, {0x9003: written})))["candidates"] == []


def test_every_date_is_kept_with_its_source(tmp_path: Path) -> None:
    made = tags({0x132: "2024:05:09 09:09:09"}, {0x9003: WRITTEN, 0x9004: "2024:05:04 01:02:03"})
    path = photo(
        tmp_path / "IMG_20130809_050900.jpg",
        made,
        xmp=packet(photoshop_DateCreated="2001-02-03T04:05:06Z").encode(),
    )
    found = read(path, modified_at="2025-01-01T00:00:00+00:00")
    assert sources(found) == {
        "exif:DateTimeOriginal": ISO,
        "exif:DateTimeDigitized": "2024-05-04T01:02:03",
        "exif:DateTime": "2024-05-09T09:09:09",
        "xmp:photoshop:DateCreated": "2001-02-03T04:05:06",
        "name": "2013-08-09T05:09:00",
        "mtime": "2025-01-01T00:00:00",
    }
    assert dates.choose(dates.from_plain(found["candidates"])).source == "exif:DateTimeOriginal"


def test_an_xmp_sidecar_beside_the_file(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.jpg")
    said = packet(
        exif_DateTimeOriginal=ISO + "-07:00",
        exif_GPSLatitude="33,30.0S",
        exif_GPSLongitude="70,15.0W",
    )
    (tmp_path / "a.xmp").write_text(said)
    (tmp_path / "b.xmp").write_text(packet(exif_DateTimeOriginal="2001-01-02T03:04:05"))
    found = read(path, sidecars=None)
    assert sources(found) == {"sidecar:exif:DateTimeOriginal": ISO}
    assert found["location"] == {"lat": -33.5, "lon": -70.25}


def test_takeout_beside_the_file(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.jpg")
    document = {
        "photoTakenTime": {"timestamp": "1719873005"},
        "geoData": {"latitude": 35.68, "longitude": 139.76},
        "geoDataExif": {"latitude": 0.0, "longitude": 0.0},
    }
    (tmp_path / "a.jpg.supplemental-metadata.json").write_text(json.dumps(document))
    found = read(path, sidecars=None)
    assert found["location"] == {"lat": 35.68, "lon": 139.76}
    assert found["candidates"] == [
        {
            "source": "takeout:photoTakenTime",
            "at": "2024-07-02T07:30:05",
            "offset_minutes": 540,
            "confidence": "medium",
        }
    ]


@pytest.mark.parametrize(
    "content",
    ["", "no JSON", "[]", "{}", '{"photoTakenTime": 3}',
     '{"photoTakenTime": {"timestamp": "never"}}',
     '{"photoTakenTime": {"timestamp": "99999999999999999"}}'],
)  # fmt: skip
def test_a_broken_sidecar_is_none(tmp_path: Path, content: str) -> None:
    path = photo(tmp_path / "a.jpg", tags({}, {0x9003: WRITTEN}))
    (tmp_path / "a.jpg.json").write_text(content)
    (tmp_path / "a.xmp").write_text(content)
    found = read(path, sidecars=None)
    assert (found["error"], sources(found)) == (None, {"exif:DateTimeOriginal": ISO})


def film(path: Path, **metadata_: str) -> Path:
    options = {"movflags": "use_metadata_tags"} if path.suffix in (".mov", ".mp4") else {}
    with av.open(str(path), "w", options=options) as container:
        container.metadata.update(metadata_)
        stream = container.add_stream("mpeg4", rate=Fraction(25))
        stream.width, stream.height = 64, 48
        for n in range(25):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), n, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


APPLE = "com.apple.quicktime."


def test_a_film_of_a_phone(tmp_path: Path) -> None:
    path = film(
        tmp_path / "IMG_1001.mov",
        **{
            "creation_time": "2024-05-03T21:30:05Z",
            f"{APPLE}creationdate": "2024-05-03T14:30:05-0700",
            f"{APPLE}location.ISO6709": "-33.8568-151.2153+5.000/",
            f"{APPLE}make": "Apple",
            f"{APPLE}model": "iPhone 14",
            f"{APPLE}content.identifier": "37EC2D77-1111-2222-3333-444455556666",
        },
    )
    found = read(path)
    assert sources(found)["quicktime:CreationDate"] == ISO
    assert found["location"] == {"lat": -33.8568, "lon": -151.2153}
    assert (found["camera_make"], found["camera_model"]) == ("Apple", "iPhone 14")
    assert found["content_id"] == "37EC2D77-1111-2222-3333-444455556666"
    assert (found["width"], found["height"], found["frame_rate"]) == (64, 48, 25.0)


def test_a_films_utc_becomes_local_by_its_place(tmp_path: Path) -> None:
    said = {"creation_time": "2024-07-01T22:30:05Z", "location": "+52.5200+013.4050/"}
    (told,) = read(film(tmp_path / "a.mp4", **said))["candidates"]
    assert (told["source"], told["at"], told["offset_minutes"], told["confidence"]) == (
        "quicktime:CreateDate",
        "2024-07-02T00:30:05",
        120,
        "medium",
    )


def test_a_films_utc_without_a_place(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", creation_time="2024-07-01T22:30:05Z")
    (told,) = read(path)["candidates"]
    assert (told["at"], told["confidence"]) == ("2024-07-01T22:30:05", "low")
    (told,) = read(path, zone="Asia/Tokyo")["candidates"]
    assert (told["at"], told["confidence"]) == ("2024-07-02T07:30:05", "medium")
    phone = path.rename(tmp_path / "VID_20240702_003005.mp4")
    chosen = dates.choose(dates.from_plain(read(phone)["candidates"]))
    assert (chosen.source, chosen.captured_at) == ("name", datetime(2024, 7, 2, 0, 30, 5))
    assert chosen.captured_offset == timedelta(hours=2)


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ("+51.5334-000.1255+026.756/", (51.5334, -0.1255)),
        ("+5130.00-00007.53/", (51.5, -0.1255)),
        ("-123015+0301530/", (-12.5041667, 30.2583333)),
        ("+00.0000+000.0000/", None),
        ("+95.0+000.0/", None),
        ("somewhere", None),
        ("", None),
    ],
)
def test_positions_of_films(written: str, place: tuple[float, float] | None) -> None:
    assert metadata._iso_6709(written) == place


@pytest.mark.parametrize("content", [b"", b"x", b"\xff\xd8\xff", b"\0" * 5000, b"<html></html>"])
def test_what_is_no_photo_has_the_date_of_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "IMG_20130809_050900.jpg"
    path.write_bytes(content)
    found = read(path)
    assert found["error"] is not None and path.name in found["error"]
    assert found["error_code"] == "unreadable-media"
    assert sources(found) == {"name": "2013-08-09T05:09:00"}


@pytest.mark.parametrize(
    ("name", "mark"),
    [("a.orf", b"IIRO"), ("a.orf", b"MMOR"), ("a.rw2", b"IIU\0"), ("a.nef", b"II*\0"),
     ("a.arw", b"MM\0*")],
)  # fmt: skip
def test_raw_photos_that_are_tiff_inside(tmp_path: Path, name: str, mark: bytes) -> None:
    made = tags({0x10F: "Maker"}, {0x9003: WRITTEN}, BERLIN)
    made.endian = "<" if mark.startswith(b"II") else ">"
    block = made.tobytes().removeprefix(b"Exif\0\0")
    (tmp_path / name).write_bytes(mark + block[4:] + bytes(500))
    found = read(tmp_path / name)
    assert sources(found) == {"exif:DateTimeOriginal": ISO}
    assert (found["camera_make"], found["location"]) == ("Maker", {"lat": 52.52, "lon": 13.405})


def test_text_that_no_database_holds(tmp_path: Path) -> None:
    made = tags({0x10F: "A" * 5000, 0x110: "\x07B"}, {0x9003: WRITTEN, 0xA431: "\0\0"})
    found = read(photo(tmp_path / "a.jpg", made))
    assert (found["camera_make"], found["camera_serial"]) == ("A" * 200, None)
    assert metadata._text("a\0b\udce9") == "ab?"
    assert (metadata._pixels(0), metadata._pixels(2**31), metadata._pixels(5)) == (None, None, 5)
    assert (metadata._measure(float("nan")), metadata._measure(-1.0)) == (None, None)


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    found = read(tmp_path / "a.jpg")
    assert (found["error_code"], found["candidates"]) == ("not-found", [])


def test_a_photo_cut_off_after_its_header(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.jpg", tags({}, {0x9003: WRITTEN}, BERLIN))
    whole = path.read_bytes()
    for end in (len(whole) - 10, whole.index(b"\xff\xc0"), whole.index(b"\xff\xc0") + 4):
        path.write_bytes(whole[:end])
        found = read(path)
        assert sources(found) == {"exif:DateTimeOriginal": ISO}
        assert found["location"] == {"lat": 52.52, "lon": 13.405}


@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_damage_is_never_an_error(tmp_path: Path, data: st.DataObject) -> None:
    """Bytes of the header changed at random: an answer comes, whatever it says."""
    path = photo(tmp_path / "a.jpg", tags({0x10F: "C"}, {0x9003: WRITTEN}, BERLIN))
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(2, 600))] = data.draw(st.integers(0, 255))
    (tmp_path / "b.jpg").write_bytes(whole)
    found = read(tmp_path / "b.jpg", modified_at=datetime.now(UTC).isoformat())
    assert json.loads(json.dumps(found)) == found
    assert found["candidates"][-1]["source"] == "mtime"
    place = found["location"]
    assert place is None or (-90 <= place["lat"] <= 90 and -180 <= place["lon"] <= 180)


@given(st.binary(max_size=400))
def test_any_bytes_as_blocks(content: bytes) -> None:
    xmp.read(content)
    properties = xmp.read(b"<x:xmpmeta>" + content)
    xmp.candidates(properties, "xmp")
    xmp.location(properties)


@pytest.mark.parametrize("spell", [lambda p: p, lambda p: p[:-20], lambda p: "\ufeff" + p])
def test_a_packet_whole_and_torn(spell: Callable[[str], str]) -> None:
    written = packet(exif_DateTimeOriginal=ISO, exif_GPSLatitude="47.5", exif_GPSLongitude="122.3")
    written = written.replace(
        'exif:GPSLongitude="122.3"', 'exif:GPSLongitude="122.3" exif:GPSLongitudeRef="W"'
    )
    properties = xmp.read(spell(written).encode())
    assert [c.source for c in xmp.candidates(properties, "xmp")] == ["xmp:exif:DateTimeOriginal"]
    assert xmp.location(properties) == (47.5, -122.3)


def test_a_bomb_of_entities_is_not_expanded() -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]>' + packet(
        exif_DateTimeOriginal=ISO
    )
    assert xmp.read(bomb.encode()) == {"exif:DateTimeOriginal": ISO}


def test_a_motion_photo_says_so(tmp_path: Path) -> None:
    said = packet().replace(
        "rdf:about",
        'xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" GCamera:MotionPhoto="1" rdf:about',
    )
    assert read(photo(tmp_path / "a.jpg", xmp=said.encode()))["is_motion_photo"]
    assert not read(photo(tmp_path / "b.jpg"))["is_motion_photo"]


def test_one_hand_over_carries_many(tmp_path: Path) -> None:
    paths = [photo(tmp_path / f"{n}.jpg", tags({}, {0x9003: WRITTEN})) for n in range(3)]
    paths[1].write_bytes(b"broken")
    (tmp_path / "2.xmp").write_text(packet(photoshop_DateCreated="2001-02-03"))
    answers = metadata.read_files([{"path": to_text(p), "sidecars": None} for p in paths])
    assert [len(a["candidates"]) for a in answers] == [1, 0, 2]
    assert [a["error"] is None for a in answers] == [True, False, True]
