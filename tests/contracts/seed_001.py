"""Seed 001: what its text and its older draft add to the tables of seed 000."""

from __future__ import annotations

from seed_000 import STATUS
from stated import Column, Row

ROWS: list[Row] = [
    Column("photos", "id", "BIGINT", generated=True, key=True),
    Column("photos", "path", "VARCHAR", unique=True),
    Column("photos", "filename", "VARCHAR"),
    Column("photos", "inserted_at", "DATETIME"),
    Column("photos", "width", "INT", True),
    Column("photos", "height", "INT", True),
    Column("photos", "person_ids", "JSON"),
    Column("photos", "status", STATUS),
    Column("photos", "no_faces", "BOOLEAN"),
    Column("media_assets", "sample_hash", says="hash"),
    Column("media_assets", "retry_count", "INT", says="failures"),
    #
    Column("persons", "id", "BIGINT", generated=True, key=True),
    Column("persons", "created_at", "DATETIME"),
    Column("persons", "display_name", "VARCHAR", True),
    Column("persons", "primary_embedding_id", "BIGINT", True, references="embeddings.id"),
    #
    Column("embeddings", "id", "BIGINT", generated=True, key=True),
    Column("embeddings", "person_id", "BIGINT", references="persons.id"),
    Column("embeddings", "embedding", "BLOB"),
    Column("embeddings", "source_photo_id", "BIGINT", references="photos.id"),
    Column("embeddings", "created_at", "DATETIME"),
    #
    Column("photo_persons", "photo_id"),
    Column("photo_persons", "person_id"),
    #
    Column("ingest_jobs", "job_id", key=True),
    Column("ingest_jobs", "job_name", null=True),
    Column("ingest_jobs", "path"),
    Column("ingest_jobs", "recursive"),
    Column("ingest_jobs", "requested_by"),
    Column("ingest_jobs", "created_at"),
    Column("ingest_jobs", "status"),
    Column("ingest_jobs", "scanned_count"),
    Column("ingest_jobs", "inserted_count"),
    Column("ingest_jobs", "published_count"),
    Column("ingest_jobs", "finished_at"),
    #
    Column("ingest_batches", "batch_id", key=True),
    Column("ingest_batches", "job_id", references="ingest_jobs.job_id"),
    Column("ingest_batches", "batch_index"),
    Column("ingest_batches", "photo_count"),
    Column("ingest_batches", "status", "ENUM('READY','PUBLISHED','FAILED')"),
    Column("ingest_batches", "inserted_at"),
    Column("ingest_batches", "published_at"),
    #
    Column("photo_ingest_map", "photo_id"),
    Column("photo_ingest_map", "batch_id"),
    Column("photo_ingest_map", "job_id"),
]
