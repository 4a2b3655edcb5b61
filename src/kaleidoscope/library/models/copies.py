"""Second copies of originals, and the folders that are watched."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from kaleidoscope.kernel.db import Base
from kaleidoscope.library.models.columns import FALSE, INSTANT, NOW


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


class KeptFile(Base):
    """A file that is kept beside the assets: a sidecar, a duplicate, what was set aside."""

    __tablename__ = "kept_files"
    __table_args__ = (
        UniqueConstraint("final_path"),
        CheckConstraint("kind IN ('sidecar', 'duplicate', 'set-aside')", name="kind"),
        CheckConstraint("file_hash ~ '^[0-9a-f]{64}$'", name="file_hash_is_sha256"),
        CheckConstraint("size_bytes >= 0", name="size_bytes"),
        CheckConstraint("is_backed_up = (backed_up_at IS NOT NULL)", name="is_backed_up"),
        CheckConstraint("(error IS NULL) = (failed_at IS NULL)", name="failed_at"),
        CheckConstraint("(error IS NULL) = (error_code IS NULL)", name="error_code"),
        Index("ix_kept_files_file_hash", "file_hash"),
        Index("ix_kept_files_photo_id", "photo_id", postgresql_where=text("photo_id IS NOT NULL")),
        Index("ix_kept_files_is_backed_up", "file_id", postgresql_where=text("NOT is_backed_up")),
        Index("ix_kept_files_scrubbed_at", text("scrubbed_at NULLS FIRST"), "file_id"),
        Index("ix_kept_files_error", "file_id", postgresql_where=text("error IS NOT NULL")),
        {"comment": "Files kept beside the assets, as dear as these: sidecars, what was set aside"},
    )

    file_id: Mapped[int] = mapped_column(
        BigInteger, Identity(), primary_key=True, comment="Its number"
    )
    kind: Mapped[str] = mapped_column(
        Text,
        comment="sidecar: tells of a photo; duplicate: has the content of an asset; set-aside: "
        "was received, and is none for the ledger",
    )
    photo_id: Mapped[int | None] = mapped_column(
        BigInteger,
        ForeignKey("media_assets.photo_id", ondelete="SET NULL"),
        comment="The photo that it tells of, or is a copy of",
    )
    final_path: Mapped[str] = mapped_column(
        Text, comment="Absolute path at which it lies, spelled by kernel.paths.to_text"
    )
    size_bytes: Mapped[int] = mapped_column(BigInteger, comment="Size of the file in bytes")
    modified_at: Mapped[datetime] = mapped_column(
        INSTANT, comment="Its modification time; another one is a person's edit, and no damage"
    )
    file_hash: Mapped[str] = mapped_column(
        String(64), comment="SHA-256 of the content in hexadecimal"
    )
    is_backed_up: Mapped[bool] = mapped_column(
        Boolean, server_default=FALSE, comment="The current backup has its content"
    )
    backed_up_at: Mapped[datetime | None] = mapped_column(
        INSTANT, comment="When its content was copied and read back"
    )
    scrubbed_at: Mapped[datetime | None] = mapped_column(
        INSTANT, comment="When it was last read through and compared with file_hash"
    )
    missing_since: Mapped[datetime | None] = mapped_column(
        INSTANT, comment="When it was first found gone; null: it is there"
    )
    error_code: Mapped[str | None] = mapped_column(
        Text, comment="What is wrong with it, for machines: rot, unreadable, backed-up"
    )
    error: Mapped[str | None] = mapped_column(Text, comment="What is wrong with it, for people")
    failed_at: Mapped[datetime | None] = mapped_column(INSTANT, comment="When that was seen last")
    created_at: Mapped[datetime] = mapped_column(
        INSTANT, server_default=NOW, comment="When it became known"
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
