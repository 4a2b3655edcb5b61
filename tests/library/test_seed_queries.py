"""The query patterns of seed 002, as it prints them, each by its index on a filled table."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from kaleidoscope.kernel.db import Database
from kaleidoscope.library.queries.derivatives import COLUMNS, FROM

FILL = """
INSERT INTO media_assets (file_hash, original_name, original_path, final_path, size_bytes,
    captured_at, location, is_geocoded, geocoded_at, is_thumbnailed, thumbnailed_at,
    is_backed_up, backed_up_at, ingested_at)
SELECT encode(sha256(n::text::bytea), 'hex'), n || '.jpg', '/in/' || n, '/originals/' || n, n,
    '2020-01-01'::timestamp + n * interval '1 minute',
    CASE WHEN n % 2 = 0 THEN '{"lat": 1, "lon": 2}'::jsonb END,
    n % 100 <> 0 AND n % 2 = 0, CASE WHEN n % 100 <> 0 AND n % 2 = 0 THEN now() END,
    n % 100 <> 0, CASE WHEN n % 100 <> 0 THEN now() END,
    n % 100 <> 0, CASE WHEN n % 100 <> 0 THEN now() END,
    now() - n * interval '1 minute'
FROM generate_series(1, 30000) AS n
"""
PROBLEMS = """
INSERT INTO asset_problems (photo_id, what, error_code, error)
SELECT photo_id, 'thumbnailed', 'damaged', 'broken' FROM media_assets WHERE size_bytes % 300 = 0
"""
KEPT = """
INSERT INTO kept_files (kind, final_path, size_bytes, modified_at, file_hash, is_backed_up,
    backed_up_at, scrubbed_at)
SELECT 'sidecar', '/originals/' || n || '.xmp', n, now(), encode(sha256(n::text::bytea), 'hex'),
    n % 100 <> 0, CASE WHEN n % 100 <> 0 THEN now() END, now() - n * interval '1 minute'
FROM generate_series(1, 30000) AS n
"""
HEARTBEATS = """
INSERT INTO system_status_history (service_name, status, heartbeat_timestamp)
SELECT 'service-' || n % 7, 'OK', now() - n * interval '20 seconds'
FROM generate_series(1, 30000) AS n
"""

PATTERNS = {
    "duplicates": ("SELECT * FROM media_assets WHERE file_hash = repeat('a', 64)", "file_hash"),
    "pending geocoding": (
        "SELECT * FROM media_assets WHERE is_ingested = TRUE AND is_geocoded = FALSE"
        " AND location IS NOT NULL",
        "idx_media_assets_is_geocoded",
    ),
    "pending backup": (
        "SELECT * FROM media_assets WHERE is_ingested = TRUE AND is_backed_up = FALSE",
        "idx_media_assets_is_backed_up",
    ),
    "errors": ("SELECT * FROM media_assets WHERE has_errors = TRUE", "idx_media_assets_has_errors"),
    "recent assets": (
        "SELECT * FROM media_assets ORDER BY ingested_at DESC LIMIT 10",
        "ingested_at|uploaded_at",
    ),
    "by date": (
        "SELECT * FROM media_assets WHERE captured_at >= '2020-01-05' ORDER BY captured_at LIMIT 9",
        "idx_media_assets_captured_at",
    ),
    "history of a service": (
        "SELECT * FROM system_status_history WHERE service_name = 'service-3'"
        " AND heartbeat_timestamp >= now() - interval '1 hour'",
        "idx_system_status_history_service_timestamp",
    ),
    "our own: to be thumbnailed": (
        f"SELECT {COLUMNS} FROM {FROM} WHERE NOT m.is_thumbnailed"
        " AND m.file_hash IS NOT NULL AND m.photo_id > 0"
        " AND (p.what IS NULL OR p.retry_at <= now())"
        " ORDER BY m.photo_id LIMIT 100",
        "ix_media_assets_unthumbnailed",
    ),
    "our own: kept, to be copied": (
        "SELECT * FROM kept_files WHERE NOT is_backed_up AND missing_since IS NULL"
        " AND file_id > 0 ORDER BY file_id LIMIT 100",
        "ix_kept_files_is_backed_up",
    ),
    "our own: kept, to be read through": (
        "SELECT * FROM kept_files WHERE missing_since IS NULL"
        " ORDER BY scrubbed_at NULLS FIRST, file_id LIMIT 50",
        "ix_kept_files_scrubbed_at",
    ),
    "our own: what happened to a photo": (
        "SELECT * FROM asset_events WHERE photo_id = 7 ORDER BY event_id",
        "ix_asset_events_photo_id",
    ),
}


@pytest.fixture
async def filled(db: Database) -> Database:
    async with db.transaction() as session:
        for statement in (FILL, PROBLEMS, KEPT, HEARTBEATS):
            await session.execute(text(statement))
        await session.execute(
            text(
                "INSERT INTO asset_events (photo_id, what)"
                " SELECT photo_id, 'hashed' FROM media_assets"
            )
        )
        await session.execute(text("ANALYZE media_assets, asset_problems, asset_events"))
        await session.execute(text("ANALYZE system_status_history, kept_files"))
    return db


async def test_every_pattern_has_its_index(filled: Database) -> None:
    wrong = []
    async with filled.transaction() as session:
        for name, (query, index) in PATTERNS.items():
            plan = "\n".join((await session.execute(text("EXPLAIN " + query))).scalars())
            if "Seq Scan on media_assets" in plan or not any(i in plan for i in index.split("|")):
                wrong.append(f"{name}:\n{plan}")
    assert not wrong, "\n".join(wrong)
