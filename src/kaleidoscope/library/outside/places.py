"""Places as the system shows them: are they there, on which device, what is mounted below."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from kaleidoscope.kernel.paths import is_inside, to_bytes, to_text
from kaleidoscope.library.outside.files import OPEN, ends_of, modified_at, sample_hash
from kaleidoscope.library.rules.places import Seen

MOUNTS = Path("/proc/self/mountinfo")
BY_UUID = Path("/dev/disk/by-uuid")
GONE = (errno.ENOENT, errno.ENOTDIR)

FileState = Literal["there", "gone", "unknown"]


def look_at(path: str) -> Seen:
    """A place, and whether anything is in it."""
    raw = to_bytes(path)
    try:
        with os.scandir(raw) as entries:
            is_empty = next(entries, None) is None
    except OSError as error:
        if error.errno in GONE:
            return Seen(exists=False)
        return Seen(exists=True, trouble=error.strerror or str(error))
    return Seen(exists=True, is_empty=is_empty, device=device_of(raw))


def device_of(path: bytes) -> str | None:
    """The file system that a path lies on: "TYPE IDENTITY at MOUNT POINT".

    The identity is its UUID, or what a share is called; empty where it has none that would outlast
    a restart. None where the system tells nothing of mounts.
    """
    real = os.path.realpath(path)
    holding = [mount for mount in _mounts() if is_inside(real, mount[0])]
    if not holding:
        return None
    point, kind, source = max(holding, key=lambda mount: len(mount[0]))
    name = _uuid(source) if source.startswith("/dev/") else source if ":" in source else ""
    return f"{kind} {name} at {to_text(point)}"


def overlap(one: bytes, other: bytes) -> bool:
    """Whether one folder is, holds, or lies in the other, by whatever path: also where one of them,
    or a folder in it, is mounted a second time (a bind mount)."""
    ours, theirs = os.path.realpath(one), os.path.realpath(other)
    if is_inside(ours, theirs) or is_inside(theirs, ours):
        return True
    if _is_on_the_way(ours, theirs) or _is_on_the_way(theirs, ours):
        return True
    mounts = _roots()
    return any(
        device == device_too and (is_inside(path, path_too) or is_inside(path_too, path))
        for device, path in _lies(ours, mounts)
        for device_too, path_too in _lies(theirs, mounts)
    )


def _is_on_the_way(folder: bytes, path: bytes) -> bool:
    """Whether a folder is the very one, by device and inode, that a path leads to or through."""
    try:
        wanted = os.stat(folder)
    except OSError:
        return False
    while path != b"/":
        try:
            found = os.stat(path)
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
        except OSError:
            pass
        path = os.path.dirname(path)
    return False


@dataclass(frozen=True)
class _Root:
    """A mount: its device, which folder of it is mounted, and where."""

    device: bytes
    folder: bytes
    point: bytes


def _lies(path: bytes, mounts: Sequence[_Root]) -> list[tuple[bytes, bytes]]:
    """Where a folder's files lie: device and path on it; so for all that is mounted below it."""
    found = [(m.device, m.folder) for m in mounts if m.point != path and is_inside(m.point, path)]
    holding = [m for m in mounts if is_inside(path, m.point)]
    if holding:
        mount = max(holding, key=lambda m: len(m.point))
        rest = path[len(mount.point.rstrip(b"/")) :]
        found.append((mount.device, (mount.folder.rstrip(b"/") + rest) or b"/"))
    return found


def mounts_below(path: str) -> list[str]:
    """The mount points below a place, without itself."""
    raw = os.path.realpath(to_bytes(path))
    return sorted({to_text(p) for p, _, _ in _mounts() if p != raw and is_inside(p, raw)})


def state_of_files(paths: Sequence[str]) -> list[FileState]:
    """Of each file whether it is there; `unknown` where the system does not say."""
    return [_state(path) for path in paths]


def _state(path: str) -> FileState:
    try:
        os.stat(to_bytes(path))
    except OSError as error:
        return "gone" if error.errno in GONE else "unknown"
    return "there"


@dataclass(frozen=True)
class Lying:
    """A file on the disk; its size in bytes."""

    path: str
    size: int
    modified_at: datetime


def files_below(
    root: bytes,
    sizes: Collection[int],
    passed_over: Collection[str],
    without: Collection[Path],
) -> Iterator[Lying]:
    """The plain files of these sizes below a folder, links not followed; hidden ones are left out.

    `passed_over` are names of folders, `without` their paths.
    """
    names = {os.fsencode(name) for name in passed_over}
    paths = {os.path.realpath(os.fsencode(folder)) for folder in without}
    folders = [root]
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name.startswith(b".") or entry.is_symlink():
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in names and os.path.realpath(entry.path) not in paths:
                        folders.append(entry.path)
                    continue
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode) and status.st_size in sizes:
                        yield Lying(to_text(entry.path), status.st_size, modified_at(status))


def sample_of(file: Lying) -> str | None:
    """The sample hash of a file; None: it cannot be read."""
    try:
        descriptor = os.open(to_bytes(file.path), OPEN)
        try:
            ends = ends_of(descriptor, file.size)
        finally:
            os.close(descriptor)
    except OSError:
        return None
    return None if ends is None else sample_hash(*ends, file.size)


def _mounts() -> list[tuple[bytes, str, str]]:
    """Mount point, type and source of everything that is mounted; the last one of a point wins."""
    found = {}
    for line in _lines():
        before, _, after = line.partition(b" - ")
        point = _unescaped(before.split(b" ")[4])
        kind, source = after.split(b" ")[:2]
        found[point] = (os.fsdecode(kind), os.fsdecode(_unescaped(source)))
    return [(point, kind, source) for point, (kind, source) in found.items()]


def _roots() -> list[_Root]:
    found = {}
    for line in _lines():
        device, folder, point = line.split(b" ")[2:5]
        found[point] = _Root(device, _unescaped(folder), _unescaped(point))
    return list(found.values())


def _lines() -> list[bytes]:
    try:
        return MOUNTS.read_bytes().splitlines()
    except OSError:
        return []


def _unescaped(word: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m.group(1), 8)]), word)


def _uuid(source: str) -> str:
    device = os.path.realpath(source)
    try:
        for link in BY_UUID.iterdir():
            if os.path.realpath(link) == device:
                return f"UUID={link.name}"
    except OSError:
        pass
    return ""
