"""Tables of upkeep: what was done, when, and how it ended."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    DateTime,
    Identity,
    Index,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from kaleidoscope.kernel.db import Base

NOW = func.now()
INSTANT = DateTime(timezone=True)
NONE = text("'{}'")


class UpkeepRun:
    """What every table of runs has."""

    run_id: Mapped[int] = mapped_column(
        BigInteger, Identity(), primary_key=True, comment="Number of the run"
    )
    kind: Mapped[str] = mapped_column(Text, comment="What was done; the table's check lists them")
    started_at: Mapped[datetime] = mapped_column(INSTANT, server_default=NOW, comment="Its begin")
    finished_at: Mapped[datetime | None] = mapped_column(
        INSTANT, comment="Its end; null while it runs, or when it was killed"
    )
    error: Mapped[str | None] = mapped_column(Text, comment="Why it failed; null: it did not")
    figures: Mapped[dict[str, Any]] = mapped_column(
        JSONB, server_default=NONE, comment="What it did, in numbers"
    )


class BackupRun(UpkeepRun, Base):
    """One round of copying, or of reading copies back."""

    __tablename__ = "backup_runs"
    __table_args__ = (
        CheckConstraint("kind IN ('originals', 'database', 'log', 'verify', 'prune')", name="kind"),
        Index("ix_backup_runs_kind", "kind", "started_at"),
        {"comment": "Rounds of the backup: originals, database, its log, reading back, pruning"},
    )

    target: Mapped[str] = mapped_column(Text, comment="The second location, a path or URL")


class RestoreDrill(Base):
    """One try to make a database of the backup, on the side."""

    __tablename__ = "restore_drills"
    __table_args__ = (
        CheckConstraint("is_green IS NULL OR finished_at IS NOT NULL", name="finished"),
        Index("ix_restore_drills_started_at", "started_at"),
        {"comment": "Monthly proof that the backup can be restored: green, or red and why"},
    )

    drill_id: Mapped[int] = mapped_column(
        BigInteger, Identity(), primary_key=True, comment="Number of the drill"
    )
    target: Mapped[str] = mapped_column(Text, comment="The second location, a path or URL")
    database: Mapped[str | None] = mapped_column(
        Text, comment="Which copy of the database was restored"
    )
    started_at: Mapped[datetime] = mapped_column(INSTANT, server_default=NOW, comment="Its begin")
    finished_at: Mapped[datetime | None] = mapped_column(
        INSTANT, comment="Its end; null while it runs, or when it was killed"
    )
    is_green: Mapped[bool | None] = mapped_column(
        Boolean, comment="Whether what came out was whole; null until it has ended"
    )
    cause: Mapped[str | None] = mapped_column(Text, comment="Why it is red")
    figures: Mapped[dict[str, Any]] = mapped_column(
        JSONB, server_default=NONE, comment="What was found in it, in numbers"
    )


class MaintenanceRun(UpkeepRun, Base):
    """One round of the database's own maintenance."""

    __tablename__ = "maintenance_runs"
    __table_args__ = (
        CheckConstraint("kind IN ('vacuum', 'reindex')", name="kind"),
        Index("ix_maintenance_runs_kind", "kind", "started_at"),
        {"comment": "Rounds of VACUUM ANALYZE and REINDEX (seed 003)"},
    )
