"""The commands `inbox`: the inboxes that the librarian files from, looked at in the database."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from kaleidoscope.ingest import service
from kaleidoscope.ingest.schemas import Inbox, Inboxes
from kaleidoscope.kernel.terminal import emit, open_database, run

app = typer.Typer(help="The inboxes that photos are filed from.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
DOUBLES = 20  # duplicates that are listed: a card that is dropped twice has thousands


@app.command("status")
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
