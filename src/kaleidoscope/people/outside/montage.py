"""A contact sheet: faces cut from their photos, side by side in one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from kaleidoscope.kernel import paths
from kaleidoscope.kernel.errors import Invalid, KaleidoscopeError
from kaleidoscope.ml.decode import decode

MARGIN = 0.35  # of the face's size, around it
LONGEST_SIDE = 2048  # pixels to which a photo is decoded at most
PAPER, MISSING = "white", "#bbbbbb"


@dataclass(frozen=True)
class Cut:
    """A face to show: its photo and its box x1, y1, x2, y2 in displayed pixels of that photo."""

    path: str
    bbox: Sequence[float]


def contact_sheet(
    cuts: Sequence[Cut], *, side: int = 160, columns: int = 0
) -> tuple[Image.Image, list[str]]:
    """The faces in rows, `side` pixels each, and the photos that cannot be read: crosses."""
    columns = columns or max(1, min(8, math.ceil(math.sqrt(len(cuts)))))
    rows = max(1, math.ceil(len(cuts) / columns))
    sheet = Image.new("RGB", (columns * side, rows * side), PAPER)
    unread: list[str] = []
    for n, cut in enumerate(cuts):
        tile = _tile(cut, side)
        if tile is None:
            unread.append(cut.path)
        corner = (n % columns * side, n // columns * side)
        sheet.paste(tile or _crossed(side), corner)
    return sheet, unread


def save(sheet: Image.Image, path: Path) -> None:
    """Write the sheet in the format that the file's name says."""
    try:
        sheet.save(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Invalid(f"cannot write {path}: {reason}") from error


def _tile(cut: Cut, side: int) -> Image.Image | None:
    try:
        photo = decode(paths.to_bytes(cut.path), max_side=LONGEST_SIDE)
    except KaleidoscopeError:  # gone, or no longer readable
        return None
    scale = photo.image.shape[1] / photo.width
    x1, y1, x2, y2 = (v * scale for v in cut.bbox)
    reach = max(x2 - x1, y2 - y1) * (0.5 + MARGIN)
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    # Beyond the photo's edge Pillow fills with black.
    box = (round(x - reach), round(y - reach), round(x + reach), round(y + reach))
    return ImageOps.fit(Image.fromarray(photo.image).crop(box), (side, side))


def _crossed(side: int) -> Image.Image:
    tile = Image.new("RGB", (side, side), MISSING)
    draw = ImageDraw.Draw(tile)
    draw.line((0, 0, side, side), fill=PAPER, width=2)
    draw.line((0, side, side, 0), fill=PAPER, width=2)
    return tile
