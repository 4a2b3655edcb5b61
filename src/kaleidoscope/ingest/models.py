"""Tables of ingest: jobs, batches, which photo came with which, and what could not be read."""

from __future__ import annotations

from datetime import datetime
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
ZERO = text("0")
NO = text("false")
JOB = "ingest_jobs.job_id"

JOB_STATUS = Enum("SCANNED", "PUBLISHED", "COMPLETED", "FAILED", name="job_status")
BATCH_STATUS = Enum("READY", "PUBLISHED", "FAILED", name="batch_status")
MAP_STATUS = Enum("PENDING", "PUBLISHED", "FAILED", name="map_status")


def _count(comment: str) -> Mapped[int]:
    return mapped_column(Integer, server_default=ZERO, comment=comment)


def _moment(comment: str) -> Mapped[datetime | None]:
    return mapped_column(DateTime(timezone=True), comment=comment)


class IngestJob(Base):
    """One order to take in a folder (seeds 000, 001)."""

    __tablename__ = "ingest_jobs"
    __table_args__ = (
        Index("ix_ingest_jobs_created_at", "created_at"),
        {"comment": "One row an order to take in a folder, from scan to the last photo"},
    )

    job_id: Mapped[UUID] = mapped_column(
        primary_key=True, server_default=func.gen_random_uuid(), comment="jobId in the API"
    )
    job_name: Mapped[str | None] = mapped_column(String, comment="The name its user gave it")
    path: Mapped[str] = mapped_column(String, comment="The folder, links resolved")
    recursive: Mapped[bool] = mapped_column(
        Boolean, server_default=text("true"), comment="Whether its subfolders are taken in too"
    )
    requested_by: Mapped[str | None] = mapped_column(String, comment="Who ordered it")
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=NOW, comment="When it was ordered"
    )
    status: Mapped[str] = mapped_column(
        JOB_STATUS,
        server_default=text("'SCANNED'"),
        comment="SCANNED until every batch is published, PUBLISHED until every photo has ended, "
        "COMPLETED; FAILED for the cause in failure",
    )
    scanned_count: Mapped[int] = _count("Photos and videos the scan has found")
    inserted_count: Mapped[int] = _count("Of these, new rows of the ledger")
    published_count: Mapped[int] = _count("Photos and videos whose message is with the transport")
    finished_at: Mapped[datetime | None] = _moment("When it was COMPLETED or FAILED")
    batch_size: Mapped[int] = mapped_column(
        Integer, server_default=text("50"), comment="Most photos in a batch"
    )
    dry_run: Mapped[bool] = mapped_column(
        Boolean, server_default=NO, comment="Counts only: nothing but this row is written"
    )
    changed_count: Mapped[int] = _count("Known paths with new content, to be recognised again")
    duplicate_count: Mapped[int] = _count("New paths with content that the ledger holds already")
    skipped: Mapped[dict[str, int]] = mapped_column(
        JSONB, server_default=text("'{}'"), comment="What the scan passed over: cause and number"
    )
    estimate: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB, comment="What a dry run expects: photos, videos, bytes, seconds"
    )
    last_published_batch: Mapped[int | None] = mapped_column(
        Integer, comment="Index of the last batch that was published"
    )
    scanned_at: Mapped[datetime | None] = _moment("When the scan came to its end")
    cancelled_at: Mapped[datetime | None] = _moment("When it was cancelled")
    failure: Mapped[str | None] = mapped_column(Text, comment="Why it FAILED")


class IngestBatch(Base):
    """Some photos of a job that were registered together and are published together."""

    __tablename__ = "ingest_batches"
    __table_args__ = (
        UniqueConstraint("job_id", "batch_index"),
        Index(
            "ix_ingest_batches_unpublished",
            "inserted_at",
            postgresql_where=text("status <> 'PUBLISHED'"),
        ),
        {"comment": "Batches of a job: what is registered in one transaction, then published"},
    )

    batch_id: Mapped[int] = mapped_column(
        BigInteger, Identity(), primary_key=True, comment="ingest_batch_id in messages"
    )
    job_id: Mapped[UUID] = mapped_column(
        ForeignKey(JOB, ondelete="CASCADE"), comment="The job it belongs to"
    )
    batch_index: Mapped[int] = mapped_column(Integer, comment="Its place in the job, from 0")
    photo_count: Mapped[int] = _count("How many photos it holds")
    status: Mapped[str] = mapped_column(
        BATCH_STATUS,
        server_default=text("'READY'"),
        comment="READY to be published, PUBLISHED once the transport has acknowledged all of it, "
        "FAILED while publishing keeps failing",
    )
    inserted_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=NOW, comment="When its photos were registered"
    )
    published_at: Mapped[datetime | None] = _moment("When it was published")
    publish_failures: Mapped[int] = _count("How many tries to publish it have failed")
    next_publish_at: Mapped[datetime | None] = _moment(
        "When a FAILED batch is tried again; null once it is given up"
    )
    processed_count: Mapped[int] = _count("Of its photos, those that ended PROCESSED")
    failed_count: Mapped[int] = _count("Of its photos, those that FAILED for good")
    face_count: Mapped[int] = _count("Faces found in its photos")


class PhotoIngest(Base):
    """A photo on its way through a job."""

    __tablename__ = "photo_ingest_map"
    __table_args__ = (
        UniqueConstraint("photo_id", "job_id"),
        Index(
            "ix_photo_ingest_map_open",
            "job_id",
            "batch_id",
            postgresql_where=text("ended_at IS NULL"),
        ),
        Index("ix_photo_ingest_map_batch_id", "batch_id"),
        CheckConstraint("outcome IN ('PROCESSED', 'FAILED', 'DUPLICATE')", name="outcome"),
        {"comment": "Which photo came with which batch and job, whether published, how it ended"},
    )

    map_id: Mapped[int] = mapped_column(
        BigInteger, Identity(), primary_key=True, comment="Its number"
    )
    photo_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("media_assets.photo_id", ondelete="CASCADE"), comment="The photo"
    )
    batch_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("ingest_batches.batch_id", ondelete="CASCADE"), comment="Its batch"
    )
    job_id: Mapped[UUID] = mapped_column(ForeignKey(JOB, ondelete="CASCADE"), comment="Its job")
    inserted_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=NOW, comment="When it came into the batch"
    )
    publish_attempts: Mapped[int] = _count("How often its message was handed to the transport")
    last_publish_error: Mapped[str | None] = mapped_column(
        Text, comment="Why the transport did not take it the last time"
    )
    status: Mapped[str] = mapped_column(
        MAP_STATUS,
        server_default=text("'PENDING'"),
        comment="PENDING, PUBLISHED once the transport has acknowledged it, FAILED if it did not",
    )
    attempt_id: Mapped[UUID] = mapped_column(
        server_default=func.gen_random_uuid(),
        comment="The processing attempt its message asks for: the same however often it is sent",
    )
    outcome: Mapped[str | None] = mapped_column(
        Text,
        comment="What came of it last: PROCESSED, FAILED, or DUPLICATE (shares the result of "
        "another photo, and needs no message)",
    )
    ended_at: Mapped[datetime | None] = _moment("When that was final, or the job gave it up")


class IngestPerson(Base):
    """A person seen in a job's photos."""

    __tablename__ = "ingest_persons"
    __table_args__ = ({"comment": "Which persons a job's photos show, each once a job"},)

    job_id: Mapped[UUID] = mapped_column(
        ForeignKey(JOB, ondelete="CASCADE"), primary_key=True, comment="The job"
    )
    person_id: Mapped[int] = mapped_column(
        BigInteger, primary_key=True, autoincrement=False, comment="Somebody in its photos"
    )
    created: Mapped[bool] = mapped_column(
        Boolean, server_default=NO, comment="Whether a photo of this job founded the person"
    )


class IngestError(Base):
    """Something a job could not take in."""

    __tablename__ = "ingest_errors"
    __table_args__ = (
        Index("ix_ingest_errors_job_id", "job_id", "error_id"),
        {"comment": "Files and folders that a job could not take in, each with its cause"},
    )

    error_id: Mapped[int] = mapped_column(
        BigInteger, Identity(), primary_key=True, comment="Its number"
    )
    job_id: Mapped[UUID] = mapped_column(ForeignKey(JOB, ondelete="CASCADE"), comment="The job")
    path: Mapped[str] = mapped_column(Text, comment="The file or folder")
    photo_id: Mapped[int | None] = mapped_column(
        BigInteger, comment="The photo, where processing failed; null where the scan did"
    )
    code: Mapped[str] = mapped_column(Text, comment="The cause in a word")
    cause: Mapped[str] = mapped_column(Text, comment="The cause in a sentence")
    at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=NOW, comment="When it was met"
    )


class InboxRow(Base):
    """An inbox, as its librarian saw it last."""

    __tablename__ = "inboxes"
    __table_args__ = ({"comment": "How far the librarian is with each inbox"},)

    path: Mapped[str] = mapped_column(
        Text, primary_key=True, comment="The folder, spelled by kernel.paths.to_text"
    )
    waiting: Mapped[int] = _count("Files that will be filed")
    settling: Mapped[int] = _count("Of these, those that have not come to rest yet")
    current: Mapped[str | None] = mapped_column(
        Text, comment="What the librarian is doing there; null: nothing"
    )
    looked_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=NOW, comment="When this was so"
    )


class InboxProblem(Base):
    """Something in an inbox that stays there."""

    __tablename__ = "inbox_problems"
    __table_args__ = (
        Index("ix_inbox_problems_inbox", "inbox", "problem_id"),
        {"comment": "What lies in the inboxes and cannot be filed, each with its cause"},
    )

    problem_id: Mapped[int] = mapped_column(
        BigInteger, Identity(), primary_key=True, comment="Its number"
    )
    inbox: Mapped[str] = mapped_column(
        ForeignKey("inboxes.path", ondelete="CASCADE"), comment="The inbox"
    )
    path: Mapped[str] = mapped_column(Text, comment="The file or folder")
    code: Mapped[str] = mapped_column(Text, comment="The cause in a word")
    cause: Mapped[str] = mapped_column(Text, comment="The cause in a sentence")
    since: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=NOW, comment="When it was first met"
    )
