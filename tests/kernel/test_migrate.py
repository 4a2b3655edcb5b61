"""Migrations: up, down, one at a time, and never over a database that is too new."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

import kaleidoscope
from kaleidoscope.kernel import migrate
from kaleidoscope.kernel.db import Base, sqlalchemy_url
from kaleidoscope.kernel.embedded_postgres import EmbeddedPostgres
from kaleidoscope.kernel.errors import DatabaseError

FIRST = """
from alembic import op
revision, down_revision = "0001", None
def upgrade():
    op.execute("CREATE TABLE notes (n vector(3))")
    op.execute("SELECT pg_sleep(0.2)")
def downgrade():
    op.execute("DROP TABLE notes")
"""
SECOND = """
from alembic import op
revision, down_revision = "0002", "0001"
def upgrade():
    with op.get_context().autocommit_block():
        op.execute("CREATE INDEX CONCURRENTLY notes_n ON notes (n)")
def downgrade():
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY notes_n")
"""
BROKEN = """
from alembic import op
revision, down_revision = "0003", "0002"
def upgrade():
    op.execute("CREATE TABLE half (n int)")
    op.execute("SELECT 1 / 0")
def downgrade(): ...
"""


@pytest.fixture
def url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """An empty database."""
    name = f"empty_{uuid4().hex}"
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield postgres.url_of(name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A history of two revisions, the second of which builds an index concurrently."""
    (tmp_path / "versions").mkdir()
    shutil.copy(Path(migrate.__file__).parents[1] / "migrations" / "env.py", tmp_path)
    (tmp_path / "versions" / "0001.py").write_text(FIRST)
    (tmp_path / "versions" / "0002.py").write_text(SECOND)
    monkeypatch.setattr(migrate, "SCRIPTS", tmp_path)
    return tmp_path / "versions"


def tables(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        names = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        return {row[0] for row in connection.execute(names)}


def test_up_and_down(url: str, scripts: Path) -> None:
    assert migrate.current(url) is None
    migrate.upgrade(url)
    assert migrate.current(url) == migrate.head() == "0002"
    assert {"notes", "notes_n"} <= tables(url)
    migrate.upgrade(url)
    migrate.downgrade(url, "0001")
    assert "notes_n" not in tables(url)
    migrate.downgrade(url, "base")
    assert "notes" not in tables(url)
    assert migrate.current(url) is None


def test_starters_that_meet_do_not_race(url: str, scripts: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate.upgrade, [url] * 4))
    assert migrate.current(url) == "0002"


def test_a_revision_that_fails_leaves_the_ones_before_it(url: str, scripts: Path) -> None:
    (scripts / "0003.py").write_text(BROKEN)
    with pytest.raises(Exception, match="division by zero"):
        migrate.upgrade(url)
    assert migrate.current(url) == "0002"
    assert "half" not in tables(url)


def test_a_database_of_a_newer_version_is_left_alone(url: str, scripts: Path) -> None:
    migrate.upgrade(url)
    (scripts / "0002.py").unlink()
    for change in (migrate.upgrade, lambda url: migrate.downgrade(url, "base")):
        with pytest.raises(DatabaseError, match="at revision 0002, which this Kaleidoscope"):
            change(url)
    assert "notes_n" in tables(url)


def test_our_own_history_goes_down_and_up_again(url: str) -> None:
    migrate.upgrade(url)
    before = tables(url)
    migrate.downgrade(url, "base")
    assert tables(url) <= {"alembic_version", "alembic_version_pkc"}
    migrate.upgrade(url)
    assert tables(url) == before


def test_the_last_of_our_scripts_is_known_by_its_name() -> None:
    scripts = ScriptDirectory.from_config(migrate._config())
    assert migrate.head() == scripts.get_current_head()
    assert migrate._revisions() == {script.revision for script in scripts.walk_revisions()}


def test_the_models_are_what_the_migrations_make(url: str) -> None:
    root = Path(kaleidoscope.__path__[0])
    rooms = {path.relative_to(root).parts[0] for path in root.glob("*/models*")}
    assert {"library", "people"} <= rooms
    for room in sorted(rooms - {"ml"}):  # whose models are networks
        import_module(f"kaleidoscope.{room}.models")
    migrate.upgrade(url)
    engine = create_engine(sqlalchemy_url(url))
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_a_database_out_of_reach_is_an_error_in_words() -> None:
    with pytest.raises(DatabaseError, match=r"cannot reach the database: .*refused"):
        migrate.upgrade("postgresql://nobody@127.0.0.1:1/none")


@pytest.mark.parametrize(
    ("server", "vector", "says"),
    [
        (140011, ("0.8.5", None), "PostgreSQL 14"),
        (160000, None, "no pgvector"),
        (160000, ("0.8.5", "0.6.2"), "pgvector 0.6.2"),
        (160000, ("0.5.1", None), "pgvector 0.5.1"),
    ],
)
def test_a_server_that_is_too_old_is_refused(
    server: int, vector: tuple[str, str | None] | None, says: str
) -> None:
    class Server:
        """As far as `check_server` asks it."""

        def exec_driver_sql(self, query: str) -> Any:
            names = ("default_version", "installed_version")
            found = SimpleNamespace(**dict(zip(names, vector, strict=True))) if vector else None
            return SimpleNamespace(scalar_one=lambda: server, one_or_none=lambda: found)

    with pytest.raises(DatabaseError, match=says):
        migrate.check_server(Server())  # type: ignore[arg-type]
