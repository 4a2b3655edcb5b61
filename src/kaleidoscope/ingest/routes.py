"""Jobs over HTTP (seed 001)."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query

from kaleidoscope.ingest import service
from kaleidoscope.ingest.schemas import (
    ErrorPage,
    Inboxes,
    IngestFolder,
    IngestStatus,
    JobList,
    JobStarted,
    JobStatus,
)
from kaleidoscope.kernel.secrets import HEADER, is_service_secret
from kaleidoscope.kernel.web import Session

router = APIRouter(tags=["ingest"])

Secret = Annotated[
    str | None,
    Header(alias=HEADER, description="The service secret: the folder may be any of the machine."),
]
Batches = Annotated[int, Query(ge=0, le=100_000, description="How many of the last batches.")]
Limit = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[int, Query(ge=0, lt=2**63, description="`next` of the page before.")]


@router.post("/ingest-folder", status_code=HTTPStatus.ACCEPTED)
async def ingest_folder(session: Session, wish: IngestFolder, secret: Secret = None) -> JobStarted:
    """Take a folder in. Answers at once; the job does the work."""
    trusted = is_service_secret(secret)
    by = "kaleidoscope ingest" if trusted else "HTTP"
    job_id = await service.order(session, wish, requested_by=by, anywhere=trusted)
    return JobStarted(job_id=job_id)


@router.get("/ingest-status/{job_id}")
async def ingest_status(session: Session, job_id: UUID, batches: Batches = 100) -> IngestStatus:
    """How far a job is, with the last of its batches."""
    return await service.status(session, job_id, batches)


@router.get("/ingest-status/{job_id}/errors")
async def ingest_errors(
    session: Session, job_id: UUID, after: After = 0, limit: Limit = 100
) -> ErrorPage:
    """What a job could not take in or have processed, each with its cause."""
    return await service.errors(session, job_id, after=after, limit=limit)


@router.get("/ingest-jobs")
async def ingest_jobs(
    session: Session,
    status: JobStatus | None = None,
    before: datetime | None = None,
    limit: Limit = 100,
) -> JobList:
    """Recent jobs, the youngest first."""
    return JobList(jobs=await service.jobs(session, status=status, before=before, limit=limit))


@router.post("/ingest-jobs/{job_id}/cancel")
async def cancel(session: Session, job_id: UUID) -> IngestStatus:
    """End a job: its scan stops, and what is not yet published is not."""
    await service.cancel(session, job_id)
    return await service.status(session, job_id, batches=0)


@router.get("/api/inbox")
async def inbox(session: Session) -> Inboxes:
    """Every inbox: what waits, what is being done, what cannot be filed and why."""
    return await service.inboxes(session)
