"""Services say how they are, truthfully, and go on doing so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import SettingsError
from kaleidoscope.kernel.settings import load
from kaleidoscope.ops import rules, service
from kaleidoscope.ops.schemas import ServiceStatus
from kaleidoscope.ops.service import Health, Heartbeat, heartbeats
from kaleidoscope.ops.settings import OpsSettings

OFTEN = timedelta(milliseconds=50)


async def _status(db: Database, name: str = "librarian") -> ServiceStatus | None:
    async with db.transaction() as session:
        return next((s for s in await service.services(session) if s.service_name == name), None)


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - the event is in the database
            await asyncio.sleep(0.01)


async def _says(db: Database, status: str, task: str | None) -> bool:
    said = await _status(db)
    return said is not None and (said.status, said.current_task) == (status, task)


async def test_a_service_gives_signs_of_life_and_says_when_it_stops(db: Database) -> None:
    async with Heartbeat(db, "librarian", interval=OFTEN) as heart:
        await _until(lambda: _says(db, "OK", None))
        heart.current_task = "Processing files in Photos_Inbox"
        await _until(lambda: _says(db, "OK", "Processing files in Photos_Inbox"))
    assert await _says(db, "OK", "stopped")


async def test_every_heartbeat_is_a_row_of_history(db: Database) -> None:
    async with Heartbeat(db, "librarian", interval=OFTEN):
        await asyncio.sleep(0.4)
    async with db.transaction() as session:
        count = "SELECT count(*) FROM system_status_history WHERE service_name = 'librarian'"
        assert (await session.execute(text(count))).scalar_one() >= 3


async def test_status_is_what_the_check_says(db: Database) -> None:
    async def check() -> Health:
        return Health("WARNING", "the disk is nearly full")

    async with Heartbeat(db, "librarian", interval=OFTEN, check=check):
        await _until(lambda: _says(db, "WARNING", "the disk is nearly full"))


async def test_a_check_that_fails_or_hangs_is_an_error(db: Database) -> None:
    async def failing() -> Health:
        raise OSError("no disk")

    async def hanging() -> Health:
        await asyncio.sleep(60)
        return Health()

    async with Heartbeat(db, "librarian", interval=OFTEN, check=failing):
        await _until(lambda: _says(db, "ERROR", "the health check failed: no disk"))
    async with Heartbeat(db, "librarian", interval=OFTEN, check=hanging):
        await _until(lambda: _says(db, "ERROR", "the health check did not answer in 0 s"))


async def test_a_service_that_dies_of_an_error_does_not_end_as_ok(db: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with Heartbeat(db, "librarian", interval=OFTEN):
            raise ZeroDivisionError("oh")
    assert await _says(db, "ERROR", "ended by ZeroDivisionError('oh')")


async def test_the_heart_survives_a_database_that_is_away(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Heartbeat, "RETRY", 0.05)
    away = Database("postgresql://nobody@127.0.0.1:1/nothing", connect_args={"connect_timeout": 1})
    async with Heartbeat(away, "librarian", interval=OFTEN) as heart:
        await asyncio.sleep(0.2)
        assert await _status(db) is None
        heart._db = db
        await _until(lambda: _says(db, "OK", None))
    await away.close()


async def test_times_are_set_by_the_database_at_every_update(db: Database) -> None:
    async with db.transaction() as session:
        await service.beat(session, "librarian", Health())
        await session.execute(text("ALTER TABLE system_status DISABLE TRIGGER USER"))
        old = "UPDATE system_status SET last_heartbeat = '2020-01-01', updated_at = '2020-01-01'"
        await session.execute(text(old))
        await session.execute(text("ALTER TABLE system_status ENABLE TRIGGER USER"))
    before = await _status(db)
    assert before is not None and before.colour == "red"
    async with db.transaction() as session:
        await session.execute(text("UPDATE system_status SET status = 'WARNING'"))
    after = await _status(db)
    assert after is not None and after.colour == "yellow"
    assert after.updated_at == after.last_heartbeat > before.last_heartbeat


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "green"), (60, "green"), (61, "yellow"), (180, "yellow"), (181, "red"), (1e6, "red")],
)
def test_colours_of_the_seed(seconds: float, expected: str) -> None:
    assert rules.colour(timedelta(seconds=seconds)) == expected


async def test_old_heartbeats_are_forgotten(db: Database) -> None:
    async with db.transaction() as session:
        await service.beat(session, "librarian", Health())
        await session.execute(
            text(
                "INSERT INTO system_status_history (service_name, status, heartbeat_timestamp)"
                " VALUES ('librarian', 'OK', now() - interval '61 days'),"
                " ('librarian', 'OK', now() - interval '59 days')"
            )
        )
    async with db.transaction() as session:
        assert await service.trim(session) == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("librarian=300:worker=60", {"librarian": 300.0, "worker-attic-1": 60.0, "api": 20.0}),
        ("", {"librarian": 20.0}),
    ],
)
def test_each_service_may_have_its_own_interval(
    given: str, expected: dict[str, float], data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_OPS_HEARTBEAT_SECONDS_OF", given)
    load.cache_clear()
    assert {name: heartbeats.interval_of(name) for name in expected} == expected


def test_intervals_in_the_settings_file(data_dir: Path) -> None:
    (data_dir / "kaleidoscope.toml").write_text("[ops.heartbeat_seconds_of]\nlibrarian = 300\n")
    assert heartbeats.interval_of("librarian") == 300


@pytest.mark.parametrize("given", ["librarian", "librarian=often", "librarian=0", "librarian=9999"])
def test_a_foolish_interval_is_refused(
    given: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_OPS_HEARTBEAT_SECONDS_OF", given)
    load.cache_clear()
    with pytest.raises(SettingsError, match="HEARTBEAT_SECONDS_OF"):
        load(OpsSettings)


async def test_a_heartbeat_says_when_the_next_one_comes(
    db: Database, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_OPS_HEARTBEAT_SECONDS_OF", "librarian=300")
    load.cache_clear()
    async with Heartbeat(db, "librarian"):
        await _until(lambda: _says(db, "OK", None))
        said = await _status(db)
    assert said is not None and said.interval_seconds == 300
