"""What the disk and the database do to custody: full, read-only, away, another filesystem."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from pathlib import Path
from typing import Any

import pytest
from custodian import Custodian, Here, files, jpeg
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.paths import to_text
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library
from kaleidoscope.library.outside import custody as disk
from kaleidoscope.library.service import custody

SCRIPT = Path(__file__).with_name("custody_process.py")


@contextmanager
def tmpfs(folder: Path, megabytes: int) -> Iterator[Path]:
    """A small filesystem in memory, where the tests may mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True).returncode != 0:
        pytest.skip("only root may mount a small filesystem")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


async def test_the_order_of_the_system_calls(
    custodian: Custodian, database_url: str, data_dir: Path
) -> None:
    """Recorded by strace: fsync of the file, of its folder, the commit, and only then unlink."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed (apt install strace)")
    path = custodian.drop("IMG_1.jpg", jpeg(1))
    record = data_dir / "calls"
    calls = "trace=fsync,unlink,unlinkat,rename,renameat,renameat2,link,linkat,sendto,write,openat"
    words = [strace, "-f", "-y", "-s", "200", "-e", calls, "-o", str(record), sys.executable]
    done = await asyncio.to_thread(
        subprocess.run,
        [*words, str(SCRIPT), "sweep", database_url, str(data_dir)],
        capture_output=True,
        text=True,
    )
    if "PTRACE" in done.stderr or "ptrace" in done.stderr:
        pytest.skip("this system lets nobody trace")
    assert done.returncode == 0, done.stderr
    lines = record.read_text(errors="replace").splitlines()
    target = custodian.originals / "2021" / "2021-03-04" / "IMG_1.jpg"
    source = re.escape(str(path))
    planned = first(lines, r"sendto.*INSERT INTO custody_moves", 0)
    plan_committed = first(lines, r"sendto.*COMMIT", planned)
    synced = first(lines, rf"fsync\(\d+<{source}>", 0)
    linked = first(lines, rf"linkat\(.*{re.escape(str(target))}", 0)
    folders = [first(lines, rf"fsync\(\d+<{re.escape(str(f))}>", linked) for f in above(target)]
    recorded = first(lines, r"sendto.*INSERT INTO media_assets", 0)
    committed = first(lines, r"sendto.*COMMIT", recorded)
    taken = first(lines, rf"rename(at2?)?\(.*{source}", 0)
    removed = first(lines, r"unlink(at)?\(.*/\.kaleidoscope-\d+\.part", taken)
    assert plan_committed < synced < linked < min(folders)
    assert max(folders) < recorded < committed < taken < removed
    await custodian.check([jpeg(1)])


def above(target: Path) -> list[Path]:
    """The folders that a new name's safety depends on, up to the originals."""
    return [target.parent, target.parent.parent, target.parent.parent.parent]


def first(lines: list[str], pattern: str, after: int) -> int:
    """The first line, from one on, that shows this."""
    found = re.compile(pattern)
    for number in range(after, len(lines)):
        if found.search(lines[number]):
            return number
    raise AssertionError(f"no {pattern} after line {after} of {len(lines)}")


async def test_the_target_is_full(
    custodian: Custodian, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fits is filed, the rest stays and is filed when there is room."""
    with tmpfs(data_dir / "small", 3) as small:
        settle_in(custodian, small / "Originals", monkeypatch)
        contents = [jpeg(n, size=60_000) + bytes(900_000) for n in range(6)]
        for number, content in enumerate(contents):
            custodian.drop(f"{number}.jpg", content)
        done = await custodian.sweep(at_once=2)
        left = [o for o in done if o.what == "left"]
        assert 2 <= len(left) < 6
        assert {o.kind for o in left} == {"target"}
        assert all("No space left" in (o.cause or "") for o in left)
        assert len(files(custodian.inbox)) == len(left)
        assert not [p for p in files(small) if p.name.endswith(".part")]
        remount(small, "size=20m")
        await custodian.sweep()
        assert files(custodian.inbox) == []
        await custodian.check(contents)


async def test_the_target_cannot_be_written(
    custodian: Custodian, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tmpfs(data_dir / "small", 3) as small:
        settle_in(custodian, small / "Originals", monkeypatch)
        remount(small, "ro")
        path = custodian.drop("a.jpg", jpeg(1))
        (done,) = await custodian.sweep()
        assert (done.what, done.kind) == ("left", "target")
        assert "Read-only file system" in (done.cause or "")
        assert path.read_bytes() == jpeg(1)
        assert await custodian.ledger() == {}
        remount(small, "rw")
        await custodian.sweep()
        await custodian.check([jpeg(1)])


async def test_the_inbox_cannot_be_written(
    custodian: Custodian, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Filed, and told that its old name is still there; removed as soon as that can be."""
    with tmpfs(custodian.inbox, 3) as inbox:
        custodian.drop("a.jpg", jpeg(1))
        remount(inbox, "ro")
        (done,) = await custodian.sweep()
        assert done.what == "filed" and "Read-only file system" in (done.cause or "")
        assert await library.begun(custodian.db, [to_text(inbox / "a.jpg")])
        await custodian.sweep()
        assert len(await custodian.ledger()) == 1
        remount(inbox, "rw")
        await custodian.sweep()
        assert files(inbox) == []
        await custodian.check([jpeg(1)])


async def test_inbox_and_target_on_two_filesystems(
    custodian: Custodian, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tmpfs(data_dir / "other", 20) as other:
        settle_in(custodian, other / "Originals", monkeypatch)
        contents = [jpeg(n, f"202{n % 3}:01:02 03:04:05", 3000) for n in range(20)]
        for number, content in enumerate(contents):
            custodian.drop(f"{number % 3}/IMG.{number}.jpg", content, 1_600_000_000.25)
        done = await custodian.sweep()
        assert {o.what for o in done} == {"filed"}
        assert files(custodian.inbox) == []
        await custodian.check(contents)
        assert {p.stat().st_mtime for p in files(custodian.originals)} == {1_600_000_000.25}


def settle_in(custodian: Custodian, originals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_LIBRARY_ORIGINALS", str(originals))
    load.cache_clear()
    custodian.originals = originals


class Meddler(Here):
    """Does something between the reading of files and their filing."""

    def __init__(self, act: object) -> None:
        self.act = act

    async def run(self, task: object, *, name: str) -> object:
        found = await super().run(task, name=name)
        self.act()  # type: ignore[operator]
        return found


async def test_a_source_that_vanishes(custodian: Custodian) -> None:
    path = custodian.drop("a.jpg", jpeg(1))
    custodian.drop("b.jpg", jpeg(2))
    custodian.work = Meddler(lambda: path.unlink(missing_ok=True))
    done = {o.path: o for o in await custodian.sweep()}
    assert (done[to_text(path)].what, done[to_text(path)].kind) == ("left", "vanished")
    await custodian.check([jpeg(2)])


async def test_a_source_that_changes_after_it_was_read(custodian: Custodian) -> None:
    path = custodian.drop("a.jpg", jpeg(1))
    custodian.work = Meddler(lambda: path.write_bytes(jpeg(2)))
    (done,) = await custodian.sweep()
    assert (done.what, done.kind) == ("left", "changed")
    assert path.read_bytes() == jpeg(2) and files(custodian.originals) == []
    custodian.work = Here()
    await custodian.sweep()
    await custodian.check([jpeg(2)])


async def test_a_source_that_is_replaced_after_it_was_filed(
    custodian: Custodian, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at again as it is to be removed: it is another file, and stays."""
    path = custodian.drop("a.jpg", jpeg(1))
    release = disk.release

    def replaced(orders: list[disk.Release]) -> object:
        path.unlink()
        path.write_bytes(jpeg(2))
        return release(orders)

    monkeypatch.setattr(disk, "release", replaced)
    await custodian.sweep()
    assert path.read_bytes() == jpeg(2)
    monkeypatch.setattr(disk, "release", release)
    await custodian.sweep()
    await custodian.check([jpeg(1), jpeg(2)])


async def test_a_source_that_is_replaced_in_the_moment_of_its_removal(
    custodian: Custodian, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renamed over after the last look at it: what came is given its name back."""
    path = custodian.drop("a.jpg", jpeg(1))
    new = custodian.inbox.parent / "new"
    rename = os.rename

    def replaced(source: bytes, target: bytes) -> None:
        if source == os.fsencode(path):
            new.write_bytes(jpeg(2))
            rename(new, path)
        rename(source, target)

    monkeypatch.setattr(disk.os, "rename", replaced)
    await custodian.sweep()
    monkeypatch.setattr(disk.os, "rename", rename)
    assert path.read_bytes() == jpeg(2) and files(custodian.inbox) == [path]
    await custodian.sweep()
    assert files(custodian.inbox) == []
    await custodian.check([jpeg(1), jpeg(2)])


async def test_a_name_that_cannot_be_given_back_becomes_one_like_it(
    custodian: Custodian, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replaced twice in that moment: both files stay."""
    path = custodian.drop("a.jpg", jpeg(1))
    new = custodian.inbox.parent / "new"
    rename = os.rename

    def replaced(source: bytes, target: bytes) -> None:
        if source == os.fsencode(path):
            new.write_bytes(jpeg(2))
            rename(new, path)
        rename(source, target)
        if source == os.fsencode(path):
            path.write_bytes(jpeg(3))

    monkeypatch.setattr(disk.os, "rename", replaced)
    await custodian.sweep()
    monkeypatch.setattr(disk.os, "rename", rename)
    assert {p.read_bytes() for p in files(custodian.inbox)} == {jpeg(2), jpeg(3)}
    await custodian.sweep()
    await custodian.check([jpeg(1), jpeg(2), jpeg(3)])


async def test_an_original_that_is_written_to_through_its_old_name(
    custodian: Custodian, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file with two names for a moment: the ledger tells of what it has become."""
    path = custodian.drop("a.jpg", jpeg(1))
    release = disk.release

    def appended(orders: list[disk.Release]) -> object:
        with path.open("ab") as file:
            file.write(b"more")
        return release(orders)

    monkeypatch.setattr(disk, "release", appended)
    (done,) = await custodian.sweep()
    assert done.kind == "changed" and path.exists()
    monkeypatch.setattr(disk, "release", release)
    await custodian.sweep()
    assert files(custodian.inbox) == []
    (photo,) = (await custodian.ledger()).values()
    (original,) = files(custodian.originals)
    assert original.read_bytes() == jpeg(1) + b"more"
    assert photo.file_hash == disk.same_content([to_text(original)])[to_text(original)]
    assert photo.size_bytes == len(jpeg(1)) + 4


async def test_an_original_that_is_gone_before_its_source_is_released(
    custodian: Custodian, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source is the only copy again: it stays, and is laid down once more."""
    custodian.drop("a.jpg", jpeg(1))
    release = disk.release

    def gone(orders: list[disk.Release]) -> object:
        for path in files(custodian.originals):
            path.unlink()
        return release(orders)

    monkeypatch.setattr(disk, "release", gone)
    (done,) = await custodian.sweep()
    assert done.cause is not None and len(files(custodian.inbox)) == 1
    monkeypatch.setattr(disk, "release", release)
    await custodian.sweep()
    assert files(custodian.inbox) == []
    await custodian.check([jpeg(1)])


class FailingDatabase(Database):
    """A database that goes away at its n-th commit, and comes back when it is told."""

    def __init__(self, inner: Database, at: int) -> None:
        self.engine, self._inner, self.left = inner.engine, inner, at

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        async with self._inner.transaction() as session:
            yield session
            self.left -= 1
            if self.left == 0:
                await session.connection()
                raise OperationalError("COMMIT", {}, Exception("the server was stopped"))

    def claim(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return self._inner.claim()


@pytest.mark.parametrize("at", range(1, 9))
async def test_the_database_goes_away(custodian: Custodian, at: int) -> None:
    contents = [jpeg(1), jpeg(2)]
    custodian.drop("a.jpg", contents[0])
    custodian.drop("b/a.jpg", contents[1])
    custodian.drop("c.jpg", contents[0])
    real = custodian.db
    custodian.db = FailingDatabase(real, at)
    with suppress(OperationalError):
        await custodian.sweep()
    custodian.db = real
    await custodian.sweep()
    assert files(custodian.inbox) == []
    await custodian.check(contents)


async def test_a_sidecar_stays_with_a_photo_that_changes(custodian: Custodian) -> None:
    """By itself it would be filed, and the photo would lose the date that it tells."""
    photo = custodian.drop("a.jpg", jpeg(1))
    sidecar = custodian.drop("a.jpg.xmp", b"<x:xmpmeta/>")
    read = await library.read(custodian.work, library.parcels(custodian.candidates()))
    photo.write_bytes(jpeg(2))
    done = await library.take_in(custodian.db, read, to_text(custodian.inbox))
    assert {(o.what, o.kind) for o in done} == {("left", "changed")}
    assert sidecar.exists() and files(custodian.originals) == []
    await custodian.sweep()
    (known,) = await custodian.rows("SELECT photo_id FROM media_assets")
    (moved,) = await custodian.rows(
        "SELECT photo_id FROM custody_moves WHERE kind = 'sidecar' AND state = 'RELEASED'"
    )
    assert moved.photo_id == known.photo_id


async def test_a_sidecar_does_not_go_to_an_older_photo_of_the_name(custodian: Custodian) -> None:
    custodian.drop("a.jpg", jpeg(1))
    await custodian.sweep()
    photo = custodian.drop("a.jpg", jpeg(2))
    sidecar = custodian.drop("a.jpg.xmp", b"<x:xmpmeta/>")
    read = await library.read(custodian.work, library.parcels(custodian.candidates()))
    photo.write_bytes(jpeg(3))
    await library.take_in(custodian.db, read, to_text(custodian.inbox))
    assert sidecar.exists()


async def test_a_duplicate_whose_first_copy_goes_is_filed(
    custodian: Custodian, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where duplicates are removed: it stays while the first is doubtful, and becomes the asset."""
    monkeypatch.setenv("KALEIDOSCOPE_LIBRARY_DUPLICATES", "remove")
    load.cache_clear()
    custodian.drop("a.jpg", jpeg(1))
    await custodian.sweep()
    (original,) = files(custodian.originals)
    original.write_bytes(jpeg(1)[:-1] + b"x")
    copy = custodian.drop("b.jpg", jpeg(1))
    (done,) = await custodian.sweep()
    assert (done.what, done.kind) == ("left", "refused")
    assert copy.exists() and not await library.begun(custodian.db, [done.path])
    original.unlink()
    (done,) = await custodian.sweep()
    assert done.what == "filed" and files(custodian.inbox) == []
    assert [p.read_bytes() for p in files(custodian.originals)] == [jpeg(1)]


async def test_a_first_copy_is_on_the_disk_before_its_duplicate_is_removed(
    custodian: Custodian, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_LIBRARY_DUPLICATES", "remove")
    load.cache_clear()
    custodian.drop("a.jpg", jpeg(1))
    await custodian.sweep()
    (original,) = files(custodian.originals)
    copy = custodian.drop("b.jpg", jpeg(1))
    sync, fsync = disk._sync, disk._fsync
    synced = []

    def failing(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(disk, "_fsync", failing)
    (done,) = await custodian.sweep()
    assert done.what == "left" and copy.exists()
    monkeypatch.setattr(disk, "_fsync", fsync)
    monkeypatch.setattr(disk, "_sync", lambda folder: synced.append(folder) or sync(folder))
    (done,) = await custodian.sweep()
    assert done.what == "duplicate" and not copy.exists()
    assert synced[:2] == [original.stat().st_ino, os.fsencode(original.parent)]


@pytest.mark.parametrize("name", ["2021", "2021/2021-03-04"])
async def test_a_file_in_place_of_a_folder_costs_only_its_day(
    custodian: Custodian, name: str
) -> None:
    """`target` would tell that nothing can be laid down, and hold all the others up."""
    foreign = custodian.originals / name
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"of somebody")
    custodian.drop("a.jpg", jpeg(1))
    custodian.drop("b.jpg", jpeg(2, taken="2022:03:04 05:06:07"))
    done = {o.path: (o.what, o.kind) for o in await custodian.sweep()}
    assert done[to_text(custodian.inbox / "a.jpg")] == ("left", "refused")
    assert done[to_text(custodian.inbox / "b.jpg")] == ("filed", None)
    assert foreign.read_bytes() == b"of somebody"


async def test_a_folder_that_is_not_ours_costs_only_its_files(
    custodian: Custodian, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_open_file = disk._name_open_file

    def forbidding(source: int, target: bytes) -> None:
        if b"/2021-03-04/" in target:
            raise PermissionError(errno.EACCES, "Permission denied")
        name_open_file(source, target)

    monkeypatch.setattr(disk, "_name_open_file", forbidding)
    custodian.drop("a.jpg", jpeg(1))
    (done,) = await custodian.sweep()
    assert (done.what, done.kind) == ("left", "refused")
    monkeypatch.setattr(disk.os, "access", lambda *_: False)
    (done,) = await custodian.sweep()
    assert (done.what, done.kind) == ("left", "target")


async def test_a_copy_whose_folder_is_not_safe_is_taken_back(
    custodian: Custodian, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would lie in the originals a second time, of nobody, beside the one filed later."""
    path = custodian.drop("a.jpg", jpeg(1))
    os.link(path, custodian.inbox.parent / "other.jpg")
    sync = disk._sync

    def failing(folder: bytes) -> OSError | None:
        return OSError(errno.EIO, "Input/output error") if b"2021-03-04" in folder else sync(folder)

    monkeypatch.setattr(disk, "_sync", failing)
    (done,) = await custodian.sweep()
    assert (done.what, done.kind) == ("left", "target") and path.exists()
    assert files(custodian.originals) == []
    monkeypatch.setattr(disk, "_sync", sync)
    await custodian.sweep()
    await custodian.check([jpeg(1)])


async def test_nothing_is_taken_back_that_another_process_has_recorded(
    custodian: Custodian, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim to be alone goes with its connection; what was laid down may be the only name."""
    record = custody._record

    async def overtaken(db: Database, placed: Any) -> Any:
        await record(db, placed)
        return [], {move.move_id: disk.Setback("refused", "by the ledger") for move, _ in placed}

    monkeypatch.setattr(custody, "_record", overtaken)
    custodian.drop("a.jpg", jpeg(1))
    await custodian.sweep()
    monkeypatch.setattr(custody, "_record", record)
    assert [p.read_bytes() for p in files(custodian.originals)] == [jpeg(1)]
    await custodian.sweep()
    assert files(custodian.inbox) == []
    await custodian.check([jpeg(1)])


async def test_a_name_that_somebody_writes_through_is_not_removed(
    custodian: Custodian, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they are about to write would go with the name of a copied file."""
    path = custodian.drop("a.jpg", jpeg(1))
    os.link(path, custodian.inbox.parent / "other.jpg")
    record = custody._record
    with ExitStack() as writers:

        async def opening(db: Database, placed: Any) -> Any:
            writers.enter_context(path.open("r+b"))
            return await record(db, placed)

        monkeypatch.setattr(custody, "_record", opening)
        (done,) = await custodian.sweep()
        assert (done.what, done.kind) == ("filed", "busy") and path.exists()
        monkeypatch.setattr(custody, "_record", record)
    (done, *_) = await custodian.sweep()
    assert done.kind is None and not path.exists()
    await custodian.check([jpeg(1)])


async def test_a_program_that_opens_a_file_while_it_is_asked_for_ends_nobody(
    custodian: Custodian,
) -> None:
    """The lease by which it is asked for is broken with a signal, whose default is to kill."""
    path = custodian.drop("a.jpg", jpeg(1))
    opening = (
        "import os\nfor _ in range(100_000):\n try: os.close(os.open({0!r}, os.O_WRONLY | 2048))\n"
        " except OSError: pass"
    )
    asking = (
        "import os\nfrom kaleidoscope.library.outside.custody import is_written\n"
        "fd = os.open({0!r}, os.O_RDONLY)\nprint(sum(is_written(fd) for _ in range(100_000)))"
    )
    both = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", words.format(str(path)))
        for words in (opening, asking)
    ]
    assert [await one.wait() for one in both] == [0, 0]
