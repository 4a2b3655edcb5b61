"""Migrations: the database brought to what the code expects, by one process at a time.

Every command and service asks for that, and nearly always it is so already: Alembic, which is slow
to import, is imported where there is something to migrate.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.exc import OperationalError

from kaleidoscope.kernel.db import sqlalchemy_url
from kaleidoscope.kernel.errors import DatabaseError

if TYPE_CHECKING:
    from alembic.config import Config

SCRIPTS = Path(__file__).parents[1] / "migrations"
OLDEST_SERVER = 150000
OLDEST_VECTOR = (0, 7)


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database at `url` up to `revision`; one that is there already is left alone.

    Raises `DatabaseError` for a server or pgvector that is too old and for a database that a newer
    Kaleidoscope has migrated.
    """
    if revision == "head" and current(url) == head():
        return
    from alembic import command

    with _migrating(url) as (connection, config):
        check_server(connection)
        _refuse_newer(connection)
        command.upgrade(config, revision)


def downgrade(url: str, revision: str) -> None:
    """Take the database back to `revision` ("base": to nothing)."""
    from alembic import command

    with _migrating(url) as (connection, config):
        _refuse_newer(connection)
        command.downgrade(config, revision)


def current(url: str) -> str | None:
    """The revision that the database is at; None for one that was never migrated."""
    with _connected(url) as connection:
        return _revision(connection)


def head() -> str:
    """The revision that this code expects: a script's name begins with its revision."""
    return max(_revisions())


def check_server(connection: Connection) -> None:
    """Refuse a server that is too old, and create the extension `vector` where it is missing."""
    number = int(connection.exec_driver_sql("SHOW server_version_num").scalar_one())
    if number < OLDEST_SERVER:
        raise DatabaseError(
            f"the database server is PostgreSQL {number // 10000}",
            hint=f"Kaleidoscope needs PostgreSQL ≥ {OLDEST_SERVER // 10000}",
        )
    extension = "SELECT default_version, installed_version FROM pg_available_extensions"
    found = connection.exec_driver_sql(extension + " WHERE name = 'vector'").one_or_none()
    if found is None:
        raise DatabaseError(
            "the database server has no pgvector",
            hint="install pgvector ≥ 0.7 on the server (package postgresql-NN-pgvector)",
        )
    version = found.installed_version or found.default_version
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_VECTOR:
        raise DatabaseError(
            f"the database has pgvector {version}, Kaleidoscope needs ≥ 0.7",
            hint="install a newer pgvector, then ALTER EXTENSION vector UPDATE",
        )
    if found.installed_version is None:
        connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS vector")
    connection.commit()


@contextmanager
def _migrating(url: str) -> Iterator[tuple[Connection, Config]]:
    """A connection for migrations, while no other process migrates the same database."""
    with _connected(url) as guard, _connected(url) as connection:
        guard.execution_options(isolation_level="AUTOCOMMIT")
        # Asked again and again: one that waits inside its query would hold a snapshot, and
        # CREATE INDEX CONCURRENTLY would wait for that snapshot, and so for ever.
        lock = text("SELECT pg_try_advisory_lock(hashtextextended('kaleidoscope:migrate', 0))")
        while not guard.execute(lock).scalar_one():
            time.sleep(0.05)
        config = _config()
        config.attributes["connection"] = connection
        yield connection, config


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    engine = create_engine(sqlalchemy_url(url), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            yield connection
    except OperationalError as error:
        if error.connection_invalidated or error.statement is None:
            raise DatabaseError(f"cannot reach the database: {error.orig}") from error
        raise
    finally:
        engine.dispose()


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    return config


def _revision(connection: Connection) -> str | None:
    if connection.execute(text("SELECT to_regclass('alembic_version')")).scalar_one() is None:
        return None
    found = connection.execute(text("SELECT max(version_num) FROM alembic_version")).scalar_one()
    return None if found is None else str(found)


def _revisions() -> set[str]:
    """The revisions that this code knows."""
    return {script.stem.partition("_")[0] for script in (SCRIPTS / "versions").glob("[0-9]*.py")}


def _refuse_newer(connection: Connection) -> None:
    found = _revision(connection)
    if found is not None and found not in _revisions():
        raise DatabaseError(
            f"the database is at revision {found}, which this Kaleidoscope does not know",
            hint="a newer Kaleidoscope has migrated it: update this one",
        )
    connection.rollback()
