"""Tables of operation: what each service says of itself (seed 002), and how the disks fill."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Double,
    Identity,
    Index,
    Integer,
    String,
    Text,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from kaleidoscope.kernel.db import Base

NOW = func.now()
STATUSES = "status IN ('OK', 'ERROR', 'WARNING')"
INTERVAL = "interval_seconds > 0"
TWENTY = text("20")


class SystemStatus(Base):
    """The latest word of each service."""

    __tablename__ = "system_status"
    __table_args__ = (
        CheckConstraint(STATUSES, name="status"),
        CheckConstraint(INTERVAL, name="interval_seconds"),
        {"comment": "The latest heartbeat of each service, updated in place for quick reading"},
    )

    service_name: Mapped[str] = mapped_column(
        String(64), primary_key=True, comment="Which service, and which one of several workers"
    )
    last_heartbeat: Mapped[datetime] = mapped_column(
        DateTime(timezone=True),
        server_default=NOW,
        comment="When the service last gave a sign; set by the database at every update",
    )
    status: Mapped[str] = mapped_column(
        String(16),
        server_default="OK",
        comment="OK, WARNING (degraded but functional) or ERROR",
    )
    current_task: Mapped[str | None] = mapped_column(
        Text, comment="What the service is doing, or what is wrong with it, for people"
    )
    updated_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True),
        server_default=NOW,
        comment="When the row last changed; set by the database at every update",
    )
    interval_seconds: Mapped[float] = mapped_column(
        Double,
        server_default=TWENTY,
        comment="Seconds until the next heartbeat that the service promises",
    )


class SystemStatusHistory(Base):
    """Every heartbeat there was, for uptime and trends."""

    __tablename__ = "system_status_history"
    __table_args__ = (
        CheckConstraint(STATUSES, name="status"),
        CheckConstraint(INTERVAL, name="interval_seconds"),
        Index("idx_system_status_history_service_timestamp", "service_name", "heartbeat_timestamp"),
        {"comment": "One row a heartbeat, kept for the days that ops.history_days says"},
    )

    id: Mapped[int] = mapped_column(
        Integer, Identity(), primary_key=True, comment="Number of the heartbeat"
    )
    service_name: Mapped[str] = mapped_column(
        String(64), comment="Which service; as in system_status"
    )
    status: Mapped[str] = mapped_column(
        String(16), comment="OK, WARNING or ERROR at that heartbeat"
    )
    current_task: Mapped[str | None] = mapped_column(
        Text, comment="What the service was doing at that heartbeat"
    )
    heartbeat_timestamp: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=NOW, comment="When the heartbeat was"
    )
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=NOW, comment="When this row was written"
    )
    interval_seconds: Mapped[float] = mapped_column(
        Double,
        server_default=TWENTY,
        comment="Seconds until the next heartbeat that the service promised; after three it was "
        "not up",
    )


class DiskUsage(Base):
    """How full a disk was at a moment."""

    __tablename__ = "disk_usage"
    __table_args__ = (
        {"comment": "How full the disks were, measured now and then: tells when they will be full"},
    )

    folder: Mapped[str] = mapped_column(
        Text,
        primary_key=True,
        comment="A folder on the disk, spelled by kernel.paths.to_text",
    )
    measured_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True),
        primary_key=True,
        server_default=NOW,
        comment="When it was measured",
    )
    total_bytes: Mapped[int] = mapped_column(BigInteger, comment="Size of the disk")
    used_bytes: Mapped[int] = mapped_column(BigInteger, comment="What is used of it, by whatever")
    free_bytes: Mapped[int] = mapped_column(
        BigInteger, comment="What our services may still use of it"
    )
