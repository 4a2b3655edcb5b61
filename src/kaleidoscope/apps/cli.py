"""The command line: every room's commands at one door.

Errors that a user can act on become one line, a hint and an exit code. Programs and the rooms'
commands are imported when they are asked for: the terminal stays quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from kaleidoscope.kernel.errors import KaleidoscopeError
from kaleidoscope.kernel.settings import data_dir, load
from kaleidoscope.kernel.terminal import Api, emit, fail


class Front(TyperGroup):
    """The root: knows a line of each room's commands, and imports those that are asked for."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """The command that the first word names, whole."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, self.whole(name, command), rest

    def whole(self, name: str | None, command: Any) -> Any:
        """A command with all that belongs to it."""
        if name not in ROOMS:
            return command
        front = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
        ROOMS[name](front, name)
        return typer.main.get_group(front).commands[name]


app = typer.Typer(
    cls=Front,
    help="Kaleidoscope: every photo filed safely, every person one id, on your own machines.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
separate = typer.Typer(help="Run one service by itself.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
SETTLED_WITHIN = 120.0  # seconds that the API may be away: the supervisor starts it again
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
    from importlib.metadata import version  # reads mail headers: slow to import

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
    from kaleidoscope.apps import up as supervision
    from kaleidoscope.apps.supervisor import Wishes

    wishes = Wishes(port=port, ingest=ingest, once=once)
    if not detach:
        raise typer.Exit(supervision.up(wishes))
    started = supervision.start_detached(wishes)
    emit(started if json else f"ready at {started.api_url}", json)


@app.command()
def down(json: Json = False) -> None:
    """Stop what `up` started: services, then database."""
    from kaleidoscope.apps import up as supervision

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
def _services() -> Iterator[Api]:
    """An API that runs. At the end persons are settled, as the clock would soon do: what is shown
    or exported next is final, and the services may stop.
    """
    from kaleidoscope.apps import state
    from kaleidoscope.apps.running import ensure_running

    with ensure_running() as api_url:
        api = Api(api_url)
        yield api
        if state.is_held():
            api.ask("POST", "/people/settle", timeout=None, patience=SETTLED_WITHIN)


def _room(module: str, attribute: str, front: typer.Typer, name: str) -> None:
    commands: typer.Typer = getattr(import_module(f"kaleidoscope.{module}"), attribute)
    front.add_typer(commands, name=name)


def _status(front: typer.Typer, name: str) -> None:
    from kaleidoscope.ops.commands import status

    front.command(name)(status)


def _ingest(front: typer.Typer, name: str) -> None:
    from kaleidoscope.ingest.commands.folder import ingest_command

    front.command(name)(ingest_command(_services))


def _models(front: typer.Typer, name: str) -> None:
    from kaleidoscope.ops.commands import migrate_command, models

    whole = typer.Typer(help=models.info.help, no_args_is_help=True)
    whole.registered_commands.extend(models.registered_commands)
    whole.command("migrate")(migrate_command(_services))
    front.add_typer(whole, name=name)


def _database(front: typer.Typer, name: str) -> None:
    from kaleidoscope.ops.commands import database
    from kaleidoscope.upkeep import commands as upkeep_commands

    both = typer.Typer(help=database.info.help, no_args_is_help=True)
    both.registered_commands.extend(database.registered_commands)
    both.command()(upkeep_commands.maintenance)
    both.command()(upkeep_commands.bloat)
    front.add_typer(both, name=name)


ROOMS: dict[str, Callable[[typer.Typer, str], None]] = {
    "status": _status,
    "ingest": _ingest,
    "jobs": partial(_room, "ingest.commands.jobs", "app"),
    "inbox": partial(_room, "ingest.commands.inbox", "app"),
    "people": partial(_room, "people.commands", "app"),
    "photos": partial(_room, "library.commands", "app"),
    "library": partial(_room, "library.commands.originals", "app"),
    "places": partial(_room, "library.commands.places", "app"),
    "backup": partial(_room, "upkeep.commands", "app"),
    "ops": partial(_room, "ops.commands", "ops"),
    "dead": partial(_room, "ops.commands", "dead"),
    "models": _models,
    "db": _database,
}
LINES = {
    "status": "How it is going: services, photos, queue, failures.",
    "ingest": "Take a folder of photos in, and show how far it is.",
    "jobs": "Folders that are or were taken in.",
    "inbox": "The inboxes that photos are filed from.",
    "people": "People: list, show, name, merge, split, undo.",
    "photos": "The ledger of photos and videos.",
    "library": "The originals and their ledger.",
    "places": "The folders that originals lie in.",
    "backup": "A second copy of every original and of the database.",
    "ops": "Care of the heartbeats: uptime, what is kept.",
    "dead": "Messages whose attempts are spent.",
    "models": "Model packs: which networks look at the photos.",
    "db": "The database of this data folder.",
}
"""What the list of commands says of each; the test holds it to what the command says of itself."""

app.add_typer(separate, name="run")
for name, line in LINES.items():
    app.command(name, help=line)(lambda: None)


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
