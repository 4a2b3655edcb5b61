"""The second copy of originals: once each, read back, never taken on trust."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from backups import originals, rows
from scans import Register, Write

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import Conflict, SettingsError
from kaleidoscope.kernel.settings import load
from kaleidoscope.kernel.store import FolderStore, StoreProblem
from kaleidoscope.library import service as library
from kaleidoscope.library.rules.places import copy_location

NOW = timedelta(0)


@pytest.fixture
def target(folder: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A second location, in the settings."""
    place = folder / "second disk"
    monkeypatch.setenv("KALEIDOSCOPE_BACKUP_TARGET", str(place))
    load.cache_clear()
    return place


@pytest.fixture
def take_in(db: Database, write: Write, register: Register) -> Any:
    """Files in the ledger, hashed: their photo_ids."""

    async def take_in(**contents: bytes) -> dict[str, int]:
        found = await register([write(f"{name}.jpg", body) for name, body in contents.items()])
        await library.hash_pending(db)
        return {Path(one.path).stem: one.photo_id for one in found}

    return take_in


async def copy(db: Database) -> dict[str, int]:
    return await library.copy_pending(db, await library.use_target(db))


async def flags(db: Database) -> dict[str, bool]:
    found = await rows(db, "SELECT filename, is_backed_up, backed_up_at FROM media_assets")
    assert all(row.is_backed_up == (row.backed_up_at is not None) for row in found)
    return {row.filename: row.is_backed_up for row in found}


async def test_every_original_is_copied_once(db: Database, target: Path, take_in: Any) -> None:
    await take_in(a=b"one", b=b"two", c=b"one")
    assert (await copy(db))["copied"] == 2
    copies = originals(target)
    assert sorted(copies.values()) == [b"one", b"two"]
    for name, body in copies.items():
        assert name.startswith("originals/2023/2023-11-14/")
        assert hashlib.sha256(body).hexdigest()[:16] in name and name.endswith(".jpg")
    assert await flags(db) == {"a.jpg": True, "b.jpg": True, "c.jpg": True}
    assert await copy(db) == {"copied": 0, "bytes": 0, "known": 0, "failed": 0}
    events = await rows(db, "SELECT outcome FROM asset_events WHERE what = 'backed-up'")
    assert [event.outcome for event in events] == ["ok"] * 3


async def test_a_file_that_is_filed_elsewhere_is_not_copied_again(
    db: Database, target: Path, take_in: Any, tmp_path: Path
) -> None:
    ids = await take_in(a=b"one")
    await copy(db)
    before = originals(target)
    (tmp_path / "a.jpg").rename(tmp_path / "renamed.jpg")
    await rows(
        db,
        "UPDATE media_assets SET final_path = :path, captured_at = '2001-02-03',"
        " is_backed_up = false, backed_up_at = NULL WHERE photo_id = :id",
        path=str(tmp_path / "renamed.jpg"),
        id=ids["a"],
    )
    assert (await copy(db))["known"] == 1
    assert originals(target) == before and await flags(db) == {"a.jpg": True}


async def test_a_changed_file_never_passes_for_what_was_taken_in(
    db: Database, target: Path, take_in: Any, tmp_path: Path
) -> None:
    await take_in(a=b"one", b=b"two")
    (tmp_path / "a.jpg").write_bytes(b"0ne")
    done = await copy(db)
    assert (done["copied"], done["failed"]) == (1, 1)
    assert list(originals(target).values()) == [b"two"]
    assert await flags(db) == {"a.jpg": False, "b.jpg": True}
    (problem,) = await rows(db, "SELECT error FROM asset_problems WHERE what = 'backed-up'")
    assert "not what was taken in" in problem.error
    assert (await copy(db))["failed"] == 0  # it waits before it is tried again
    (tmp_path / "a.jpg").write_bytes(b"one")
    await rows(db, "UPDATE asset_problems SET retry_at = now()")
    assert (await copy(db))["copied"] == 1
    assert await rows(db, "SELECT FROM media_assets WHERE has_errors") == []


async def test_a_copy_counts_when_it_was_read_back(
    db: Database, target: Path, take_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that takes everything and keeps something else."""
    await take_in(a=b"one")
    write = FolderStore.write

    def forgetful(store: FolderStore, name: str, pieces: Any, **how: Any) -> None:
        write(store, name, (piece.replace(b"o", b"0") for piece in pieces), **how)

    place = await library.use_target(db)
    monkeypatch.setattr(FolderStore, "write", forgetful)
    with pytest.raises(StoreProblem, match="does not give back"):
        await library.copy_pending(db, place)
    assert await flags(db) == {"a.jpg": False}
    monkeypatch.setattr(FolderStore, "write", write)
    assert (await copy(db))["copied"] == 1
    assert list(originals(target).values()) == [b"one"]


async def test_a_flipped_byte_in_the_backup_is_found_and_mended(
    db: Database, target: Path, take_in: Any
) -> None:
    await take_in(a=b"one", b=b"two")
    await copy(db)
    name = next(name for name, body in originals(target).items() if body == b"one")
    (target / name).write_bytes(b"onf")
    place = await library.use_target(db)
    none = await library.verify_copies(db, place, 0.0, timedelta(days=1))
    assert none["read"] == 0
    found = await library.verify_copies(db, place)
    assert (found["read"], found["damaged"]) == (2, [name])
    assert await flags(db) == {"a.jpg": False, "b.jpg": True}
    await rows(db, "UPDATE asset_problems SET retry_at = now()")
    assert (await copy(db))["copied"] == 1
    assert originals(target)[name] == b"one" and await flags(db) == {"a.jpg": True, "b.jpg": True}
    assert (await library.verify_copies(db, place))["damaged"] == []
    assert await rows(db, "SELECT FROM asset_problems") == []


async def test_a_copy_that_is_gone_is_found(db: Database, target: Path, take_in: Any) -> None:
    await take_in(a=b"one")
    await copy(db)
    (name,) = originals(target)
    (target / name).unlink()
    found = await library.verify_copies(db, await library.use_target(db))
    assert found["damaged"] == [name]


async def test_an_unmounted_target_is_refused(db: Database, target: Path, take_in: Any) -> None:
    await take_in(a=b"one")
    await copy(db)
    target.rename(target.with_name("away"))
    target.mkdir()
    await take_in(b=b"two")
    with pytest.raises(Conflict, match="is its disk not mounted"):
        await copy(db)
    assert list(target.iterdir()) == []
    target.rmdir()
    target.with_name("away").rename(target)
    assert (await copy(db))["copied"] == 1


async def test_a_new_target_gets_everything(
    db: Database, target: Path, take_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await take_in(a=b"one", b=b"two")
    await copy(db)
    other = target.with_name("third disk")
    monkeypatch.setenv("KALEIDOSCOPE_BACKUP_TARGET", str(other))
    load.cache_clear()
    assert (await copy(db))["copied"] == 2
    assert originals(other) == originals(target)
    # Back at the first one, what it has is known.
    monkeypatch.setenv("KALEIDOSCOPE_BACKUP_TARGET", str(target))
    load.cache_clear()
    await take_in(c=b"three")
    assert (await copy(db))["copied"] == 1


async def test_to_s3_and_back(
    db: Database, take_in: Any, tmp_path: Path, data_dir: Path, s3: dict[str, str]
) -> None:
    import s3fs

    s3fs.S3FileSystem(**s3, use_listings_cache=False).mkdir("family")
    options = "".join(f'{key} = "{value}"\n' for key, value in s3.items())
    (data_dir / "kaleidoscope.toml").write_text(
        f'[backup]\ntarget = "s3://family/photos"\n[backup.options]\n{options}'
    )
    load.cache_clear()
    large = bytes(range(256)) * 40_000  # more than one part of an upload
    await take_in(a=b"one", b=large)
    assert (await copy(db))["copied"] == 2
    place = await library.use_target(db)
    assert (await library.verify_copies(db, place))["damaged"] == []
    (tmp_path / "b.jpg").unlink()
    done = await library.put_back(db, place)
    assert (done["restored"], done["there"], done["failed"]) == (1, 1, {})
    assert (tmp_path / "b.jpg").read_bytes() == large
    (name,) = [name for name, size in place.store.names("originals") if size == 3]
    place.store.put(name, b"onf")
    assert (await library.verify_copies(db, place))["damaged"] == [name]


async def test_the_backup_of_another_installation_is_refused(
    db: Database, target: Path, take_in: Any
) -> None:
    await take_in(a=b"one")
    target.mkdir()
    (target / "kaleidoscope-backup.json").write_text(f'{{"backup_id": "{uuid4()}"}}')
    with pytest.raises(Conflict, match="another installation"):
        await copy(db)
    assert not originals(target)
    place = await library.use_target(db, new=True)
    assert (await library.copy_pending(db, place))["copied"] == 1
    assert (await copy(db))["copied"] == 0


async def test_killed_between_the_mark_and_its_row(
    db: Database, target: Path, take_in: Any
) -> None:
    await take_in(a=b"one")
    await library.use_target(db)
    await rows(db, "DELETE FROM backup_targets")
    assert (await copy(db))["copied"] == 1


async def test_without_a_target(db: Database, data_dir: Path) -> None:
    with pytest.raises(SettingsError, match="no backup is set up"):
        await copy(db)


async def test_what_is_frozen_or_missing_is_left_alone(
    db: Database, target: Path, take_in: Any, tmp_path: Path
) -> None:
    await take_in(a=b"one", b=b"two")
    await rows(db, "UPDATE media_assets SET missing_since = now() WHERE filename = 'a.jpg'")
    await rows(
        db,
        "INSERT INTO known_places (path, kind, frozen_at, frozen_because)"
        " VALUES (:path, 'folder', now(), 'gone')",
        path=str(tmp_path),
    )
    assert (await copy(db))["copied"] == 0
    assert await rows(db, "SELECT FROM asset_problems") == []


def test_names_that_any_disk_can_hold() -> None:
    digest = "ab" * 32
    assert copy_location(digest, "IMG_1.JPG", "2023-05-01") == (
        "originals/2023/2023-05-01/IMG_1.abababababababab.JPG"
    )
    assert (
        copy_location(digest, 'a:b*"c?.jpg', None)
        == "originals/undated/a_b__c_.abababababababab.jpg"
    )
    assert (
        copy_location(digest, "no ending", None) == "originals/undated/no ending.abababababababab"
    )
    assert copy_location(digest, ". .", None) == "originals/undated/unnamed.abababababababab"
    long = copy_location(digest, "é" * 255 + ".jpeg", None)
    assert long.endswith(".abababababababab.jpeg") and len(long.encode()) < 255


RUN = """
import asyncio, os, sys
from kaleidoscope.kernel.db import Database
from kaleidoscope.library import service as library
async def main():
    db = Database(sys.argv[1])
    target = await library.use_target(db)
    print("begun", flush=True)
    await library.copy_pending(db, target)
    await db.close()
asyncio.run(main())
"""


def _run_and_kill(url: str, seconds: float) -> bool:
    """Whether it was still at work."""
    command = [sys.executable, "-c", RUN, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        time.sleep(seconds)
        process.kill()
    return process.returncode != 0


@pytest.mark.timeout(600)
async def test_killed_again_and_again_nothing_is_copied_twice(
    db: Database, database_url: str, target: Path, take_in: Any
) -> None:
    """`kill -9` at random moments: in the end each content is there, once, and whole."""
    dice = random.Random(int(os.environ.get("KALEIDOSCOPE_TEST_SEED", "7")))
    contents = {f"p{n}": dice.randbytes(dice.randrange(1, 400_000)) for n in range(80)}
    await take_in(**contents)
    kills = 0
    for _ in range(8):
        kills += await asyncio.to_thread(_run_and_kill, database_url, dice.uniform(0, 0.4))
    assert kills > 2
    assert (await copy(db))["failed"] == 0
    copies = originals(target)
    assert sorted(copies.values()) == sorted(contents.values())
    assert not list(target.rglob("*.part"))
    assert set((await flags(db)).values()) == {True}
    assert (await library.verify_copies(db, await library.use_target(db)))["damaged"] == []


async def test_killed_between_the_copy_and_its_row(
    db: Database, target: Path, take_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await take_in(a=b"one")
    await copy(db)
    (name,) = originals(target)
    before = (target / name).stat()
    await rows(db, "UPDATE backup_copies SET copied_at = NULL, verified_at = NULL")
    await rows(db, "UPDATE media_assets SET is_backed_up = false, backed_up_at = NULL")
    # Since then its date was corrected: it is found where it was settled to lie.
    await rows(db, "UPDATE media_assets SET captured_at = '1999-01-01'")
    assert (await copy(db))["known"] == 1
    after = (target / name).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert list(originals(target)) == [name]


async def test_a_copy_that_another_asset_shares_is_not_taken_for_verified(
    db: Database, target: Path, take_in: Any
) -> None:
    """It was made before and was not read again: its turn to be read comes."""
    await take_in(a=b"content")
    await copy(db)
    await rows(db, "UPDATE backup_copies SET verified_at = verified_at - interval '50 days'")
    await take_in(b=b"content")
    assert (await copy(db))["known"] == 1
    assert await flags(db) == {"a.jpg": True, "b.jpg": True}
    done = await library.verify_copies(db, await library.use_target(db), 0.0, timedelta(days=30))
    assert done["read"] == 1
