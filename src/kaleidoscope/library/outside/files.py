"""Files as they lie on disk: what stands in the ledger about them, and their SHA-256."""

from __future__ import annotations

import hashlib
import os
import stat
from datetime import UTC, datetime, timedelta

import xxhash

from kaleidoscope.kernel.paths import to_bytes

CHUNK = 1 << 20
SAMPLE = 1 << 16  # bytes at each end of a file that the sample hash covers
# O_NONBLOCK: a file replaced by a FIFO must not hold us up. O_NOFOLLOW: nor a link lead elsewhere.
OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A year from the ends of Python's calendar: every time zone can show them.
FIRST, LAST = datetime(2, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, tzinfo=UTC)


class FileProblem(Exception):
    """A file is not, or no longer, what it was when it was scanned; says why."""


def modified_at(status: os.stat_result) -> datetime:
    """A file's modification time as the ledger keeps it: whole microseconds, rounded down.

    Times that no calendar has (a broken clock wrote them) become the first or last it has.
    """
    return moment(status.st_mtime_ns)


def moment(mtime_ns: int) -> datetime:
    """The same of a time in nanoseconds."""
    try:
        time = EPOCH + timedelta(microseconds=mtime_ns // 1000)
    except OverflowError:
        return LAST if mtime_ns > 0 else FIRST
    return min(max(time, FIRST), LAST)


def ends_of(descriptor: int, size: int) -> tuple[bytes, bytes] | None:
    """The first and last bytes of a file of this size that `sample_hash` is made of; None: it has
    become shorter. To be called before anything else is read from the descriptor.
    """
    first = os.read(descriptor, SAMPLE)
    rest = min(SAMPLE, size - len(first))
    last = os.pread(descriptor, rest, size - rest) if rest > 0 else b""
    return None if len(last) < rest else (first, last)


def sample_hash(first: bytes, last: bytes, size: int) -> str:
    """A fast hash by which possible duplicates are found: XXH64 in hexadecimal.

    Over the first 64 KiB, the last 64 KiB (of a file shorter than both together: the rest), and
    the size in bytes as 8 bytes, little-endian.
    """
    digest = xxhash.xxh64(first)
    digest.update(last)
    digest.update(size.to_bytes(8, "little"))
    return digest.hexdigest()


def hash_file(path: str, size: int, modified: datetime | None) -> str:
    """SHA-256, hexadecimal, of a file that still has this size and modification time.

    `path` is spelled by `kernel.paths.to_text`; `modified` None stands for any. Raises
    `FileProblem` for a file that is gone, unreadable, no plain file, or changed before or while
    it was read.
    """
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for somebody to write into it.
        descriptor = os.open(to_bytes(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _check(os.fstat(descriptor), size, modified)
            digest = _digest(descriptor)
            _check(os.fstat(descriptor), size, modified)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise FileProblem("the file is gone") from None
    except OSError as error:
        raise FileProblem(f"the file cannot be read: {error.strerror or error}") from None
    return digest


def _digest(descriptor: int) -> str:
    digest = hashlib.sha256()
    while chunk := os.read(descriptor, CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _check(found: os.stat_result, size: int, modified: datetime | None) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise FileProblem("it is no plain file any more")
    if found.st_size != size or (modified is not None and modified_at(found) != modified):
        raise FileProblem("the file has changed since it was scanned")
