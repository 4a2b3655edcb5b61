"""What ingest is asked and answers over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

JobStatus = Literal["SCANNED", "PUBLISHED", "COMPLETED", "FAILED"]
BatchStatus = Literal["READY", "PUBLISHED", "FAILED"]


# What the seed spells in camel case; everything else is spelled as in the database.
CAMEL = {
    "job_id": "jobId",
    "job_name": "jobName",
    "batch_size": "batchSize",
    "dry_run": "dryRun",
}


class _Spelled(BaseModel):
    model_config = ConfigDict(
        alias_generator=lambda name: CAMEL.get(name, name), populate_by_name=True
    )


class IngestFolder(_Spelled):
    """A folder to take in (seed 001)."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(
        min_length=1,
        description="The folder, absolute. Bytes that are no UTF-8 are spelled \\xHH.",
    )
    recursive: bool = Field(default=True, description="With all folders below it.")
    batch_size: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Photos in a batch; default: the setting `ingest.batch_size`.",
    )
    job_name: str | None = Field(default=None, max_length=255, description="A name for people.")
    dry_run: bool = Field(
        default=False,
        description="Count and estimate only; nothing but the job is written.",
    )


class JobStarted(_Spelled):
    """The job that was made of it."""

    job_id: UUID


class Estimate(BaseModel):
    """What a dry run expects of the real one."""

    photos: int
    videos: int
    known: int = Field(description="Of these, those that the ledger has already.")
    bytes: int
    seconds: int = Field(description="Time until all are recognised.")
    photos_per_second: float
    measured: bool = Field(description="Whether the speed is that of an earlier job.")


class Job(_Spelled):
    """A job and how far it is."""

    job_id: UUID
    job_name: str | None
    path: str
    recursive: bool
    dry_run: bool
    requested_by: str | None
    status: JobStatus
    failure: str | None = Field(description="Why it FAILED.")
    created_at: datetime
    scanned_at: datetime | None = Field(description="When the scan came to its end.")
    cancelled_at: datetime | None
    finished_at: datetime | None
    scanned: int = Field(description="Photos and videos found.")
    inserted: int = Field(description="Of these, new rows of the ledger.")
    known: int = Field(description="Of these, known and unchanged: not published again.")
    changed: int = Field(description="Of these, known with new content.")
    duplicates: int = Field(description="Of the new ones, those with known content.")
    published: int = Field(description="Photos whose message is with the transport.")
    failed_batches: int
    last_published_batch: int | None
    photos: int = Field(description="Photos and videos in the job's batches.")
    processed: int = Field(description="Of these, ended PROCESSED.")
    failed: int = Field(description="Of these, FAILED for good.")
    faces_detected: int
    skipped: dict[str, int] = Field(description="What was passed over, by cause.")
    estimate: Estimate | None = Field(description="Of a dry run, when it is over.")


class Batch(BaseModel):
    """A batch and how far it is."""

    batch_id: int
    batch_index: int
    status: BatchStatus
    photo_count: int
    processed_count: int
    failed_count: int
    face_count: int
    inserted_at: datetime
    published_at: datetime | None
    publish_failures: int
    next_publish_at: datetime | None


class IngestStatus(Job):
    """A job in detail."""

    persons_created: int = Field(description="Persons that this job's photos founded.")
    persons_matched: int = Field(description="Persons in its photos that were known before.")
    errors: dict[str, int] = Field(
        description="What could not be taken in or processed, by cause; each one is listed under "
        "`/ingest-status/{jobId}/errors`."
    )
    batches: list[Batch] = Field(description="The last ones, as many as were asked for.")


class JobList(BaseModel):
    """Jobs, the youngest first."""

    jobs: list[Job]


class IngestError(BaseModel):
    """Something a job could not take in."""

    error_id: int
    path: str
    code: str = Field(description="The cause in a word.")
    cause: str = Field(description="The cause in a sentence.")
    photo_id: int | None = Field(description="The photo, where processing failed.")
    at: datetime


class ErrorPage(BaseModel):
    """Some of a job's errors, in the order they were met."""

    errors: list[IngestError]
    next: int | None = Field(description="`after` of the next page; null: this is the last.")


class InboxProblem(BaseModel):
    """Something in an inbox that stays there, or whose name could not be removed."""

    path: str
    code: str = Field(description="The cause in a word.")
    cause: str = Field(description="The cause in a sentence.")
    since: datetime


class SetAside(BaseModel):
    """A received file that is none for the library."""

    source: str = Field(description="Where it was received.")
    path: str = Field(description="Where it lies.")
    cause: str
    since: datetime


class Doubled(BaseModel):
    """A received file whose content the library had already."""

    source: str = Field(description="Where it was received.")
    path: str | None = Field(description="Where it lies; null: it was removed, as was set.")
    of: str | None = Field(description="Where the file with this content lies.")
    since: datetime


class LastDay(BaseModel):
    """What became of the files of an inbox in the last 24 hours."""

    filed: int
    sidecars: int = Field(description="Filed beside their photos.")
    duplicates: int
    set_aside: int


class Inbox(BaseModel):
    """An inbox and how far the librarian is with it."""

    path: str
    waiting: int = Field(description="Files that will be filed.")
    settling: int = Field(description="Of these, those that have not come to rest yet.")
    filed_last_hour: int
    last_day: LastDay
    problems: list[InboxProblem]
    problem_count: int = Field(description="How many there are; not all may be listed.")
    set_aside: list[SetAside] = Field(description="The latest.")
    duplicates: list[Doubled] = Field(description="The latest of the last 24 hours.")
    current: str | None = Field(description="What the librarian is doing there.")
    looked_at: datetime | None = Field(description="When this was so; null: not looked at yet.")


class Inboxes(BaseModel):
    """Every inbox."""

    inboxes: list[Inbox]
