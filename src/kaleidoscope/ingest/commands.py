"""Folders and jobs at the terminal: taken in over HTTP, looked at in the database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import httpx
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.ingest import service
from kaleidoscope.ingest.schemas import (
    Inbox,
    Inboxes,
    IngestFolder,
    IngestStatus,
    Job,
    JobStarted,
    JobStatus,
)
from kaleidoscope.kernel import errors
from kaleidoscope.kernel.errors import KaleidoscopeError, NotFound, Unavailable
from kaleidoscope.kernel.paths import to_text
from kaleidoscope.kernel.secrets import HEADER, service_secret
from kaleidoscope.kernel.terminal import console, emit, open_database, run

app = typer.Typer(help="Folders that are or were taken in.", no_args_is_help=True)
inbox = typer.Typer(help="The inboxes that photos are filed from.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
JobArgument = Annotated[UUID | None, typer.Argument(help="The job; default: the latest.")]

POLL = 0.5  # seconds
DOUBLES = 20  # duplicates that are listed: a card that is dropped twice has thousands
PATIENCE = 120.0  # seconds that the API may be away: the supervisor starts it again
OVER = ("COMPLETED", "FAILED")


# -- ingest


def ingest_command(reach: Callable[[], AbstractContextManager[str]]) -> Callable[..., None]:
    """The command `ingest`; `reach` gives the URL of an API that runs for as long as it is used."""

    def ingest(
        path: Annotated[Path, typer.Argument(help="The folder.")],
        recursive: Annotated[bool, typer.Option(help="With all folders below it.")] = True,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Count and estimate; write nothing.")
        ] = False,
        wait: Annotated[bool, typer.Option(help="Until the last photo is recognised.")] = True,
        name: Annotated[str | None, typer.Option(help="A name for the job.")] = None,
        batch_size: Annotated[
            int | None, typer.Option(min=1, max=10_000, help="Photos in a batch.")
        ] = None,
        json: Json = False,
    ) -> None:
        """Take a folder of photos in, and show how far it is."""
        wish = IngestFolder(
            path=to_text(path.expanduser().absolute()),
            recursive=recursive,
            batch_size=batch_size,
            job_name=name,
            dry_run=dry_run,
        )
        with reach() as api_url:
            status = run(_ingest(api_url, wish, wait=wait))
        emit(status.model_dump(mode="json", by_alias=True), json=True) if json else _show(status)
        if status.status == "FAILED":
            raise typer.Exit(1)

    return ingest


async def _ingest(api_url: str, wish: IngestFolder, *, wait: bool) -> IngestStatus:
    async with connect(api_url) as client:
        job_id = await order(client, wish)
        if not wait:
            return await status_of(client, job_id)
        try:
            return await _watch(follow(client, job_id))
        except asyncio.CancelledError:
            console.print(f"the job goes on: kaleidoscope jobs show {job_id}")
            raise


def connect(api_url: str) -> httpx.AsyncClient:
    """A client of our own API, with the service secret: it may name any folder of the machine."""
    return httpx.AsyncClient(base_url=api_url, headers={HEADER: service_secret()}, timeout=60)


async def order(client: httpx.AsyncClient, wish: IngestFolder) -> UUID:
    """Start a job; its id. Raises what the API refuses it for, `Unavailable` without an API."""
    body = wish.model_dump(by_alias=True, exclude_none=True)
    return JobStarted.model_validate(await _ask(client, "POST", "/ingest-folder", body)).job_id


async def status_of(client: httpx.AsyncClient, job_id: UUID) -> IngestStatus:
    """How far a job is."""
    path = f"/ingest-status/{job_id}?batches=0"
    return IngestStatus.model_validate(await _ask(client, "GET", path))


async def follow(client: httpx.AsyncClient, job_id: UUID) -> AsyncIterator[IngestStatus]:
    """How far a job is, again and again until it is over; outlasts a restart of the API."""
    answered = time.monotonic()
    while True:
        try:
            status = await status_of(client, job_id)
        except Unavailable:
            if time.monotonic() - answered > PATIENCE:
                raise
        else:
            answered = time.monotonic()
            yield status
            if status.status in OVER:
                return
        await asyncio.sleep(POLL)


async def _ask(
    client: httpx.AsyncClient, method: str, path: str, body: dict[str, Any] | None = None
) -> Any:
    try:
        answer = await client.request(method, path, json=body)
    except httpx.TransportError as error:
        reason = str(error) or type(error).__name__
        raise Unavailable(f"the API at {client.base_url} does not answer: {reason}") from None
    if answer.is_success:
        return answer.json()
    raise _refusal(answer)


def _refusal(answer: httpx.Response) -> KaleidoscopeError:
    """The error that the API's problem document tells of."""
    try:
        problem = answer.json()
    except ValueError:
        problem = {}
    kinds = (errors.Invalid, errors.NotFound, errors.Conflict, errors.Forbidden, errors.TooBusy)
    kind = {kind.status: kind for kind in kinds}.get(answer.status_code, Unavailable)
    said = problem.get("detail") or f"the API answers {answer.status_code}"
    return kind(said, hint=problem.get("hint"))


async def _watch(statuses: AsyncIterator[IngestStatus]) -> IngestStatus:
    """A progress bar for a job; its last status."""
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task("scanning", total=None)
        async for status in statuses:
            seen = f"{status.faces_detected} faces, {status.persons_created} new persons"
            if status.scanned_at is None:
                bar.update(task, description=f"scanning: {status.scanned} found, {seen}")
            else:
                bar.update(
                    task,
                    description=seen if status.photos else f"{status.known:,} known already",
                    total=status.photos or None,
                    completed=status.processed + status.failed,
                )
    return status


def _show(job: IngestStatus) -> None:
    """The closing summary, and what to look at next."""
    out = Console(highlight=False, soft_wrap=True)
    took = (job.finished_at or job.created_at) - job.created_at
    after = f" in {took.total_seconds():.1f} s" if job.finished_at else ""
    out.print(f"[bold]{escape(job.path)}[/]: {job.status}{after}")
    if job.failure:
        out.print(f"[red]{escape(job.failure)}[/]")
    table = Table(box=None, show_header=False, padding=(0, 2))
    for title, value in _figures(job):
        table.add_row(title, value)
    out.print(table)
    if hints := _hints(job):
        out.print("[dim]next:[/]", *[f"  {hint}" for hint in hints], sep="\n")


def _figures(job: IngestStatus) -> list[tuple[str, str]]:
    found = f"{job.scanned} found: {job.inserted} new, {job.known} known, {job.changed} changed"
    copies = f", {job.duplicates} of the new ones copies" if job.duplicates else ""
    figures = [("photos and videos", found + copies)]
    if job.estimate:
        expected = job.estimate
        basis = "as the last job" if expected.measured else "assumed"
        return [
            ("photos", str(expected.photos)),
            ("videos", str(expected.videos)),
            ("known", f"{expected.known} of them: they are passed over"),
            ("size", f"{expected.bytes / 1e6:,.1f} MB"),
            ("time", f"about {expected.seconds} s ({expected.photos_per_second}/s, {basis})"),
            *_causes("passed over", job.skipped),
        ]
    if _is_old(job):
        told = f"{job.known:,} photos and videos were known already, nothing is new"
        return [("found", told), *_causes("passed over", job.skipped)]
    figures.append(("recognised", f"{job.processed} of {job.photos}, {job.failed} failed"))
    figures.append(("faces", str(job.faces_detected)))
    figures.append(("persons", f"{job.persons_created} new, {job.persons_matched} known"))
    return [*figures, *_causes("passed over", job.skipped), *_causes("errors", job.errors)]


def _is_old(job: Job) -> bool:
    """Whether a job found files, and all of them known."""
    return job.status == "COMPLETED" and not job.dry_run and not job.photos and job.known > 0


def _causes(title: str, causes: dict[str, int]) -> list[tuple[str, str]]:
    listed = ", ".join(f"{number} {cause}" for cause, number in causes.items())
    return [(title, listed)] if causes else []


def _hints(job: IngestStatus) -> list[str]:
    hints = []
    if job.dry_run:
        return [f"kaleidoscope ingest {job.path}"]
    if job.status not in OVER:
        hints.append(f"kaleidoscope jobs show {job.job_id}")
    if job.faces_detected:
        hints.append("kaleidoscope people list")
        hints.append("kaleidoscope people montage PERSON --out person.jpg")
    if job.errors:
        hints.append(f"kaleidoscope jobs errors {job.job_id}")
    return hints


# -- jobs


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
        done = "nothing new" if _is_old(job) else f"{job.processed + job.failed}/{job.photos} done"
        when = f"{job.created_at.astimezone():%Y-%m-%d %H:%M}"
        named = f" ({job.job_name})" if job.job_name else ""
        typer.echo(f"{job.job_id}  {when}  {job.status:<9}  {done:>13}  {job.path}{named}")
    if not jobs:
        typer.echo("no folder was ever taken in here")


@app.command()
def show(job: JobArgument = None, json: Json = False) -> None:
    """How far a job is."""
    found = run(_find(job))
    emit(found.model_dump(mode="json", by_alias=True), json=True) if json else _show(found)


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


# -- inbox


@inbox.command("status")
def inbox_status(json: Json = False) -> None:
    """What waits in the inboxes, and what cannot be filed and why."""
    found = run(_inboxes())
    if json:
        emit(found, json=True)
        return
    for one in found.inboxes:
        _show_inbox(one)


async def _inboxes() -> Inboxes:
    async with open_database() as db, db.transaction() as session:
        return await service.inboxes(session)


def _show_inbox(one: Inbox) -> None:
    out = Console(highlight=False, soft_wrap=True)
    out.print(f"[bold]{escape(one.path)}[/]: {escape(one.current or 'nothing is being done')}")
    looked = f"{one.looked_at.astimezone():%Y-%m-%d %H:%M:%S}" if one.looked_at else "never"
    out.print(
        f"  {one.waiting} waiting ({one.settling} settling), {one.filed_last_hour} filed in the "
        f"last hour, looked at {looked}"
    )
    day = one.last_day
    out.print(
        f"  in the last day: {day.filed} filed, {day.sidecars} sidecars, {day.duplicates} "
        f"duplicates, {day.set_aside} set aside"
    )
    for problem in one.problems:
        out.print(f"  [red]stays[/] {escape(problem.path)}: {escape(problem.cause)}")
    if one.problem_count > len(one.problems):
        out.print(f"  … and {one.problem_count - len(one.problems)} more")
    for aside in one.set_aside:
        out.print(f"  [yellow]set aside[/] {escape(aside.path)}: {escape(aside.cause)}")
    for double in one.duplicates[:DOUBLES]:
        lies = f"lies at {double.path}" if double.path else "was removed"
        same = f"the same as {double.of}; it {lies}"
        out.print(f"  [yellow]duplicate[/] {escape(double.source)}: {escape(same)}")
    if day.duplicates > DOUBLES:
        out.print(f"  … and {day.duplicates - DOUBLES} more duplicates")
