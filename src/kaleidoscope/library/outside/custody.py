"""The disk's part of custody: a file is laid down where it shall lie, and only then its old name
goes.

Nothing here overwrites or alters a file's content, and nothing is removed but a name whose file has
just been seen to be the very one that was hashed. Every step may be done again after a kill.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import signal
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from kaleidoscope.kernel.paths import to_bytes
from kaleidoscope.library.outside.files import CHUNK, OPEN
from kaleidoscope.library.rules.custody import numbered, stem_length

Trouble = Literal["vanished", "changed", "busy", "taken", "unreadable", "target", "refused"]
"""`target`: nothing can be laid down there now; `refused`: not this one."""

ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
THREADS = 4  # a disk takes several fsyncs at a time
PERMISSIONS = 0o666  # a photo is no program: what else is set is taken away
NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS)
# What a filesystem says to a name or size that it cannot have, and to one below a file.
NO_NAME = (errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG, errno.EFBIG)
NOT_THIS_ONE = (*NO_NAME, errno.ENOTDIR, errno.EEXIST)
FORBIDDEN = (errno.EACCES, errno.EPERM)
# What an fsync answers where a filesystem has none.
NO_FSYNC = (errno.EINVAL, errno.EBADF, errno.ENOTSUP)
_RENAME_NOREPLACE = 1
_AT_FDCWD = -100


class Setback(Exception):
    """A file could not be laid down or released; its source stays. `kind` for decisions."""

    def __init__(self, kind: Trouble, cause: str) -> None:
        super().__init__(cause)
        self.kind = kind
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Identity:
    """Which file a name means, and the state it was in."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @staticmethod
    def of(status: os.stat_result) -> Identity:
        """The identity that a status tells."""
        return Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    @staticmethod
    def parse(text: str) -> Identity:
        """What `str` has spelled."""
        return Identity(*map(int, text.split(":")))

    def __str__(self) -> str:
        return f"{self.device}:{self.inode}:{self.size}:{self.mtime_ns}"

    def is_same_file(self, other: Identity) -> bool:
        """Whether both are one file on disk, in whatever state."""
        return (self.device, self.inode) == (other.device, other.inode)


@dataclass(frozen=True)
class Order:
    """A file to be laid down. Paths are spelled by `kernel.paths.to_text`.

    `identity` is what `source` was when it was hashed. `copy`: other names share its content, so
    that a link would leave the original open to whoever writes through them.
    """

    move_id: int
    source: str
    identity: Identity
    file_hash: str
    target: str
    copy: bool = False


@dataclass(frozen=True)
class Placed:
    """A file that lies safely under its new name as well. `identity` is that of the new name."""

    move_id: int
    identity: Identity
    how: Literal["link", "copy"]


@dataclass(frozen=True)
class Release:
    """A name to be removed. `kept` lies at `target` (None: the content lies at `first`)."""

    move_id: int
    source: str
    identity: Identity
    file_hash: str
    target: str | None
    kept: Identity | None
    first: str | None = None


def look(path: str) -> Identity | None:
    """Which file lies at a path, links not followed; None where there is no plain file."""
    try:
        status = os.lstat(to_bytes(path))
    except OSError:
        return None
    return Identity.of(status) if stat.S_ISREG(status.st_mode) else None


def is_free(path: str) -> bool:
    """Whether a name is free. One that cannot be asked for is free: laying it down tells why."""
    return not os.path.lexists(to_bytes(path))


def room(path: str) -> int | None:
    """Bytes free where a path lies or will lie; None where nothing can be said."""
    with suppress(OSError):
        status = os.statvfs(_existing(to_bytes(path)))
        return status.f_bavail * status.f_frsize
    return None


def device(path: str) -> int | None:
    """The device that a path lies on or will lie on."""
    with suppress(OSError):
        return os.stat(_existing(to_bytes(path))).st_dev
    return None


# -- laying down


def place(orders: Sequence[Order], root: str) -> list[Placed | Setback]:
    """Lay files down: each written to the disk, then its new name, then every folder above it.

    `root` is the folder up to which new folders are made safe as well. An answer for each order; a
    folder that cannot be written to the disk takes the files in it along.
    """
    answers: list[Placed | Setback] = []
    with ThreadPoolExecutor(THREADS, thread_name_prefix="custody") as threads:
        answers = list(threads.map(lambda order: _guarded(order, root), orders))
        placed = [o for o, a in zip(orders, answers, strict=True) if isinstance(a, Placed)]
        folders = _folders([to_bytes(o.target) for o in placed], to_bytes(root))
        failed = {f: e for f, e in zip(folders, threads.map(_sync, folders), strict=True) if e}
    if not failed:
        return answers
    return [
        _unsafe(o, a, failed) or a if isinstance(a, Placed) else a
        for o, a in zip(orders, answers, strict=True)
    ]


def _guarded(order: Order, root: str) -> Placed | Setback:
    try:
        return _place(order)
    except Setback as setback:
        # Replaced or removed by its owner after an earlier try: what that one laid down is kept.
        gone = setback.kind in ("vanished", "changed")
        return (gone and _adopt(order, to_bytes(order.target))) or setback
    except OSError as error:
        return Setback(_kind(error, root), f"{order.target}: {error.strerror or error}")


def _kind(error: OSError, root: str) -> Trouble:
    """Whether the next file will be met by this error as well."""
    # A folder that is not ours, in a tree that is: the files of other days can be laid down.
    is_one_folder = error.errno in FORBIDDEN and os.access(to_bytes(root), os.W_OK | os.X_OK)
    return "refused" if is_one_folder or error.errno in NOT_THIS_ONE else "target"


def _place(order: Order) -> Placed:
    target = to_bytes(order.target)
    try:
        source = os.open(to_bytes(order.source), OPEN)
    except OSError as error:
        raise _refused(error) from None
    try:
        _check(os.fstat(source), order.identity)
        if is_written(source):
            raise Setback("busy", "another program has it open for writing")
        _restrict(source)
        _fsync(source)
        _check(os.fstat(source), order.identity)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if not order.copy:
            with suppress(_NoLink):
                return _link(order, source, target)
        return _copy(order, source, target)
    finally:
        os.close(source)


class _NoLink(Exception):
    """The filesystem cannot link from here to there."""


def _link(order: Order, source: int, target: bytes) -> Placed:
    """The very file that is open gets its new name, whatever its old one means by now."""
    try:
        _name_open_file(source, target)
    except FileExistsError:
        found = look(order.target)
        if found is None or not found.is_same_file(order.identity):
            kept = _adopt(order, target)
            if kept:
                return kept
            raise Setback("taken", f"{order.target} is there already") from None
    except OSError as error:
        if error.errno in NO_LINK:
            raise _NoLink from None
        if error.errno == errno.ENOENT:
            raise Setback("vanished", "the file is gone") from None
        raise
    return Placed(order.move_id, order.identity, "link")


def _name_open_file(source: int, target: bytes) -> None:
    proc = f"/proc/self/fd/{source}"
    if os.path.exists(proc):
        here = os.open(b"/", ROOT)  # given a folder, Python asks for links to be followed
        try:
            os.link(proc, target, src_dir_fd=here, follow_symlinks=True)
        finally:
            os.close(here)
    else:
        raise OSError(errno.ENOSYS, "no /proc")


def _copy(order: Order, source: int, target: bytes) -> Placed:
    """A copy under a name of its own, on the disk and read again from there, then its name."""
    if os.path.lexists(target):
        kept = _adopt(order, target)
        if kept:
            return kept
        raise Setback("taken", f"{order.target} is there already")
    draft = os.path.join(os.path.dirname(target), draft_name(order.move_id))
    with suppress(FileNotFoundError):
        os.unlink(draft)  # of this very move, before it was killed
    try:
        identity = _write_copy(order, source, draft)
        _name(draft, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(draft)
        raise
    with suppress(FileNotFoundError):
        os.unlink(draft)
    return Placed(order.move_id, identity, "copy")


def _write_copy(order: Order, source: int, draft: bytes) -> Identity:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    status = os.fstat(source)
    out = os.open(draft, flags, 0o600)
    try:
        os.lseek(source, 0, os.SEEK_SET)
        while chunk := os.read(source, CHUNK):
            _write(out, chunk)
        _check(os.fstat(source), order.identity)
        with suppress(OSError):  # a filesystem without permissions
            os.fchmod(out, stat.S_IMODE(status.st_mode) & PERMISSIONS | stat.S_IRUSR)
        os.utime(out, ns=(status.st_atime_ns, status.st_mtime_ns))
        _fsync(out)
        if hash_open(out, cold=True) != order.file_hash:
            raise Setback("target", f"the copy at {order.target} is not what was written")
        return Identity.of(os.fstat(out))
    finally:
        os.close(out)


def _write(out: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(out, view) :]


def _name(draft: bytes, target: bytes) -> None:
    """Give a finished copy its name, unless that is taken."""
    try:
        os.link(draft, target)
    except FileExistsError:
        raise Setback("taken", f"{os.fsdecode(target)!a} is there already") from None
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        _rename_no_replace(draft, target)


def _rename_no_replace(draft: bytes, target: bytes) -> None:
    """For filesystems without links (FAT, some shares)."""
    libc = ctypes.CDLL(None, use_errno=True)
    rename = getattr(libc, "renameat2", None)
    if rename is not None:
        if not rename(_AT_FDCWD, draft, _AT_FDCWD, target, _RENAME_NOREPLACE):
            return
        number = ctypes.get_errno()
        if number == errno.EEXIST:
            raise Setback("taken", f"{os.fsdecode(target)!a} is there already")
        if number not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(number, os.strerror(number))
    # Neither: claim the name, then put the copy over the empty claim, which is ours.
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise Setback("taken", f"{os.fsdecode(target)!a} is there already") from None
    os.rename(draft, target)


def _adopt(order: Order, target: bytes) -> Placed | None:
    """What lies at the target, where it is this very content: an earlier try laid it down."""
    try:
        found = os.open(target, OPEN)
    except OSError:
        return None
    try:
        status = os.fstat(found)
        if not stat.S_ISREG(status.st_mode) or status.st_size != order.identity.size:
            return None
        _fsync(found)
        if hash_open(found, cold=False) != order.file_hash:
            return None
        identity = Identity.of(os.fstat(found))
    finally:
        os.close(found)
    discard(order.move_id, order.target)  # it may have been killed right before
    how: Literal["link", "copy"] = "link" if identity.is_same_file(order.identity) else "copy"
    return Placed(order.move_id, identity, how)


def draft_name(move_id: int) -> bytes:
    """What a copy is called until it is whole."""
    return b".kaleidoscope-%d.part" % move_id


def discard(move_id: int, target: str) -> None:
    """Remove what a given-up move may have left half done: a copy without its name."""
    with suppress(OSError):
        os.unlink(os.path.join(os.path.dirname(to_bytes(target)), draft_name(move_id)))


def take_back(order: Order, placed: Identity | None) -> None:
    """Undo what was laid down: only while its content has another name that is seen to be there.

    `placed`: what this very process laid down, None where it did not come to that.
    """
    source, target = look(order.source), look(order.target)
    if source is None or target is None:
        return
    is_mine = placed is not None and target == placed and source == order.identity
    if is_mine or source.is_same_file(target):
        with suppress(OSError):
            os.unlink(to_bytes(order.target))


# -- releasing


def release(orders: Sequence[Release]) -> list[Setback | None]:
    """Remove the sources of what is in the ledger, and make that safe; None where it is done."""
    answers = [_release_guarded(order) for order in orders]
    done = [o for o, a in zip(orders, answers, strict=True) if a is None]
    for folder in {os.path.dirname(to_bytes(o.source)) for o in done}:
        _sync(folder)  # were it lost, the name would come back as a duplicate of the original
    return answers


def _release_guarded(order: Release) -> Setback | None:
    try:
        _release(order)
    except Setback as setback:
        return setback
    except FileNotFoundError:
        return None
    except OSError as error:
        return Setback("target", f"its old name cannot be removed: {error.strerror or error}")
    return None


def _release(order: Release) -> None:
    path = to_bytes(order.source)
    _restore_name(order.move_id, path)  # of a removal that was killed half-way
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    if not _is_hashed_file(found, order):
        raise Setback("changed", "it was written to after it was filed")
    _check_kept(order)
    if _is_open_for_writing(path):
        raise Setback("busy", "another program has it open for writing")
    _remove(order.move_id, path, Identity.of(found))


def _remove(move_id: int, path: bytes, expected: Identity) -> None:
    """Remove a name whose file is the expected one, whoever replaces it at this very moment.

    Between a look at a name and its removal it may have become another file's. So it is taken out
    of everybody's reach first, looked at there, and given back if it is another file.
    """
    aside = _out_of_reach(move_id, path)
    os.rename(path, aside)
    found = os.lstat(aside)
    if not stat.S_ISREG(found.st_mode) or Identity.of(found) != expected:
        _restore_name(move_id, path)
        raise Setback("changed", "it was written to after it was filed")
    os.unlink(aside)


def _out_of_reach(move_id: int, path: bytes) -> bytes:
    """The name that a file has while it is removed: only we know it."""
    return os.path.join(os.path.dirname(path), b".kaleidoscope-%d.part" % move_id)


def _restore_name(move_id: int, path: bytes) -> None:
    """Give a file its name back, or, where that is another's by now, one like it."""
    aside = _out_of_reach(move_id, path)
    if not os.path.lexists(aside):
        return
    folder, name = os.path.split(path)
    for number in range(10_000):
        with suppress(Setback):  # taken
            _rename_no_replace(
                aside, os.path.join(folder, numbered(name, stem_length(name), number))
            )
            return


def _is_open_for_writing(path: bytes) -> bool:
    """Whether what somebody is about to write would be lost with the name."""
    try:
        descriptor = os.open(path, OPEN)
    except OSError:  # it need not be readable any more to be removed
        return False
    try:
        return is_written(descriptor)
    finally:
        os.close(descriptor)


def _is_hashed_file(found: os.stat_result, order: Release) -> bool:
    if not stat.S_ISREG(found.st_mode):
        return False
    now = Identity.of(found)
    if now == order.identity:
        return True
    # Devices are numbered anew when a share or a disk is mounted again: then the content decides.
    return _alike(now, order.identity) and _hash_of(order.source) == order.file_hash


def _alike(one: Identity, other: Identity) -> bool:
    """Whether two may be one file, seen through two mounts perhaps."""
    return (one.inode, one.size, one.mtime_ns) == (other.inode, other.size, other.mtime_ns)


def _check_kept(order: Release) -> None:
    """Raise unless the content is safe elsewhere: this is the moment that matters."""
    if order.target is None:
        first = look(order.first) if order.first else None
        if first is None or order.first is None or _hash_of(order.first) != order.file_hash:
            raise Setback("refused", f"its first copy at {order.first} is not there as it was")
        if _alike(first, order.identity):
            raise Setback("refused", f"its first copy at {order.first} may be this very file")
        _secure(order.first)
        return
    found = look(order.target)
    if found is None:
        raise Setback("target", f"what was filed at {order.target} is gone")
    if found != order.kept and _hash_of(order.target) != order.file_hash:
        raise Setback("target", f"what was filed at {order.target} is not what it was")


def _secure(path: str) -> None:
    """Raise unless a file is on the disk: somebody may have copied it there a moment ago."""
    try:
        descriptor = os.open(to_bytes(path), OPEN)
        try:
            _fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Setback("refused", f"its first copy at {path}: {error.strerror}") from None
    if unsafe := _sync(os.path.dirname(to_bytes(path))):
        raise Setback("refused", f"its first copy at {path}: {unsafe.strerror}")


def make_root(path: str) -> None:
    """A folder that files will be laid down in, made safe with all above it."""
    folder = to_bytes(path)
    os.makedirs(folder, exist_ok=True)
    while folder != b"/":
        _sync(folder)
        folder = os.path.dirname(folder)


def is_empty(path: str) -> bool:
    """Whether nothing lies in a folder, or it is not there."""
    try:
        with os.scandir(to_bytes(path)) as entries:
            return next(entries, None) is None
    except (FileNotFoundError, NotADirectoryError):
        return True


def files_below(root: bytes) -> Iterator[tuple[bytes, Identity]]:
    """Every plain file below a folder, links not followed, hidden ones and drafts left out."""
    folders = [root]
    while folders:
        folder = folders.pop()
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                if entry.name.startswith(b"."):
                    continue
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        folders.append(entry.path)
                    elif stat.S_ISREG(status.st_mode):
                        yield entry.path, Identity.of(status)


def remove_empty(folder: bytes) -> bool:
    """Remove a folder if nothing is in it."""
    try:
        os.rmdir(folder)
    except OSError:
        return False
    return True


# -- reading


def hash_open(descriptor: int, *, cold: bool) -> str:
    """SHA-256 of an open file from its start; `cold`: from the disk, where the system lets us."""
    if cold:
        with suppress(OSError, AttributeError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.lseek(descriptor, 0, os.SEEK_SET)
    digest = hashlib.sha256()
    while chunk := os.read(descriptor, CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _hash_of(path: str) -> str | None:
    try:
        descriptor = os.open(to_bytes(path), OPEN)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return hash_open(descriptor, cold=True)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def is_written(descriptor: int) -> bool:
    """Whether somebody has a file open for writing, where the system can tell.

    Asked by a lease for reading, which the kernel grants for files that nobody writes.
    """
    lease, read, none = (getattr(fcntl, n, None) for n in ("F_SETLEASE", "F_RDLCK", "F_UNLCK"))
    if lease is None or read is None or none is None:
        return False
    try:
        # Who opens it right now makes the kernel tell us, by a signal that would end the process.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, lease, read)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(descriptor, lease, none)
    return False


def _check(found: os.stat_result, expected: Identity) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise Setback("changed", "it is no plain file any more")
    if Identity.of(found) != expected:
        raise Setback("changed", "it has changed since it was read")


def _restrict(descriptor: int) -> None:
    """Take the right to be run, and whose it would run as, from a photo."""
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    wanted = mode & PERMISSIONS | stat.S_IRUSR
    if mode != wanted:
        with suppress(OSError):  # not ours, or a filesystem without permissions
            os.fchmod(descriptor, wanted)


def _fsync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FSYNC:
            raise


def _sync(folder: bytes) -> OSError | None:
    """Make a folder's names safe; answers what prevented it."""
    try:
        descriptor = os.open(folder, ROOT)
        try:
            _fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        return error
    return None


def _folders(targets: Iterable[bytes], root: bytes) -> list[bytes]:
    """The folders of these files and those above them, down from the parent of `root`."""
    found: set[bytes] = set()
    top = os.path.dirname(root.rstrip(b"/"))
    for target in targets:
        folder = os.path.dirname(target)
        while folder not in found and len(folder) >= len(top) and folder != b"/":
            found.add(folder)
            folder = os.path.dirname(folder)
    return sorted(found, key=len, reverse=True)


def _unsafe(order: Order, placed: Placed, failed: dict[bytes, OSError]) -> Setback | None:
    target = to_bytes(order.target)
    for folder, error in failed.items():
        if target.startswith(folder + b"/"):
            take_back(order, placed.identity)  # else a copy of nobody would take the name
            return Setback("target", f"{order.target}: {error.strerror or error}")
    return None


def _refused(error: OSError) -> Setback:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return Setback("vanished", "the file is gone")
    if error.errno in (errno.ELOOP, errno.ENXIO):
        return Setback("changed", "it is no plain file any more")
    return Setback("unreadable", f"it cannot be read: {error.strerror or error}")


def _existing(path: bytes) -> bytes:
    """The path, or the nearest folder above it that is there."""
    while not os.path.lexists(path) and path != b"/":
        path = os.path.dirname(path) or b"/"
    return path


def same_content(paths: Collection[str]) -> dict[str, str | None]:
    """SHA-256 of the files at these paths, read now; None for those that are not to be read."""
    return {path: _hash_of(path) for path in paths}
