"""Backups for tests: a target, the current settings, and originals to copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import text

from kaleidoscope.kernel.db import Database


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def originals(target: Path) -> dict[str, bytes]:
    """The originals that lie in a backup."""
    return {name: body for name, body in files(target).items() if name.startswith("originals/")}


async def rows(db: Database, query: str, **values: Any) -> list[Any]:
    async with db.transaction() as session:
        found = await session.execute(text(query), values)
        return list(found.all()) if found.returns_rows else []
