"""Tables of the library: the ledger of media and the attempts to process them."""

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
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from kaleidoscope.kernel.db import Base

NOW = func.now()
NEW_UUID = text("gen_random_uuid()")
FALSE = text("false")
INSTANT = DateTime(timezone=True)

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


class ProcessingAttempt(Base):
    """One attempt at a photo or video, from its begin to its end."""

    __tablename__ = "processing_attempts"
    __table_args__ = (
        CheckConstraint("outcome IN ('PROCESSED', 'FAILED', 'SUPERSEDED')", name="outcome"),
        CheckConstraint("(outcome IS NULL) = (finished_at IS NULL)", name="finished"),
        Index("ix_processing_attempts_photo_id", "photo_id", "created_at"),
        Index(
            "ix_processing_attempts_processed",
            "finished_at",
            postgresql_where=text("outcome = 'PROCESSED'"),
        ),
        {"comment": "History of recognition: every attempt that began, ended or was superseded"},
    )

    attempt_id: Mapped[UUID] = mapped_column(
        primary_key=True, comment="Carried by the attempt's message and by its callback"
    )
    photo_id: Mapped[int] = mapped_column(
        BigInteger,
        ForeignKey("media_assets.photo_id", ondelete="CASCADE"),
        comment="The photo or video",
    )
    worker: Mapped[str | None] = mapped_column(Text, comment="Who marked it PROCESSING")
    created_at: Mapped[datetime] = mapped_column(
        INSTANT, server_default=NOW, comment="When the attempt was first heard of"
    )
    started_at: Mapped[datetime | None] = mapped_column(
        INSTANT, comment="When it was marked PROCESSING"
    )
    finished_at: Mapped[datetime | None] = mapped_column(INSTANT, comment="When it ended")
    outcome: Mapped[str | None] = mapped_column(
        Text, comment="PROCESSED, FAILED or SUPERSEDED; null while it runs"
    )
    error_code: Mapped[str | None] = mapped_column(Text, comment="Why it failed, for machines")
    error_message: Mapped[str | None] = mapped_column(Text, comment="Why it failed, for people")
    permanent: Mapped[bool] = mapped_column(
        Boolean, server_default=FALSE, comment="Trying again cannot help"
    )
    model_version: Mapped[str | None] = mapped_column(Text, comment="What looked at it")
    duration_ms: Mapped[int | None] = mapped_column(
        Integer, comment="Time of the recognition itself"
    )
    result: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB(none_as_null=True), comment="What its callback was answered; a repeated one gets this"
    )


class AssetEvent(Base):
    """One thing that happened to an asset, or failed to."""

    __tablename__ = "asset_events"
    __table_args__ = (
        CheckConstraint("outcome IN ('ok', 'failed', 'skipped')", name="outcome"),
        CheckConstraint("(outcome = 'failed') = (error IS NOT NULL)", name="error"),
        Index("ix_asset_events_photo_id", "photo_id", "event_id"),
        {
            "comment": "What happened to each asset, beside recognition's own attempts and "
            "custody's moves"
        },
    )

    event_id: Mapped[int] = mapped_column(
        BigInteger,
        Identity(),
        primary_key=True,
        comment="Number of the event, in the order they were noted",
    )
    photo_id: Mapped[int] = mapped_column(
        BigInteger,
        ForeignKey("media_assets.photo_id", ondelete="CASCADE"),
        comment="The asset it happened to",
    )
    happened_at: Mapped[datetime] = mapped_column(
        INSTANT, server_default=NOW, comment="When it was noted"
    )
    what: Mapped[str] = mapped_column(
        Text, comment="received, hashed, filed, dated, thumbnailed …: library.service.history.What"
    )
    outcome: Mapped[str] = mapped_column(
        Text, server_default=text("'ok'"), comment="ok, failed or skipped"
    )
    duration_ms: Mapped[int | None] = mapped_column(
        Integer, comment="How long it took, where that was measured"
    )
    error_code: Mapped[str | None] = mapped_column(Text, comment="Why it failed, for machines")
    error: Mapped[str | None] = mapped_column(Text, comment="Why it failed, for people")
    detail: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB(none_as_null=True), comment="What else is worth knowing of it, by its kind"
    )


class AssetProblem(Base):
    """What one pass has against an asset, until it has succeeded."""

    __tablename__ = "asset_problems"
    __table_args__ = (
        CheckConstraint("failures > 0", name="failures"),
        Index("ix_asset_problems_what", "what", "error_code"),
        {
            "comment": "What is wrong with an asset now: one row a pass that failed and has not "
            "been healed"
        },
    )

    photo_id: Mapped[int] = mapped_column(
        BigInteger,
        ForeignKey("media_assets.photo_id", ondelete="CASCADE"),
        primary_key=True,
        comment="The asset",
    )
    what: Mapped[str] = mapped_column(
        Text, primary_key=True, comment="What failed, as asset_events has it"
    )
    error_code: Mapped[str] = mapped_column(Text, comment="Why it failed last, for machines")
    error: Mapped[str] = mapped_column(Text, comment="Why it failed last, for people")
    failures: Mapped[int] = mapped_column(
        Integer, server_default=text("1"), comment="Failures since it last succeeded or was revived"
    )
    since: Mapped[datetime] = mapped_column(
        INSTANT, server_default=NOW, comment="When it failed first"
    )
    failed_at: Mapped[datetime] = mapped_column(
        INSTANT, server_default=NOW, comment="When it failed last"
    )
    retry_at: Mapped[datetime | None] = mapped_column(
        INSTANT, comment="When it is tried again; null: by a person's word, or by rules of its own"
    )


class AssetPlace(Base):
    """Where an asset was taken, by name."""

    __tablename__ = "asset_places"
    __table_args__ = (
        CheckConstraint("country_code ~ '^[A-Z]{2}$'", name="country_code"),
        CheckConstraint("distance_km >= 0", name="distance_km"),
        CheckConstraint(
            "city IS NOT NULL OR num_nonnulls(district, region, country, distance_km) = 0",
            name="no_place",
        ),
        Index("ix_asset_places_city", "country_code", "region", "city"),
        {
            "comment": "The name of each asset's position, by an offline gazetteer; nulls: no "
            "place is near"
        },
    )

    photo_id: Mapped[int] = mapped_column(
        BigInteger,
        ForeignKey("media_assets.photo_id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
        comment="The asset, which has a position",
    )
    city: Mapped[str | None] = mapped_column(Text, comment="The town it was taken in or near")
    district: Mapped[str | None] = mapped_column(
        Text, comment="The nearest named place, where that is not the city itself"
    )
    region: Mapped[str | None] = mapped_column(Text, comment="State, province or the like")
    country: Mapped[str | None] = mapped_column(Text, comment="Name of the country, in English")
    country_code: Mapped[str | None] = mapped_column(Text, comment="Two letters of ISO 3166")
    distance_km: Mapped[Decimal | None] = mapped_column(
        Numeric, comment="From the position to the middle of the city"
    )
    source: Mapped[str] = mapped_column(Text, comment="Which names, and which version of them")


class CaptureCandidate(Base):
    """One date that something tells of an asset."""

    __tablename__ = "capture_candidates"
    __table_args__ = (
        CheckConstraint("confidence IN ('high', 'medium', 'low')", name="confidence"),
        {"comment": "Every date that something tells of an asset, believed or not"},
    )

    photo_id: Mapped[int] = mapped_column(
        BigInteger,
        ForeignKey("media_assets.photo_id", ondelete="CASCADE"),
        primary_key=True,
        comment="The asset",
    )
    source: Mapped[str] = mapped_column(
        Text,
        primary_key=True,
        comment="What tells it: library.rules.dates has all of them, the most trusted first",
    )
    captured_at: Mapped[datetime] = mapped_column(
        DateTime, comment="What it tells, by the clock on the wall there"
    )
    captured_offset: Mapped[timedelta | None] = mapped_column(
        Interval, comment="How far that clock was ahead of UTC, where it is told"
    )
    confidence: Mapped[str] = mapped_column(Text, comment="high, medium or low")


class DateCorrection(Base):
    """A person's correction of the dates of one or many photos."""

    __tablename__ = "date_corrections"
    __table_args__ = (
        CheckConstraint("kind IN ('shift', 'set')", name="kind"),
        CheckConstraint("(kind = 'shift') = (shifted_by IS NOT NULL)", name="shifted_by"),
        {"comment": "A person's corrections of dates, each of one or many photos"},
    )

    correction_id: Mapped[int] = mapped_column(
        BigInteger, Identity(), primary_key=True, comment="Number of the correction"
    )
    kind: Mapped[str] = mapped_column(
        Text, comment="shift: the clock was wrong; set: that is the date"
    )
    shifted_by: Mapped[timedelta | None] = mapped_column(
        Interval, comment="What was added to every date of a shift"
    )
    criteria: Mapped[dict[str, Any]] = mapped_column(
        JSONB, comment="Which photos were meant, as they were asked for"
    )
    made_at: Mapped[datetime] = mapped_column(
        INSTANT, server_default=NOW, comment="When it was made"
    )
    undone_at: Mapped[datetime | None] = mapped_column(INSTANT, comment="When it was taken back")


class CorrectedDate(Base):
    """One photo of a correction."""

    __tablename__ = "corrected_dates"
    __table_args__ = (
        Index("ix_corrected_dates_photo_id", "photo_id"),
        Index("ix_corrected_dates_unfiled", "photo_id", postgresql_where=text("NOT is_filed")),
        {"comment": "Each photo of a correction, with its date before and after"},
    )

    correction_id: Mapped[int] = mapped_column(
        BigInteger,
        ForeignKey("date_corrections.correction_id", ondelete="CASCADE"),
        primary_key=True,
        comment="The correction",
    )
    photo_id: Mapped[int] = mapped_column(
        BigInteger,
        ForeignKey("media_assets.photo_id", ondelete="CASCADE"),
        primary_key=True,
        comment="The photo or video",
    )
    at_before: Mapped[datetime | None] = mapped_column(DateTime, comment="captured_at before")
    offset_before: Mapped[timedelta | None] = mapped_column(
        Interval, comment="captured_offset before"
    )
    source_before: Mapped[str | None] = mapped_column(Text, comment="captured_at_source before")
    confidence_before: Mapped[str | None] = mapped_column(
        Text, comment="captured_at_confidence before"
    )
    at_after: Mapped[datetime] = mapped_column(
        DateTime, comment="captured_at afterwards; its source is a person then"
    )
    offset_after: Mapped[timedelta | None] = mapped_column(
        Interval, comment="captured_offset afterwards"
    )
    is_filed: Mapped[bool] = mapped_column(
        Boolean,
        server_default=text("true"),
        comment="False: its day has changed, and its original waits to be filed under the new one",
    )


class CustodyMove(Base):
    """One file on its way from where it was received, or filed, to where it shall lie."""

    __tablename__ = "custody_moves"
    __table_args__ = (
        CheckConstraint(
            "kind IN ('file', 'sidecar', 'duplicate', 'set-aside', 'refile')", name="kind"
        ),
        CheckConstraint("state IN ('PLANNED', 'RECORDED', 'RELEASED', 'ABANDONED')", name="state"),
        CheckConstraint("how IN ('link', 'copy', 'remove')", name="how"),
        CheckConstraint("(how = 'remove') = (target_path IS NULL)", name="target_path"),
        CheckConstraint(
            "target_path IS NULL OR state = 'PLANNED' OR state = 'ABANDONED'"
            " OR target_identity IS NOT NULL",
            name="placed",
        ),
        CheckConstraint("file_hash ~ '^[0-9a-f]{64}$'", name="file_hash_is_sha256"),
        # One open move a name: two plans never have the same target, and a source moves once.
        Index(
            "uq_custody_moves_target_path",
            "target_path",
            unique=True,
            postgresql_where=text("state IN ('PLANNED', 'RECORDED')"),
        ),
        Index(
            "uq_custody_moves_open_source",
            "source_path",
            unique=True,
            postgresql_where=text("state IN ('PLANNED', 'RECORDED')"),
        ),
        Index("ix_custody_moves_source_path", "source_path"),
        Index(
            "ix_custody_moves_photo_id", "photo_id", postgresql_where=text("photo_id IS NOT NULL")
        ),
        Index(
            "ix_custody_moves_group_id", "group_id", postgresql_where=text("group_id IS NOT NULL")
        ),
        Index("ix_custody_moves_recorded_at", "recorded_at"),
        Index(
            "ix_custody_moves_set_aside",
            "inbox",
            "move_id",
            postgresql_where=text("kind = 'set-aside'"),
        ),
        {"comment": "Every move of an original: committed before the disk is touched"},
    )

    move_id: Mapped[int] = mapped_column(
        BigInteger, Identity(), primary_key=True, comment="Number of the move"
    )
    kind: Mapped[str] = mapped_column(
        Text,
        comment="file: received and filed; sidecar: filed beside its photo; duplicate: its content "
        "is in the ledger; set-aside: not for the ledger; refile: filed again by a corrected date",
    )
    state: Mapped[str] = mapped_column(
        Text,
        server_default=text("'PLANNED'"),
        comment="PLANNED: may lie at both paths; RECORDED: it lies at the target and the ledger "
        "says so; RELEASED: its old name is removed, too; ABANDONED: the source stays, for cause",
    )
    how: Mapped[str] = mapped_column(
        Text,
        server_default=text("'link'"),
        comment="link: a second name where the filesystem allows, else a copy; copy: always, since "
        "the content has names elsewhere; remove: a duplicate that is not kept",
    )
    inbox: Mapped[str | None] = mapped_column(
        Text, comment="The inbox it was received in, spelled by kernel.paths.to_text"
    )
    source_path: Mapped[str] = mapped_column(
        Text, comment="Absolute path at which it was received, or lay"
    )
    source_identity: Mapped[str] = mapped_column(
        Text, comment="device:inode:size:mtime_ns of the source when it was hashed"
    )
    size_bytes: Mapped[int] = mapped_column(BigInteger, comment="Size of the file in bytes")
    file_hash: Mapped[str] = mapped_column(
        String(64), comment="SHA-256 of the content in hexadecimal"
    )
    target_path: Mapped[str | None] = mapped_column(
        Text, comment="Absolute path at which it shall lie; null: it is removed"
    )
    target_identity: Mapped[str | None] = mapped_column(
        Text, comment="The same of the target once it lay there safely"
    )
    group_id: Mapped[UUID | None] = mapped_column(
        comment="Shared by files that travel together; null: it travels alone"
    )
    photo_id: Mapped[int | None] = mapped_column(
        BigInteger,
        ForeignKey("media_assets.photo_id", ondelete="SET NULL"),
        comment="Its asset; a sidecar's photo; a duplicate's first copy",
    )
    facts: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB(none_as_null=True),
        comment="What was read from the file and waits to be recorded; null afterwards",
    )
    cause: Mapped[str | None] = mapped_column(
        Text, comment="Why it was set aside or abandoned, or why its old name is still there"
    )
    planned_at: Mapped[datetime] = mapped_column(
        INSTANT, server_default=NOW, comment="When the row was made"
    )
    recorded_at: Mapped[datetime | None] = mapped_column(INSTANT, comment="When it became RECORDED")
    released_at: Mapped[datetime | None] = mapped_column(
        INSTANT, comment="When its old name was removed"
    )


class BackupTarget(Base):
    """A second location that originals were ever copied to."""

    __tablename__ = "backup_targets"
    __table_args__ = (
        Index(
            "uq_backup_targets_current",
            "is_current",
            unique=True,
            postgresql_where=text("is_current"),
        ),
        {"comment": "Second locations for originals, each told by the mark that lies in it"},
    )

    target_id: Mapped[UUID] = mapped_column(
        primary_key=True, comment="The id in its kaleidoscope-backup.json: what it is, not where"
    )
    url: Mapped[str] = mapped_column(Text, comment="Where it was last: a path or URL")
    is_current: Mapped[bool] = mapped_column(
        Boolean, server_default=FALSE, comment="The one that is_backed_up speaks of"
    )
    created_at: Mapped[datetime] = mapped_column(
        INSTANT, server_default=NOW, comment="When it was first used"
    )


class BackupCopy(Base):
    """The copy of one content at one second location."""

    __tablename__ = "backup_copies"
    __table_args__ = (
        UniqueConstraint("target_id", "location"),
        CheckConstraint("verified_at IS NULL OR copied_at IS NOT NULL", name="verified"),
        Index("ix_backup_copies_verified_at", "target_id", "verified_at"),
        Index("ix_backup_copies_file_hash", "file_hash"),
        {"comment": "Which content lies where in a backup; re-filing an original changes nothing"},
    )

    target_id: Mapped[UUID] = mapped_column(
        ForeignKey("backup_targets.target_id"), primary_key=True, comment="The second location"
    )
    file_hash: Mapped[str] = mapped_column(
        String(64), primary_key=True, comment="SHA-256 of the content"
    )
    location: Mapped[str] = mapped_column(
        Text, comment="Its name there, settled before the first byte is written"
    )
    size_bytes: Mapped[int] = mapped_column(BigInteger, comment="Size in bytes")
    copied_at: Mapped[datetime | None] = mapped_column(
        INSTANT, comment="When it was there and had been read back; null until then"
    )
    verified_at: Mapped[datetime | None] = mapped_column(
        INSTANT, comment="When it was last read back and had this hash"
    )
    damaged_since: Mapped[datetime | None] = mapped_column(
        INSTANT, comment="When reading it back first gave something else; null when healed"
    )


class KnownPlace(Base):
    """A folder whose files are in the ledger: what is watched for vanishing as a whole."""

    __tablename__ = "known_places"
    __table_args__ = (
        UniqueConstraint("path"),
        CheckConstraint("kind IN ('folder', 'originals', 'mount')", name="kind"),
        CheckConstraint("decision IN ('wait', 'accept-missing')", name="decision"),
        CheckConstraint("(frozen_at IS NULL) = (frozen_because IS NULL)", name="frozen"),
        {"comment": "Folders that the ledger's files lie in: gone as a whole, they are frozen"},
    )

    place_id: Mapped[int] = mapped_column(
        BigInteger, Identity(), primary_key=True, comment="Its number"
    )
    path: Mapped[str] = mapped_column(
        Text, comment="Absolute path of the folder, spelled by kernel.paths.to_text"
    )
    kind: Mapped[str] = mapped_column(
        Text,
        comment="folder (taken in by a job), originals (the inbox files there), mount (below one)",
    )
    device: Mapped[str | None] = mapped_column(
        Text, comment="The file system it was on when all was well: kind, identity, mount point"
    )
    last_seen_at: Mapped[datetime | None] = mapped_column(
        INSTANT, comment="When it was last there, and well"
    )
    counted_at: Mapped[datetime | None] = mapped_column(
        INSTANT, comment="When each of its files was last looked for"
    )
    frozen_at: Mapped[datetime | None] = mapped_column(
        INSTANT, comment="When it was found gone or changed; null while all is well"
    )
    frozen_because: Mapped[str | None] = mapped_column(
        Text, comment="What was found, for the person who decides"
    )
    decision: Mapped[str | None] = mapped_column(
        Text, comment="What a person said of it last: wait, or accept-missing"
    )
    decided_at: Mapped[datetime | None] = mapped_column(INSTANT, comment="When that was said")
    created_at: Mapped[datetime] = mapped_column(
        INSTANT, server_default=NOW, comment="When it became known"
    )
