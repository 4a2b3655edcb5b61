"""A librarian that is killed: at its n-th step for every n, or at any moment.

usage: custody_process.py every URL FOLDER link|copy   kill -9 at every step; says how many
       custody_process.py sweep URL FOLDER             file the inbox, resuming what was begun

Runs by itself: it forks, and what it forks kills itself with SIGKILL.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from custodian import Custodian, digest, files, jpeg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.settings import load
from kaleidoscope.library.outside import custody as disk

STEPS = ("link", "unlink", "rename", "fsync", "makedirs", "write", "utime", "fchmod", "rmdir")


class Fuse:
    """Kills its own process before or after the step that it is set to."""

    def __init__(self, at: int) -> None:
        self.left = at

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def stepping(*words: Any, **named: Any) -> Any:
            self.step()
            answer = function(*words, **named)
            self.step()
            return answer

        return stepping


class DyingDatabase(Database):
    """A database whose user is killed before or after one of its commits."""

    def __init__(self, url: str, fuse: Fuse) -> None:
        super().__init__(url)
        self._fuse = fuse

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        async with super().transaction() as session:
            yield session
            self._fuse.step()
        self._fuse.step()


def every(url: str, folder: Path, copying: bool) -> int:
    """Kill at step 1, 2, 3 … of filing the same files, look each time what became of them."""
    disk.THREADS = 1
    if copying:
        disk._name_open_file = no_link
    for at in itertools.count(1):
        home = folder / str(at)
        contents = lay(home)
        asyncio.run(empty(url))
        killed = forked(lambda at=at, home=home: sweep(url, home, at)) == -signal.SIGKILL
        if killed:
            assert forked(lambda home=home: sweep(url, home, 0)) == 0, f"step {at}: no resume"
        try:
            asyncio.run(check(url, home, contents))
        except AssertionError as error:
            raise AssertionError(f"killed at step {at}: {error}") from error
        if not killed:
            return at
    raise AssertionError


def no_link(source: int, target: bytes) -> None:
    raise OSError(errno.EXDEV, "as between two filesystems")


def lay(home: Path) -> list[bytes]:
    """An inbox with what can happen in one; the contents that shall be in the ledger."""
    inbox = home / "Photos_Inbox"
    video = b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + b"2" * 50
    for name, content in {
        "a/IMG_1.jpg": jpeg(1),
        "b/IMG_1.jpg": jpeg(2),
        "b/IMG_1.jpg.xmp": b"<x:xmpmeta/>",
        "b/IMG_1.MOV": video,
        "c/again.jpg": jpeg(1),
        "c/notes.txt": b"no photo",
    }.items():
        (inbox / name).parent.mkdir(parents=True, exist_ok=True)
        (inbox / name).write_bytes(content)
        os.utime(inbox / name, (1_614_834_367, 1_614_834_367))
    return [jpeg(1), jpeg(2), video]


def sweep(url: str, home: Path, at: int) -> None:
    """One process of a librarian, killed at its step `at` (0: never)."""
    fuse = Fuse(at)
    for name in STEPS:
        setattr(os, name, fuse.around(getattr(os, name)))
    asyncio.run(_sweep(DyingDatabase(url, fuse), home))


async def _sweep(db: Database, home: Path) -> None:
    await custodian(db, home).sweep()
    await db.close()


def custodian(db: Database, home: Path) -> Custodian:
    os.environ["KALEIDOSCOPE_DATA_DIR"] = str(home)
    load.cache_clear()
    return Custodian(
        db,
        home / "Photos_Inbox",
        home / "Storage" / "Originals",
        home / "Duplicates",
        home / "Set_Aside",
    )


def forked(work: Callable[[], None]) -> int:
    """Run `work` in a process of its own; its exit code, the signal that killed it negative."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


async def empty(url: str) -> None:
    db = Database(url)
    async with db.transaction() as session:
        await session.execute(text("TRUNCATE media_assets, custody_moves, bus_outbox CASCADE"))
    await db.close()


async def check(url: str, home: Path, contents: list[bytes]) -> None:
    """Nothing lost, nothing twice, nothing half done."""
    db = Database(url)
    desk = custodian(db, home)
    assert files(desk.inbox) == [], files(desk.inbox)
    sidecars = [p for p in files(desk.originals) if p.suffix == ".xmp"]
    assert [p.read_bytes() for p in sidecars] == [b"<x:xmpmeta/>"]
    for path in sidecars:
        assert path.with_suffix("").exists(), "the sidecar lies beside its photo"
        path.unlink()
    await desk.check(contents)
    assert [digest(p) for p in files(desk.duplicates)] == [digest_of(jpeg(1))]
    assert [p.read_bytes() for p in files(desk.set_aside)] == [b"no photo"]
    await db.close()


def digest_of(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


def main() -> None:
    what, url, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    if what == "every":
        print(every(url, folder, "copy" in sys.argv[4:]), flush=True)
    else:
        print("go", flush=True)
        asyncio.run(_sweep(Database(url), folder))
        print("done", flush=True)


if __name__ == "__main__":
    main()
