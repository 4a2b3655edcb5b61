"""Real, odd and broken files: what is readable comes out in its displayed size, the rest with its
cause. In child processes as in the product, so that nothing in the folder may end this one.
"""

from __future__ import annotations

import asyncio
import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from manifest import MANIFEST_ERRS

from kaleidoscope.kernel import paths
from kaleidoscope.kernel.errors import UnreadableMedia
from kaleidoscope.ml.pool import Crashed, Pool

HERE = str(Path(__file__).parent)
SIDE = 1024


@dataclass(frozen=True)
class Row:
    path: str
    readable: str
    size: tuple[int, int] | None


def look(task: dict[str, Any]) -> dict[str, Any]:
    """In a child: displayed size and damage of a photo or a video."""
    from kaleidoscope.ml import video
    from kaleidoscope.ml.decode import decode
    from kaleidoscope.ml.sniff import HEAD, sniff

    path = Path(task["path"])
    with path.open("rb") as file:
        known = sniff(file.read(HEAD), path.name)
    if known and known[1] == "video":
        info = video.read(path)
        return {"size": [info.width, info.height], "damage": None}
    decoded = decode(path, max_side=SIDE)
    assert max(decoded.image.shape[:2]) <= SIDE
    assert decoded.image.shape[2] == 3
    return {"size": [decoded.width, decoded.height], "damage": decoded.damage}


def rows(media: Path) -> list[Row]:
    with (media / "manifest.csv").open(encoding="utf-8") as file:
        return [
            Row(r["path"], r["readable"], _size(r["width"], r["height"]))
            for r in csv.DictReader(file)
            if r["kind"] not in ("sidecar", "clutter", "audio") and r["readable"]
        ]


def _size(width: str, height: str) -> tuple[int, int] | None:
    return (int(width), int(height)) if width and height else None


async def test_the_whole_corpus(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    media = shared / "media"
    monkeypatch.setenv("PYTHONPATH", HERE)
    found = rows(media)
    async with Pool("test_corpus:look", seconds=240) as pool:
        verdicts = await asyncio.gather(*(_verdict(pool, media, row) for row in found))
        assert pool.crashes == 0
    wrong = [v for v in verdicts if v is not None]
    for line in wrong:
        print(line)
    judged = [row for row in found if row.readable in ("yes", "no")]
    unexplained = [line for line in wrong if line.partition(":")[0] not in MANIFEST_ERRS]
    print(f"{len(judged)} files, {len(wrong)} disagree, of those {len(unexplained)} by our fault")
    assert len(unexplained) <= 0.01 * len(judged)


async def _verdict(pool: Pool, media: Path, row: Row) -> str | None:
    """None when it is as the manifest says, else in what it is not."""
    try:
        seen = await pool.run({"path": str(media / row.path)}, name=row.path)
    except (UnreadableMedia, Crashed) as error:
        assert paths.to_text(row.path) in error.message
        return f"{row.path}: {error.message}" if row.readable == "yes" else None
    if row.readable == "no":
        return f"{row.path}: is not readable, and was read as {seen['size']}"
    if row.readable == "yes" and row.size and tuple(seen["size"]) != row.size:
        return f"{row.path}: is {row.size}, was taken for {seen['size']}"
    return None
