"""The backup as a whole: database and originals, there and back."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import random
import shutil
import subprocess
import sys
import time
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from household import Household

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.embedded_postgres import EmbeddedPostgres
from kaleidoscope.kernel.errors import Conflict, DatabaseError, NotFound, Unavailable
from kaleidoscope.kernel.store import FolderStore, StoreProblem
from kaleidoscope.library import service as library
from kaleidoscope.upkeep import jobs, service
from kaleidoscope.upkeep.schemas import Restored
from kaleidoscope.upkeep.service import backup, databases, restoring

NAMES = (
    "photos/a.jpg",
    "data/Storage/Originals/2020/b.jpg",
    b"photos/\xff odd.jpg",
    "photos/c.jpg",
)


async def restore(home: Household, to: Path, **how: Any) -> tuple[Restored, Household]:
    """Into a data folder; and the household that lives there then."""
    home.set(DATA_DIR=str(to), BACKUP_TARGET=str(home.disk))
    done = await service.restore(str(home.disk), {}, **how)
    assert isinstance(done, Restored)
    return done, home


async def living(home: Household, data: Path) -> tuple[EmbeddedPostgres, Household]:
    """The household of a restored data folder, with its server started."""
    server = EmbeddedPostgres(data / "postgres")
    url = await asyncio.to_thread(server.start)
    return server, Household(home.folder, Database(url), home._patch)


async def test_there_and_back(home: Household) -> None:
    """Bar 5 without the services: library and database deleted, all comes back as it was."""
    await home.take_in(*NAMES)
    await home.rows("UPDATE media_assets SET is_thumbnailed = true, thumbnailed_at = now()")
    await home.rows(
        "INSERT INTO known_places (path, kind, device) VALUES (:path, 'folder', 'old disk at /')",
        path=str(home.photos),
    )
    done = await service.back_up(home.db)
    assert done["originals"]["copied"] == 4 and done["database"]["segments"] >= 1
    before = await home.manifest()
    await home.db.close()
    await asyncio.to_thread(EmbeddedPostgres(home.data / "postgres").destroy)
    shutil.rmtree(home.data)
    shutil.rmtree(home.photos)
    restored, _ = await restore(home, home.data)
    assert (restored.restored, restored.there, restored.failed) == (4, 0, {})
    assert (restored.originals, restored.persons, restored.names, restored.faces) == (4,) * 4
    server, back = await living(home, home.data)
    try:
        assert await back.manifest() == before
        assert await back.rows("SELECT FROM media_assets WHERE is_thumbnailed") == []
        assert await library.watch(back.db) == {}  # a new disk is no reason to freeze anything
        # And the next backup knows what is there: the whole database anew, no original.
        again = await service.back_up(back.db, full=True)
        assert again["originals"]["copied"] == 0
        assert len(await asyncio.to_thread(databases.complete, FolderStore(home.disk))) == 2
    finally:
        await back.db.close()
        await asyncio.to_thread(server.stop)


async def test_into_another_data_folder(home: Household) -> None:
    """What lay in the old data folder lies in the new one; what lies there already is left."""
    await home.take_in(*NAMES)
    await service.back_up(home.db)
    other = home.folder / "new home"
    (home.folder / "photos/c.jpg").write_bytes(b"somebody else's")
    restored, _ = await restore(home, other)
    odd = restored.failed
    assert (restored.restored, restored.there) == (1, 2)
    assert odd == {str(home.photos / "c.jpg"): "another file lies there"}
    assert (home.photos / "c.jpg").read_bytes() == b"somebody else's"
    assert (other / "Storage/Originals/2020/b.jpg").exists()
    server, back = await living(home, other)
    try:
        paths = [row.final_path for row in await back.rows("SELECT final_path FROM media_assets")]
        assert str(other / "Storage/Originals/2020/b.jpg") in paths
    finally:
        await back.db.close()
        await asyncio.to_thread(server.stop)


SETTINGS = """\
# what the family wrote
database_url = "postgresql://old-server/photos"

[library]
originals = "{data}/Storage/Originals"   # on the large disk
duplicates_folder = '{data}/Duplicates'

[inbox]
folders = ["{data}/Photos_Inbox", "{photos}/Inbox"]

[backup]
target = "{disk}"
"""


async def test_the_settings_of_a_restored_library_name_nothing_of_the_old_place(
    home: Household,
) -> None:
    """Into another folder: no setting, and no row, leads into the one that was copied."""
    (home.data / "Duplicates").mkdir()
    (home.data / "Duplicates/twin.jpg").write_bytes(b"twin")
    folders = {"data": home.data, "photos": home.photos, "disk": home.disk}
    (home.data / "kaleidoscope.toml").write_text(SETTINGS.format(**folders))
    home.set(DATABASE_URL=home.db.url)
    await home.take_in("photos/a.jpg", "data/Storage/Originals/2020/b.jpg")
    await home.rows("INSERT INTO inboxes (path) VALUES (:p)", p=f"{home.data}/Photos_Inbox")
    await home.rows("INSERT INTO ingest_jobs (path) VALUES (:p)", p=str(home.data / "more"))
    await library.watch(home.db)
    await service.back_up(home.db)
    home.set(DATABASE_URL="")
    other = home.folder / "new home"
    restored, _ = await restore(home, other)
    assert restored.failed == {} and restored.beside == 1
    written = (other / "kaleidoscope.toml").read_text()
    assert str(home.data) not in written and "# on the large disk" in written
    told = tomllib.loads(written)
    assert told["library"]["originals"] == str(other / "Storage/Originals")
    assert told["library"]["duplicates_folder"] == str(other / "Duplicates")
    assert told["inbox"]["folders"] == [str(other / "Photos_Inbox"), str(home.photos / "Inbox")]
    assert told["backup"]["target"] == str(home.disk)
    assert "database_url" not in told  # it was restored into the embedded one
    assert (other / "Duplicates/twin.jpg").read_bytes() == b"twin"
    server, back = await living(home, other)
    try:
        for table, column in WHERE_PATHS_ARE:
            found = await back.rows(
                f"SELECT FROM {table} WHERE starts_with({column}, :old || '/')", old=str(home.data)
            )
            assert found == [], (table, column)
    finally:
        await back.db.close()
        await asyncio.to_thread(server.stop)


WHERE_PATHS_ARE = (
    ("media_assets", "final_path"),
    ("kept_files", "final_path"),
    ("known_places", "path"),
    ("custody_moves", "source_path"),
    ("custody_moves", "target_path"),
    ("custody_moves", "inbox"),
    ("inboxes", "path"),
    ("inbox_problems", "path"),
    ("ingest_jobs", "path"),
)


async def test_what_was_written_since_comes_back_by_the_log(home: Household) -> None:
    await home.take_in("photos/a.jpg")
    await service.back_up(home.db)
    await home.take_in("photos/later.jpg")
    done = await service.back_up(home.db)
    assert done["originals"]["copied"] == 1 and "name" not in done["database"]
    assert len(await asyncio.to_thread(databases.complete, FolderStore(home.disk))) == 1
    before = await home.manifest()
    moment = datetime.now(UTC)
    await asyncio.sleep(0.1)
    await home.rows("DELETE FROM faces")
    await service.copy_log(home.db)
    first, second = home.folder / "first", home.folder / "second"
    await restore(home, first)
    await restore(home, second, until=moment)
    for data, faces in ((first, 0), (second, 2)):
        server, back = await living(home, data)
        try:
            assert len((await back.manifest())["faces"]) == faces
            if faces:
                assert await back.manifest() == before
        finally:
            await back.db.close()
            await asyncio.to_thread(server.stop)


async def test_a_gap_in_the_log_is_closed_by_a_new_base(home: Household) -> None:
    await home.take_in("photos/a.jpg")
    await service.back_up(home.db)
    await home.rows("SELECT pg_drop_replication_slot('kaleidoscope_backup')")
    done = await service.copy_log(home.db)
    assert done["originals"] == 1
    manifests = await asyncio.to_thread(databases.complete, FolderStore(home.disk))
    assert len(manifests) == 2
    await home.take_in("photos/b.jpg")
    assert (await service.copy_log(home.db))["segments"] >= 1
    restored, _ = await restore(home, home.folder / "other")
    assert restored.originals == 2


async def test_a_server_that_is_not_ours(guest: Household) -> None:
    """It is dumped, and the dump makes a database of our own."""
    await guest.take_in(*NAMES)
    done = await service.back_up(guest.db)
    assert "segments" not in done["database"]
    (manifest,) = await asyncio.to_thread(databases.complete, FolderStore(guest.disk))
    assert (manifest.kind, manifest.originals, manifest.persons) == ("dump", 4, 4)
    before = await guest.manifest()
    drilled = await service.drill(guest.db)
    assert (drilled.colour, drilled.cause) == ("green", None)
    shutil.rmtree(guest.photos)
    shutil.rmtree(guest.data)
    restored, _ = await restore(guest, guest.data)
    assert (restored.restored, restored.failed) == (4, {})
    server, back = await living(guest, guest.data)
    try:
        assert await back.manifest() == before
    finally:
        await back.db.close()
        await asyncio.to_thread(server.stop)


async def test_a_dump_into_a_server_that_is_not_ours(
    guest: Household, database_url: str, postgres: EmbeddedPostgres
) -> None:
    import psycopg

    await guest.take_in("photos/a.jpg")
    await service.back_up(guest.db)
    guest.set(DATABASE_URL=database_url)
    shutil.rmtree(guest.data)
    with pytest.raises(Conflict, match="is not empty"):
        await restore(guest, guest.data)
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE empty_one")
        try:
            guest.set(DATABASE_URL=postgres.url_of("empty_one"))
            restored, _ = await restore(guest, guest.data)
            assert restored.originals == 1
        finally:
            connection.execute("DROP DATABASE empty_one WITH (FORCE)")


async def test_there_and_back_by_a_url(guest: Household) -> None:
    """An object store: copied, read back, drilled, restored, as a folder is."""
    guest.set(BACKUP_TARGET="memory://family/photos")
    await guest.take_in("photos/a.jpg", "data/Storage/Originals/2020/b.jpg")
    (guest.data / "Set_Aside").mkdir()
    (guest.data / "Set_Aside/notes.txt").write_bytes(b"Rome")
    done = await service.back_up(guest.db)
    assert done["originals"]["copied"] == 3
    verified = await service.verify(guest.db)
    assert (verified["read"], verified["damaged"]) == (3, [])
    assert (await service.drill(guest.db)).colour == "green"
    assert (await service.prune(guest.db))["originals"] == []
    before = await guest.manifest()
    shutil.rmtree(guest.photos)
    shutil.rmtree(guest.data)
    restored = await service.restore("memory://family/photos", {})
    assert isinstance(restored, Restored)
    assert (restored.restored, restored.beside, restored.failed) == (2, 1, {})
    assert (guest.data / "Set_Aside/notes.txt").read_bytes() == b"Rome"
    server, back = await living(guest, guest.data)
    try:
        assert await back.manifest() == before
    finally:
        await back.db.close()
        await asyncio.to_thread(server.stop)


async def test_there_and_back_by_s3(home: Household, s3: dict[str, str]) -> None:
    """Originals, what is kept beside them, names, faces and persons, into an empty folder."""
    import s3fs

    s3fs.S3FileSystem(**s3, use_listings_cache=False).mkdir("household")
    options = "".join(f'{key} = "{value}"\n' for key, value in s3.items())
    settings = home.data / "kaleidoscope.toml"
    settings.write_text(f"[backup.options]\n{options}")
    home.set(BACKUP_TARGET="s3://household/all of it")
    await home.take_in(*NAMES)
    await home.rows(
        "INSERT INTO known_places (path, kind) VALUES (:path, 'folder')", path=str(home.photos)
    )
    beside = {
        home.photos / "a.xmp": b"<x:xmpmeta/>",
        home.data / "Set_Aside" / "notes.txt": b"Rome, with the children",
        home.data / "Duplicates" / "again.jpg": (home.photos / "a.jpg").read_bytes(),
    }
    for path, body in beside.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(body)
    done = await service.back_up(home.db)
    assert (done["originals"]["copied"], done["originals"]["failed"]) == (6, 0)
    kept_files = "SELECT kind, final_path, file_hash, photo_id FROM kept_files ORDER BY 2"
    before, kept = await home.manifest(), await home.rows(kept_files)
    assert len(kept) == 3
    await home.db.close()
    await asyncio.to_thread(EmbeddedPostgres(home.data / "postgres").destroy)
    shutil.rmtree(home.data)
    shutil.rmtree(home.photos)
    restored = await service.restore("s3://household/all of it", s3)
    assert isinstance(restored, Restored)
    assert (restored.restored, restored.beside, restored.failed) == (4, 3, {})
    assert (restored.originals, restored.persons, restored.names, restored.faces) == (4,) * 4
    assert not settings.exists()  # it may hold passwords
    settings.write_text(f"[backup.options]\n{options}")
    home.set()
    server, back = await living(home, home.data)
    try:
        assert await back.manifest() == before
        assert await back.rows(kept_files) == kept
        assert {path: path.read_bytes() for path in beside} == beside
        place = library.store()
        (manifest,) = await asyncio.to_thread(databases.complete, place)
        base = f"database/{manifest.name}/base.tar.gz"
        original = min(name for name, _ in place.names("originals"))
        verified = await service.verify(back.db)
        assert (verified["damaged"], verified["damaged_database_files"]) == ([], [])
        for name in (base, original):
            body = bytearray(place.get(name))
            body[len(body) // 2] ^= 1
            place.put(name, bytes(body))
        verified = await service.verify(back.db)
        assert verified["damaged"] == [original]
        assert verified["damaged_database_files"] == [base]
        await back.rows("UPDATE asset_problems SET retry_at = now()")  # its wait is over
        assert (await service.back_up(back.db))["originals"]["copied"] == 1
        assert (await service.verify(back.db))["damaged"] == []
    finally:
        await back.db.close()
        await asyncio.to_thread(server.stop)


async def test_plain_tools_read_it(home: Household) -> None:
    await home.take_in(*NAMES)
    await home.rows(
        "UPDATE media_assets m SET person_ids = (SELECT jsonb_agg(f.person_id) FROM faces f"
        " WHERE f.photo_id = m.photo_id)"
    )
    await service.back_up(home.db)
    done = await asyncio.to_thread(
        subprocess.run,
        ["sha256sum", "--quiet", "--strict", "-c", "SHA256SUMS"],
        cwd=home.disk,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    with (home.disk / "originals.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 4
    for line in lines:
        assert (home.disk / line["copy"]).is_file() and line["people"]
    assert str(home.disk) in (home.disk / "README.txt").read_text()
    assert not [path for path in home.disk.rglob("*") if path.name.endswith(".part")]


async def test_a_used_data_folder_is_refused(home: Household) -> None:
    await home.take_in("photos/a.jpg")
    await service.back_up(home.db)
    with pytest.raises(Conflict, match="is not empty"):
        await service.restore(str(home.disk), {})
    with pytest.raises(NotFound, match="no backup in"):
        await service.restore(str(home.folder / "nothing"), {})
    home.set(DATA_DIR=str(home.folder / "other"))
    with pytest.raises(NotFound, match="named 1999"):
        await service.restore(str(home.disk), {}, name="1999")
    told = await service.restore(str(home.disk), {}, dry_run=True)
    assert told.originals == 1 and not (home.folder / "other").exists()
    (home.folder / "a file").write_text("")
    home.set(DATA_DIR=str(home.folder / "a file" / "data"))
    with pytest.raises(Unavailable, match="a file/data cannot be written") as refused:
        await service.restore(str(home.disk), {})
    assert refused.value.hint


async def test_a_restore_that_was_killed_goes_on(
    home: Household, monkeypatch: pytest.MonkeyPatch
) -> None:
    await home.take_in(*NAMES)
    await service.back_up(home.db)
    before = await home.manifest()
    await home.db.close()
    await asyncio.to_thread(EmbeddedPostgres(home.data / "postgres").destroy)
    shutil.rmtree(home.data)
    shutil.rmtree(home.photos)
    steps: list[Any] = [
        (restoring.postgres_copies, "recover"),
        (restoring.migrate, "upgrade"),
        (restoring.library, "put_back"),
        (restoring, "_restore_settings"),
    ]
    for where, step in steps:
        with monkeypatch.context() as patch:

            def killed(*_: Any, **__: Any) -> None:
                raise KeyboardInterrupt

            patch.setattr(where, step, killed)
            with pytest.raises(KeyboardInterrupt):
                await restore(home, home.data)
    restored, _ = await restore(home, home.data)
    assert restored.failed == {} and not (home.data / restoring.UNFINISHED).exists()
    server, back = await living(home, home.data)
    try:
        assert await back.manifest() == before
    finally:
        await back.db.close()
        await asyncio.to_thread(server.stop)


# -- what is damaged


async def test_a_flipped_byte_in_the_databases_copy_is_found(home: Household) -> None:
    await home.take_in("photos/a.jpg")
    await service.back_up(home.db)
    assert (await service.verify(home.db))["damaged_database_files"] == []
    (manifest,) = await asyncio.to_thread(databases.complete, FolderStore(home.disk))
    base = f"database/{manifest.name}/base.tar.gz"
    (_, log), *_ = databases.log_of(FolderStore(home.disk), manifest)
    home.flip(base)
    home.flip(log)
    assert (await service.verify(home.db))["damaged_database_files"] == [base, log]
    with pytest.raises(StoreProblem, match=r"base\.tar\.gz is damaged"):
        await restore(home, home.folder / "other")
    home.set(DATA_DIR=str(home.data))
    async with home.db.transaction() as session:
        (alarm,) = await service.alarms(session)
    assert alarm.status == "WARNING" and base in alarm.text
    drilled = await service.drill(home.db)
    assert drilled.colour == "red" and "is damaged" in str(drilled.cause)
    await service.copy_database(home.db)
    async with home.db.transaction() as session:
        (alarm,) = await service.alarms(session)
    assert alarm.status == "ERROR" and "drill is red" in alarm.text


async def test_the_drill(home: Household) -> None:
    await home.take_in(*NAMES)
    await service.back_up(home.db)
    drilled = await service.drill(home.db)
    assert (drilled.colour, drilled.cause) == ("green", None)
    assert drilled.figures == {
        "originals": 4, "persons": 4, "names": 4, "faces": 4, "originals_read": 4,
    }  # fmt: skip
    assert not (home.data / "drill" / "postgres").exists()
    copies = [path for path in home.disk.rglob("*") if "originals/" in path.as_posix()]
    home.flip(next(p for p in copies if p.is_file()).relative_to(home.disk).as_posix())
    assert (await service.drill(home.db)).colour == "red"
    status = await service.status(home.db)
    assert status.drill is not None and status.drill.colour == "red"


async def test_a_drill_without_a_backup_is_red(home: Household) -> None:
    drilled = await service.drill(home.db)
    assert drilled.colour == "red" and "no copy of the database" in str(drilled.cause)


# -- killed


@pytest.mark.parametrize("step", ["base_backup", "first_segment", "receive_log", "release_log"])
async def test_killed_while_the_database_is_copied(
    home: Household, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is half copied is no copy; the next run makes a whole one."""
    await home.take_in("photos/a.jpg")
    with monkeypatch.context() as patch:

        def killed(*_: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(databases.postgres_copies, step, killed)
        with pytest.raises(KeyboardInterrupt):
            await service.copy_database(home.db)
    await home.take_in("photos/b.jpg")
    await service.back_up(home.db, full=True)
    restored, _ = await restore(home, home.folder / "other")
    assert (restored.originals, restored.persons) == (2, 2)


RUN = """
import asyncio, sys
from kaleidoscope.kernel.db import Database
from kaleidoscope.upkeep import service
async def main():
    db = Database(sys.argv[1])
    print("begun", flush=True)
    await service.back_up(db, full=True)
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


async def test_killed_at_random_while_everything_is_copied(home: Household) -> None:
    """`kill -9`: every copy of the database that looks whole is, and the last one has it all."""
    dice = random.Random(int(os.environ.get("KALEIDOSCOPE_TEST_SEED", "7")))
    kills = 0
    for number in range(8):
        await home.take_in(f"photos/{number}.jpg")
        kills += await asyncio.to_thread(_run_and_kill, home.db.url, dice.uniform(0.1, 3))
    assert kills > 2
    while True:  # a receiver of a run that was killed may still be at it
        try:
            await service.back_up(home.db, full=True)
            break
        except DatabaseError as error:
            assert "is active" in error.message
            await asyncio.sleep(0.5)
    store = FolderStore(home.disk)
    for manifest in await asyncio.to_thread(databases.complete, store):
        assert await asyncio.to_thread(databases.damaged_files, store, manifest) == []
    assert len(list((home.disk / "originals").rglob("*.jpg"))) == 8
    restored, _ = await restore(home, home.folder / "other")
    assert (restored.originals, restored.there, restored.failed) == (8, 8, {})


# -- by the clock


async def test_the_clock(home: Household) -> None:
    await home.take_in("photos/a.jpg")
    assert await jobs.copy_originals(home.db)
    assert await jobs.copy_database(home.db)
    assert await jobs.restore_drill(home.db) == "green"
    for job in jobs.CLOCK:
        assert job.name == jobs.VERIFY or not await job.run(home.db)
    assert await jobs.verify_copies(home.db)
    assert await jobs.verify_copies(home.db) is None
    await home.rows("UPDATE backup_runs SET started_at = started_at - interval '16 minutes'")
    await home.take_in("photos/b.jpg")
    done: Any = await jobs.copy_database(home.db)
    assert done["segments"] >= 1
    assert await jobs.copy_originals(home.db)
    await home.rows("UPDATE backup_runs SET started_at = started_at - interval '1 day'")
    done = await jobs.copy_database(home.db)
    assert done["name"]
    kinds = {run.kind: run for run in (await service.status(home.db)).runs}
    assert kinds.keys() == {"originals", "database", "log", "verify"}
    assert not [run for run in kinds.values() if run.error or not run.finished_at]


async def test_a_backup_that_fails_is_told(home: Household) -> None:
    await home.take_in("photos/a.jpg")
    home.set(BACKUP_TARGET="/proc/nowhere")
    with pytest.raises(StoreProblem):
        await jobs.copy_originals(home.db)
    assert await jobs.copy_originals(home.db) is None  # not again at once
    async with home.db.transaction() as session:
        (alarm,) = await service.alarms(session)
    assert alarm.status == "WARNING" and "the backup fails (originals)" in alarm.text
    status = await service.status(home.db)
    assert status.pending == 1 and status.runs[0].error is not None


async def test_a_backup_that_never_comes_to_its_end_is_told(home: Household) -> None:
    """Killed each time: there is no run that failed."""
    await service.copy_database(home.db)
    async with home.db.transaction() as session:
        assert await service.alarms(session) == []
    await home.rows(
        "WITH good AS (UPDATE backup_runs SET started_at = started_at - interval '3 days')"
        " INSERT INTO backup_runs (kind, target) VALUES ('database', 'there')"
    )
    async with home.db.transaction() as session:
        (alarm,) = await service.alarms(session)
    assert alarm.status == "WARNING" and "overdue" in alarm.text


async def test_a_bad_sector_under_a_copy_hinders_no_other(home: Household) -> None:
    """Neither when they are read back, nor when everything is restored."""
    await home.take_in("photos/a.jpg", "photos/b.jpg", "photos/c.jpg")
    await service.back_up(home.db)
    for path in home.disk.glob("originals/*/*/b.*"):
        path.unlink()
        path.symlink_to("/proc/self/mem")  # which nobody can read: an error of input and output
    restored, _ = await restore(home, home.folder / "other")
    assert restored.there == 3
    shutil.rmtree(home.photos)
    restored, _ = await restore(home, home.folder / "another")
    assert (restored.restored, len(restored.failed)) == (2, 1)
    assert sorted(p.name for p in home.photos.iterdir()) == ["a.jpg", "c.jpg"]
    home.set(DATA_DIR=str(home.data))
    done = await service.verify(home.db)
    assert (done["read"], len(done["damaged"])) == (3, 1)


async def test_without_a_target_the_clock_does_nothing(home: Household) -> None:
    home.set(BACKUP_TARGET="")
    await home.take_in("photos/a.jpg")
    for job in jobs.CLOCK:
        assert not await job.run(home.db)
    assert await home.rows("SELECT FROM backup_runs") == []
    assert (await service.status(home.db)).target is None


async def test_without_a_target_the_server_keeps_no_log(home: Household) -> None:
    await home.take_in("photos/a.jpg")
    await service.back_up(home.db)
    assert len(await home.rows("SELECT FROM pg_replication_slots")) == 1
    home.set(BACKUP_TARGET="")
    await jobs.copy_database(home.db)
    assert await home.rows("SELECT FROM pg_replication_slots") == []


# -- pruning


async def test_prune(home: Household) -> None:
    await home.take_in("photos/a.jpg", "photos/b.jpg")
    await service.back_up(home.db)
    await asyncio.sleep(1.1)
    await service.back_up(home.db, full=True)
    await home.rows("DELETE FROM media_assets WHERE filename = 'a.jpg'")
    await asyncio.sleep(1.1)
    await service.back_up(home.db, full=True)
    (home.disk / "database" / "half").mkdir()
    (home.disk / "database" / "half" / "base.tar.gz").write_bytes(b"half")
    home.set(BACKUP_KEEP_DATABASES="1")
    before = {path for path in home.disk.rglob("*") if path.is_file()}
    told = await service.prune(home.db, dry_run=True)
    assert {path for path in home.disk.rglob("*") if path.is_file()} == before
    assert len(told["databases"]) == 3 and len(told["originals"]) == 1
    done = await service.prune(home.db)
    assert done == told
    left = {path.relative_to(home.disk).as_posix() for path in home.disk.rglob("*.jpg")}
    assert len(left) == 1 and "/b." in left.pop()
    (kept,) = await asyncio.to_thread(databases.complete, FolderStore(home.disk))
    assert await asyncio.to_thread(databases.damaged_files, FolderStore(home.disk), kept) == []
    assert {p.name for p in (home.disk / "database").iterdir()} == {kept.name}


async def test_prune_leaves_what_a_kept_database_would_bring_back(home: Household) -> None:
    """An original that left the ledger stays in the backup as long as a kept database knows it."""
    await home.take_in("photos/a.jpg", "photos/b.jpg")
    await service.back_up(home.db)
    old = databases.newest(FolderStore(home.disk)).name
    moment = datetime.now(UTC)
    await asyncio.sleep(0.1)
    await home.rows("DELETE FROM media_assets WHERE filename = 'a.jpg'")
    await asyncio.sleep(1.1)
    await service.back_up(home.db, full=True)
    done = await service.prune(home.db)
    assert done["originals"] == [] and done["databases"] == []
    (home.photos / "a.jpg").unlink()
    restored, _ = await restore(home, home.folder / "other", name=old, until=moment)
    assert (restored.restored, restored.without_copy, restored.failed) == (1, [], {})
    assert (home.photos / "a.jpg").exists()
    home.set(DATA_DIR=str(home.data), BACKUP_KEEP_DATABASES="1")
    done = await service.prune(home.db)  # now no database that stays knows it
    assert len(done["originals"]) == 1 and "/a." in done["originals"][0]


async def test_prune_leaves_what_a_kept_log_would_bring_back(home: Household) -> None:
    """Taken in and gone again between two copies of the database: `--at` may ask for it."""
    await home.take_in("photos/a.jpg")
    await service.back_up(home.db)
    await home.take_in("photos/between.jpg")
    await service.back_up(home.db)
    moment = datetime.now(UTC)
    await asyncio.sleep(1.1)
    await home.rows("DELETE FROM media_assets WHERE filename = 'between.jpg'")
    await service.back_up(home.db, full=True)
    assert (await service.prune(home.db))["originals"] == []
    (home.photos / "between.jpg").unlink()
    first = databases.complete(FolderStore(home.disk))[0].name
    restored, _ = await restore(home, home.folder / "other", name=first, until=moment)
    assert (restored.restored, restored.failed) == (1, {})


async def test_prune_deletes_nothing_where_an_inventory_is_damaged(home: Household) -> None:
    await home.take_in("photos/a.jpg", "photos/b.jpg")
    await service.back_up(home.db)
    await home.rows("UPDATE backup_copies SET copied_at = copied_at - interval '1 day'")
    await home.rows("DELETE FROM media_assets WHERE filename = 'a.jpg'")
    (path,) = home.disk.glob("database/*/originals.csv")
    home.flip(path.relative_to(home.disk).as_posix())
    with pytest.raises(StoreProblem, match=r"originals\.csv is damaged"):
        await service.prune(home.db)
    assert len(list(home.disk.rglob("*.jpg"))) == 2


async def test_reading_back_is_spread_evenly(home: Household) -> None:
    """Copied on one day, they are not all read back on one day, but each within `verify_days`."""
    names = [f"photos/{n:02}.jpg" for n in range(20)]
    await home.take_in(*names)
    home.set(BACKUP_VERIFY_DAYS="10")
    await service.back_up(home.db)
    read: list[int] = []
    for _ in range(10):
        await home.rows("UPDATE backup_runs SET started_at = started_at - interval '1 day'")
        await home.rows("UPDATE backup_copies SET verified_at = verified_at - interval '1 day'")
        read.append((await jobs.verify_copies(home.db))["read"])  # type: ignore[index]
    assert read == [2] * 10
    (oldest,) = await home.rows("SELECT now() - min(verified_at) AS age FROM backup_copies")
    assert oldest.age < timedelta(days=10)
    # Switched off for three days: the share of three.
    await home.rows("UPDATE backup_runs SET started_at = started_at - interval '3 days'")
    assert (await jobs.verify_copies(home.db))["read"] == 6  # type: ignore[index]


async def test_older_copies_of_the_database_are_read_back_in_their_turn(home: Household) -> None:
    for _ in range(3):
        await service.copy_database(home.db)
        await asyncio.sleep(1.1)
    oldest = databases.complete(FolderStore(home.disk))[0]
    home.flip(f"database/{oldest.name}/base.tar.gz")
    found = set()
    for day in range(2):
        turn = backup._in_turn(
            databases.complete(FolderStore(home.disk)), datetime(2026, 1, 1 + day, tzinfo=UTC)
        )
        found |= {m.name for m in turn}
    assert found == {m.name for m in databases.complete(FolderStore(home.disk))}


async def test_two_backups_at_once_are_one(home: Household) -> None:
    async def work(db: Database) -> object:
        with pytest.raises(Conflict, match="under way"):
            await service.alone(db, jobs.ORIGINALS, service.back_up, "the backup")
        return None

    await service.alone(home.db, jobs.ORIGINALS, work, "the backup")


async def test_the_manifest_is_plain(home: Household) -> None:
    await home.take_in(*NAMES)
    await service.back_up(home.db)
    (path,) = home.disk.glob("database/*/manifest.json")
    manifest = json.loads(path.read_text())
    assert (manifest["originals"], manifest["persons"], manifest["names"]) == (4, 4, 4)
    assert manifest["made_at"] <= (datetime.now(UTC) + timedelta(minutes=1)).isoformat()


async def test_a_cluster_is_not_restored_over_another(home: Household) -> None:
    with pytest.raises(DatabaseError, match="there is a database"):
        server = EmbeddedPostgres(home.data / "postgres")
        await asyncio.to_thread(server.restore, lambda cluster, user, password: None)
