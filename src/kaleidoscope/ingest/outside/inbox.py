"""Looking through an inbox: what lies in it, and what of it can never be filed.

The walk works on bytes and follows no link. Nothing that it meets ends it.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import stat
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from watchfiles import awatch

from kaleidoscope.ingest.outside.scan import KINDS, MIME_BY_EXTENSION, Trouble
from kaleidoscope.ingest.settings import VIDEOS, InboxSettings, IngestSettings
from kaleidoscope.kernel.paths import to_text
from kaleidoscope.library.service import Candidate, Identity, remove_empty

STEP = 200  # milliseconds in which changes are gathered


@dataclass
class Contents:
    """What lies in an inbox: files, and what is none, each with its cause."""

    files: list[Candidate] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)


class Eye:
    """What the settings let the librarian see."""

    def __init__(self, settings: InboxSettings, ingest: IngestSettings) -> None:
        patterns = [fnmatch.translate(pattern) for pattern in settings.ignore]
        self._ignored = re.compile("|".join(patterns) or r"(?!)", re.IGNORECASE)
        self._skipped = frozenset(map(os.fsencode, ingest.skip_folders))
        self._extensions = frozenset(ingest.extensions)

    def look(self, root: bytes) -> Contents:
        """Everything in an inbox. Raises `OSError` where the inbox itself cannot be read."""
        os.scandir(root).close()
        found, folders = Contents(), [root]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if not self.is_ignored(entry.name):
                            self._sort_in(entry, found, folders)
            except OSError as error:
                found.troubles.append(_trouble(folder, error, "folder"))
        return found

    def is_ignored(self, name: bytes) -> bool:
        """Whether a name is passed over: what is not finished yet, what others keep for them."""
        return name in self._skipped or bool(self._ignored.match(os.fsdecode(name)))

    def _sort_in(self, entry: os.DirEntry[bytes], found: Contents, folders: list[bytes]) -> None:
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.ENOENT:
                found.troubles.append(_trouble(entry.path, error, "file"))
            return
        if stat.S_ISDIR(status.st_mode):
            folders.append(entry.path)
        elif stat.S_ISREG(status.st_mode):
            found.files.append(self._candidate(entry, status))
        else:
            kind = KINDS.get(stat.S_IFMT(status.st_mode), "no file")
            cause = f"it is {kind}, not a file: only files are filed"
            found.troubles.append(Trouble(to_text(entry.path), "special-file", cause))

    def _candidate(self, entry: os.DirEntry[bytes], status: os.stat_result) -> Candidate:
        extension = _extension(entry.name)
        identity = Identity.of(status)
        if extension not in self._extensions:
            return Candidate(to_text(entry.path), identity)
        mime = MIME_BY_EXTENSION.get(extension)
        kind = "video" if extension in VIDEOS else "photo"
        return Candidate(to_text(entry.path), identity, mime, kind)  # type: ignore[arg-type]


async def changes(inboxes: Sequence[bytes]) -> AsyncIterator[None]:
    """A sign whenever something has changed in one of these folders.

    What has changed is not told: whoever hears it looks at everything, so that a queue that has
    run over loses nothing. Raises whatever the system's own watching raises.
    """
    folders = [os.fsdecode(inbox) for inbox in inboxes]
    async for _ in awatch(
        *folders, watch_filter=None, step=STEP, debounce=5 * STEP, ignore_permission_denied=True
    ):
        yield


def tidy(folder: bytes, root: bytes) -> None:
    """Remove a folder that has been emptied, and those above it, up to the inbox itself."""
    while folder.startswith(root.rstrip(b"/") + b"/") and remove_empty(folder):
        folder = os.path.dirname(folder)


def _extension(name: bytes) -> str:
    stem, dot, extension = name.rpartition(b".")
    return extension.strip().lower().decode("ascii", "replace") if dot and stem else ""


def _trouble(path: bytes, error: OSError, kind: str) -> Trouble:
    code = "path-too-long" if error.errno == errno.ENAMETOOLONG else f"unreadable-{kind}"
    return Trouble(to_text(path), code, f"the {kind} cannot be read: {error.strerror or error}")
