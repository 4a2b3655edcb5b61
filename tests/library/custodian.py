"""An inbox beside its originals, and how the tests drop files into it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import text

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.paths import to_bytes, to_text
from kaleidoscope.library import service as library
from kaleidoscope.library.outside.custody import look
from kaleidoscope.library.outside.examine import examine
from kaleidoscope.library.service import Candidate, Outcome


def jpeg(number: int, taken: str | None = "2021:03:04 05:06:07", size: int = 0) -> bytes:
    """The beginning of a JPEG file with a date, different for each number."""
    when = b"" if taken is None else _exif(taken.encode() + b"\0")
    comment = f"photo {number} ".encode().ljust(max(size, 20), b".")
    return (
        b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
        + when
        + b"\xff\xfe"
        + struct.pack(">H", min(len(comment) + 2, 65535))
        + comment
        + b"\xff\xc0\0\x0b\x08\0\x10\0\x20\1\1\x11\0\xff\xda\0\x08\1\1\0\0?\0\0\xff\xd9"
    )


def _exif(date: bytes) -> bytes:
    tiff = (
        b"MM\0*\0\0\0\x08\0\1"
        + struct.pack(">HHII", 0x8769, 4, 1, 26)
        + b"\0\0\0\0\0\1"
        + struct.pack(">HHII", 0x9003, 2, len(date), 44)
        + b"\0\0\0\0"
        + date
    )
    segment = b"Exif\0\0" + tiff
    return b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment


class Here:
    """Reads files in this very process."""

    async def run(self, task: Any, *, name: str) -> Any:
        return await asyncio.to_thread(examine, task)


@dataclass
class Custodian:
    """One inbox, and the folders of the settings."""

    db: Database
    inbox: Path
    originals: Path
    duplicates: Path
    set_aside: Path
    work: Any = field(default_factory=Here)

    def drop(self, name: str | bytes, content: bytes, time: float = 1_700_000_000.5) -> Path:
        """A file in the inbox."""
        path = self.inbox / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (time, time))
        return path

    def candidates(self) -> list[Candidate]:
        """Every plain file of the inbox, as the librarian finds it."""
        found = []
        for path in sorted(p for p in self.inbox.rglob("*") if p.is_file() and not p.is_symlink()):
            identity = look(to_text(path))
            assert identity is not None
            is_photo = path.suffix.lower() in (".jpg", ".heic", ".cr2")
            is_video = path.suffix.lower() in (".mov", ".mp4")
            kind = "photo" if is_photo else "video" if is_video else None
            found.append(Candidate(to_text(path), identity, None, kind))  # type: ignore[arg-type]
        return found

    async def sweep(self, at_once: int = 100) -> list[Outcome]:
        """Resume, then file what lies in the inbox."""
        done = await library.resume(self.db)
        parcels = library.parcels(self.candidates())
        for start in range(0, len(parcels), at_once):
            read = await library.read(self.work, parcels[start : start + at_once])
            done += await library.take_in(self.db, read, to_text(self.inbox))
        return done

    async def rows(self, query: str, **values: Any) -> list[Any]:
        async with self.db.transaction() as session:
            return list(await session.execute(text(query), values))

    async def ledger(self) -> dict[str, Any]:
        """Every asset by its path below the originals, else its whole path."""
        async with self.db.transaction() as session:
            return {
                p.path.removeprefix(to_text(self.originals) + "/"): p
                async for p in library.stream(session)
            }

    async def check(self, contents: Sequence[bytes]) -> None:
        """Each content is once in the originals and once in the ledger, and nothing half done."""
        wanted = sorted(hashlib.sha256(c).hexdigest() for c in contents)
        lying = {path: digest(path) for path in files(self.originals)}
        assert sorted(lying.values()) == wanted
        photos = await self.ledger()
        assert sorted(str(p.file_hash) for p in photos.values()) == wanted
        for photo in photos.values():
            path = Path(os.fsdecode(to_bytes(photo.path)))
            assert lying[path] == photo.file_hash
        states = await self.rows(
            "SELECT state, count(*) FROM custody_moves WHERE state <> 'ABANDONED' GROUP BY 1"
        )
        assert [row.state for row in states] in (["RELEASED"], [])
        asked = await self.rows(
            "SELECT payload ->> 'photo_id' AS id, count(*) AS number FROM bus_outbox"
            " WHERE topic IN ('photos-to-process', 'videos-to-read') GROUP BY 1"
        )
        assert {int(row.id): row.number for row in asked} == {
            p.photo_id: 1 for p in photos.values() if p.duplicate_of is None
        }


def files(folder: Path) -> list[Path]:
    """Every file below a folder."""
    return sorted(p for p in folder.rglob("*") if p.is_file()) if folder.exists() else []


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
