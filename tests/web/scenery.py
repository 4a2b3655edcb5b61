"""Made-up landscapes: photographs for the page that show nobody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SKIES = [
    ((255, 214, 165), (87, 117, 180)),
    ((253, 187, 132), (126, 87, 148)),
    ((214, 234, 248), (66, 133, 182)),
    ((255, 236, 210), (205, 116, 120)),
    ((198, 224, 214), (52, 98, 120)),
    ((36, 48, 86), (12, 18, 42)),
]
LAND = [(58, 96, 84), (92, 88, 120), (120, 92, 74), (46, 72, 104), (112, 122, 70), (28, 34, 60)]


def landscape(number: int, size: tuple[int, int] = (1200, 900)) -> Image.Image:
    """Sky, sun and hills; another one for each number."""
    dice = np.random.default_rng(number)
    width, height = size
    low, high = SKIES[number % len(SKIES)]
    ramp = np.linspace(0, 1, height)[:, None, None] ** 0.8
    sky = np.array(high) * (1 - ramp) + np.array(low) * ramp
    picture = Image.fromarray(np.repeat(sky, width, axis=1).astype(np.uint8), "RGB")
    sun = ImageDraw.Draw(picture)
    x, y = dice.integers(width // 5, width * 4 // 5), dice.integers(height // 5, height // 2)
    radius = int(dice.integers(width // 22, width // 12))
    sun.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 246, 222))
    picture = picture.filter(ImageFilter.GaussianBlur(2))
    ground = np.array(LAND[(number * 5 + number // 6) % len(LAND)])
    for layer in range(5):
        draw = ImageDraw.Draw(picture)
        base = height * (0.48 + 0.11 * layer)
        waves = [
            (dice.uniform(0.6, 3), dice.uniform(0, 6.3), dice.uniform(8, 60)) for _ in range(4)
        ]
        across = np.linspace(0, 6.3, 120)
        ridge = base + sum(np.sin(across * f + p) * a / (1 + 0.2 * layer) for f, p, a in waves)
        haze = 1 - 0.2 * layer
        colour = tuple((ground * (1 - 0.55 * haze) + np.array(low) * 0.55 * haze).astype(int))
        points = [(int(i * width / 119), int(v)) for i, v in enumerate(ridge)]
        draw.polygon([*points, (width, height), (0, height)], fill=colour)
    return picture


def lay(folder: Path, count: int, *, size: tuple[int, int] = (1200, 900)) -> Path:
    """A folder with so many of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        landscape(number, size).save(folder / f"IMG_{4200 + number}.jpg", quality=88)
    return folder
