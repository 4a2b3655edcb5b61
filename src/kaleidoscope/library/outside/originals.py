"""Originals on their way to the backup and back: read with their hash, put in place whole."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from kaleidoscope.kernel.paths import to_bytes, to_text
from kaleidoscope.kernel.store import Store, StoreProblem, sync_folder
from kaleidoscope.library.outside.files import CHUNK, EPOCH, FileProblem


class Unwritable(FileProblem):
    """Nothing can be written where a file shall lie."""

    @staticmethod
    def of(error: OSError) -> Unwritable:
        """In the words of the system."""
        return Unwritable(f"it cannot be written: {error.strerror or error}")


_DAMAGED = re.compile(rb"\.damaged-\d{8}-\d{6}$")


def is_damaged_one(path: bytes) -> bool:
    """Whether a file is the damaged one that healing has kept beside an original."""
    return _DAMAGED.search(path) is not None


def read_checked(path: str, file_hash: str) -> Iterator[bytes]:
    """A file piece by piece; raises `FileProblem` at the end when it was not that content."""
    digest = hashlib.sha256()
    try:
        descriptor = os.open(to_bytes(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise FileProblem("it is no plain file any more")
            while piece := os.read(descriptor, CHUNK):
                digest.update(piece)
                yield piece
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise FileProblem("the file is gone") from None
    except OSError as error:
        raise FileProblem(f"the file cannot be read: {error.strerror or error}") from None
    if digest.hexdigest() != file_hash:
        raise FileProblem("its content is not what was taken in (SHA-256)")


def hash_of(pieces: Iterable[bytes]) -> str:
    """SHA-256 of what comes, hexadecimal."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def content_hash(path: str) -> str:
    """SHA-256 of a file as it lies on the disk, not in memory; raises `OSError`."""
    digest = hashlib.sha256()
    descriptor = os.open(to_bytes(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with suppress(OSError, AttributeError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        while piece := os.read(descriptor, CHUNK):
            digest.update(piece)
    finally:
        os.close(descriptor)
    return digest.hexdigest()


def fetch(
    store: Store, location: str, path: str, file_hash: str, modified_at: datetime | None
) -> None:
    """Put the copy of a content where no file is; nobody sees it before it is whole and right.

    Raises `FileProblem`: the copy is gone or damaged, or the file cannot be written.
    """
    target = _path(path)
    draft = _write_checked(store, location, target, file_hash, modified_at)
    try:
        _name(draft, target)
        sync_folder(target.parent)
    except OSError as error:
        _drop(draft)
        raise Unwritable.of(error) from None
    except FileProblem:
        _drop(draft)
        raise


def _name(draft: Path, target: Path) -> None:
    try:
        target.hardlink_to(draft)
        draft.unlink()
    except FileExistsError:
        raise FileProblem("another file lies there") from None
    except OSError:  # a file system without links
        if os.path.lexists(target):
            raise FileProblem("another file lies there") from None
        draft.rename(target)


def bring(
    store: Store, location: str, path: str, file_hash: str, modified_at: datetime | None
) -> Path:
    """The copy of a content beside where it shall be, whole and on the disk: for `swap_in`."""
    return _write_checked(store, location, _path(path), file_hash, modified_at)


def swap_in(draft: Path, path: str) -> str | None:
    """Put what `bring` has brought in place of a damaged file, which is kept beside it.

    Answers where that lies now; None: there was none.
    """
    target = _path(path)
    aside = None
    if os.path.lexists(target):
        aside = target.with_name(f"{target.name}.damaged-{datetime.now(UTC):%Y%m%d-%H%M%S}")
        try:
            aside.hardlink_to(target)  # at every moment one of the two has the name
        except OSError:  # a file system without links, or a disk that gives way
            target.rename(aside)
    try:
        draft.replace(target)
    except OSError:
        _put_back(aside, target)
        raise
    sync_folder(target.parent)
    return None if aside is None else to_text(aside)


def _put_back(aside: Path | None, target: Path) -> None:
    """Where nothing came in its place, a damaged file has its name, and that alone."""
    if aside is not None:
        with suppress(OSError):
            if os.path.lexists(target):
                aside.unlink()
            else:
                aside.rename(target)


def _drop(draft: Path) -> None:
    with suppress(OSError):  # where nothing can be written, nothing can be removed either
        draft.unlink(missing_ok=True)


def _path(path: str) -> Path:
    return Path(os.fsdecode(to_bytes(path)))


def _write_checked(
    store: Store, location: str, target: Path, file_hash: str, modified_at: datetime | None
) -> Path:
    """The copy beside where it shall be, on the disk, with its hash and its time."""
    draft = target.with_name(f".{file_hash[:16]}.healing")
    digest = hashlib.sha256()
    try:
        draft.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            for piece in store.read(location):
                digest.update(piece)
                file.write(piece)
            file.flush()
            if modified_at is not None:
                nanoseconds = (modified_at - EPOCH) // timedelta(microseconds=1) * 1000
                os.utime(file.fileno(), ns=(nanoseconds, nanoseconds))
            os.fsync(file.fileno())
    except FileNotFoundError:
        _drop(draft)
        raise FileProblem("its copy is gone from the backup") from None
    except OSError as error:
        _drop(draft)
        raise Unwritable.of(error) from None
    except StoreProblem:
        _drop(draft)
        raise
    if digest.hexdigest() != file_hash:
        _drop(draft)
        raise FileProblem("its copy in the backup is damaged, too")
    return draft
