"""Names of faces in the XMP files beside photos: read and written for the room that knows faces."""

from __future__ import annotations

from kaleidoscope.kernel.settings import load
from kaleidoscope.library.rules.regions import Named as NamedRegion
from kaleidoscope.library.rules.regions import pairs as pair_regions
from kaleidoscope.library.settings import LibrarySettings
from kaleidoscope.ml.pool import Pool

__all__ = ["NamedRegion", "names_reader", "names_writer", "pair_regions"]

READ = "kaleidoscope.library.outside.sidecars:read_files"
WRITE = "kaleidoscope.library.outside.sidecars:write_files"


def names_reader() -> Pool:
    """A child process that reads named faces: it takes lists of tasks with a `path`."""
    return _pool(READ)


def names_writer() -> Pool:
    """A child process that writes names beside photos: lists of tasks with `path`, `names`
    (`name`, `x`, `y`, `w`, `h`: centre and size in the displayed image, 0 to 1), `replace` and
    `dry_run`.
    """
    return _pool(WRITE)


def _pool(work: str) -> Pool:
    settings = load(LibrarySettings)
    return Pool(work, size=1, memory=settings.metadata_memory, seconds=settings.metadata_seconds)
