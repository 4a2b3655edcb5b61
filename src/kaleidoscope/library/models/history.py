"""What happened to assets: attempts at recognition, events, and what is wrong now."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from kaleidoscope.kernel.db import Base
from kaleidoscope.library.models.columns import FALSE, INSTANT, NOW


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
