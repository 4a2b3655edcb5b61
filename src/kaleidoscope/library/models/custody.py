"""Moves of originals."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    String,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from kaleidoscope.kernel.db import Base
from kaleidoscope.library.models.columns import INSTANT, NOW


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
