"""How full the disks are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kaleidoscope.kernel.paths import to_text


@dataclass(frozen=True)
class Space:
    """A disk at this moment. `free` is what an ordinary user may still write."""

    folder: str
    total: int
    used: int
    free: int


def measure(folders: Iterable[Path]) -> list[Space]:
    """The disks on which these folders lie, each once; a folder that is away is left out."""
    found: dict[int, Space] = {}
    for folder in folders:
        try:
            device = os.stat(folder).st_dev  # noqa: PTH116 - bytes that are no UTF-8 stay
            usage = shutil.disk_usage(folder)
        except OSError:
            continue
        space = Space(to_text(folder), usage.total, usage.used, usage.free)
        found.setdefault(device, space)
    return list(found.values())
