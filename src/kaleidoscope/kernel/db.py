"""The database: one engine a process, one transaction a request or message."""

from __future__ import annotations

import select
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any

import psycopg
from sqlalchemy import MetaData, Result, TextClause, event
from sqlalchemy.dialects.postgresql.psycopg import dialect as postgresql
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData
from sqlalchemy.exc import DataError, DBAPIError, DisconnectionError, IntegrityError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase

DRIVER = "postgresql+psycopg"
DIALECT = postgresql()  # type: ignore[no-untyped-call]
# Classes of errors: data that cannot be, rules that are broken, more than an index can hold.
REFUSED = ("22", "23", "54")

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """The base of every room's models. Tables and columns carry their purpose as `comment`."""

    metadata = MetaData(naming_convention=NAMING)


def sqlalchemy_url(url: str) -> str:
    """A user's postgresql:// URL with the driver this project speaks."""
    scheme, _, rest = url.partition("://")
    return f"{DRIVER}://{rest}" if scheme in ("postgres", "postgresql", DRIVER) else url


def is_refusal(error: BaseException) -> bool:
    """Whether the database will never take what it was given: trying again changes nothing."""
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    return isinstance(error, DataError | IntegrityError) or (state or "")[:2] in REFUSED


class Written(TextClause):
    """A written statement, with its words as the driver reads them."""

    inherit_cache = True

    def __init__(self, statement: str) -> None:
        super().__init__(statement)
        self.words = self.compile(dialect=DIALECT).string
        self._shape: SimpleResultMetaData | None = None

    async def answer(self, cursor: psycopg.AsyncCursor[Any]) -> Result[Any]:
        """The rows as those of any other statement."""
        if self._shape is None:
            self._shape = SimpleResultMetaData([column.name for column in cursor.description or ()])
        has_rows = cursor.pgresult is not None and cursor.pgresult.nfields
        return IteratorResult(self._shape, iter(await cursor.fetchall() if has_rows else ()))


@lru_cache(maxsize=2000)
def sql(statement: str) -> Written:
    """A written statement, made once a process: making it anew costs half as much as sending it."""
    return Written(statement)


class Session(AsyncSession):
    """A session of one transaction that hands written statements to the driver itself: whatever
    else SQLAlchemy does about a statement costs as much as sending it.
    """

    _driver: psycopg.AsyncConnection[Any] | None = None

    async def execute(self, statement: Any, params: Any = None, **options: Any) -> Result[Any]:
        """What a statement answers. Raises SQLAlchemy's errors."""
        if not isinstance(statement, Written) or isinstance(params, list) or options:
            found: Result[Any] = await super().execute(statement, params, **options)
            return found
        if self._driver is None:
            connection = (await self.connection()).sync_connection
            assert connection is not None
            self._driver = connection.connection.driver_connection
            assert self._driver is not None
        try:
            return await statement.answer(await self._driver.execute(statement.words, params or {}))
        except psycopg.Error as error:
            if gone := self._driver.closed:
                await (await self.connection()).invalidate(error)
            raise DBAPIError.instance(
                statement.words, params, error, psycopg.Error, connection_invalidated=gone
            ) from error
        except BaseException:  # cancelled: the driver may have had to hang up
            if self._driver.closed:
                await (await self.connection()).invalidate()
            raise

    async def commit(self) -> None:
        """End the transaction; the next statement may be sent over another connection."""
        self._driver = None
        await super().commit()

    async def rollback(self) -> None:
        """Take the transaction back; the next statement may be sent over another connection."""
        self._driver = None
        await super().rollback()


class Database:
    """The engine of one process. The edge opens `transaction()`; nothing else commits."""

    def __init__(self, url: str, *, pool_size: int = 10, **engine_options: Any) -> None:
        self.url = url
        self.engine = _engine(url, pool_size=pool_size, max_overflow=pool_size, **engine_options)
        self._sessions = async_sessionmaker(self.engine, class_=Session, expire_on_commit=False)
        # Never out of the pool: whoever holds a claim still needs a connection to work with.
        self._claims = _engine(
            url, pool_size=pool_size, max_overflow=-1, isolation_level="AUTOCOMMIT"
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """One session in one transaction: committed at the end, rolled back on any error."""
        async with self._sessions() as session:
            yield session
            await session.commit()

    @asynccontextmanager
    async def claim(self) -> AsyncIterator[AsyncConnection]:
        """A connection outside transactions, on which a claim is held while work is done."""
        async with self._claims.connect() as connection:
            yield connection

    async def close(self) -> None:
        """Give the connections back."""
        await self._claims.dispose()
        await self.engine.dispose()


def _engine(
    url: str, *, connect_args: Mapping[str, Any] | None = None, **options: Any
) -> AsyncEngine:
    """An engine whose statements cost little the second time: those of one moment go over as few
    connections as they can, and each of these keeps the plan of what was said on it before.
    """
    engine = create_async_engine(
        sqlalchemy_url(url),
        pool_use_lifo=True,
        connect_args={"prepare_threshold": 1, **(connect_args or {})},
        **options,
    )
    event.listen(engine.sync_engine, "checkout", _pass_over_the_dead)
    return engine


def _pass_over_the_dead(connection: Any, record: Any, _: object) -> None:
    """Give out no connection that the server has closed: nothing else comes on an idle one.

    Looking for that costs nothing, asking the server would cost as much as a statement.
    """
    if record.info.setdefault("used", False):
        driver = connection.driver_connection
        here = select.poll()
        if not driver.closed:
            here.register(driver.fileno(), select.POLLIN)
        if driver.closed or here.poll(0):
            raise DisconnectionError
    record.info["used"] = True
