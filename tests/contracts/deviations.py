"""Where the database is not what a seed states: fact by fact, what it is instead.

The reasons stand in docs/decisions/0004-deviations-from-the-seeds.md, under the same names.
"""

from __future__ import annotations

DEVIATIONS = {
    ("photos.id", "key"): "unique",
    ("photos.path", "type"): "text",
    ("photos.filename", "type"): "VARCHAR(1024)",
    ("photos.modified_at", "null"): "yes",
    ("embeddings.person_id", "null"): "yes",
    ("embeddings.source_photo_id", "references"): "media_assets.photo_id",
    ("embeddings.embedding", "type"): "vector",
    ("photo_persons.photo_id", "references"): "media_assets.photo_id",
    ("ingest_jobs.job_name", "null"): "yes",
    ("ingest_jobs.requested_by", "null"): "yes",
    ("ingest_jobs.finished_at", "null"): "yes",
    ("ingest_batches.published_at", "null"): "yes",
    ("photo_ingest_map.photo_id", "references"): "media_assets.photo_id",
    ("persons.primary_embedding_id", "references"): "face_vectors.id",
    ("media_assets.file_hash", "null"): "yes",
    ("media_assets.file_hash", "unique"): "where (duplicate_of IS NULL)",
    ("media_assets.original_name", "type"): "VARCHAR(1024)",
    (
        "idx_media_assets_is_geocoded",
        "index",
    ): "media_assets (is_geocoded) WHERE ((NOT is_geocoded) AND (location IS NOT NULL))",
    (
        "idx_media_assets_is_backed_up",
        "index",
    ): "media_assets (is_backed_up) WHERE (NOT is_backed_up)",
    ("idx_media_assets_has_errors", "index"): "media_assets (has_errors) WHERE has_errors",
    ("media_assets", "unique keys"): "(file_hash, final_path, photo_id)",
    ("media_assets", "foreign keys"): "(duplicate_of)",
    ("idx_media_items_user_id", "index"): "media_items (user_id) WHERE (user_id IS NOT NULL)",
    ("idx_media_items_uploaded_at", "index"): "media_items (uploaded_at, photo_id)",
}
