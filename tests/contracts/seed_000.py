"""Seed 000: the tables of photo-sorter. What it does not mark NULL is not null."""

from __future__ import annotations

from stated import Column, Key, Row

STATUS = "ENUM('READY','PROCESSING','PROCESSED','FAILED')"

ROWS: list[Row] = [
    Column("photos", "id", "BIGINT", False, generated=True, key=True, of="photo_id"),
    Column("photos", "path", "VARCHAR(1024)", False, unique=True, of="final_path"),
    Column("photos", "filename", "VARCHAR(512)", False, of="filename"),
    Column("photos", "filesize", "BIGINT", False, of="size_bytes"),
    Column("photos", "width", "INT", True, of="width"),
    Column("photos", "height", "INT", True, of="height"),
    Column("photos", "inserted_at", "DATETIME", False, of="ingested_at"),
    Column("photos", "modified_at", "DATETIME", False, of="modified_at"),
    Column("photos", "status", STATUS, False, "'READY'", of="status"),
    Column("photos", "person_ids", "JSON", True, of="person_ids"),
    #
    Column("persons", "id", "BIGINT", False, generated=True, key=True),
    Column("persons", "created_at", "DATETIME", False),
    Column("persons", "display_name", "VARCHAR(255)", True),
    Column("persons", "primary_embedding_id", "BIGINT", True),
    #
    Column("embeddings", "id", "BIGINT", False, generated=True, key=True, of="id"),
    Column("embeddings", "person_id", "BIGINT", False, references="persons.id", of="person_id"),
    Column("embeddings", "source_photo_id", "BIGINT", False, references="photos.id", of="photo_id"),
    Column("embeddings", "embedding", "BLOB", False, of="embedding"),
    Column("embeddings", "created_at", "DATETIME", False, of="created_at"),
    #
    Column("photo_persons", "photo_id", "BIGINT", False, references="photos.id"),
    Column("photo_persons", "person_id", "BIGINT", False, references="persons.id"),
    Key("photo_persons", ("photo_id", "person_id")),
    #
    Column("ingest_jobs", "job_id", "UUID", False, key=True),
    Column("ingest_jobs", "job_name", "VARCHAR", False),
    Column("ingest_jobs", "path", "VARCHAR", False),
    Column("ingest_jobs", "recursive", "BOOLEAN", False),
    Column("ingest_jobs", "requested_by", "VARCHAR", False),
    Column("ingest_jobs", "created_at", "DATETIME", False),
    Column("ingest_jobs", "status", "ENUM('SCANNED','PUBLISHED','COMPLETED','FAILED')", False),
    Column("ingest_jobs", "scanned_count", "INT", False),
    Column("ingest_jobs", "inserted_count", "INT", False),
    Column("ingest_jobs", "published_count", "INT", False),
    Column("ingest_jobs", "finished_at", "DATETIME", False),
    #
    Column("ingest_batches", "batch_id", "BIGINT", False, key=True),
    Column("ingest_batches", "job_id", "UUID", False, references="ingest_jobs.job_id"),
    Column("ingest_batches", "batch_index", "INT", False),
    Column("ingest_batches", "photo_count", "INT", False),
    Column("ingest_batches", "status", "ENUM('READY','PUBLISHED','FAILED')", False),
    Column("ingest_batches", "inserted_at", "DATETIME", False),
    Column("ingest_batches", "published_at", "DATETIME", False),
    #
    Column("photo_ingest_map", "map_id", "BIGINT", False, key=True),
    Column("photo_ingest_map", "photo_id", "BIGINT", False, references="photos.id"),
    Column("photo_ingest_map", "batch_id", "BIGINT", False, references="ingest_batches.batch_id"),
    Column("photo_ingest_map", "job_id", "UUID", False, references="ingest_jobs.job_id"),
    Column("photo_ingest_map", "inserted_at", "DATETIME", False),
    Column("photo_ingest_map", "publish_attempts", "INT", False, "0"),
    Column("photo_ingest_map", "last_publish_error", "TEXT", True),
    Column("photo_ingest_map", "status", "ENUM('PENDING','PUBLISHED','FAILED')", False),
]
