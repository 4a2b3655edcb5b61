"""The librarian at its inbox: what it waits for, what it passes over, what it says."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from typer.testing import CliRunner
from workbench import photo

from kaleidoscope.ingest import service
from kaleidoscope.ingest.commands import inbox as commands
from kaleidoscope.ingest.schemas import Inbox
from kaleidoscope.ingest.service import Librarian, inbox
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import SettingsError
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library
from kaleidoscope.ml.pool import Pool


@pytest.fixture(scope="module")
async def children() -> AsyncIterator[Pool]:
    async with library.children(1) as pool:
        yield pool


class Desk:
    """A librarian with one inbox, and what lies around it."""

    def __init__(self, db: Database, data: Path, work: Any) -> None:
        self.db, self.data, self.work = db, data, work
        self.inbox = data / "Photos_Inbox"
        self.librarian = Librarian(db, work)

    def drop(self, name: str | bytes, content: bytes) -> Path:
        path = self.inbox / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    async def state(self) -> Inbox:
        async with self.db.transaction() as session:
            (found,) = (await service.inboxes(session)).inboxes
        return found

    async def ledger(self) -> dict[str, Any]:
        async with self.db.transaction() as session:
            return {p.original_name: p async for p in library.stream(session)}

    def left(self) -> list[str]:
        return sorted(str(p.relative_to(self.inbox)) for p in self.inbox.rglob("*"))


@pytest.fixture
async def desk(
    db: Database, data_dir: Path, children: Pool, monkeypatch: pytest.MonkeyPatch
) -> Desk:
    monkeypatch.setenv("KALEIDOSCOPE_INBOX_SETTLE_SECONDS", "0")
    load.cache_clear()
    found = Desk(db, data_dir, children)
    await found.librarian.open()
    return found


async def test_the_inbox_is_made_and_filed(desk: Desk) -> None:
    path = desk.drop("a/IMG_1.jpg", photo(1))
    await desk.librarian.sweep()
    (filed,) = (await desk.ledger()).values()
    assert filed.original_path == str(path)
    assert Path(filed.final_path).read_bytes() == photo(1)
    async with desk.db.transaction() as session:
        (message,) = await session.execute(text("SELECT topic, payload FROM bus_outbox"))
    assert message.topic == "photos-to-process"
    assert message.payload["path"] == filed.final_path
    assert message.payload["attempt_id"] == str(filed.attempt_id)
    state = await desk.state()
    assert (state.waiting, state.filed_last_hour, state.problems) == (0, 1, [])


@pytest.mark.parametrize("duplicates", ["set-aside", "remove"])
async def test_what_became_of_the_files_of_the_last_day_is_told(
    desk: Desk, database_url: str, monkeypatch: pytest.MonkeyPatch, duplicates: str
) -> None:
    """So that who drops a photo twice learns where it went."""
    monkeypatch.setenv("KALEIDOSCOPE_LIBRARY_DUPLICATES", duplicates)
    load.cache_clear()
    desk.drop("old.jpg", photo(9))
    await desk.librarian.sweep()
    async with desk.db.transaction() as session:
        past = "UPDATE custody_moves SET recorded_at = now() - interval '25 hours'"
        await session.execute(text(past))
    desk.drop("a.jpg", photo(1))
    desk.drop("a.xmp", b"<x:xmpmeta/>")
    desk.drop("notes.txt", b"no photo")
    await desk.librarian.sweep()
    again = desk.drop("card/again.jpg", photo(9))
    await desk.librarian.sweep()
    state = await desk.state()
    assert state.last_day.model_dump() == {
        "filed": 1,
        "sidecars": 1,
        "duplicates": 1,
        "set_aside": 1,
    }
    (double,) = state.duplicates
    assert double.source == str(again)
    assert double.of == (await desk.ledger())["old.jpg"].final_path
    kept = str(desk.data / "Duplicates" / "card" / "again.jpg")
    assert double.path == (kept if duplicates == "set-aside" else None)
    monkeypatch.setenv("KALEIDOSCOPE_DATABASE_URL", database_url)
    load.cache_clear()
    told = await _status()
    assert "in the last day: 1 filed, 1 sidecars, 1 duplicates, 1 set aside" in told
    lies = f"lies at {kept}" if duplicates == "set-aside" else "was removed"
    assert f"duplicate {again}: the same as {double.of}; it {lies}" in told
    assert "notes.txt: it is neither a photo nor a video" in told


async def _status() -> str:
    """What `kaleidoscope inbox status` says."""
    done = await asyncio.to_thread(CliRunner().invoke, commands.app, [])
    assert done.exit_code == 0, done.output
    return done.stdout


async def test_a_file_is_left_alone_until_it_rests(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(inbox, "monotonic", lambda: now)
    desk.librarian._settings = desk.librarian._settings.model_copy(update={"settle_seconds": 5})
    path = desk.drop("a.jpg", photo(1))
    await desk.librarian.sweep()
    state = await desk.state()
    assert (state.waiting, state.settling) == (1, 1)
    now += 4
    path.write_bytes(photo(2, 400))
    await desk.librarian.sweep()
    now += 4
    await desk.librarian.sweep()
    assert desk.left() == ["a.jpg"]
    now += 1.1
    await desk.librarian.sweep()
    assert desk.left() == []
    (filed,) = (await desk.ledger()).values()
    assert Path(filed.final_path).read_bytes() == photo(2, 400)


async def test_a_photo_waits_for_its_companion_to_rest(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(inbox, "monotonic", lambda: now)
    desk.librarian._settings = desk.librarian._settings.model_copy(update={"settle_seconds": 5})
    desk.drop("IMG_1.jpg", photo(1))
    desk.drop("IMG_2.jpg", photo(2))
    await desk.librarian.sweep()
    now += 3
    desk.drop("IMG_1.mov", b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + b"2" * 50)
    await desk.librarian.sweep()
    now += 3
    await desk.librarian.sweep()
    assert desk.left() == ["IMG_1.jpg", "IMG_1.mov"]
    now += 3
    await desk.librarian.sweep()
    assert desk.left() == []


async def test_what_is_not_finished_is_passed_over(desk: Desk) -> None:
    names = [
        "a.jpg.part",
        "b.jpg.crdownload",
        "c.tmp",
        ".syncthing.d.jpg.tmp",
        "@eaDir/d.jpg",
        ".stversions/e.jpg",
        ".hidden.jpg",
    ]
    for number, name in enumerate(names):
        desk.drop(name, photo(number))
    await desk.librarian.sweep()
    assert set(names) <= set(desk.left())
    state = await desk.state()
    assert (state.waiting, state.problems, state.set_aside) == (0, [], [])


async def test_what_is_no_file_stays_with_its_cause(desk: Desk) -> None:
    target = desk.drop("real.jpg", photo(1))
    (desk.inbox / "link.jpg").symlink_to(target)
    (desk.inbox / "outside").symlink_to("/etc")
    os.mkfifo(desk.inbox / "fifo.jpg")
    await desk.librarian.sweep()
    assert desk.left() == ["fifo.jpg", "link.jpg", "outside"]
    first = (await desk.state()).problems
    assert {Path(p.path).name: p.code for p in first} == dict.fromkeys(desk.left(), "special-file")
    await desk.librarian.sweep()
    assert (await desk.state()).problems == first  # since when, too


async def test_folders_that_it_has_emptied_are_removed(desk: Desk) -> None:
    desk.drop("trip/day/a.jpg", photo(1))
    desk.drop("kept/b.jpg", photo(2))
    desk.drop("kept/c.jpg.part", photo(3))
    (desk.inbox / "mine").mkdir()
    await desk.librarian.sweep()
    await desk.librarian.sweep()
    assert desk.left() == ["kept", "kept/c.jpg.part", "mine"]


async def test_a_sidecar_waits_for_its_photo(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(inbox, "monotonic", lambda: now)
    desk.drop("IMG_1.xmp", b"<x:xmpmeta/>")
    desk.drop("IMG_2.xmp", b"<x:xmpmeta/>")
    await desk.librarian.sweep()
    assert desk.left() == ["IMG_1.xmp", "IMG_2.xmp"]
    desk.drop("IMG_1.jpg", photo(1))
    now += 10
    await desk.librarian.sweep()
    assert desk.left() == ["IMG_2.xmp"]
    now += 601
    await desk.librarian.sweep()
    assert desk.left() == []
    (aside,) = (await desk.state()).set_aside
    assert aside.path.endswith("Set_Aside/IMG_2.xmp") and aside.cause


async def test_a_sidecar_waits_whatever_was_called_like_its_photo_long_ago(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(inbox, "monotonic", lambda: now)
    desk.drop("IMG_1.jpg", photo(1))
    await desk.librarian.sweep()
    async with desk.db.transaction() as session:
        past = "UPDATE custody_moves SET recorded_at = now() - interval '1 year'"
        await session.execute(text(past))
    desk.drop("IMG_1.xmp", b"<x:xmpmeta/>")
    await desk.librarian.sweep()
    assert desk.left() == ["IMG_1.xmp"]
    now += 10
    desk.drop("IMG_1.jpg", photo(2))
    await desk.librarian.sweep()
    assert desk.left() == []
    async with desk.db.transaction() as session:
        found = await session.execute(
            text("SELECT kind, photo_id FROM custody_moves ORDER BY move_id")
        )
        first, second, sidecar = found.all()
    assert first.photo_id != second.photo_id == sidecar.photo_id
    assert sidecar.kind == "sidecar"


@pytest.mark.parametrize("refused", [False, True])
async def test_one_file_that_nobody_foresaw_costs_only_itself(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    """By us, or by the database: what it refuses once it refuses every time."""
    take_in = library.take_in

    async def odd(db: Database, parcels: Any, path: str) -> Any:
        if any("odd" in f.path for p in parcels for f in p.files):
            async with db.transaction() as session:
                if refused:
                    await session.execute(text("SELECT 1 / 0"))
            raise RuntimeError("nobody foresaw this")
        return await take_in(db, parcels, path)

    monkeypatch.setattr(inbox.library, "take_in", odd)
    for number in range(5):
        desk.drop(f"{number}.jpg", photo(number))
    desk.drop("odd.jpg", photo(9))
    await desk.librarian.sweep()
    assert desk.left() == ["odd.jpg"]
    (problem,) = (await desk.state()).problems
    assert problem.cause.startswith("unexpected: ")
    assert ("division by zero" if refused else "nobody foresaw this") in problem.cause


async def test_signs_wake_the_librarian_and_a_broken_watch_is_begun_anew(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first watch breaks as an overflow does; the sweep interval alone would take a minute."""
    watched = inbox.changes
    begun = 0

    async def breaking(folders: Any) -> AsyncIterator[None]:
        nonlocal begun
        begun += 1
        if begun == 1:
            raise OSError("the queue has run over")
        async for sign in watched(folders):
            yield sign

    monkeypatch.setattr(inbox, "changes", breaking)
    running = asyncio.create_task(desk.librarian.run())
    try:
        for number in range(2):
            desk.drop(f"{number}.jpg", photo(number))
            async with asyncio.timeout(30):
                while desk.left():  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        assert begun >= 1
    finally:
        desk.librarian.stopping.set()
        await running


async def test_an_inbox_that_goes_and_comes(desk: Desk) -> None:
    desk.inbox.rmdir()
    await desk.librarian.sweep()
    (problem,) = (await desk.state()).problems
    assert problem.code == "unreadable-inbox"
    desk.drop("a.jpg", photo(1))
    await desk.librarian.sweep()
    assert desk.left() == [] and (await desk.state()).problems == []


async def test_nothing_is_filed_where_the_originals_are_gone(desk: Desk, data_dir: Path) -> None:
    """A disk that is not mounted is not filled in its place."""
    desk.drop("a.jpg", photo(1))
    await desk.librarian.sweep()
    away = (data_dir / "Storage").rename(data_dir / "unmounted")
    desk.drop("b.jpg", photo(2))
    await desk.librarian.sweep()
    assert desk.left() == ["b.jpg"] and "mounted?" in (desk.librarian.trouble or "")
    assert not (data_dir / "Storage").exists()
    away.rename(data_dir / "Storage")
    desk.librarian._blocked_until = 0
    await desk.librarian.sweep()
    assert desk.left() == [] and desk.librarian.trouble is None


async def test_originals_that_go_while_an_inbox_is_filed_are_not_filled_in_their_place(
    desk: Desk, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.librarian._settings = desk.librarian._settings.model_copy(update={"portion": 1})
    take_in = library.take_in

    async def unmounting(db: Database, parcels: Any, path: str) -> Any:
        done = await take_in(db, parcels, path)
        (data_dir / "Storage").rename(data_dir / "unmounted")
        return done

    monkeypatch.setattr(inbox.library, "take_in", unmounting)
    for number in range(3):
        desk.drop(f"{number}.jpg", photo(number))
    await desk.librarian.sweep()
    assert len(desk.left()) == 2 and "mounted?" in (desk.librarian.trouble or "")
    assert not (data_dir / "Storage").exists()


@pytest.mark.parametrize("with_broken", [False, True])
async def test_a_hostile_inbox(desk: Desk, shared: Path, data_dir: Path, with_broken: bool) -> None:
    """Each thing ends filed or set aside, or stays with a cause; nothing else is touched."""
    await _run([sys.executable, str(shared / "media/hostile/make_hostile.py"), str(desk.inbox)])
    for path in sorted((shared / "media" / "broken").iterdir()) if with_broken else ():
        desk.drop(path.name, path.read_bytes())
    before = _photos(desk.inbox)
    for _ in range(2):
        await desk.librarian.sweep()
    state = await desk.state()
    told = {p.path for p in state.problems}
    left = [
        Path(root) / name
        for root, folders, names in os.walk(desk.inbox)
        for name in [*names, *(f for f in folders if os.path.islink(f"{root}/{f}"))]  # noqa: PTH114
    ]
    unexplained = [p for p in left if not _is_told(str(p), told) and not _is_hidden(p, desk.inbox)]
    assert not unexplained
    filed = _photos(data_dir / "Storage")
    apart = _photos(data_dir / "Set_Aside", data_dir / "Duplicates")
    still = _photos(desk.inbox)
    assert set(before) <= {*filed, *apart, *still}
    assert len(set(filed)) == len(filed) > 70
    assert Path("/etc/passwd").exists() and not (desk.inbox / "PWNED").exists()
    assert state.problem_count < 40


def _is_told(path: str, told: set[str]) -> bool:
    return any(path == one or path.startswith(one + "/") for one in told)


def _is_hidden(path: Path, inbox: Path) -> bool:
    parts = path.relative_to(inbox).parts
    return any(part.startswith(".") or part in ("@eaDir", "#recycle") for part in parts)


async def _run(words: list[str]) -> None:
    await asyncio.to_thread(subprocess.run, words, check=True, capture_output=True)


def _photos(*folders: Path) -> list[bytes]:
    """The content of every plain file, by its first bytes and its size."""
    found = []
    for folder in folders:
        for root, _, names in os.walk(os.fsencode(folder)):
            for name in names:
                path = os.path.join(root, name)  # noqa: PTH118
                status = os.lstat(path)
                if status.st_size and not os.path.islink(path) and os.path.isfile(path):  # noqa: PTH113, PTH114
                    with open(path, "rb") as file:  # noqa: PTH123
                        found.append(file.read(1000) + b"%d" % status.st_size)
    return found


async def test_broken_files(desk: Desk, shared: Path) -> None:
    broken = sorted((shared / "media" / "broken").iterdir())
    for path in broken:
        desk.drop(path.name, path.read_bytes())
    await desk.librarian.sweep()
    assert desk.left() == []
    names = {*(await desk.ledger()), *(Path(a.source).name for a in (await desk.state()).set_aside)}
    assert names == {path.name for path in broken}


@pytest.mark.parametrize(
    ("what", "where"),
    [
        ("Storage/Originals", "Photos_Inbox"),  # the inbox is the originals
        ("Storage/Originals", "Photos_Inbox/sub"),  # it holds them
        ("Storage/Originals/2020", "Photos_Inbox/sub/2020"),  # or a part of them
        ("Storage", "Photos_Inbox"),  # or what they lie in
        ("Photos_Inbox", "Storage/Originals/2020"),  # or the other way round
        ("Photos_Inbox/sub", "Duplicates"),
    ],
)
async def test_an_inbox_that_is_bound_to_what_is_filed_is_refused(
    db: Database, data_dir: Path, children: Pool, what: str, where: str
) -> None:
    """Paths tell nothing of it: one folder is mounted at two places."""
    if os.geteuid():
        pytest.skip("only root can mount")
    for folder in ("Storage/Originals/2020", "Photos_Inbox/sub/2020", "Duplicates", "Set_Aside"):
        (data_dir / folder).mkdir(parents=True, exist_ok=True)
    librarian = Librarian(db, children)
    await librarian.open()
    command = ["mount", "--bind", str(data_dir / what), str(data_dir / where)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    try:
        with pytest.raises(SettingsError, match="lie in one another"):
            await Librarian(db, children).open()
        with pytest.raises(SettingsError, match="lie in one another"):
            await librarian.sweep()  # mounted while it is at work
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", str(data_dir / where)], check=True)
    await Librarian(db, children).open()


@pytest.mark.parametrize("place", ["Storage", "Storage/Originals/in", "Duplicates"])
async def test_an_inbox_that_holds_what_is_filed_is_refused(
    db: Database, data_dir: Path, children: Pool, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_INBOX_FOLDERS", str(data_dir / place))
    load.cache_clear()
    with pytest.raises(SettingsError, match="lie in one another"):
        await Librarian(db, children).open()
