"""What every test may ask for: a database of its own, a data folder, the shared photographs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from kaleidoscope.kernel import migrate
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.embedded_postgres import EmbeddedPostgres
from kaleidoscope.kernel.settings import load

THOUSAND_MILLION = 10**9
SHARED = "KALEIDOSCOPE_SHARED"
FIRST_IDS = {"media_assets": 1, "persons": 2, "faces": 3}
# Files and folders that take longest.
LONGEST = ("test_custody_crashes.py", "upkeep", "stories", "web")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Side by side, what takes longest begins first, so that no worker waits for it at the end."""
    if hasattr(config, "workerinput"):
        items.sort(key=_begins)


def _begins(item: pytest.Item) -> int:
    names = (item.path.name, item.path.parent.name)
    return min((LONGEST.index(n) for n in names if n in LONGEST), default=len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def _apart_from_the_user() -> Iterator[None]:
    """No test reads the settings or writes in the data folder of who runs it."""
    with _open_folder() as folder, pytest.MonkeyPatch.context() as patch:
        for name in os.environ.keys() - {SHARED}:
            if name.startswith("KALEIDOSCOPE_"):
                patch.delenv(name)
        patch.setenv("KALEIDOSCOPE_DATA_DIR", str(folder))
        yield


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder that an unprivileged PostgreSQL may enter (those of pytest are closed)."""
    with _open_folder() as path:
        yield path


@pytest.fixture
def data_dir(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty data folder, and no setting from anywhere else."""
    monkeypatch.setenv("KALEIDOSCOPE_DATA_DIR", str(folder))
    load.cache_clear()
    yield folder
    load.cache_clear()


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """One embedded server for all tests."""
    with _open_folder() as folder:
        server = EmbeddedPostgres(folder / "postgres")
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def template(postgres: EmbeddedPostgres) -> str:
    """The name of a migrated database to copy."""
    name = "template_migrated"
    with _administrator(postgres) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    url = postgres.url_of(name)
    migrate.upgrade(url)
    with psycopg.connect(url, autocommit=True) as connection:
        _part_sequences(connection)
    return name


@pytest.fixture
def database_url(postgres: EmbeddedPostgres, template: str) -> Iterator[str]:
    """The URL of a fresh, migrated database."""
    name = f"test_{uuid4().hex}"
    copied, source = sql.Identifier(name), sql.Identifier(template)
    with _administrator(postgres) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(copied, source))
        yield postgres.url_of(name)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(copied))


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    """A fresh, migrated database."""
    opened = Database(database_url)
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with labelled photographs, odd files and models that some tests measure with."""
    default = Path(__file__).parents[2] / "shared"
    path = Path(os.environ.get(SHARED, default))
    if not path.is_dir():
        pytest.skip(f"no shared folder at {path} ({SHARED})")
    return path


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, str]]:
    """The options that reach a local S3."""
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {"endpoint_url": f"http://{host}:{port}", "key": "test", "secret": "test"}
    server.stop()


@contextmanager
def _open_folder() -> Iterator[Path]:
    """A temporary folder, in memory where there is room: fsync stays on and costs little there."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 4 << 30
    with tempfile.TemporaryDirectory(prefix="kaleidoscope-", dir=memory if roomy else None) as name:
        path = Path(name)
        path.chmod(0o711)
        yield path


def _administrator(postgres: EmbeddedPostgres) -> psycopg.Connection:
    return psycopg.connect(postgres.url_of("postgres"), autocommit=True)


def _part_sequences(connection: psycopg.Connection) -> None:
    """Let each kind of id start at a thousand million of its own: none passes for another."""
    rows = connection.execute(
        "SELECT s.sequencename, d.refobjid::regclass::text FROM pg_sequences s"
        " JOIN pg_depend d ON d.objid = format('%I.%I', s.schemaname, s.sequencename)::regclass"
        " AND d.deptype IN ('a', 'i') AND d.refclassid = 'pg_class'::regclass"
        " WHERE s.data_type = 'bigint'::regtype ORDER BY 1"
    ).fetchall()
    others = len(FIRST_IDS)
    for sequence, table in rows:
        if table not in FIRST_IDS:
            others += 1
        start = FIRST_IDS.get(table, others) * THOUSAND_MILLION
        connection.execute("SELECT setval(%s::regclass, %s, false)", [sequence, start])
