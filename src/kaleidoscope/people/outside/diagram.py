"""A reliability diagram, as SVG: what was stated, and how often it was right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kaleidoscope.people.rules.calibration import Bin

SIDE, MARGIN = 400, 60


def save(bins: Sequence[Bin], error: float, title: str, out: Path) -> None:
    """Write the diagram; the area of a dot is the share of matches, the line what it should be."""
    most = max(b.count for b in bins)
    end = MARGIN + SIDE
    ticks = "".join(
        f'<text x="{_x(v)}" y="{end + 20}" text-anchor="middle">{v:.1f}</text>'
        f'<text x="{MARGIN - 8}" y="{_y(v) + 4}" text-anchor="end">{v:.1f}</text>'
        f'<path d="M{_x(v)} {end}V{MARGIN}M{MARGIN} {_y(v)}H{end}" stroke="#ddd"/>'
        for v in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    )
    dots = "".join(
        f'<circle cx="{_x(b.stated)}" cy="{_y(b.right)}" r="{4 + 12 * (b.count / most) ** 0.5:.1f}"'
        f' fill="#2563eb" fill-opacity=".6"><title>{b.count} faces</title></circle>'
        for b in bins
    )
    middle = MARGIN + SIDE / 2
    out.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {end + 20} {end + 50}"'
        ' font-family="sans-serif" font-size="13">'
        f'<rect width="100%" height="100%" fill="#fff"/>{ticks}'
        f'<path d="M{MARGIN} {end}L{end} {MARGIN}" stroke="#888" stroke-dasharray="5"/>{dots}'
        f'<text x="{middle}" y="{MARGIN - 30}" text-anchor="middle">{title}</text>'
        f'<text x="{middle}" y="{MARGIN - 12}" text-anchor="middle">expected calibration error'
        f" {error:.3f}</text>"
        f'<text x="{middle}" y="{end + 40}" text-anchor="middle">probability stated</text>'
        f'<text transform="translate(16 {middle}) rotate(-90)" text-anchor="middle">'
        "share that was right</text></svg>\n",
        encoding="utf-8",
    )


def _x(value: float) -> float:
    return round(MARGIN + SIDE * value, 1)


def _y(value: float) -> float:
    return round(MARGIN + SIDE * (1 - value), 1)
