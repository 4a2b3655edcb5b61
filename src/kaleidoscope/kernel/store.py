"""Files at a second location: a folder, or whatever `fsspec` reaches (`s3://bucket/path` …).

A name is a relative path with "/". Files are written whole or not at all: in a folder under a
temporary name that is synced and renamed; an object store shows nothing before the last byte.
Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import errno
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from kaleidoscope.kernel.errors import KaleidoscopeError, SettingsError

CHUNK = 1 << 20
PART = ".part"

# A file becomes visible when it is closed, whole: nothing needs to be renamed there.
WHOLE_AT_CLOSE = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "az", "adl"})

# The fault of one name, not of the place.
OF_THE_NAME = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)


class StoreProblem(KaleidoscopeError):
    """The second location cannot be reached, read or written.

    `fields["unreadable"]`: a part of the disk under one file cannot be read; others may well be.
    """

    code, status, exit_code = "store", 503, 11


class Store(ABC):
    """A place that holds files by name. Reading a name that is not there: `FileNotFoundError`."""

    url: str

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Bytes of a file; None: there is none."""

    @abstractmethod
    def read(self, name: str) -> Iterator[bytes]:
        """A file's content, piece by piece, from the medium itself where that can be had."""

    @abstractmethod
    def write(self, name: str, pieces: Iterable[bytes], *, private: bool = False) -> None:
        """Put a file in place of what has that name; what `pieces` raises leaves all as it was.

        `private`: no other user of the machine may read it, where a place knows users.
        """

    @abstractmethod
    def names(self, folder: str = "") -> Iterator[tuple[str, int]]:
        """Every file below a folder with its size, in no order; unfinished ones are left out."""

    @abstractmethod
    def folders(self, folder: str) -> list[str]:
        """The names of the folders in a folder, sorted."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove a file, if it is there."""

    @abstractmethod
    def free(self) -> int | None:
        """Bytes that are free there, where that is known."""

    def get(self, name: str) -> bytes:
        """A small file at once."""
        return b"".join(self.read(name))

    def put(self, name: str, content: bytes, *, private: bool = False) -> None:
        """Write a small file."""
        self.write(name, [content], private=private)


def open_store(url: str, options: Mapping[str, Any] | None = None) -> Store:
    """The store at a path or URL. Raises `SettingsError` for one that nothing here can reach."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return FolderStore(Path(url).expanduser().absolute())
    if scheme in ("file", "local"):
        return FolderStore(Path(unquote(urlsplit(url).path) if scheme == "file" else rest))
    return UrlStore(url, options or {})


class FolderStore(Store):
    """A folder of this machine, or one that is mounted."""

    def __init__(self, root: Path) -> None:
        self.url = str(root)
        self._root = root

    def size(self, name: str) -> int | None:
        with self._explained(name):
            try:
                return self._path(name).stat().st_size
            except (FileNotFoundError, NotADirectoryError):
                return None

    def read(self, name: str) -> Iterator[bytes]:
        with self._explained(name), self._path(name).open("rb", buffering=0) as file:
            # What was just written would come from memory: what lies on the disk is asked for.
            with suppress(OSError, AttributeError):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while piece := file.read(CHUNK):
                yield piece

    def write(self, name: str, pieces: Iterable[bytes], *, private: bool = False) -> None:
        path = self._path(name)
        draft = path.with_name(path.name + PART)
        with self._explained(name, is_reading=False):
            _make_folders(path.parent)
            draft.unlink(missing_ok=True)
            mode = 0o600 if private else 0o644
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                for piece in pieces:
                    with self._explained(name):
                        _write_all(file.fileno(), piece)
                with self._explained(name):
                    os.fsync(file.fileno())
            with self._explained(name):
                draft.replace(path)
                sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):
                draft.unlink()
            raise

    def names(self, folder: str = "") -> Iterator[tuple[str, int]]:
        start = self._path(folder) if folder else self._root
        with self._explained(folder):
            for parent, _, files in os.walk(start):
                for file in files:
                    path = Path(parent, file)
                    if not file.endswith(PART):
                        yield path.relative_to(self._root).as_posix(), path.stat().st_size

    def folders(self, folder: str) -> list[str]:
        with self._explained(folder):
            try:
                return sorted(path.name for path in self._path(folder).iterdir() if path.is_dir())
            except FileNotFoundError:
                return []

    def delete(self, name: str) -> None:
        with self._explained(name):
            path = self._path(name)
            with suppress(FileNotFoundError):
                path.unlink()
                for folder in path.parents:
                    if folder == self._root or any(folder.iterdir()):
                        break
                    folder.rmdir()

    def free(self) -> int | None:
        with suppress(OSError):
            return shutil.disk_usage(next(p for p in self._above() if p.exists())).free
        return None

    def _above(self) -> Iterator[Path]:
        yield self._root
        yield from self._root.parents

    def _path(self, name: str) -> Path:
        return self._root / name

    @contextmanager
    def _explained(self, name: str, *, is_reading: bool = True) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if is_reading:
                raise
            raise _problem(self.url, name, error) from error
        except OSError as error:
            problem = _problem(self.url, name, error)
            problem.fields["unreadable"] = is_reading and error.errno == errno.EIO
            raise problem from error


class UrlStore(Store):
    """Whatever `fsspec` reaches. `options` are those of its file system: keys, endpoint …"""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.url = url
        scheme = url.partition("://")[0]
        try:
            import fsspec
        except ImportError:
            raise SettingsError(
                f"to reach {url} the library fsspec is needed",
                hint="pip install 'kaleidoscope[s3]'",
            ) from None
        given = {"use_listings_cache": False} if scheme in WHOLE_AT_CLOSE else {}
        try:
            self._fs, root = fsspec.core.url_to_fs(url, **{**given, **options})
        except (ImportError, ValueError) as error:
            raise SettingsError(f"{url}: {error}", hint="see docs/guides/backup.md") from error
        self._root = str(root).rstrip("/")
        self._whole_at_close = scheme in WHOLE_AT_CLOSE

    def size(self, name: str) -> int | None:
        with self._explained(name):
            try:
                return int(self._fs.info(self._path(name))["size"])
            except FileNotFoundError:
                return None

    def read(self, name: str) -> Iterator[bytes]:
        with self._explained(name), self._fs.open(self._path(name), "rb") as file:
            while piece := file.read(CHUNK):
                yield piece

    def write(self, name: str, pieces: Iterable[bytes], *, private: bool = False) -> None:
        path = self._path(name)
        draft = path if self._whole_at_close else path + PART
        with self._explained(name):
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            file = self._fs.open(draft, "wb")
        try:
            for piece in pieces:
                with self._explained(name):
                    file.write(piece)
        except BaseException:
            with suppress(Exception):
                file.discard()
                file.closed = True  # to close it, even when it is collected, would show a part
            raise
        with self._explained(name):
            file.close()
            if draft != path:
                self._move(draft, path)

    def _move(self, draft: str, path: str) -> None:
        import fsspec

        if type(self._fs).mv is fsspec.AbstractFileSystem.mv:  # takes "?" in a name for a pattern
            self._fs.cp_file(draft, path)
            self._fs.rm_file(draft)
        else:
            self._fs.mv(draft, path)

    def names(self, folder: str = "") -> Iterator[tuple[str, int]]:
        with self._explained(folder):
            found = self._fs.find(self._path(folder), detail=True)
            for path, facts in found.items():
                if not path.endswith(PART):
                    yield path.removeprefix(self._root).lstrip("/"), int(facts["size"])

    def folders(self, folder: str) -> list[str]:
        with self._explained(folder):
            try:
                found = self._fs.ls(self._path(folder), detail=True)
            except FileNotFoundError:
                return []
            names = [facts["name"] for facts in found if facts["type"] == "directory"]
            return sorted(name.rstrip("/").rpartition("/")[2] for name in names)

    def delete(self, name: str) -> None:
        with self._explained(name), suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def free(self) -> int | None:
        return None

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, KaleidoscopeError):
            raise
        except Exception as error:  # each kind of store has errors of its own
            raise _problem(self.url, name, error) from error


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk. A file system that cannot do that is left alone."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EROFS):
            raise
    finally:
        os.close(descriptor)


def _make_folders(folder: Path) -> None:
    if not folder.is_dir():
        _make_folders(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def _write_all(descriptor: int, piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        left = left[os.write(descriptor, left) :]


def _problem(url: str, name: str, error: Exception) -> StoreProblem:
    number = error.errno if isinstance(error, OSError) else None
    said = (error.strerror if isinstance(error, OSError) else None) or str(error) or repr(error)
    hint = "make room, or choose a larger one" if number == errno.ENOSPC else None
    problem = StoreProblem(f"{url}/{name}: {said}", hint=hint, store=url)
    problem.fields["of_the_name"] = number in OF_THE_NAME
    return problem
