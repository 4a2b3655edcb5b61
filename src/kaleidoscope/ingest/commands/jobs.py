"""The commands `jobs`: folders that are or were taken in, looked at in the database."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import typer
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.ingest import service
from kaleidoscope.ingest.commands import folder
from kaleidoscope.ingest.schemas import IngestStatus, Job, JobStatus
from kaleidoscope.kernel.errors import NotFound
from kaleidoscope.kernel.terminal import console, emit, open_database, run

app = typer.Typer(help="Folders that are or were taken in.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
JobArgument = Annotated[UUID | None, typer.Argument(help="The job; default: the latest.")]


@app.command("list")
def list_jobs(
    status: Annotated[
        str | None, typer.Option(help="SCANNED, PUBLISHED, COMPLETED or FAILED.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 50,
    json: Json = False,
) -> None:
    """Jobs, the youngest first."""
    jobs = run(_list(_status(status), limit))
    if json:
        emit([job.model_dump(mode="json", by_alias=True) for job in jobs], json=True)
        return
    for job in jobs:  # a table would leave no room for the folder
        done = (
            "nothing new"
            if folder.is_old(job)
            else f"{job.processed + job.failed}/{job.photos} done"
        )
        when = f"{job.created_at.astimezone():%Y-%m-%d %H:%M}"
        named = f" ({job.job_name})" if job.job_name else ""
        typer.echo(f"{job.job_id}  {when}  {job.status:<9}  {done:>13}  {job.path}{named}")
    if not jobs:
        typer.echo("no folder was ever taken in here")


@app.command()
def show(job: JobArgument = None, json: Json = False) -> None:
    """How far a job is."""
    found = run(_find(job))
    emit(found.model_dump(mode="json", by_alias=True), json=True) if json else folder.show(found)


@app.command()
def cancel(job: Annotated[UUID, typer.Argument(help="The job.")], json: Json = False) -> None:
    """End a job: its scan stops, and what is not yet published is not."""
    run(_cancel(job))
    emit({"jobId": job, "status": "FAILED"} if json else f"job {job} is cancelled", json)


@app.command("errors")
def list_errors(
    job: JobArgument = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000)] = 1000,
    json: Json = False,
) -> None:
    """What a job could not take in or have recognised, each with its cause."""
    found = run(_errors(job, limit))
    if json:
        emit(found, json=True)
        return
    if not found:
        console.print("nothing was passed over, and nothing failed")
    for error in found:
        typer.echo(f"{error.code}\t{error.path}\t{error.cause}")


async def _list(status: JobStatus | None, limit: int) -> list[Job]:
    async with open_database() as db, db.transaction() as session:
        return await service.jobs(session, status=status, limit=limit)


async def _find(job_id: UUID | None) -> IngestStatus:
    async with open_database() as db, db.transaction() as session:
        return await service.status(session, job_id or await _latest(session), batches=0)


async def _cancel(job_id: UUID) -> None:
    async with open_database() as db, db.transaction() as session:
        await service.cancel(session, job_id)


async def _errors(job_id: UUID | None, limit: int) -> list[Any]:
    async with open_database() as db, db.transaction() as session:
        page = await service.errors(session, job_id or await _latest(session), limit=limit)
        return list(page.errors)


async def _latest(session: AsyncSession) -> UUID:
    jobs = await service.jobs(session, limit=1)
    if not jobs:
        raise NotFound("no folder was ever taken in here", hint="kaleidoscope ingest FOLDER")
    return jobs[0].job_id


def _status(given: str | None) -> JobStatus | None:
    known: list[JobStatus] = ["SCANNED", "PUBLISHED", "COMPLETED", "FAILED"]
    for status in known:
        if given is not None and given.upper() == status:
            return status
    if given is not None:
        raise typer.BadParameter(f"{given} is none of {', '.join(known)}")
    return None
