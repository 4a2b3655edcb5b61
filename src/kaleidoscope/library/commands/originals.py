"""The originals and their ledger at the terminal."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.status import Status

from kaleidoscope.kernel.terminal import console, emit, open_database, run
from kaleidoscope.library import service

app = typer.Typer(help="The originals and their ledger.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """The originals and their ledger."""


@app.command()
def rebuild(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look; write nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Make the ledger anew from the originals alone; what is known of a content is kept."""
    done = run(_rebuild(dry_run))
    if json:
        emit(done, json=True)
        return
    would = "would be " if dry_run else ""
    emit(
        f"{done.files} originals: {done.known} known, {done.moved} {would}linked to their rows, "
        f"{done.added} {would}added ({done.duplicates} of them copies), {done.sidecars} sidecars"
    )
    for problem in done.problems:
        emit(f"{problem.path}: {problem.cause}")


async def _rebuild(dry_run: bool) -> service.Rebuilt:
    with Status("reading the originals", console=console) as status:
        async with open_database() as db, service.children() as work:
            return await service.rebuild(
                db,
                work,
                dry_run=dry_run,
                told=lambda done: status.update(f"{done.files} originals read"),
            )
