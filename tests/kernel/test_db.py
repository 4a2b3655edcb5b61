"""The fixtures themselves, and the one transaction."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from kaleidoscope.kernel.db import Database, sqlalchemy_url


async def test_every_test_has_a_database_of_its_own(db: Database) -> None:
    async with db.transaction() as session:
        await session.execute(text("CREATE TABLE mine (n int)"))


async def test_every_test_has_a_database_of_its_own_again(db: Database) -> None:
    async with db.transaction() as session:
        await session.execute(text("CREATE TABLE mine (n int)"))


async def test_a_transaction_is_whole_or_not_at_all(db: Database) -> None:
    async with db.transaction() as session:
        await session.execute(text("CREATE TABLE notes (n int)"))
    with pytest.raises(ZeroDivisionError):
        async with db.transaction() as session:
            await session.execute(text("INSERT INTO notes VALUES (1)"))
            raise ZeroDivisionError
    async with db.transaction() as session:
        assert (await session.execute(text("SELECT count(*) FROM notes"))).scalar_one() == 0


async def test_connections_that_the_server_has_closed_are_passed_over(db: Database) -> None:
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    end += " AND datname = current_database()"

    async def hold(_: int) -> int:
        async with db.transaction() as session:
            await asyncio.sleep(0.05)  # all at once: a connection each
            found: int = (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            return found

    before = set(await asyncio.gather(*map(hold, range(4))))
    async with db.transaction() as session:
        await session.execute(text(end))
    after = set(await asyncio.gather(*map(hold, range(4))))
    assert len(before) == len(after) == 4 and len(before & after) == 1


@pytest.mark.parametrize("given", ["postgres://u@h/d", "postgresql://u@h/d"])
def test_a_users_url_gets_our_driver(given: str) -> None:
    assert sqlalchemy_url(given) == "postgresql+psycopg://u@h/d"
