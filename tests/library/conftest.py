"""Files on disk as a scan finds them, and what the library has published."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from custodian import Custodian
from scans import Ledger, Published, Register, Write, scan
from sqlalchemy import text

from kaleidoscope.kernel.db import Database
from kaleidoscope.library import service as library
from kaleidoscope.library.service import Registered, ScannedFile


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file (name, content, seconds of its time) and scan it."""

    def write(
        name: str | bytes, content: bytes, time: float = 1_700_000_000.5, kind: str = "photo"
    ) -> ScannedFile:
        path = tmp_path / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (time, time))
        return scan(path, kind)

    return write


@pytest.fixture
def register(db: Database) -> Register:
    """Plan and register, as an ingest does."""

    async def register(files: Sequence[ScannedFile]) -> list[Registered]:
        plan = await library.plan(db, files)
        assert not plan.refused
        async with db.transaction() as session:
            return await library.register(session, plan.files)

    return register


@pytest.fixture
def published(db: Database) -> Published:
    """What has been published since the last call: payloads, each with its `topic`."""

    async def published() -> list[dict[str, Any]]:
        async with db.transaction() as session:
            rows = await session.execute(
                text("DELETE FROM bus_outbox RETURNING seq, topic, payload")
            )
            return [{**r.payload, "topic": r.topic} for r in sorted(rows, key=lambda r: r.seq)]

    return published


@pytest.fixture
def ledger(db: Database, tmp_path: Path) -> Ledger:
    """Every asset by its path below the test's folder."""

    async def ledger() -> dict[str, Any]:
        async with db.transaction() as session:
            return {
                photo.path.removeprefix(f"{tmp_path}/"): photo
                async for photo in library.stream(session)
            }

    return ledger


@pytest.fixture
def custodian(db: Database, data_dir: Path) -> Custodian:
    """An empty inbox and empty folders, as the settings have them by themselves."""
    inbox = data_dir / "Photos_Inbox"
    inbox.mkdir()
    return Custodian(
        db,
        inbox,
        data_dir / "Storage" / "Originals",
        data_dir / "Duplicates",
        data_dir / "Set_Aside",
    )
