"""A scan's files into the ledger: new, known, changed, duplicate, refused."""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scans import Ledger, Published, Register, Write, scan
from sqlalchemy import text

from kaleidoscope.kernel.db import Database, Session
from kaleidoscope.library import service as library
from kaleidoscope.library.service import Registered, ScannedFile


def outcomes(registered: list[Registered]) -> list[str]:
    return [r.outcome for r in registered]


async def test_a_new_file_gets_its_row(
    write: Write, register: Register, ledger: Ledger, published: Published, tmp_path: Path
) -> None:
    file = write("trip/a.jpg", b"abc")
    (registered,) = await register([file])
    photo = (await ledger())["trip/a.jpg"]
    assert registered == Registered(photo.photo_id, file.path, "photo", "new", photo.attempt_id)
    assert photo.photo_id >= 10**9
    assert photo.final_path == photo.original_path == str(tmp_path / "trip/a.jpg")
    assert photo.filename == photo.original_name == "a.jpg"
    assert (photo.size_bytes, photo.modified_at) == (3, file.modified_at)
    assert (photo.mime_type, photo.media_type, photo.status) == ("image/jpeg", "photo", "READY")
    assert photo.file_hash is None and photo.path_bytes is None and photo.person_ids is None
    assert await published() == []  # whoever scans publishes, with its own bookkeeping


async def test_known_files_are_left_alone(write: Write, register: Register, ledger: Ledger) -> None:
    files = [write(f"{n}.jpg", b"%d" % n) for n in range(3)]
    first = await register(files)
    before = await ledger()
    assert outcomes(await register(files)) == ["known"] * 3
    assert await ledger() == before
    assert [r.photo_id for r in await register(files)] == [r.photo_id for r in first]


async def test_names_of_any_bytes(write: Write, register: Register, ledger: Ledger) -> None:
    files = [write(b"caf\xe9.jpg", b"1"), write(r"\xe9.jpg", b"2"), write("カメラ.jpg", b"3")]
    assert outcomes(await register(files)) == ["new"] * 3
    photos = await ledger()
    assert photos[r"caf\xe9.jpg"].path_bytes.endswith(b"/caf\xe9.jpg")
    assert photos[r"\x5cxe9.jpg"].path_bytes.endswith(rb"/\xe9.jpg")
    assert photos["カメラ.jpg"].path_bytes is None
    assert outcomes(await register(files)) == ["known"] * 3


async def test_the_longest_name_of_other_bytes(
    write: Write, register: Register, ledger: Ledger
) -> None:
    await register([write(b"\xe9" * 255, b"x")])
    assert (await ledger()).popitem()[1].filename == r"\xe9" * 255


async def test_a_path_too_long_is_refused_with_its_cause(db: Database, write: Write) -> None:
    file = replace(write("a.jpg", b"x"), path="/" + "d" * 2600)
    plan = await library.plan(db, [file])
    assert plan.files == []
    assert "2601 bytes, 2600 are possible" in plan.refused[0].cause


async def test_touched_with_the_same_content_stays_known(
    db: Database, write: Write, register: Register, ledger: Ledger
) -> None:
    await register([write("a.jpg", b"same")])
    await library.hash_pending(db)
    before = (await ledger())["a.jpg"]
    assert outcomes(await register([write("a.jpg", b"same", time=1_800_000_000)])) == ["known"]
    after = (await ledger())["a.jpg"]
    assert after.modified_at > before.modified_at
    assert (after.attempt_id, after.file_hash) == (before.attempt_id, before.file_hash)


async def test_other_content_of_the_same_size_is_changed(
    db: Database, write: Write, register: Register, ledger: Ledger
) -> None:
    (first,) = await register([write("a.jpg", b"one")])
    await library.hash_pending(db)
    async with db.transaction() as session:
        await library.finish(
            session, first.photo_id, first.attempt_id, person_ids=[7], faces=1, width=9, height=9
        )
    (again,) = await register([write("a.jpg", b"two", time=1_800_000_000)])
    assert (again.outcome, again.photo_id) == ("changed", first.photo_id)
    assert again.attempt_id != first.attempt_id
    photo = (await ledger())["a.jpg"]
    assert (photo.status, photo.attempt_id, photo.file_hash) == ("READY", again.attempt_id, None)
    assert (photo.width, photo.no_faces, photo.retry_count) == (None, None, 0)
    assert photo.person_ids == [7]  # true of the faces that are known, until it is looked at
    async with db.transaction() as session:
        assert await library.begin_attempt(session, first.photo_id, again.attempt_id) == "started"


async def test_changed_before_it_was_ever_hashed(write: Write, register: Register) -> None:
    await register([write("a.jpg", b"one")])
    changed = write("a.jpg", b"two", time=1_800_000_000)
    assert outcomes(await register([changed])) == ["changed"]
    assert outcomes(await register([changed])) == ["known"]


async def test_a_row_that_a_seed_inserted_is_taken_over_once(
    db: Database, write: Write, register: Register
) -> None:
    file = write("a.jpg", b"abc")
    async with db.transaction() as session:
        await session.execute(
            text("INSERT INTO photos (path, filename, filesize) VALUES (:p, 'a.jpg', 3)"),
            {"p": file.path},
        )
    assert outcomes(await register([file])) == ["changed"]
    assert outcomes(await register([file])) == ["known"]


async def test_a_missing_file_that_is_there_again(
    db: Database, write: Write, register: Register, ledger: Ledger
) -> None:
    file = write("a.jpg", b"abc")
    await register([file])
    async with db.transaction() as session:
        await session.execute(text("UPDATE media_assets SET missing_since = now()"))
    assert outcomes(await register([file])) == ["known"]
    assert (await ledger())["a.jpg"].missing_since is None


async def test_duplicates_inside_one_batch(
    write: Write, register: Register, ledger: Ledger
) -> None:
    files = [write(name, b"same") for name in ("c.jpg", "a.jpg", "b.jpg")] + [write("d", b"else")]
    assert outcomes(await register(files)) == ["duplicate", "new", "duplicate", "new"]
    photos = await ledger()
    first = photos["a.jpg"]
    assert first.duplicate_of is None
    assert first.file_hash == hashlib.sha256(b"same").hexdigest()
    assert photos["b.jpg"].duplicate_of == photos["c.jpg"].duplicate_of == first.photo_id
    assert photos["b.jpg"].file_hash == first.file_hash
    assert photos["d"].file_hash is None  # nothing looks like it: hashed in the background


async def test_a_duplicate_of_an_earlier_batch_that_was_not_hashed(
    write: Write, register: Register, ledger: Ledger
) -> None:
    await register([write("a.jpg", b"same")])
    assert outcomes(await register([write("copy/a.jpg", b"same")])) == ["duplicate"]
    photos = await ledger()
    assert photos["copy/a.jpg"].duplicate_of == photos["a.jpg"].photo_id
    assert photos["a.jpg"].file_hash is not None


async def test_alike_in_sample_and_size_is_not_yet_a_duplicate(
    write: Write, register: Register
) -> None:
    head = bytes(65536)
    files = [write("a", head + b"one"), write("b", head + b"two")]
    assert files[0].sample_hash == files[1].sample_hash
    assert outcomes(await register(files)) == ["new", "new"]


async def test_a_first_one_that_is_gone_is_no_match(
    write: Write, register: Register, tmp_path: Path
) -> None:
    await register([write("a.jpg", b"same")])
    (tmp_path / "a.jpg").unlink()
    assert outcomes(await register([write("b.jpg", b"same")])) == ["new"]


async def test_a_file_that_vanishes_after_the_scan_is_refused(
    db: Database, write: Write, tmp_path: Path
) -> None:
    files = [write("a.jpg", b"same"), write("b.jpg", b"same"), write("c.jpg", b"else")]
    (tmp_path / "a.jpg").unlink()
    plan = await library.plan(db, files)
    assert [(r.path, r.cause) for r in plan.refused] == [(files[0].path, "the file is gone")]
    assert [f.path for f in plan.files] == [f.path for f in files[1:]]


async def test_a_duplicate_shows_what_its_first_one_has_ended_with(
    db: Database, write: Write, register: Register, ledger: Ledger, published: Published
) -> None:
    (first,) = await register([write("a.jpg", b"same")])
    async with db.transaction() as session:
        await library.finish(
            session, first.photo_id, first.attempt_id, person_ids=[7, 9], faces=2, width=4, height=3
        )
    await published()
    (copy,) = await register([write("b.jpg", b"same")])
    photo = (await ledger())["b.jpg"]
    assert (photo.status, photo.person_ids, photo.no_faces) == ("PROCESSED", [7, 9], False)
    assert (photo.width, photo.height) == (4, 3)
    (event,) = await published()
    assert (event["topic"], event["photo_id"]) == ("photos-processed", copy.photo_id)
    assert (event["outcome"], event["final"], event["person_ids"]) == ("DUPLICATE", True, [7, 9])


async def test_a_duplicate_that_changes_is_itself_again(
    write: Write, register: Register, ledger: Ledger
) -> None:
    await register([write("a.jpg", b"same"), write("b.jpg", b"same")])
    assert outcomes(await register([write("b.jpg", b"another")])) == ["changed"]
    photo = (await ledger())["b.jpg"]
    assert (photo.duplicate_of, photo.file_hash, photo.status) == (None, None, "READY")


async def test_when_the_first_one_changes_a_duplicate_takes_its_place(
    db: Database, write: Write, register: Register, ledger: Ledger, published: Published
) -> None:
    registered = await register([write(f"{n}.jpg", b"same") for n in "abc"])
    async with db.transaction() as session:
        await library.finish(
            session, registered[0].photo_id, registered[0].attempt_id, person_ids=[7], faces=1
        )
    await published()
    assert outcomes(await register([write("a.jpg", b"other")])) == ["changed"]
    photos = await ledger()
    heir = photos["b.jpg"]
    assert (heir.duplicate_of, heir.status) == (None, "READY")
    assert photos["c.jpg"].duplicate_of == heir.photo_id
    assert photos["a.jpg"].duplicate_of is None
    (asked,) = await published()  # nobody scanned it, so that the library itself has it looked at
    assert (asked["topic"], asked["photo_id"]) == ("photos-to-process", heir.photo_id)
    assert asked["attempt_id"] == str(heir.attempt_id)


async def test_four_scans_of_the_same_files_at_once(
    db: Database, write: Write, ledger: Ledger
) -> None:
    files = [write(f"{n:03}.jpg", b"%d" % (n % 80)) for n in range(100)]

    async def scan_all(order: int) -> list[Registered]:
        found: list[Registered] = []
        mine = files if order % 2 else files[::-1]
        for start in range(0, 100, 25):
            plan = await library.plan(db, mine[start : start + 25])
            async with db.transaction() as session:
                found += await library.register(session, plan.files)
                await asyncio.sleep(0.01)
        return found

    scans = await asyncio.gather(*[scan_all(order) for order in range(4)])
    photos = await ledger()
    assert len(photos) == 100
    begun = [r.path for found in scans for r in found if r.outcome in ("new", "duplicate")]
    assert sorted(begun) == [f.path for f in files]  # one scan each had it as new
    assert not [r for found in scans for r in found if r.outcome == "changed"]
    await library.hash_pending(db)
    photos = await ledger()
    assert sum(p.duplicate_of is None for p in photos.values()) == 80


async def test_racing_scans_see_a_change_once(
    db: Database, write: Write, register: Register
) -> None:
    await register([write(f"{n}.jpg", b"old %d" % n) for n in range(20)])
    files = [write(f"{n}.jpg", b"newer %d" % n) for n in range(20)]
    scans = await asyncio.gather(*[register(files) for _ in range(4)])
    changed = [r.path for found in scans for r in found if r.outcome == "changed"]
    assert sorted(changed) == sorted(f.path for f in files)


async def test_a_batch_that_names_a_path_twice(write: Write, register: Register) -> None:
    file = write("a.jpg", b"abc")
    assert outcomes(await register([file, file])) == ["new"]


async def test_nothing_to_register(register: Register) -> None:
    assert await register([]) == []


async def test_a_time_long_ago(
    write: Write, register: Register, tmp_path: Path, ledger: Ledger
) -> None:
    write("a.jpg", b"abc")
    os.utime(tmp_path / "a.jpg", ns=(0, -(10**18) * 5))
    await register([scan(tmp_path / "a.jpg")])
    assert outcomes(await register([scan(tmp_path / "a.jpg")])) == ["known"]
    assert (await ledger())["a.jpg"].modified_at.year < 1970


async def test_few_statements_a_batch(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Registering is as many statements for a thousand files as for ten."""
    template = ScannedFile("", 1, library.modified_at(Path(__file__).stat()), "", "photo", None)

    async def statements(count: int) -> int:
        files = [
            replace(template, path=f"/{count}/{n}", sample_hash=f"{count} {n}")
            for n in range(count)
        ]
        executed: list[str] = []

        async def note(session: Session, statement: Any, *args: Any) -> Any:
            executed.append(str(statement))
            return await execute(session, statement, *args)

        execute = Session.execute
        with monkeypatch.context() as patch:
            patch.setattr(Session, "execute", note)
            plan = await library.plan(db, files)
            async with db.transaction() as session:
                await library.register(session, plan.files)
        return len(executed)

    assert 1 <= await statements(10) == await statements(1000) <= 6


async def test_known_rows_are_not_written(db: Database, write: Write, register: Register) -> None:
    file = write("a.jpg", b"abc")
    await register([file])
    async with db.transaction() as session:
        before = (await session.execute(text("SELECT xmin::text FROM media_assets"))).scalar_one()
    await register([file])
    async with db.transaction() as session:
        after = (await session.execute(text("SELECT xmin::text FROM media_assets"))).scalar_one()
    assert before == after
