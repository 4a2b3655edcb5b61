"""Seed 003: ImmichVR's table of media. Its queue and cache come with the room that fills them."""

from __future__ import annotations

from stated import Column, Index, Row, Trigger

TABLE = "media_items"

ROWS: list[Row] = [
    Column(TABLE, "id", "UUID", generated=True, key=True, of="id", says="identifier"),
    Column(TABLE, "original_filename", "VARCHAR", of="original_name", says="file name"),
    Column(TABLE, "media_type", "ENUM('photo','video')", of="media_type", says="photo or video"),
    Column(TABLE, "file_path", "TEXT", of="final_path", says="path"),
    Column(TABLE, "file_size", "BIGINT", of="size_bytes", says="in bytes"),
    Column(TABLE, "mime_type", "VARCHAR", of="mime_type", says="image/jpeg"),
    Column(TABLE, "width", "INT", of="width", says="pixels"),
    Column(TABLE, "height", "INT", of="height", says="pixels"),
    Column(TABLE, "duration_seconds", "DECIMAL", True, of="duration_seconds", says="null for"),
    Column(TABLE, "frame_rate", "DECIMAL", True, of="frame_rate", says="null for"),
    Column(TABLE, "checksum", "VARCHAR", of="file_hash", says="SHA-256"),
    Column(TABLE, "captured_at", "TIMESTAMP of a wall clock", of="captured_at", says="taken"),
    Column(TABLE, "uploaded_at", "TIMESTAMP", of="ingested_at", says="when"),
    Column(TABLE, "user_id", "UUID", True, of="user_id", says="user"),
    Column(TABLE, "created_at", "TIMESTAMP", of="created_at", says="when"),
    Column(TABLE, "updated_at", "TIMESTAMP", of="updated_at", says="when"),
    Index(TABLE, "idx_media_items_media_type", ("media_type",)),
    Index(TABLE, "idx_media_items_user_id", ("user_id",)),
    Index(TABLE, "idx_media_items_uploaded_at", ("uploaded_at",)),
    Index(TABLE, "idx_media_items_checksum", ("checksum",)),
    Trigger(TABLE, "update_updated_at_column"),
]
