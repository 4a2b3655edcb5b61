"""What a family has: files, their rows, persons and faces; and what of it a restore must bring."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
import xxhash
from sqlalchemy import text

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.paths import to_bytes, to_text
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library
from kaleidoscope.library.service import ScannedFile

MANIFEST = {
    "originals": "SELECT photo_id, final_path, file_hash, original_name FROM media_assets",
    "persons": "SELECT id, display_name FROM persons",
    "faces": "SELECT id, photo_id, person_id, bbox::text FROM faces",
}


class Household:
    """One data folder with its database, its photos in it and beside it, and a second disk."""

    def __init__(self, folder: Path, db: Database, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.db = db
        self.data = folder / "data"
        self.photos = folder / "photos"
        self.disk = folder / "disk"
        self._patch = patch

    async def rows(self, query: str, **values: Any) -> list[Any]:
        async with self.db.transaction() as session:
            found = await session.execute(text(query), values)
            return list(found.all()) if found.returns_rows else []

    async def take_in(self, *names: str | bytes) -> None:
        """Files with their rows, each with a face and a person of its name."""
        scanned = []
        for name in names:
            path = self.folder / os.fsdecode(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            body = os.fsencode(name) * 1000
            path.write_bytes(body)
            status = path.stat()
            scanned.append(
                ScannedFile(
                    path=to_text(path),
                    size=status.st_size,
                    modified_at=library.modified_at(status),
                    sample_hash=xxhash.xxh64(body).hexdigest(),
                    media_type="photo",
                    mime_type="image/jpeg",
                )
            )
        async with self.db.transaction() as session:
            found = await library.register(session, scanned)
        await library.hash_pending(self.db)
        for one in found:
            await self.rows(
                "WITH p AS (INSERT INTO persons (display_name) VALUES (:name) RETURNING id)"
                " INSERT INTO faces (photo_id, person_id, bbox, status, model_version, attempt_id)"
                " SELECT :photo, id, '{1,2,3,4}', 'assigned', 'test', gen_random_uuid() FROM p",
                name=one.path.rpartition("/")[2],
                photo=one.photo_id,
            )

    async def manifest(self, old: Path | None = None) -> dict[str, list[tuple[Any, ...]]]:
        """Every original (path, hash as the ledger and as the disk has it), name, face, person."""
        found = {
            what: sorted(tuple(row) for row in await self.rows(query))
            for what, query in MANIFEST.items()
        }
        for _, path, digest, _ in found["originals"]:
            body = Path(os.fsdecode(to_bytes(path))).read_bytes()
            assert hashlib.sha256(body).hexdigest() == digest, path
        return found

    def set(self, **variables: str) -> None:
        """Settings, by environment."""
        for name, value in variables.items():
            self._patch.setenv(f"KALEIDOSCOPE_{name}", value)
        load.cache_clear()

    def flip(self, name: str) -> None:
        """One byte of a file on the second disk."""
        path = self.disk / name
        body = bytearray(path.read_bytes())
        body[len(body) // 2] ^= 1
        path.write_bytes(body)
