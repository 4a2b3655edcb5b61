"""History and uptime, from heartbeats in the database."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

import pytest
from sqlalchemy import text

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import NotFound
from kaleidoscope.ops import service
from kaleidoscope.ops.service import Health

HOUR = timedelta(hours=1)


async def _lay(db: Database, name: str, beats: list[tuple[float, str, float]]) -> None:
    """Heartbeats so many seconds ago, of a status and an interval."""
    async with db.transaction() as session:
        await service.beat(session, name, Health())
        await session.execute(text("DELETE FROM system_status_history"))
        for ago, status, interval in beats:
            await session.execute(
                text(
                    "INSERT INTO system_status_history (service_name, status, interval_seconds,"
                    " heartbeat_timestamp) VALUES (:name, :status, :interval,"
                    " now() - make_interval(secs => :ago))"
                ),
                {"name": name, "status": status, "interval": interval, "ago": ago},
            )


async def _uptime(db: Database, hours: float = 1) -> float:
    async with db.transaction() as session:
        (found,) = (await service.uptimes(session, hours)).services
    return found.uptime


async def test_beats_all_along_are_one_segment(db: Database) -> None:
    await _lay(db, "librarian", [(n * 20.0, "OK", 20) for n in range(400)])
    async with db.transaction() as session:
        (found,) = (await service.history(session, 1)).services
    assert [segment.state for segment in found.segments] == ["OK"]
    assert found.uptime == 1


async def test_a_gap_is_silence_from_the_last_beat_on(db: Database) -> None:
    await _lay(
        db, "librarian", [(n * 20.0, "OK", 20) for n in [*range(45), *range(135, 200)]]
    )  # quiet for half of the hour
    async with db.transaction() as session:
        (found,) = (await service.history(session, 1)).services
    assert [segment.state for segment in found.segments] == ["OK", "silent", "OK"]
    assert found.uptime == pytest.approx(0.5, abs=0.02)


async def test_errors_do_not_count_as_up_and_say_their_cause(db: Database) -> None:
    await _lay(db, "librarian", [(n * 20.0, "ERROR" if n < 90 else "OK", 20) for n in range(200)])
    async with db.transaction() as session:
        await session.execute(
            text("UPDATE system_status_history SET current_task = 'no disk' WHERE status = 'ERROR'")
        )
        (found,) = (await service.history(session, 1, "librarian")).services
    assert [(s.state, s.task) for s in found.segments] == [("OK", None), ("ERROR", "no disk")]
    assert found.uptime == pytest.approx(0.5, abs=0.02)


async def test_a_rare_service_is_up_between_its_beats(db: Database) -> None:
    await _lay(db, "librarian", [(n * 600.0, "OK", 600) for n in range(8)])
    assert await _uptime(db) == 1
    await _lay(db, "librarian", [(n * 600.0, "OK", 20) for n in range(8)])
    assert await _uptime(db) < 0.05


async def test_a_service_that_died_long_ago_was_silent(db: Database) -> None:
    await _lay(db, "librarian", [(5 * 3600.0, "OK", 20), (4.9 * 3600, "OK", 20)])
    async with db.transaction() as session:
        (found,) = (await service.history(session, 1)).services
    assert [segment.state for segment in found.segments] == ["silent"]
    assert (found.uptime, found.uptime_observed) == (0, 0)


async def test_an_unknown_service_has_no_history(db: Database) -> None:
    async with db.transaction() as session:
        with pytest.raises(NotFound, match="librarian"):
            await service.history(session, 1, "librarian")


@pytest.mark.parametrize("seed", range(5))
async def test_the_database_groups_beats_as_the_rule_counts_them(db: Database, seed: int) -> None:
    dice = random.Random(seed)
    beats = [
        (dice.uniform(0, 5400), dice.choice(["OK", "OK", "WARNING", "ERROR"]), dice.choice([5, 60]))
        for _ in range(150)
    ]
    await _lay(db, "librarian", beats)
    async with db.transaction() as session:
        found = await service.history(session, 1)
        rows = await session.execute(
            text(
                "SELECT heartbeat_timestamp AS at, status, interval_seconds AS every"
                " FROM system_status_history ORDER BY heartbeat_timestamp"
            )
        )
        said = [(row.at, row.status, timedelta(seconds=row.every)) for row in rows]
    ends: list[datetime] = [*(at for at, _, _ in said[1:]), found.until]
    up = sum(
        (
            max(timedelta(0), end - max(at, found.since))
            for (at, status, every), end in zip(said, ends, strict=True)
            if status != "ERROR" and end - at <= 3 * every
        ),
        timedelta(0),
    )
    assert found.services[0].uptime == pytest.approx(up / HOUR, abs=1e-6)


async def test_a_forgotten_service_is_gone_with_its_history(db: Database) -> None:
    await _lay(db, "librarian", [(1.0, "OK", 20)])
    async with db.transaction() as session:
        await service.forget(session, "librarian")
    async with db.transaction() as session:
        assert await service.services(session) == []
        count = await session.execute(text("SELECT count(*) FROM system_status_history"))
        assert count.scalar_one() == 0
        with pytest.raises(NotFound):
            await service.forget(session, "librarian")
