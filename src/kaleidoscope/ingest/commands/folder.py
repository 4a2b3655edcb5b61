"""The command `ingest`: a folder is taken in over HTTP, without the weight of a database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated
from uuid import UUID

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

from kaleidoscope.ingest.schemas import IngestFolder, IngestStatus, Job, JobStarted
from kaleidoscope.kernel.paths import to_text
from kaleidoscope.kernel.terminal import Api, console, emit, failing_well

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]

FIRST_POLL, POLL = 0.1, 0.5  # seconds between two looks at a job: the first two, and later ones
PATIENCE = 120.0  # seconds that the API may be away: the supervisor starts it again
OVER = ("COMPLETED", "FAILED")


def ingest_command(reach: Callable[[], AbstractContextManager[Api]]) -> Callable[..., None]:
    """The command `ingest`; `reach` gives an API that runs for as long as it is used."""

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
        with failing_well(), reach() as api:
            status = _ingest(api, wish, wait=wait)
        emit(status.model_dump(mode="json", by_alias=True), json=True) if json else show(status)
        if status.status == "FAILED":
            raise typer.Exit(1)

    return ingest


def _ingest(api: Api, wish: IngestFolder, *, wait: bool) -> IngestStatus:
    started = api.ask("POST", "/ingest-folder", wish.model_dump(by_alias=True, exclude_none=True))
    job_id = JobStarted.model_validate(started).job_id
    if not wait:
        return _status(api, job_id)
    try:
        return _watch(_follow(api, job_id))
    except KeyboardInterrupt:
        console.print(f"the job goes on: kaleidoscope jobs show {job_id}")
        raise


def _status(api: Api, job_id: UUID, *, patience: float = 0.0) -> IngestStatus:
    """How far a job is."""
    found = api.ask("GET", f"/ingest-status/{job_id}?batches=0", patience=patience)
    return IngestStatus.model_validate(found)


def _follow(api: Api, job_id: UUID) -> Iterator[IngestStatus]:
    """How far a job is, again and again until it is over; outlasts a restart of the API."""
    pause = FIRST_POLL
    while True:
        status = _status(api, job_id, patience=PATIENCE)
        yield status
        if status.status in OVER:
            return
        time.sleep(pause)
        pause = min(2 * pause, POLL)


def _watch(statuses: Iterable[IngestStatus]) -> IngestStatus:
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
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("scanning", total=None)
        for status in statuses:
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


def show(job: IngestStatus) -> None:
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
    if is_old(job):
        told = f"{job.known:,} photos and videos were known already, nothing is new"
        return [("found", told), *_causes("passed over", job.skipped)]
    figures.append(("recognised", f"{job.processed} of {job.photos}, {job.failed} failed"))
    figures.append(("faces", str(job.faces_detected)))
    figures.append(("persons", f"{job.persons_created} new, {job.persons_matched} known"))
    return [*figures, *_causes("passed over", job.skipped), *_causes("errors", job.errors)]


def is_old(job: Job) -> bool:
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
