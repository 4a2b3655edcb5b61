"""The command line: every room's commands at one door.

Errors that a user can act on become one line, a hint and an exit code. The programs themselves
are imported when they are run: the terminal stays quick.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from kaleidoscope.apps import state
from kaleidoscope.apps import up as supervision
from kaleidoscope.apps.supervisor import Wishes
from kaleidoscope.ingest import commands as ingest_commands
from kaleidoscope.kernel.clock import run_once
from kaleidoscope.kernel.errors import KaleidoscopeError
from kaleidoscope.kernel.settings import data_dir, load
from kaleidoscope.kernel.terminal import emit, fail, open_database, run
from kaleidoscope.library import commands as library_commands
from kaleidoscope.ops import commands as ops_commands
from kaleidoscope.people import commands as people_commands
from kaleidoscope.people import jobs as people_jobs
from kaleidoscope.upkeep import commands as upkeep_commands

app = typer.Typer(
    help="Kaleidoscope: every photo filed safely, every person one id, on your own machines.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
separate = typer.Typer(help="Run one service by itself.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Port = Annotated[int | None, typer.Option(help="Instead of the port of the settings.")]


@app.callback()
def root(
    data: Annotated[
        Path | None,
        typer.Option("--data-dir", help="The data folder, instead of KALEIDOSCOPE_DATA_DIR."),
    ] = None,
) -> None:
    """Options before the command."""
    if data is not None:
        os.environ["KALEIDOSCOPE_DATA_DIR"] = str(data.expanduser().absolute())
        load.cache_clear()


@app.command("version")
def show_version(json: Json = False) -> None:
    """The version, and the data folder."""
    found = {"version": version("kaleidoscope"), "data_dir": str(data_dir())}
    emit(found if json else f"{found['version']} with its data in {found['data_dir']}", json)


@app.command()
def up(
    detach: Annotated[bool, typer.Option("--detach", help="In the background.")] = False,
    port: Annotated[int | None, typer.Option(help="The API's port, and no other.")] = None,
    ingest: Annotated[
        Path | None, typer.Option(help="Ingest this folder when everything is ready.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End when that folder is in.")] = False,
    json: Json = False,
) -> None:
    """Start everything and keep it running until Ctrl-C."""
    if detach and ingest is not None:
        raise typer.BadParameter("in the background nobody sees it: use `kaleidoscope ingest`")
    if once and ingest is None:
        raise typer.BadParameter("--once needs --ingest FOLDER")
    wishes = Wishes(port=port, ingest=ingest, once=once)
    if not detach:
        raise typer.Exit(supervision.up(wishes))
    started = supervision.start_detached(wishes)
    emit(started if json else f"ready at {started.api_url}", json)


@app.command()
def down(json: Json = False) -> None:
    """Stop what `up` started: services, then database."""
    stopped = supervision.down()
    emit({"stopped": stopped} if json else ("stopped" if stopped else "nothing was running"), json)


@separate.command()
def api(port: Port = None) -> None:
    """The HTTP API."""
    from kaleidoscope.apps.api import main

    main(port)


@separate.command()
def mlserver(port: Port = None) -> None:
    """The ML service: looks at photos."""
    from kaleidoscope.apps.mlserver import main

    main(port)


@separate.command()
def worker() -> None:
    """A worker: handles messages. Run as many as you like."""
    from kaleidoscope.apps.worker import main

    main()


@separate.command()
def scheduler() -> None:
    """The scheduler: retries, stuck photos, hashes, consolidation."""
    from kaleidoscope.apps.scheduler import main

    main()


@separate.command()
def librarian() -> None:
    """The librarian: files what is put into the inboxes."""
    from kaleidoscope.apps.librarian import main

    main()


@contextmanager
def _services() -> Iterator[str]:
    """The URL of an API that runs. At the end persons are settled, as the clock would soon do:
    what is shown or exported next is final, and the services may stop.
    """
    with supervision.ensure_running() as api_url:
        yield api_url
        if state.is_held():
            run(_settle_persons())


async def _settle_persons() -> None:
    async with open_database() as db:
        while not await run_once(db, people_jobs.CONSOLIDATION):  # noqa: ASYNC110 - the scheduler is at it
            await asyncio.sleep(0.1)


app.add_typer(separate, name="run")
app.command()(ops_commands.status)
app.command("ingest")(ingest_commands.ingest_command(_services))
app.add_typer(ingest_commands.app, name="jobs")
app.add_typer(ingest_commands.inbox, name="inbox")
app.add_typer(people_commands.app, name="people")
app.add_typer(library_commands.app, name="photos")
app.add_typer(library_commands.originals.app, name="library")
app.add_typer(library_commands.places.app, name="places")
app.add_typer(upkeep_commands.app, name="backup")
app.add_typer(ops_commands.ops, name="ops")
app.add_typer(ops_commands.dead, name="dead")
app.add_typer(ops_commands.models, name="models")
app.add_typer(ops_commands.database, name="db")
ops_commands.database.command()(upkeep_commands.maintenance)
ops_commands.database.command()(upkeep_commands.bloat)


def main() -> None:
    """The program `kaleidoscope`."""
    try:
        app()
    except KaleidoscopeError as error:
        try:
            fail(error)
        except typer.Exit as end:
            sys.exit(end.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `kaleidoscope … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


if __name__ == "__main__":
    main()
