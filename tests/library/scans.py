"""A file as a scan sees it, and the kinds of fixtures that deal with them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import xxhash

from kaleidoscope.kernel.paths import to_text
from kaleidoscope.library import service as library
from kaleidoscope.library.service import Registered, ScannedFile

Write = Callable[..., ScannedFile]
Register = Callable[[Sequence[ScannedFile]], Awaitable[list[Registered]]]
Published = Callable[[], Awaitable[list[dict[str, Any]]]]
Ledger = Callable[[], Awaitable[dict[str, Any]]]


def scan(path: Path, kind: str = "photo") -> ScannedFile:
    status = path.stat()
    with path.open("rb") as file:
        sample = xxhash.xxh64(file.read(65536)).hexdigest()
    return ScannedFile(
        path=to_text(path),
        size=status.st_size,
        modified_at=library.modified_at(status),
        sample_hash=sample,
        media_type=kind,  # type: ignore[arg-type]
        mime_type="image/jpeg" if kind == "photo" else "video/mp4",
    )
