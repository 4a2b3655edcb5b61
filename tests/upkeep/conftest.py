"""A family's installation: a data folder with a server of its own, originals, a second disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from household import Household

from kaleidoscope.kernel import migrate
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.embedded_postgres import EmbeddedPostgres
from kaleidoscope.kernel.settings import load


@pytest.fixture
async def home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Household]:
    """With the embedded PostgreSQL in its data folder."""
    data = folder / "data"
    monkeypatch.setenv("KALEIDOSCOPE_DATA_DIR", str(data))
    monkeypatch.setenv("KALEIDOSCOPE_BACKUP_TARGET", str(folder / "disk"))
    load.cache_clear()
    server = EmbeddedPostgres(data / "postgres")
    url = await asyncio.to_thread(server.start)
    await asyncio.to_thread(migrate.upgrade, url)
    db = Database(url)
    yield Household(folder, db, monkeypatch)
    await db.close()
    await asyncio.to_thread(server.stop)
    load.cache_clear()


@pytest.fixture
async def guest(
    folder: Path, db: Database, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Household]:
    """With a database on a server that is not its own."""
    monkeypatch.setenv("KALEIDOSCOPE_DATA_DIR", str(folder / "data"))
    monkeypatch.setenv("KALEIDOSCOPE_BACKUP_TARGET", str(folder / "disk"))
    load.cache_clear()
    yield Household(folder, db, monkeypatch)
    load.cache_clear()
