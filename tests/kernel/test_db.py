"""The fixtures themselves, and the one transaction."""

from __future__ import annotations

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


@pytest.mark.parametrize("given", ["postgres://u@h/d", "postgresql://u@h/d"])
def test_a_users_url_gets_our_driver(given: str) -> None:
    assert sqlalchemy_url(given) == "postgresql+psycopg://u@h/d"
