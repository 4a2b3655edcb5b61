"""Every kind of picture comes out upright, in sRGB, no larger than asked; the rest with a cause."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from kaleidoscope.kernel.errors import NotFound, UnreadableMedia
from kaleidoscope.ml.decode import Decoded, decode, decode_sizes, probe
from kaleidoscope.ml.files import Content
from kaleidoscope.ml.sniff import sniff

RED, GREEN, BLUE, GREY = (220, 30, 30), (30, 200, 30), (30, 30, 220), (128, 128, 128)


def corners(width: int = 80, height: int = 48) -> Image.Image:
    """Red top left, green top right, blue bottom left, grey bottom right."""
    image = Image.new("RGB", (width, height), GREY)
    half = (width // 2, height // 2)
    image.paste(RED, (0, 0, *half))
    image.paste(GREEN, (half[0], 0, width, half[1]))
    image.paste(BLUE, (0, half[1], half[0], height))
    return image


def saved(image: Image.Image, format: str, **options: object) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, format, **options)
    file.seek(0)
    return file


def assert_corners(decoded: Decoded, tolerance: int = 40) -> None:
    height, width = decoded.image.shape[:2]
    for place, colour in {
        (1 / 4, 1 / 4): RED,
        (1 / 4, 3 / 4): GREEN,
        (3 / 4, 1 / 4): BLUE,
        (3 / 4, 3 / 4): GREY,
    }.items():
        found = decoded.image[int(place[0] * height), int(place[1] * width)]
        assert np.abs(found.astype(int) - colour).max() <= tolerance, (place, found, colour)


# What undoes each EXIF orientation, done to the upright picture to get the stored one.
STORED = {
    1: [],
    2: [Image.Transpose.FLIP_LEFT_RIGHT],
    3: [Image.Transpose.ROTATE_180],
    4: [Image.Transpose.FLIP_TOP_BOTTOM],
    5: [Image.Transpose.TRANSPOSE],
    6: [Image.Transpose.ROTATE_90],
    7: [Image.Transpose.TRANSVERSE],
    8: [Image.Transpose.ROTATE_270],
}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(format: str, orientation: int) -> None:
    image = corners(96, 64)
    for step in STORED[orientation]:
        image = image.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = saved(image, format, exif=exif)
    for side in (None, 48):
        decoded = decode(file, max_side=side)
        assert (decoded.width, decoded.height) == (96, 64)
        assert decoded.image.shape[:2] == ((64, 96) if side is None else (32, 48))
        assert_corners(decoded)
    assert (probe(file).width, probe(file).height) == (96, 64)


def test_heif_is_upright_whatever_its_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode(saved(corners(), "HEIF", exif=exif))
    assert (decoded.width, decoded.height) == (80, 48)
    assert_corners(decoded)


@pytest.mark.parametrize(
    ("mode", "format"),
    [
        ("RGB", "JPEG"),
        ("CMYK", "JPEG"),
        ("CMYK", "TIFF"),
        ("YCbCr", "TIFF"),
        ("LAB", "TIFF"),
        ("P", "PNG"),
        ("P", "GIF"),
        ("RGBA", "WEBP"),
        ("RGB", "BMP"),
        ("RGB", "JPEG2000"),
        ("RGB", "PPM"),
        ("RGB", "TGA"),
        ("RGB", "AVIF"),
    ],
)
def test_modes(mode: str, format: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{format.lower()}"
    image = corners()
    if mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, srgb, lab, outputMode="LAB")
    path.write_bytes(saved(image.convert(mode), format).getvalue())
    decoded = decode(path, max_side=40)
    assert decoded.image.shape == (24, 40, 3)
    assert_corners(decoded)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_range(format: str) -> None:
    ramp = np.linspace(0, 65535, 256 * 4).reshape(4, 256).astype(np.uint16)
    decoded = decode(saved(Image.fromarray(ramp), format))
    assert decoded.image[0, 0, 0] < 5
    assert decoded.image[3, -1, 0] > 250
    assert 55 < decoded.image[0, -1].mean() < 75


def test_floating_point_grey() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(1, 256)
    image = decode(saved(Image.fromarray(ramp), "TIFF")).image
    assert (image[0, 0, 0], image[0, -1, 0]) == (0, 255)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_what_is_transparent_is_white(mode: str) -> None:
    image = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 10, 20))
    file = saved(image.convert(mode), "TIFF" if mode == "PA" else "PNG")
    pixels = decode(file).image
    assert pixels[10, 5].tolist() == [0, 0, 0]
    assert pixels[10, 15].tolist() == [255, 255, 255]


def test_a_palette_with_transparency() -> None:
    image = Image.new("P", (20, 20), 1)
    image.putpalette([0, 0, 0, 250, 10, 10])
    image.paste(0, (10, 0, 20, 20))
    pixels = decode(saved(image, "PNG", transparency=0)).image
    assert pixels[5, 15].tolist() == [255, 255, 255]
    assert pixels[5, 5].tolist() == [250, 10, 10]


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame(format: str) -> None:
    others = [Image.new("RGB", (80, 48), GREEN) for _ in range(3)]
    decoded = decode(saved(corners(), format, save_all=True, append_images=others))
    assert_corners(decoded)


def test_progressive_and_of_several_pictures() -> None:
    assert_corners(decode(saved(corners(), "JPEG", progressive=True)))
    file = saved(corners(), "MPO", save_all=True, append_images=[Image.new("RGB", (80, 48))])
    assert_corners(decode(file))


def test_other_colour_spaces_become_srgb() -> None:
    swapped = _profile_with_red_and_blue_swapped()
    image = Image.new("RGB", (16, 16), (250, 20, 20))
    pixels = decode(saved(image, "JPEG", icc_profile=swapped)).image
    assert pixels[8, 8, 2] > 200 > 100 > pixels[8, 8, 0]


def test_a_broken_profile_is_no_reason_to_fail() -> None:
    assert_corners(decode(saved(corners(), "JPEG", icc_profile=b"nonsense")))


def test_large_photos_are_shrunk_while_decoded() -> None:
    decoded = decode(saved(corners(4000, 3000), "JPEG"), max_side=1024)
    assert decoded.image.shape == (768, 1024, 3)
    assert decoded.scale == (4000 / 1024, 3000 / 768)
    assert_corners(decoded)


def test_small_photos_are_not_enlarged() -> None:
    assert decode(saved(corners(), "PNG"), max_side=1024).image.shape == (48, 80, 3)


def test_a_truncated_photo_is_read_and_says_so(tmp_path: Path) -> None:
    whole = saved(corners(800, 600), "JPEG", quality=95).getvalue()
    path = tmp_path / "cut.jpg"
    path.write_bytes(whole[: len(whole) * 3 // 4])
    decoded = decode(path)
    assert (decoded.width, decoded.height) == (800, 600)
    assert decoded.damage is not None
    assert "truncated" in decoded.damage
    assert decode(saved(corners(), "PNG")).damage is None  # it was for that file alone


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.jpg", b"", "empty"),
        ("zeros.jpg", bytes(10_000), "not-media"),
        ("text.jpg", b"not a photo at all, whatever its name says", "not-media"),
        ("start.jpg", b"\xff\xd8", "not-media"),
        ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported"),
        ("new.jxl", b"\xff\x0a" + bytes(100), "unsupported"),
        ("clip.mp4", b"\0\0\0\x18ftypisom" + bytes(100), "unsupported"),
        ("head.jpg", b"\xff\xd8\xff\xe0\x00\x10JFIF", "truncated"),
        ("head.png", b"\x89PNG\r\n\x1a\n", "damaged"),
        ("head.nef", b"II*\0" + bytes(100), "damaged"),
        ("head.heic", b"\0\0\0\x18ftypheic" + bytes(100), "damaged"),
    ],
)
def test_causes(name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnreadableMedia) as caught:
        decode(path)
    assert caught.value.message.startswith(f"{path}: ")
    assert caught.value.fields == {"path": str(path), "reason": reason}


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path, tmp_path / "pipe.jpg", Path("/dev/zero")):
        with pytest.raises(UnreadableMedia, match="not a regular file"):
            decode(path)
    with pytest.raises(NotFound, match=r"gone\.jpg: no such file"):
        decode(tmp_path / "gone.jpg")


def test_any_name_will_do(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff\xfe\n.jpg"
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(saved(corners(), "JPEG").getvalue())
    assert_corners(decode(path))


@pytest.mark.parametrize("format", ["png", "gif", "tiff", "bmp"])
def test_bombs_are_refused_from_their_header(format: str) -> None:
    with pytest.raises(UnreadableMedia, match="would take") as caught:
        decode(io.BytesIO(_bomb(format)), max_side=1024)
    assert caught.value.fields["reason"] == "too-large"


def test_the_limit_counts_what_decoding_takes() -> None:
    """A JPEG is scaled while it is decoded, so that a panorama passes where a PNG does not."""
    panorama = Image.new("RGB", (9000, 9000), GREEN)
    decoded = decode(saved(panorama, "JPEG"), max_side=1024, memory=64)
    assert (decoded.width, decoded.height) == (9000, 9000)
    with pytest.raises(UnreadableMedia):
        decode(saved(panorama, "PNG", compress_level=1), max_side=1024, memory=64)


@pytest.mark.parametrize(
    ("head", "name", "known"),
    [
        (b"\xff\xd8\xff\xe1", "a.png", ("image/jpeg", "photo")),
        (b"II*\0", "a.tif", ("image/tiff", "photo")),
        (b"II*\0", "a.NEF", ("image/x-nikon-nef", "photo")),
        (b"II*\0\x10\0\0\0CR\x02\0", "a", ("image/x-canon-cr2", "photo")),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "a", ("image/heic", "photo")),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "a", ("image/avif", "photo")),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "a", ("image/avif", "photo")),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "a.jpg", ("video/quicktime", "video")),
        (b"\0\0\0\x08wide\0\0\0\0mdat", "a.mov", ("video/quicktime", "video")),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "a", ("video/mp4", "video")),
        (b"RIFF\0\0\0\0WEBPVP8 ", "a", ("image/webp", "photo")),
        (b"RIFF\0\0\0\0AVI LIST", "a", ("video/x-msvideo", "video")),
        (b"\x1aE\xdf\xa3\x01\0\0\0\0\0\0\x1fB\x82\x84webm", "a", ("video/webm", "video")),
        (b"", "a.jpg", None),
        (b"%PDF-1.4", "a.jpg", None),
        (b"BM and other texts that begin so", "a.bmp", None),
        (b"PK\x03\x04", "a.jpg", None),
    ],
)
def test_sniff(head: bytes, name: str, known: tuple[str, str] | None) -> None:
    assert sniff(head, name) == known


def _bomb(format: str) -> bytes:
    side = 60_000
    if format == "png":
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
        file = io.BytesIO(b"\x89PNG\r\n\x1a\n")
        file.seek(8)
        for kind, data in chunks:
            PngImagePlugin.putchunk(file, kind, data)
        return file.getvalue()
    if format == "gif":
        start = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(6)
        return start + b"," + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x02\x01\0\0;"
    small = saved(Image.new("RGB", (7, 5)), format.upper()).getvalue()
    if format == "bmp":
        return small[:18] + struct.pack("<ii", side, side) + small[26:]
    return small.replace(
        struct.pack("<HHII", 256, 4, 1, 7), struct.pack("<HHII", 256, 4, 1, side)
    ).replace(struct.pack("<HHII", 257, 4, 1, 5), struct.pack("<HHII", 257, 4, 1, side))


def _profile_with_red_and_blue_swapped() -> bytes:
    """sRGB's profile with the tags of its red and blue primaries exchanged, under another name."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")
    return swapped.replace("sRGB".encode("utf-16-be"), "xRGB".encode("utf-16-be"))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF"])
def test_two_sizes_of_one_decoding_are_those_of_two(format: str) -> None:
    """1300 pixels: a JPEG's decoder halves them for neither; 2000: for the smaller one alone."""
    for side, most in ((1300, 0), (2000, 2 if format == "JPEG" else 0)):
        file = saved(corners(side, side * 3 // 5), format)
        large, small = decode_sizes(file, [1200, 700])
        for picture, max_side, apart in ((large, 1200, 0), (small, 700, most)):
            alone = decode(file, max_side=max_side)
            assert (picture.width, picture.height) == (alone.width, alone.height)
            assert picture.image.shape == alone.image.shape
            difference = np.abs(picture.image.astype(int) - alone.image)
            assert difference.mean() <= apart, (side, max_side)
            assert_corners(picture)


def test_content_that_has_been_read_goes_by_its_name() -> None:
    whole = saved(corners(), "JPEG").getvalue()
    assert_corners(decode(Content(b"/photos/a.jpg", whole)))
    with pytest.raises(UnreadableMedia, match=r"/photos/a\.jpg: is an empty file"):
        decode(Content(b"/photos/a.jpg", b""))
