"""The fixtures themselves, and the one transaction."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DataError, IntegrityError, OperationalError

from kaleidoscope.kernel.db import Database, is_refusal, sql, sqlalchemy_url


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


async def test_a_written_statement_answers_as_any_other(db: Database) -> None:
    words = (
        "SELECT n, n % 2 = 0 AS is_even, '{\"a\": [1]}'::jsonb AS data, gen_random_uuid() AS id,"
        " 'a\\:b 5%' AS text, :none AS none FROM unnest(CAST(:numbers AS int[])) AS u (n)"
        " WHERE n < :most ORDER BY n"
    )
    values = {"numbers": [3, 1, 2], "most": 3, "none": None}
    async with db.transaction() as session:
        for statement in (sql(words), sql(words), text(words)):
            one, two = (await session.execute(statement, values)).mappings().all()
            assert (one["n"], one["is_even"], two["is_even"]) == (1, False, True)
            assert (one["data"], one["text"], one["none"]) == ({"a": [1]}, "a:b 5%", None)
        rows = (await session.execute(sql(words), values)).all()
        assert [row.n for row in rows] == [1, 2] and rows[0]._mapping["n"] == rows[0][0] == 1
        assert (await session.execute(sql("SELECT '100%'"))).scalar_one() == "100%"
        await session.execute(sql("CREATE TABLE notes (n int PRIMARY KEY)"))
        await session.execute(sql("INSERT INTO notes VALUES (:n)"), [{"n": 1}, {"n": 2}])
        gone = await session.execute(sql("DELETE FROM notes WHERE n = 7 RETURNING n"))
        assert gone.one_or_none() is None
        assert (await session.execute(sql("SELECT count(*) FROM notes"))).scalar_one() == 2


async def test_a_written_statement_fails_as_any_other(db: Database) -> None:
    async with db.transaction() as session:
        await session.execute(sql("CREATE TABLE notes (n int PRIMARY KEY)"))
        await session.execute(sql("INSERT INTO notes VALUES (1)"))
    for words, kind in (
        ("INSERT INTO notes VALUES (1)", IntegrityError),
        ("SELECT 1 / 0", DataError),
        ("SELECT pg_terminate_backend(pg_backend_pid())", OperationalError),
    ):
        with pytest.raises(kind) as failed:
            async with db.transaction() as session:
                await session.execute(sql("INSERT INTO notes VALUES (2)"))
                await session.execute(sql(words))
        assert is_refusal(failed.value) is (kind is not OperationalError)
        async with db.transaction() as session:
            assert (await session.execute(sql("SELECT max(n) FROM notes"))).scalar_one() == 1


@pytest.mark.parametrize("given", ["postgres://u@h/d", "postgresql://u@h/d"])
def test_a_users_url_gets_our_driver(given: str) -> None:
    assert sqlalchemy_url(given) == "postgresql+psycopg://u@h/d"
