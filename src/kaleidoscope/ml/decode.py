"""From a file of any kind to pixels as a person sees them: upright, sRGB, no larger than needed.

Run it in a child process (`ml.pool`): the decoders below are C and C++, and files come from
anywhere.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pillow_heif
import rawpy
from PIL import ExifTags, Image, ImageCms, ImageFile, UnidentifiedImageError

from kaleidoscope.kernel.errors import UnreadableMedia
from kaleidoscope.ml import video
from kaleidoscope.ml.files import Source, opened
from kaleidoscope.ml.sniff import HEAD, MediaType, is_raw
from kaleidoscope.ml.sniff import sniff as sniff

Pixels = npt.NDArray[np.uint8]
Side = int | None
"""Pixels of the longer side at most; None: as large as it is."""

MEMORY = 1024
"""Megabytes that the pixels of one picture may take: about 268 million in colour."""

FORMATS = {
    "image/jpeg": ["JPEG"],
    "image/png": ["PNG"],
    "image/gif": ["GIF"],
    "image/webp": ["WEBP"],
    "image/tiff": ["TIFF"],
    "image/avif": ["AVIF"],
    "image/heic": ["HEIF"],
    "image/heif": ["HEIF"],
    "image/bmp": ["BMP"],
    "image/jp2": ["JPEG2000"],
    "image/x-j2c": ["JPEG2000"],
    "image/x-icon": ["ICO", "CUR"],
    "image/vnd.adobe.photoshop": ["PSD"],
    "image/x-portable-anymap": ["PPM"],
    "image/x-tga": ["TGA"],
}
"""What each kind may be opened as: none of the formats that run other programs (EPS)."""

pillow_heif.register_heif_opener()
pillow_heif.options.DECODE_THREADS = 1
# Sizes are held against our own limit, by what a picture takes after scaling while decoding.
Image.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("ignore", module="PIL")

_WHITE = (255, 255, 255, 255)
_BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "LA": 4, "I;16": 2, "I;16B": 2, "I;16L": 2}  # else 4
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURNED = {5, 6, 7, 8}
_LIBRAW_FLIPS = {3: 3, 5: 8, 6: 6}  # to EXIF orientations
_SRGB = ImageCms.createProfile("sRGB")


@dataclass(frozen=True)
class Decoded:
    """`image` uint8 [h, w, 3] RGB, upright, at most `max_side` long; `width` and `height` of the
    original as it is displayed. `damage` says what is wrong with a file that is not whole.
    """

    image: Pixels
    width: int
    height: int
    mime_type: str
    media_type: MediaType
    damage: str | None = None

    @property
    def scale(self) -> tuple[float, float]:
        """What x and y in the image are multiplied by to be pixels of the original."""
        return self.width / self.image.shape[1], self.height / self.image.shape[0]


@dataclass(frozen=True)
class MediaInfo:
    """What a file is, without its pixels: `width` and `height` as displayed."""

    mime_type: str
    media_type: MediaType
    width: int
    height: int


class _Refused(Exception):
    """Why a file is not decoded: `reason` for programs, the text for people."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def decode(source: Source, *, max_side: int | None = None, memory: int = MEMORY) -> Decoded:
    """The picture in a file (its path, as `Path` or bytes, or its content), or in an open one.

    Of an animation it is the first frame. `memory` in megabytes: a larger picture is refused from
    its header. Raises `UnreadableMedia` that names file and cause, with `reason` one of empty,
    not-media, unsupported, damaged, truncated, too-large; `NotFound` or `Unavailable` when the file
    itself cannot be reached.
    """
    return decode_sizes(source, [max_side], memory=memory)[0]


def decode_sizes(source: Source, sides: Sequence[Side], *, memory: int = MEMORY) -> list[Decoded]:
    """The same for each `max_side` of `sides`, the largest first, of one decoding.

    A smaller one is pixel for pixel what `decode` makes of it. Of a JPEG that its decoder would
    have halved once more for that, and of a raw photo whose preview is too small for the largest,
    it is as large and looks the same.
    """
    with opened(source) as (file, name), _causes(name):
        mime, media_type = _recognise(file, name)
        if media_type == "video":
            raise _Refused("unsupported", f"is a video ({mime}), not a photo")
        damage = None
        if is_raw(mime):
            width, height, images = _raw(file, sides, memory)
        else:
            try:
                width, height, images = _photo(file, mime, sides, memory)
            except (OSError, ValueError, SyntaxError, EOFError) as error:
                (width, height, images), damage = _second_try(file, mime, sides, memory, error)
        return [
            Decoded(np.asarray(image), width, height, mime, media_type, damage) for image in images
        ]


def probe(source: Source, *, memory: int = MEMORY) -> MediaInfo:
    """What a file is and how large it is displayed, from its header alone. Raises as `decode`."""
    with opened(source) as (file, name), _causes(name):
        mime, media_type = _recognise(file, name)
        if media_type == "video":
            info = video.read_open(file, name)
            return MediaInfo(mime, media_type, info.width, info.height)
        if is_raw(mime):
            width, height, _ = raw_header(file)
            return MediaInfo(mime, media_type, width, height)
        with open_header(file, mime) as image:
            # Pillow tells a TIFF's size as it is displayed, and that of others as it is stored.
            turned = 1 if mime == "image/tiff" else _orientation(image)
            return MediaInfo(mime, media_type, *_displayed(image.size, turned))


def raw_header(file: BinaryIO) -> tuple[int, int, datetime | None]:
    """Displayed width and height of a raw photo, and when its camera says that it was taken.

    Raises what its decoder does.
    """
    file.seek(0)
    with rawpy.imread(file) as raw:
        return *_raw_size(raw), raw.other.timestamp


# The file


@contextmanager
def _causes(name: str) -> Iterator[None]:
    """Whatever a decoder raises, as `UnreadableMedia` that names file and cause."""
    try:
        yield
    except UnreadableMedia:
        raise
    except _Refused as error:
        raise _unreadable(name, error) from error
    except MemoryError as error:
        refused = _Refused("too-large", "does not fit in the memory that one photo may take")
        raise _unreadable(name, refused) from error
    except Exception as error:  # decoders raise anything: struct.error, KeyError, RuntimeError …
        reason = "truncated" if _is_truncation(error) else "damaged"
        raise _unreadable(name, _Refused(reason, _wording(error))) from error


def _unreadable(name: str, refused: _Refused) -> UnreadableMedia:
    return UnreadableMedia(f"{name}: {refused}", path=name, reason=refused.reason)


def _recognise(file: BinaryIO, name: str) -> tuple[str, MediaType]:
    head = file.read(HEAD)
    file.seek(0)
    if not head:
        raise _Refused("empty", "is an empty file")
    known = sniff(head, name)
    if known is None:
        raise _Refused("not-media", "is neither a photo nor a video that is known here")
    mime, media_type = known
    if media_type == "photo" and not is_raw(mime) and mime not in FORMATS:
        raise _Refused("unsupported", f"no decoder here reads {mime}")
    return known


def _is_truncation(error: Exception) -> bool:
    return any(word in str(error).lower() for word in ("truncated", "unexpected end", "not enough"))


def _wording(error: Exception) -> str:
    text = (str(error) or type(error).__name__).splitlines()[0]
    if isinstance(error, UnidentifiedImageError):
        return "its header is damaged, or of a kind that no decoder here reads"
    if isinstance(error, rawpy.LibRawError):
        text = getattr(error.args[0], "decode", lambda: str(error))() if error.args else text
        return f"the raw photo cannot be decoded: {text}"
    return f"the picture is truncated: {text}" if _is_truncation(error) else f"is damaged: {text}"


# Photos


Shown = tuple[int, int, list[Image.Image]]
"""Displayed width and height of the original, and the picture in each size wanted."""


def open_header(file: BinaryIO, mime: str) -> ImageFile.ImageFile:
    """A photo of which only the header has been read; not for raw ones."""
    file.seek(0)
    return Image.open(file, formats=FORMATS[mime])


def _photo(file: BinaryIO, mime: str, sides: Sequence[Side], memory: int) -> Shown:
    max_side = sides[0]
    with open_header(file, mime) as header:
        image: Image.Image = header
        stored = image.size
        if max_side and max(stored) > max_side:
            image.draft(None, _fitted(stored, max_side))
        _check_memory(stored, image.size, image.mode, memory)
        image.load()
        if mime == "image/gif":
            image, stored = _on_screen(image, file)
        # Only now: PNG and WebP may hold EXIF after the pixels, and TIFF is turned by `load`.
        orientation = _orientation(image)
        size = _displayed(stored, orientation)
        profile = image.info.get("icc_profile")
        drafts = [_drafted(image, side) if mime == "image/jpeg" else image for side in sides]
        pictures = [
            _rgb(_shrunk(draft, side), profile) for draft, side in zip(drafts, sides, strict=True)
        ]
        return *size, _turned(pictures, orientation)


def _second_try(
    file: BinaryIO, mime: str, sides: Sequence[Side], memory: int, error: Exception
) -> tuple[Shown, str | None]:
    """What can be had of a file that the strict decoder refuses, as a viewer would show it.

    With what is wrong with it. Raises the first error when there is nothing.
    """
    try:
        if isinstance(error, UnidentifiedImageError):
            return _by_ffmpeg(file, sides, memory)
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        return _photo(file, mime, sides, memory), _wording(error)
    except _Refused:
        raise
    except Exception:
        raise error from None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


def _by_ffmpeg(file: BinaryIO, sides: Sequence[Side], memory: int) -> tuple[Shown, str | None]:
    file.seek(0)
    with video.opened(file) as container:
        stream = video.picture_stream(container)
        _check_memory((stream.width, stream.height), (stream.width, stream.height), "RGB", memory)
        frame = video.first_frame(container, stream)
        image = Image.fromarray(video.upright(frame))
    damage = "is damaged: parts of the picture are guessed" if frame.is_corrupt else None
    return (*image.size, [_shrunk(image, side) for side in sides]), damage


def _on_screen(image: Image.Image, file: BinaryIO) -> tuple[Image.Image, tuple[int, int]]:
    """A GIF without what lies beyond its logical screen."""
    file.seek(6)
    screen = struct.unpack("<HH", file.read(4))
    beyond = 0 < screen[0] < image.width or 0 < screen[1] < image.height
    return (image.crop((0, 0, *screen)), screen) if beyond else (image, image.size)


def _check_memory(stored: tuple[int, int], size: tuple[int, int], mode: str, memory: int) -> None:
    needed = size[0] * size[1] * _BYTES_PER_PIXEL.get(mode, 4) / 2**20
    if needed > memory:
        raise _Refused(
            "too-large",
            f"{stored[0]} × {stored[1]} pixels would take {needed:.0f} MB, more than the "
            f"{memory} MB that one picture may",
        )


def _fitted(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    factor = max_side / max(size)
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _shrunk(image: Image.Image, max_side: int | None) -> Image.Image:
    """The picture at most `max_side` long, in a mode with true greys or colours."""
    too_long = max_side is not None and max(image.size) > max_side
    if image.mode in ("1", "P", "PA"):
        if max_side is not None and max(image.size) > 4 * max_side:
            # Converted at full size it would take four times the memory.
            coarse = _fitted(image.size, 4 * max_side)
            image = image.resize(coarse, Image.Resampling.NEAREST)
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode == "I" or image.mode == "F" or image.mode.startswith("I;16"):
        image = _eight_bit(image)
    if not too_long:
        return image
    assert max_side is not None
    size = _fitted(image.size, max_side)
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def _drafted(image: Image.Image, side: Side) -> Image.Image:
    """A JPEG's picture about as its decoder gives it for a side: halved as often as it may be.

    Shrunk in one step from far more pixels it would take longer, and look sharper to a detector.
    """
    if side is None or max(image.size) < 2 * side:
        return image
    wanted = _fitted(image.size, side)
    times = min(image.width // wanted[0], image.height // wanted[1], 8)
    return image.reduce(1 << times.bit_length() - 1)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, 32 bits or floating point as 8 bits, by the range of its kind."""
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        return Image.fromarray((values >> 8).astype(np.uint8))
    finite = np.nan_to_num(values.astype(np.float32), posinf=0.0, neginf=0.0)
    low, high = min(0.0, float(finite.min())), float(finite.max())
    for top in (1.0, 255.0, 65535.0):
        if high <= top and (image.mode == "F" or top > 1):
            high = top
            break
    return Image.fromarray(((finite - low) * (255 / max(high - low, 1e-9))).astype(np.uint8))


def _rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """In sRGB, on white where it is transparent."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, _WHITE)
        image = Image.alpha_composite(ground, image).convert("RGB")
    if profile and (transform := _to_srgb(bytes(profile), image.mode)) is not None:
        return ImageCms.applyTransform(image, transform) or image
    return image if image.mode == "RGB" else image.convert("RGB")


@lru_cache(maxsize=16)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """None: the profile is sRGB already, or is not one for such a picture."""
    try:
        opened = ImageCms.ImageCmsProfile(BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(opened).lower():
            return None
        return ImageCms.buildTransform(opened, _SRGB, mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; 1 where there is none, or none that makes sense.

    HEIF is upright when it comes from its decoder, AVIF's rotation is given as if by EXIF.
    """
    try:
        value: Any = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # EXIF of any brokenness is no reason to lose the photo
        return 1
    return value if value in _UPRIGHT else 1


def _turned(images: list[Image.Image], orientation: int) -> list[Image.Image]:
    """Stored pictures as an EXIF orientation says that they are displayed."""
    if orientation not in _UPRIGHT:
        return images
    return [image.transpose(_UPRIGHT[orientation]) for image in images]


def _displayed(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    return (size[1], size[0]) if orientation in _TURNED else size


# Raw photos


def _raw(file: BinaryIO, sides: Sequence[Side], memory: int) -> Shown:
    """The preview that the camera put in, where it is large enough; else developed at half size."""
    file.seek(0)
    with rawpy.imread(file) as raw:
        size = _raw_size(raw)
        _check_memory(size, size, "I;16", memory)
        max_side, previews = sides[0], _previews(raw, sides, memory)
        if previews and max(previews[0].size) >= min(max_side or max(size), max(size)):
            return *size, previews
        half = max_side is not None and max(size) >= 2 * max_side
        image = Image.fromarray(raw.postprocess(half_size=half, use_camera_wb=True))
    return *size, [_shrunk(image, side) for side in sides]


def _raw_size(raw: Any) -> tuple[int, int]:
    """As the camera crops it, upright."""
    sizes = raw.sizes
    cropped = sizes.crop_width and sizes.crop_height
    size = (sizes.crop_width, sizes.crop_height) if cropped else (sizes.width, sizes.height)
    return _displayed(size, _LIBRAW_FLIPS.get(sizes.flip, 1))


def _previews(raw: Any, sides: Sequence[Side], memory: int) -> list[Image.Image]:
    """[]: there is none."""
    try:
        thumb = raw.extract_thumb()
        if thumb.format != rawpy.ThumbFormat.JPEG:
            return []
        width, height, images = _photo(BytesIO(thumb.data), "image/jpeg", sides, memory)
    except (rawpy.LibRawError, OSError, SyntaxError, ValueError):
        return []
    # Previews lie as the sensor does, upright only where the camera turned them itself.
    sizes, flip = raw.sizes, _LIBRAW_FLIPS.get(raw.sizes.flip, 1)
    as_sensor = (width > height) == (sizes.width > sizes.height)
    return _turned(images, flip) if as_sensor else images
