"""Seed 002: Photo Factory's ledger and heartbeats."""

from __future__ import annotations

from stated import Check, Column, Index, Only, Row

TABLE = "media_assets"
NOW = "now()"

ROWS: list[Row] = [
    Column(TABLE, "id", "UUID", False, generated=True, key=True, says="unique identifier"),
    Column(TABLE, "file_hash", "VARCHAR(64)", False, unique=True, indexed=True, says="SHA-256"),
    Column(TABLE, "original_name", "VARCHAR(512)", False, says="file name"),
    Column(TABLE, "original_path", "TEXT", False, says="absolute path"),
    Column(TABLE, "final_path", "TEXT", False, says="absolute path"),
    Column(TABLE, "size_bytes", "BIGINT", False, says="in bytes"),
    Column(TABLE, "captured_at", "TIMESTAMP of a wall clock", True, indexed=True, says="taken"),
    Column(TABLE, "ingested_at", "TIMESTAMP", False, NOW, indexed=True, says="entered"),
    Column(TABLE, "location", "JSONB", True, says="GPS"),
    Check(TABLE, "location", ('$."lat" >= -90', '$."lat" <= 90')),
    Check(TABLE, "location", ('$."lon" >= -180', '$."lon" <= 180')),
    Column(TABLE, "is_ingested", "BOOLEAN", False, "true", says="always true"),
    Column(TABLE, "is_geocoded", "BOOLEAN", False, "false", says="place"),
    Column(TABLE, "is_thumbnailed", "BOOLEAN", False, "false", says="thumbnails"),
    Column(TABLE, "is_curated", "BOOLEAN", False, "false", says="person"),
    Column(TABLE, "is_backed_up", "BOOLEAN", False, "false", says="backup"),
    Column(TABLE, "has_errors", "BOOLEAN", False, "false", says="failed"),
    Column(TABLE, "error_message", "TEXT", True, says="what failed"),
    Column(TABLE, "geocoded_at", "TIMESTAMP", True, says="when is_geocoded"),
    Column(TABLE, "thumbnailed_at", "TIMESTAMP", True, says="when is_thumbnailed"),
    Column(TABLE, "curated_at", "TIMESTAMP", True, says="when is_curated"),
    Column(TABLE, "backed_up_at", "TIMESTAMP", True, says="when is_backed_up"),
    Column(TABLE, "created_at", "TIMESTAMP", False, NOW, says="row was made"),
    Index(TABLE, "idx_media_assets_captured_at", ("captured_at",)),
    Index(TABLE, "idx_media_assets_ingested_at", ("ingested_at",)),
    Index(TABLE, "idx_media_assets_is_geocoded", ("is_geocoded",)),
    Index(TABLE, "idx_media_assets_is_backed_up", ("is_backed_up",)),
    Index(TABLE, "idx_media_assets_has_errors", ("has_errors",)),
    Only(TABLE, "unique keys", ("file_hash",)),
    Only(TABLE, "foreign keys", ()),
    #
    Column("system_status", "service_name", "VARCHAR(64)", False, key=True, says="service"),
    Column("system_status", "last_heartbeat", "TIMESTAMP", False, NOW, says="sign"),
    Column("system_status", "status", "VARCHAR(16)", False, "'OK'", says="OK, WARNING"),
    Check("system_status", "status", ("OK", "ERROR", "WARNING")),
    Column("system_status", "current_task", "TEXT", True, says="doing"),
    Column("system_status", "updated_at", "TIMESTAMP", False, NOW, says="last changed"),
    #
    Column("system_status_history", "id", "INT", False, generated=True, key=True, says="number"),
    Column("system_status_history", "service_name", "VARCHAR(64)", False, indexed=True),
    Column("system_status_history", "status", "VARCHAR(16)", False, says="OK, WARNING"),
    Check("system_status_history", "status", ("OK", "ERROR", "WARNING")),
    Column("system_status_history", "current_task", "TEXT", True, says="doing"),
    Column("system_status_history", "heartbeat_timestamp", "TIMESTAMP", False, says="when"),
    Column("system_status_history", "created_at", "TIMESTAMP", False, NOW, says="written"),
    Index(
        "system_status_history",
        "idx_system_status_history_service_timestamp",
        ("service_name", "heartbeat_timestamp"),
    ),
]
