"""Files of a scan against the ledger: what is new, known, changed, or looks like another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql
from kaleidoscope.kernel.paths import is_utf8, to_bytes


class Sampled(Protocol):
    """A file of which a part has been hashed."""

    @property
    def path(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def sample_hash(self) -> str | None: ...


class FileRow(Protocol):
    """What a scan says of a file."""

    @property
    def path(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def modified_at(self) -> datetime: ...
    @property
    def sample_hash(self) -> str | None: ...
    @property
    def mime_type(self) -> str | None: ...
    @property
    def media_type(self) -> str: ...


@dataclass(frozen=True)
class Known:
    """What the ledger says of a file."""

    photo_id: int
    path: str
    size: int
    modified_at: datetime | None
    sample_hash: str | None
    file_hash: str | None
    media_type: str
    attempt_id: UUID
    missing: bool


COLUMNS = (
    "photo_id, final_path AS path, size_bytes AS size, modified_at, sample_hash, file_hash,"
    " media_type::text, attempt_id, missing_since IS NOT NULL AS missing"
)

INSERT = sql(
    "INSERT INTO media_assets (final_path, original_path, filename, original_name, path_bytes,"
    " size_bytes, modified_at, sample_hash, mime_type, media_type)"
    " SELECT path, path, name, name, bytes, size, modified_at, sample_hash, mime_type,"
    "  kind::media_type"
    " FROM unnest(CAST(:paths AS text[]), CAST(:names AS text[]), CAST(:bytes AS bytea[]),"
    "  CAST(:sizes AS bigint[]), CAST(:times AS timestamptz[]), CAST(:samples AS text[]),"
    "  CAST(:mimes AS text[]), CAST(:kinds AS text[]))"
    "  AS f (path, name, bytes, size, modified_at, sample_hash, mime_type, kind)"
    # In one order, so that two scans of the same files do not wait for each other in a ring.
    " ORDER BY path ON CONFLICT (final_path) DO NOTHING"
    " RETURNING photo_id, final_path AS path, attempt_id"
)


async def insert(session: AsyncSession, files: Sequence[FileRow]) -> dict[str, tuple[int, UUID]]:
    """Rows for the paths that had none: their photo and attempt ids by path."""
    rows = await session.execute(
        INSERT,
        {
            "paths": [f.path for f in files],
            "names": [f.path.rpartition("/")[2] for f in files],
            "bytes": [None if is_utf8(f.path) else to_bytes(f.path) for f in files],
            **_facts(files),
        },
    )
    return {row.path: (row.photo_id, row.attempt_id) for row in rows}


async def known(session: AsyncSession, paths: Sequence[str]) -> list[Known]:
    """What the ledger has under these paths."""
    rows = await session.execute(
        sql(f"SELECT {COLUMNS} FROM media_assets WHERE final_path = ANY(:paths)"),
        {"paths": list(paths)},
    )
    return [Known(**row._mapping) for row in rows]


async def hold(session: AsyncSession, photo_ids: Sequence[int]) -> list[Known]:
    """The same of these rows, which nobody else changes until the transaction ends."""
    rows = await session.execute(
        sql(
            f"SELECT {COLUMNS} FROM media_assets WHERE photo_id = ANY(:ids)"
            " ORDER BY photo_id FOR NO KEY UPDATE"
        ),
        {"ids": list(photo_ids)},
    )
    return [Known(**row._mapping) for row in rows]


async def lookalikes(session: AsyncSession, files: Sequence[Sampled]) -> list[Known]:
    """Assets, themselves no duplicates, with the sample and size of a file of another path."""
    rows = await session.execute(
        sql(
            f"SELECT DISTINCT {COLUMNS} FROM media_assets m"
            " JOIN unnest(CAST(:paths AS text[]), CAST(:samples AS text[]),"
            "  CAST(:sizes AS bigint[])) AS f (path, sample, size)"
            " ON m.sample_hash = f.sample AND m.size_bytes = f.size AND m.final_path <> f.path"
            " WHERE m.duplicate_of IS NULL"
        ),
        {
            "paths": [f.path for f in files],
            "samples": [f.sample_hash for f in files],
            "sizes": [f.size for f in files],
        },
    )
    return [Known(**row._mapping) for row in rows]


async def refresh(session: AsyncSession, files: Mapping[int, FileRow]) -> None:
    """Size, time and sample of files that are there, with the content they had."""
    await session.execute(
        sql(
            "UPDATE media_assets m SET modified_at = f.modified_at, sample_hash = f.sample_hash,"
            " missing_since = NULL,"
            # What was damaged may have been put right by hand: that shows when it is read.
            " scrubbed_at = CASE WHEN NOT EXISTS (SELECT FROM asset_problems p"
            "  WHERE p.photo_id = m.photo_id AND p.what = 'scrubbed') THEN m.scrubbed_at END"
            " FROM unnest(CAST(:ids AS bigint[]), CAST(:times AS timestamptz[]),"
            "  CAST(:samples AS text[])) AS f (id, modified_at, sample_hash)"
            " WHERE m.photo_id = f.id"
        ),
        {"ids": list(files), **_facts(list(files.values()), "times", "samples")},
    )


async def replace(session: AsyncSession, files: Mapping[int, FileRow]) -> None:
    """Other content under known paths: all that was derived from the old content is void.

    So are the problems that there were with it. Persons stay until recognition has looked again,
    unless they were shown as a duplicate.
    """
    await session.execute(
        sql(
            "WITH healed AS (DELETE FROM asset_problems WHERE photo_id = ANY(:ids)),"
            " moved AS (DELETE FROM asset_places WHERE photo_id = ANY(:ids))"
            " UPDATE media_assets m SET size_bytes = f.size, modified_at = f.modified_at,"
            " sample_hash = f.sample_hash, mime_type = f.mime_type,"
            " media_type = f.kind::media_type, file_hash = NULL, duplicate_of = NULL,"
            " missing_since = NULL, width = NULL, height = NULL, duration_seconds = NULL,"
            " frame_rate = NULL, no_faces = NULL,"
            " person_ids = CASE WHEN m.duplicate_of IS NULL THEN person_ids END,"
            " scrubbed_at = NULL,"
            " is_thumbnailed = false, thumbnailed_at = NULL,"
            " is_backed_up = false, backed_up_at = NULL, location = NULL,"
            " is_geocoded = false, geocoded_at = NULL,"
            # A date that a person has set stands without its source until the file is read anew.
            " captured_at = CASE WHEN m.captured_at_source = 'person' THEN captured_at END,"
            " captured_offset = CASE WHEN m.captured_at_source = 'person' THEN captured_offset END,"
            " captured_at_source = NULL, captured_at_confidence = NULL,"
            " camera_make = NULL, camera_model = NULL, camera_serial = NULL"
            " FROM unnest(CAST(:ids AS bigint[]), CAST(:sizes AS bigint[]),"
            "  CAST(:times AS timestamptz[]), CAST(:samples AS text[]), CAST(:mimes AS text[]),"
            "  CAST(:kinds AS text[]))"
            "  AS f (id, size, modified_at, sample_hash, mime_type, kind)"
            " WHERE m.photo_id = f.id"
        ),
        {"ids": list(files), **_facts(list(files.values()))},
    )


def _facts(files: Sequence[FileRow], *wanted: str) -> dict[str, list[Any]]:
    facts: dict[str, list[Any]] = {
        "sizes": [f.size for f in files],
        "times": [f.modified_at for f in files],
        "samples": [f.sample_hash for f in files],
        "mimes": [f.mime_type for f in files],
        "kinds": [f.media_type for f in files],
    }
    return {name: facts[name] for name in wanted or facts}
