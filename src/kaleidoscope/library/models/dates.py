"""When assets were taken, where by name, and what people corrected."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Interval,
    Numeric,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from kaleidoscope.kernel.db import Base
from kaleidoscope.library.models.columns import INSTANT, NOW


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
