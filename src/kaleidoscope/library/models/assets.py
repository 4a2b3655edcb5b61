"""The ledger itself: one row a media file."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    DateTime,
    Enum,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from kaleidoscope.kernel.db import Base
from kaleidoscope.library.models.columns import FALSE, INSTANT, NEW_UUID, NOW

PHOTO_STATUS = Enum("READY", "PROCESSING", "PROCESSED", "FAILED", name="photo_status")
MEDIA_TYPE = Enum("photo", "video", name="media_type")

# A b-tree entry has room for 2 700 bytes; see docs/decisions/0004-deviations-from-the-seeds.md.
MAX_PATH_BYTES = 2600

LOCATION = (
    "location IS NULL OR coalesce(location @@"
    " 'strict ($.lat >= -90 && $.lat <= 90 && $.lon >= -180 && $.lon <= 180)', false)"
)


class MediaAsset(Base):
    """One photo or video (seed 002); seeds 000, 001 and 003 see it through views."""

    __tablename__ = "media_assets"
    __table_args__ = (
        UniqueConstraint("photo_id"),
        UniqueConstraint("final_path"),
        CheckConstraint(f"octet_length(final_path) <= {MAX_PATH_BYTES}", name="final_path_length"),
        CheckConstraint("file_hash ~ '^[0-9a-f]{64}$'", name="file_hash_is_sha256"),
        CheckConstraint("size_bytes >= 0", name="size_bytes"),
        CheckConstraint("width > 0", name="width"),
        CheckConstraint("height > 0", name="height"),
        CheckConstraint("duration_seconds >= 0", name="duration_seconds"),
        CheckConstraint("frame_rate >= 0", name="frame_rate"),
        CheckConstraint("retry_count >= 0", name="retry_count"),
        CheckConstraint("duplicate_of <> photo_id", name="not_its_own_duplicate"),
        CheckConstraint("jsonb_typeof(person_ids) = 'array'", name="person_ids_is_a_list"),
        CheckConstraint(LOCATION, name="location"),
        CheckConstraint("is_ingested", name="is_ingested"),
        CheckConstraint("is_geocoded = (geocoded_at IS NOT NULL)", name="is_geocoded"),
        CheckConstraint("is_thumbnailed = (thumbnailed_at IS NOT NULL)", name="is_thumbnailed"),
        CheckConstraint("is_curated = (curated_at IS NOT NULL)", name="is_curated"),
        CheckConstraint("is_backed_up = (backed_up_at IS NOT NULL)", name="is_backed_up"),
        CheckConstraint("has_errors OR error_message IS NULL", name="has_errors"),
        CheckConstraint(
            "captured_at_confidence IN ('high', 'medium', 'low')", name="captured_at_confidence"
        ),
        Index(
            "uq_media_assets_file_hash",
            "file_hash",
            unique=True,
            postgresql_where=text("duplicate_of IS NULL"),
        ),
        Index("idx_media_items_checksum", "file_hash"),
        Index("idx_media_assets_captured_at", "captured_at"),
        Index("idx_media_assets_ingested_at", "ingested_at"),
        Index(
            "idx_media_assets_is_geocoded",
            "is_geocoded",
            postgresql_where=text("NOT is_geocoded AND location IS NOT NULL"),
        ),
        Index(
            "idx_media_assets_is_backed_up",
            "is_backed_up",
            postgresql_where=text("NOT is_backed_up"),
        ),
        Index("idx_media_assets_has_errors", "has_errors", postgresql_where=text("has_errors")),
        Index("idx_media_items_media_type", "media_type"),
        Index("idx_media_items_user_id", "user_id", postgresql_where=text("user_id IS NOT NULL")),
        Index("idx_media_items_uploaded_at", "ingested_at", "photo_id"),
        Index("ix_media_assets_sample_hash", "sample_hash", "size_bytes"),
        Index(
            "ix_media_assets_duplicate_of",
            "duplicate_of",
            postgresql_where=text("duplicate_of IS NOT NULL"),
        ),
        Index(
            "ix_media_assets_unthumbnailed",
            "photo_id",
            postgresql_where=text("NOT is_thumbnailed AND file_hash IS NOT NULL"),
        ),
        Index(
            "ix_media_assets_undated",
            "photo_id",
            postgresql_where=text("captured_at_source IS NULL"),
        ),
        Index(
            "ix_media_assets_doubtful",
            "photo_id",
            postgresql_where=text("captured_at_confidence = 'low'"),
        ),
        Index(
            "ix_media_assets_camera",
            "camera_model",
            "captured_at",
            postgresql_where=text("camera_model IS NOT NULL"),
        ),
        Index(
            "ix_media_assets_scrubbed_at",
            "scrubbed_at",
            "photo_id",
            postgresql_where=text("file_hash IS NOT NULL AND missing_since IS NULL"),
        ),
        Index(
            "ix_media_assets_missing_since",
            "missing_since",
            postgresql_where=text("missing_since IS NOT NULL"),
        ),
        Index("ix_media_assets_unhashed", "photo_id", postgresql_where=text("file_hash IS NULL")),
        Index(
            "ix_media_assets_next_retry_at",
            "next_retry_at",
            postgresql_where=text("next_retry_at IS NOT NULL"),
        ),
        Index(
            "ix_media_assets_processing_since",
            "processing_since",
            postgresql_where=text("processing_since IS NOT NULL"),
        ),
        {"comment": "The ledger: one row a media file that is safely on disk"},
    )

    id: Mapped[UUID] = mapped_column(
        primary_key=True,
        server_default=NEW_UUID,
        comment="Unique identifier of the asset; generated, never set by hand",
    )
    photo_id: Mapped[int] = mapped_column(
        BigInteger, Identity(), comment="Number of the asset in the API, messages and posts"
    )
    file_hash: Mapped[str | None] = mapped_column(
        String(64),
        comment="SHA-256 of the content in hexadecimal; null only until a file has been hashed",
    )
    original_name: Mapped[str] = mapped_column(
        String(1024), comment="File name as it was received, with its extension"
    )
    original_path: Mapped[str] = mapped_column(
        Text, comment="Absolute path at which the file was found"
    )
    final_path: Mapped[str] = mapped_column(
        Text, comment="Absolute path at which the file lies now, spelled by kernel.paths.to_text"
    )
    filename: Mapped[str] = mapped_column(
        String(1024), comment="Last part of final_path, or the name a user gave"
    )
    path_bytes: Mapped[bytes | None] = mapped_column(
        LargeBinary, comment="The exact bytes of final_path where they are not UTF-8"
    )
    size_bytes: Mapped[int] = mapped_column(BigInteger, comment="Size of the file in bytes")
    modified_at: Mapped[datetime | None] = mapped_column(
        INSTANT, comment="Modification time of the file when it was last looked at"
    )
    sample_hash: Mapped[str | None] = mapped_column(
        Text, comment="Fast hash of parts of the content: equal ones may be duplicates"
    )
    mime_type: Mapped[str | None] = mapped_column(String, comment="For example image/jpeg")
    media_type: Mapped[str] = mapped_column(
        MEDIA_TYPE, server_default=text("'photo'"), comment="photo or video"
    )
    width: Mapped[int | None] = mapped_column(Integer, comment="Pixels, as displayed")
    height: Mapped[int | None] = mapped_column(Integer, comment="Pixels, as displayed")
    duration_seconds: Mapped[Decimal | None] = mapped_column(
        Numeric, comment="Length of a video; null for photos"
    )
    frame_rate: Mapped[Decimal | None] = mapped_column(
        Numeric, comment="Frames a second of a video; null for photos"
    )
    captured_at: Mapped[datetime | None] = mapped_column(
        DateTime, comment="When it was taken, by the clock on the wall where it was taken"
    )
    captured_offset: Mapped[timedelta | None] = mapped_column(
        Interval, comment="How far that clock was ahead of UTC, where known"
    )
    captured_at_source: Mapped[str | None] = mapped_column(
        Text,
        comment="What tells captured_at: exif:DateTimeOriginal, name, mtime, person …; null: not "
        "looked at",
    )
    captured_at_confidence: Mapped[str | None] = mapped_column(
        Text,
        comment="How far to believe captured_at: high, medium, or low, which waits for a person's "
        "look",
    )
    camera_make: Mapped[str | None] = mapped_column(
        Text, comment="Maker of the camera, as it writes it"
    )
    camera_model: Mapped[str | None] = mapped_column(
        Text, comment="Model of the camera, as it writes it"
    )
    camera_serial: Mapped[str | None] = mapped_column(
        Text, comment="Serial number of the camera, where it tells one"
    )
    ingested_at: Mapped[datetime] = mapped_column(
        INSTANT, server_default=NOW, comment="When the file entered the ledger"
    )
    location: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB,
        comment="GPS position: lat -90 to 90, lon -180 to 180; a trigger keeps it while the "
        "content is",
    )
    is_ingested: Mapped[bool] = mapped_column(
        Boolean, server_default=text("true"), comment="Always true: a row means a safe file"
    )
    is_geocoded: Mapped[bool] = mapped_column(
        Boolean, server_default=FALSE, comment="The place of the position has been looked up"
    )
    is_thumbnailed: Mapped[bool] = mapped_column(
        Boolean, server_default=FALSE, comment="Thumbnails have been made"
    )
    is_curated: Mapped[bool] = mapped_column(
        Boolean, server_default=FALSE, comment="A person has looked it through"
    )
    is_backed_up: Mapped[bool] = mapped_column(
        Boolean, server_default=FALSE, comment="The backup has been confirmed"
    )
    has_errors: Mapped[bool] = mapped_column(
        Boolean, server_default=FALSE, comment="Something failed and has not been healed"
    )
    error_message: Mapped[str | None] = mapped_column(
        Text, comment="What failed and is not healed yet, recognition's error first"
    )
    geocoded_at: Mapped[datetime | None] = mapped_column(
        INSTANT, comment="When is_geocoded became true"
    )
    thumbnailed_at: Mapped[datetime | None] = mapped_column(
        INSTANT, comment="When is_thumbnailed became true"
    )
    curated_at: Mapped[datetime | None] = mapped_column(
        INSTANT, comment="When is_curated became true"
    )
    backed_up_at: Mapped[datetime | None] = mapped_column(
        INSTANT, comment="When is_backed_up became true"
    )
    status: Mapped[str] = mapped_column(
        PHOTO_STATUS,
        server_default=text("'READY'"),
        comment="READY waits, PROCESSING is looked at, PROCESSED is done, FAILED says why",
    )
    attempt_id: Mapped[UUID] = mapped_column(
        server_default=NEW_UUID, comment="The attempt whose result counts; earlier ones are void"
    )
    processing_since: Mapped[datetime | None] = mapped_column(
        INSTANT, comment="When it became PROCESSING; kept with the status by a trigger"
    )
    retry_count: Mapped[int] = mapped_column(
        Integer, server_default=text("0"), comment="Failures since it last succeeded or was revived"
    )
    next_retry_at: Mapped[datetime | None] = mapped_column(
        INSTANT, comment="When a FAILED one is tried again; null: it failed for good"
    )
    no_faces: Mapped[bool | None] = mapped_column(
        Boolean, comment="Recognition found no face; null until it has looked"
    )
    person_ids: Mapped[list[int] | None] = mapped_column(
        JSONB(none_as_null=True), comment="Who is in it, each person once; null until known"
    )
    duplicate_of: Mapped[int | None] = mapped_column(
        BigInteger,
        ForeignKey("media_assets.photo_id"),
        comment="The first asset with the same content, whose outcome this one shows",
    )
    missing_since: Mapped[datetime | None] = mapped_column(
        INSTANT, comment="When the file was first found to be gone"
    )
    scrubbed_at: Mapped[datetime | None] = mapped_column(
        INSTANT, comment="When the file was last read through and compared with file_hash"
    )
    user_id: Mapped[UUID | None] = mapped_column(comment="The user it belongs to")
    created_at: Mapped[datetime] = mapped_column(
        INSTANT, server_default=NOW, comment="When the row was made"
    )
    updated_at: Mapped[datetime] = mapped_column(
        INSTANT, server_default=NOW, comment="When the row last changed; kept by a trigger"
    )
