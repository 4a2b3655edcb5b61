"""Rot is found, told, and healed from the backup on a person's word."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from backups import originals, rows
from scans import Register, Write, scan

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import Conflict, NotFound, Unavailable
from kaleidoscope.kernel.settings import load
from kaleidoscope.kernel.web import create_app
from kaleidoscope.library import routes
from kaleidoscope.library import service as library
from kaleidoscope.library.outside import originals as disk
from kaleidoscope.library.service.claim import alone

NOW = timedelta(0)
TIME = 1_700_000_000.5


@pytest.fixture
def target(folder: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = folder / "second disk"
    monkeypatch.setenv("KALEIDOSCOPE_BACKUP_TARGET", str(place))
    load.cache_clear()
    return place


@pytest.fixture
async def asset(db: Database, target: Path, write: Write, register: Register) -> tuple[int, Path]:
    """One original with its copy: its number and its path."""
    (found,) = await register([write("a.jpg", b"what was taken in", TIME)])
    await library.hash_pending(db)
    await library.copy_pending(db, await library.use_target(db))
    return found.photo_id, Path(found.path)


def rot(path: Path) -> None:
    """Flip a byte; the file's size and time stay."""
    body = bytearray(path.read_bytes())
    body[3] ^= 1
    path.write_bytes(body)
    os.utime(path, (TIME, TIME))


async def scrub(db: Database) -> dict[str, int]:
    return await library.scrub_some(db, NOW)


async def row(db: Database) -> Any:
    (found,) = await rows(db, "SELECT * FROM media_assets")
    return found


async def test_a_flipped_byte_is_found_and_told(db: Database, asset: tuple[int, Path]) -> None:
    assert await scrub(db) == {"read": 1}
    assert (await row(db)).scrubbed_at is not None and not (await row(db)).has_errors
    rot(asset[1])
    assert await scrub(db) == {"read": 1, "damaged": 1}
    found = await row(db)
    assert found.has_errors and "damaged" in found.error_message
    async with db.transaction() as session:
        (alarm,) = await library.alarms(session)
        assert [photo.photo_id for photo in await library.damaged(session)] == [asset[0]]
    assert alarm.status == "WARNING" and "damaged originals: 1" in alarm.text
    await scrub(db)
    events = await rows(db, "SELECT outcome FROM asset_events WHERE what = 'scrubbed' ORDER BY 1")
    assert [event.outcome for event in events] == ["failed", "ok"]  # told once


async def test_that_it_is_whole_is_told_once(db: Database, asset: tuple[int, Path]) -> None:
    """Provenance is kept for ever, so it must not grow with every round: a ledger of a million
    would be told twelve million times a year."""
    for _ in range(3):
        assert await scrub(db) == {"read": 1}
    events = "SELECT outcome FROM asset_events WHERE what = 'scrubbed' ORDER BY event_id"
    assert [e.outcome for e in await rows(db, events)] == ["ok"]
    body = asset[1].read_bytes()
    rot(asset[1])
    await scrub(db)
    asset[1].write_bytes(body)
    os.utime(asset[1], (TIME, TIME))
    await scrub(db)
    await scrub(db)
    assert [e.outcome for e in await rows(db, events)] == ["ok", "failed", "ok"]
    assert not (await row(db)).has_errors


async def test_recognition_does_not_hide_it(db: Database, asset: tuple[int, Path]) -> None:
    rot(asset[1])
    await scrub(db)
    async with db.transaction() as session:
        attempt = await library.new_attempt(session, asset[0])
        await library.finish(session, asset[0], attempt, faces=0)
        assert await library.count_damaged(session) == 1


async def test_a_damaged_original_is_healed(db: Database, asset: tuple[int, Path]) -> None:
    rot(asset[1])
    damaged = asset[1].read_bytes()
    await scrub(db)
    healed = await library.heal(db, asset[0])
    assert asset[1].read_bytes() == b"what was taken in"
    assert asset[1].stat().st_mtime == TIME  # a scan takes it for what it was
    assert healed.kept_aside is not None and Path(healed.kept_aside).read_bytes() == damaged
    found = await row(db)
    assert not found.has_errors and found.error_message is None
    assert await scrub(db) == {"read": 1}
    with pytest.raises(Conflict, match="neither damaged nor missing"):
        await library.heal(db, asset[0])


async def test_one_that_is_filed_elsewhere_meanwhile_is_not_healed_at_its_old_place(
    db: Database, asset: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While its copy comes from far away, a refile moves it: nothing is put where it lay."""
    rot(asset[1])
    await scrub(db)
    moved = asset[1].with_name("filed again.jpg")
    bring = disk.bring

    def slowly(*words: Any) -> Path:
        draft = bring(*words)
        asset[1].rename(moved)
        with psycopg.connect(db.url) as connection:
            connection.execute("UPDATE media_assets SET final_path = %s", [str(moved)])
        return draft

    monkeypatch.setattr(disk, "bring", slowly)
    with pytest.raises(Conflict, match="filed elsewhere meanwhile"):
        await library.heal(db, asset[0])
    assert not asset[1].exists() and list(moved.parent.glob(".*healing")) == []
    monkeypatch.setattr(disk, "bring", bring)
    await library.heal(db, asset[0])
    assert moved.read_bytes() == b"what was taken in"


async def test_healing_waits_for_whoever_moves_originals(
    db: Database, asset: tuple[int, Path]
) -> None:
    rot(asset[1])
    await scrub(db)
    async with alone(db):
        healing = asyncio.create_task(library.heal(db, asset[0]))
        done, _ = await asyncio.wait([healing], timeout=0.5)
        assert not done and asset[1].read_bytes() != b"what was taken in"
    await healing
    assert asset[1].read_bytes() == b"what was taken in"


async def test_one_that_came_right_meanwhile_is_left_alone(
    db: Database, asset: tuple[int, Path]
) -> None:
    rot(asset[1])
    await scrub(db)
    asset[1].write_bytes(b"what was taken in")
    healed = await library.heal(db, asset[0])
    assert healed.kept_aside is None and list(asset[1].parent.glob("*.damaged-*")) == []
    assert not (await row(db)).has_errors


async def test_a_missing_original_is_put_back(db: Database, asset: tuple[int, Path]) -> None:
    asset[1].unlink()
    await rows(db, "UPDATE media_assets SET missing_since = now()")
    healed = await library.heal(db, asset[0])
    assert healed.kept_aside is None and asset[1].read_bytes() == b"what was taken in"
    assert (await row(db)).missing_since is None


async def test_a_damaged_copy_heals_nothing(
    db: Database, asset: tuple[int, Path], target: Path
) -> None:
    rot(asset[1])
    await scrub(db)
    damaged = asset[1].read_bytes()
    (name,) = originals(target)
    (target / name).write_bytes(b"something else altogether")
    with pytest.raises(Unavailable, match="damaged, too"):
        await library.heal(db, asset[0])
    assert [path.read_bytes() for path in asset[1].parent.iterdir()] == [damaged]
    assert (await row(db)).has_errors


async def test_without_a_copy(db: Database, asset: tuple[int, Path]) -> None:
    rot(asset[1])
    await scrub(db)
    await rows(db, "DELETE FROM backup_copies")
    with pytest.raises(NotFound, match="no copy in the backup"):
        await library.heal(db, asset[0])


async def test_a_file_that_somebody_edited_is_not_rotten(
    db: Database, asset: tuple[int, Path]
) -> None:
    asset[1].write_bytes(b"edited")
    assert await scrub(db) == {}
    assert not (await row(db)).has_errors


@pytest.mark.parametrize("originals", ["Storage/Originals", "other disk"])
async def test_an_original_of_ours_is_rotten_whoever_wrote_to_it(
    db: Database,
    asset: tuple[int, Path],
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    originals: str,
) -> None:
    if originals == "other disk":
        monkeypatch.setenv("KALEIDOSCOPE_LIBRARY_ORIGINALS", str(data_dir / originals))
        load.cache_clear()
    path = data_dir / originals / "a.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"edited")
    await rows(db, "UPDATE media_assets SET final_path = :path", path=str(path))
    assert await scrub(db) == {"read": 1, "damaged": 1}


async def test_a_file_that_is_gone_is_not_rotten(db: Database, asset: tuple[int, Path]) -> None:
    asset[1].unlink()
    assert await scrub(db) == {}
    assert not (await row(db)).has_errors


async def test_no_more_is_read_than_the_rate_gives(
    db: Database, data_dir: Path, write: Write, register: Register,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Sixty seconds' worth a round: the longest unread first, until all have had their turn."""
    await register([write(f"{n}.jpg", bytes([n]) * 1000) for n in range(10)])
    await library.hash_pending(db)
    monkeypatch.setenv("KALEIDOSCOPE_LIBRARY_SCRUB_MEGABYTES_PER_SECOND", str(3000 / 60 / 1e6))
    load.cache_clear()
    assert [(await library.scrub(db)).get("read") for _ in range(5)] == [3, 3, 3, 1, None]
    monkeypatch.setenv("KALEIDOSCOPE_LIBRARY_SCRUB_MEGABYTES_PER_SECOND", "0")
    load.cache_clear()
    await rows(db, "UPDATE media_assets SET scrubbed_at = NULL")
    assert await library.scrub(db) == {}


async def test_over_http(db: Database, asset: tuple[int, Path]) -> None:
    app = create_app("test", [routes.router])
    app.state.db = db
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.post(f"/api/photos/{asset[0]}/heal")).status_code == 409
        assert (await client.post("/api/photos/7/heal")).status_code == 404
        rot(asset[1])
        await scrub(db)
        answer = await client.post(f"/api/photos/{asset[0]}/heal")
        assert answer.status_code == 200 and answer.json()["path"] == str(asset[1])
        async with db.transaction() as session:
            await library.know_place(session, str(asset[1].parent))
        (place,) = (await client.get("/api/places")).json()["places"]
        assert (place["path"], place["assets"], place["missing"]) == (str(asset[1].parent), 1, 0)
        decision = f"/api/places/{place['place_id']}/decision"
        assert (await client.post(decision, json={"decision": "wait"})).status_code == 409
        await rows(db, "UPDATE known_places SET frozen_at = now(), frozen_because = 'gone'")
        said = await client.post(decision, json={"decision": "accept-missing"})
        assert said.json()["decision"] == "accept-missing"
        assert (await client.post(decision, json={"decision": "no"})).status_code == 422


async def test_what_a_person_puts_right_by_hand_is_right_again(
    db: Database, asset: tuple[int, Path], register: Register
) -> None:
    rot(asset[1])
    await scrub(db)
    asset[1].write_bytes(b"what was taken in")
    await register([scan(asset[1])])
    assert (await row(db)).has_errors  # until it has been read
    assert await library.scrub(db) == {"read": 1}
    assert not (await row(db)).has_errors


@pytest.mark.parametrize("of", ["one photo", "all of a cause"])
@pytest.mark.parametrize("what", ["scrubbed", "missing"])
async def test_another_look_by_a_persons_word(
    db: Database, asset: tuple[int, Path], what: Any, of: str
) -> None:
    """Not only when its turn has come."""
    number, path = asset
    async with db.transaction() as session:
        await library.know_place(session, str(path.parent))
    if what == "scrubbed":
        rot(path)
        await scrub(db)
        rot(path)
    else:
        path.rename(path.with_suffix(".away"))
        await library.watch(db)
        path.with_suffix(".away").rename(path)
    assert (await row(db)).has_errors
    await library.watch(db)
    await library.scrub(db)
    assert (await row(db)).has_errors
    async with db.transaction() as session:
        if of == "one photo":
            await library.retry(session, number, what)
        else:
            assert await library.try_again(session, what, [number]) == 1
    await library.watch(db)
    await library.scrub(db)
    assert not (await row(db)).has_errors


async def test_nothing_is_put_into_a_place_that_is_frozen(
    db: Database, asset: tuple[int, Path]
) -> None:
    """It would fill the folder that a disk is mounted at."""
    rot(asset[1])
    await scrub(db)
    await rows(
        db,
        "INSERT INTO known_places (path, kind, frozen_at, frozen_because)"
        " VALUES (:path, 'folder', now(), 'it is empty')",
        path=str(asset[1].parent),
    )
    asset[1].unlink()
    with pytest.raises(Conflict, match="frozen"):
        await library.heal(db, asset[0])
    assert not asset[1].exists()


async def test_numbers_that_no_photo_can_have(db: Database, data_dir: Path) -> None:
    app = create_app("test", [routes.router])
    app.state.db = db
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for path in ("photos/{}/heal", "places/{}/decision"):
            answer = await client.post(f"/api/{path.format(2**70)}", json={"decision": "wait"})
            assert answer.status_code == 422
        for query in ("review?after", "corrections?before"):
            answer = await client.get(f"/api/dates/{query}={2**70}")
            assert answer.status_code == 422


async def test_a_file_that_is_filed_elsewhere_meanwhile_was_not_read(
    db: Database, asset: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = disk.content_hash

    def filed_again(path: str) -> str:
        asset[1].rename(asset[1].with_name("b.jpg"))
        with psycopg.connect(db.url) as connection:
            connection.execute(
                "UPDATE media_assets SET final_path = replace(final_path, 'a.', 'b.')"
            )
        return hashed(path)

    monkeypatch.setattr(disk, "content_hash", filed_again)
    assert await library.scrub(db) == {}
    assert (await row(db)).scrubbed_at is None
    monkeypatch.undo()
    assert await library.scrub(db) == {"read": 1}
