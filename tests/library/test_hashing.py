"""The background pass over files without a full hash."""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
from scans import Ledger, Published, Register, Write
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from kaleidoscope.kernel.db import Database
from kaleidoscope.library import service as library
from kaleidoscope.library.service import hashing


async def test_every_file_gets_its_hash(
    db: Database,
    write: Write,
    register: Register,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hashing, "AT_ONCE", 7)
    await register([write(b"\xff%d.jpg" % n, b"%d" % n) for n in range(30)])
    assert await library.hash_pending(db) == {"hashed": 30}
    assert await library.hash_pending(db) == {}
    for photo in (await ledger()).values():
        content = Path(os.fsdecode(photo.path_bytes)).read_bytes()
        assert photo.file_hash == hashlib.sha256(content).hexdigest()


async def unlike(register: Register, write: Write, *names: str) -> None:
    """Register files of the same content, one by one, none of which looks like another."""
    for name in names:
        await register([replace(write(name, b"same"), sample_hash=name)])


async def test_duplicates_that_nobody_suspected(
    db: Database, write: Write, register: Register, ledger: Ledger, published: Published
) -> None:
    await unlike(register, write, "a.jpg", "b.jpg")
    photos = await ledger()
    async with db.transaction() as session:
        first = photos["a.jpg"]
        await library.finish(session, first.photo_id, first.attempt_id, person_ids=[7], faces=1)
    await published()
    assert await library.hash_pending(db) == {"hashed": 2, "duplicates": 1}
    copy = (await ledger())["b.jpg"]
    assert copy.duplicate_of == first.photo_id
    assert (copy.status, copy.person_ids) == ("PROCESSED", [7])
    assert [e["outcome"] for e in await published()] == ["DUPLICATE"]
    async with db.transaction() as session:  # its message comes after all
        state = await library.begin_attempt(session, copy.photo_id, copy.attempt_id)
    assert state == "superseded"


async def test_a_duplicate_under_way_waits_for_its_first_one(
    db: Database, write: Write, register: Register, ledger: Ledger
) -> None:
    await unlike(register, write, "a.jpg", "b.jpg", "c.jpg")
    photos = await ledger()
    async with db.transaction() as session:
        b, c = photos["b.jpg"], photos["c.jpg"]
        await library.begin_attempt(session, b.photo_id, b.attempt_id)
        await library.finish(session, c.photo_id, c.attempt_id, person_ids=[8], faces=1)
    await library.hash_pending(db)
    photos = await ledger()
    assert (photos["b.jpg"].status, photos["b.jpg"].processing_since) == ("READY", None)
    assert (photos["c.jpg"].status, photos["c.jpg"].person_ids) == ("PROCESSED", [8])
    async with db.transaction() as session:
        a = photos["a.jpg"]
        await library.finish(session, a.photo_id, a.attempt_id, person_ids=[7], faces=1)
    assert [p.person_ids for p in (await ledger()).values()] == [[7]] * 3


async def test_files_gone_unreadable_or_changed_are_noted_and_healed(
    db: Database, write: Write, register: Register, ledger: Ledger, tmp_path: Path
) -> None:
    await register([write(f"{n}.jpg", n.encode()) for n in "abc"])
    (tmp_path / "a.jpg").unlink()
    write("b.jpg", b"changed")
    assert await library.hash_pending(db) == {"hashed": 1, "failed": 2}
    photos = await ledger()
    assert photos["a.jpg"].error_message == "the file is gone"
    assert photos["b.jpg"].error_message == "the file has changed since it was scanned"
    assert photos["a.jpg"].has_errors and photos["b.jpg"].has_errors
    assert photos["a.jpg"].status == "READY"
    assert photos["c.jpg"].file_hash and not photos["c.jpg"].has_errors
    assert await library.hash_pending(db) == {}  # not at once again
    write("a.jpg", b"a")
    write("b.jpg", b"b")
    async with db.transaction() as session:
        await session.execute(text("UPDATE asset_problems SET retry_at = now()"))
    assert await library.hash_pending(db) == {"hashed": 2}
    assert not any(p.has_errors or p.error_message for p in (await ledger()).values())


async def test_the_error_of_recognition_stays(
    db: Database, write: Write, register: Register, ledger: Ledger, tmp_path: Path
) -> None:
    for photo in await register([write("a.jpg", b"a"), write("b.jpg", b"b")]):
        async with db.transaction() as session:
            await library.fail(
                session, photo.photo_id, photo.attempt_id, code="decode", error="no JPEG"
            )
    (tmp_path / "a.jpg").unlink()
    await library.hash_pending(db)
    photos = await ledger()
    errors = [p.error_message for p in photos.values()]
    assert errors == ["no JPEG; the file is gone", "no JPEG"]
    assert all(p.has_errors for p in photos.values())
    assert photos["b.jpg"].file_hash


async def test_a_file_registered_as_changed_meanwhile_keeps_no_old_hash(
    db: Database,
    write: Write,
    register: Register,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await register([write("a.jpg", b"old")])
    real = hashing.hash_all

    async def slow(files):  # type: ignore[no-untyped-def]
        digests = await real(files)
        await register([write("a.jpg", b"new content")])
        monkeypatch.setattr(hashing, "hash_all", real)
        return digests

    monkeypatch.setattr(hashing, "hash_all", slow)
    await library.hash_pending(db)
    assert (await ledger())["a.jpg"].file_hash is None
    await library.hash_pending(db)
    expected = hashlib.sha256(b"new content").hexdigest()
    assert (await ledger())["a.jpg"].file_hash == expected


async def test_hashing_while_scans_come_in(
    db: Database, write: Write, register: Register, ledger: Ledger
) -> None:
    """Scans of copies, and two passes at once: nobody fails, each content has one first asset."""

    async def scans(folder: str) -> None:
        for start in range(0, 40, 10):
            await register(
                [write(f"{folder}/{n}.jpg", b"%d" % n) for n in range(start, start + 10)]
            )

    await asyncio.gather(
        *[scans(folder) for folder in "abcd"], *[library.hash_pending(db) for _ in range(2)]
    )
    await library.hash_pending(db)
    photos = list((await ledger()).values())
    assert len(photos) == 160 and all(p.file_hash for p in photos)
    firsts = {p.photo_id: p.file_hash for p in photos if p.duplicate_of is None}
    assert len(firsts) == 40
    assert all(firsts[p.duplicate_of] == p.file_hash for p in photos if p.duplicate_of)


async def test_two_firsts_with_one_content_are_impossible(
    db: Database, write: Write, register: Register
) -> None:
    await unlike(register, write, "a.jpg", "b.jpg")
    with pytest.raises(IntegrityError):
        async with db.transaction() as session:
            await session.execute(
                text("UPDATE media_assets SET file_hash = :hash"), {"hash": "0" * 64}
            )
