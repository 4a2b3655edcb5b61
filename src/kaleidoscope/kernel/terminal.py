"""The terminal edge: commands that reach the API or the database, answers, errors in one line.

What only some commands need is imported where they do: help, and what is asked of the API alone,
come without the weight of a database.
"""

from __future__ import annotations

import json as json_module
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import typer
from pydantic import BaseModel
from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.markup import escape
from rich.pretty import Pretty
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from kaleidoscope.kernel import errors
from kaleidoscope.kernel.errors import DatabaseError, Invalid, KaleidoscopeError, Unavailable
from kaleidoscope.kernel.secrets import HEADER, service_secret
from kaleidoscope.kernel.settings import KernelSettings, data_dir, load

if TYPE_CHECKING:
    from kaleidoscope.kernel.db import Database

T = TypeVar("T")

ANSWERS_WITHIN = 60.0  # seconds
PAUSE = 0.5  # seconds between two tries to reach an API that is away

console = Console(stderr=True)
"""For progress and remarks; stdout is for the answer alone."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work; what a user can act on ends it as `fail` says."""
    import asyncio

    import structlog
    from sqlalchemy.exc import DataError, OperationalError

    from kaleidoscope.kernel import log

    if not structlog.is_configured():
        log.configure("command", calm=True)
    with failing_well():
        try:
            return asyncio.run(work)
        except OperationalError as error:
            fail(DatabaseError(f"the database does not answer: {str(error.orig).strip()}"))
        except DataError as error:
            fail(Invalid(f"the database cannot take that: {str(error.orig).strip()}"))


@contextmanager
def failing_well() -> Iterator[None]:
    """Let what a user can act on, and Ctrl-C, end the command as `fail` says."""
    try:
        yield
    except KaleidoscopeError as error:
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def fail(error: KaleidoscopeError) -> NoReturn:
    """End the command: one line that says what and why, one what to do next, the exit code."""
    message = escape(" ".join(error.message.split()))
    console.print(f"[red]error:[/] {message}", soft_wrap=True, highlight=False)
    if error.hint:
        console.print(f"[dim]hint: {escape(error.hint)}[/]", soft_wrap=True, highlight=False)
    raise typer.Exit(error.exit_code)


class Away(Unavailable):
    """Nobody answers at all."""


class Api:
    """Our own API as a command asks it: with the service secret, and following no redirect."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        timeout: float | None = ANSWERS_WITHIN,
        patience: float = 0.0,
    ) -> Any:
        """What the API answers. Raises what it refuses the request for, and `Away` where it does
        not answer: after `patience` seconds in which it was asked again and again.
        """
        away_since: float | None = None
        while True:
            try:
                return self._ask_once(method, path, body, timeout)
            except Away:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since >= patience:
                    raise
            time.sleep(PAUSE)

    def _ask_once(self, method: str, path: str, body: object, timeout: float | None) -> Any:
        from http.client import HTTPConnection, HTTPException, HTTPSConnection

        place = urlsplit(self.url)
        kind = HTTPSConnection if place.scheme == "https" else HTTPConnection
        connection = kind(place.netloc, timeout=timeout)
        headers = {HEADER: service_secret(), "Content-Type": "application/json"}
        sent = None if body is None else json_module.dumps(body)
        try:
            connection.request(method, place.path + path, sent, headers)
            answer = connection.getresponse()
            said = answer.read()
        except (OSError, HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise Away(f"the API at {self.url} does not answer: {reason}") from None
        finally:
            connection.close()
        if 200 <= answer.status < 300:
            return json_module.loads(said) if said else None
        raise _refusal(answer.status, said)


def _refusal(status: int, said: bytes) -> KaleidoscopeError:
    """The error that the API's problem document tells of."""
    try:
        problem = json_module.loads(said)
    except ValueError:
        problem = {}
    kinds = (errors.Invalid, errors.NotFound, errors.Conflict, errors.Forbidden, errors.TooBusy)
    kind = {kind.status: kind for kind in kinds}.get(status, Unavailable)
    return kind(problem.get("detail") or f"the API answers {status}", hint=problem.get("hint"))


@asynccontextmanager
async def reach_database() -> AsyncIterator[str]:
    """The URL of this installation's database, at whatever revision it is.

    The embedded PostgreSQL is started when nobody has, and stopped when nobody uses it any more.
    """
    import asyncio

    from kaleidoscope.kernel.embedded_postgres import EmbeddedPostgres

    url = load(KernelSettings).database_url
    if url:
        yield url
        return
    embedded = EmbeddedPostgres(data_dir() / "postgres")
    try:
        yield await asyncio.to_thread(embedded.start)
    finally:
        await asyncio.to_thread(embedded.stop)


@asynccontextmanager
async def open_database() -> AsyncIterator[Database]:
    """The database of this installation, brought to the revision that the code expects."""
    import asyncio

    from kaleidoscope.kernel import migrate
    from kaleidoscope.kernel.db import Database

    async with reach_database() as url:
        await asyncio.to_thread(migrate.upgrade, url)
        db = Database(url)
        try:
            yield db
        finally:
            await db.close()


def emit(answer: object, json: bool = False) -> None:
    """Print a command's answer on stdout: as JSON for scripts, else for people."""
    plain = to_jsonable_python(answer, fallback=str)
    if json:
        json_module.dump(plain, sys.stdout, ensure_ascii=False)
        sys.stdout.write("\n")
    elif isinstance(answer, str):
        typer.echo(answer)
    else:
        shown = plain if isinstance(answer, BaseModel) else answer
        Console().print(Pretty(shown, expand_all=True))


def about(seconds: float) -> str:
    """A length of time that is not known exactly."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"about {seconds / length:.0f} {unit}"
    return f"about {seconds:.0f} seconds"


def show_rows(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows, whose cells may have markup, below each other under their heads.

    The last column is as long as it is: a path stays in one piece, to be read and copied. Nothing
    is cut to the terminal's width.
    """
    cells = [[Text.from_markup(cell) for cell in row] for row in rows]
    if any(heads):
        cells.insert(0, [Text(head, "dim") for head in heads])
    widths = [max(cell.cell_len for cell in column) for column in zip(*cells, strict=True)]
    out = Console(highlight=False)
    for row in cells:
        for cell, width in zip(row[:-1], widths, strict=False):
            cell.pad_right(width + 2 - cell.cell_len)
        out.print(Text.assemble(*row), soft_wrap=True)


@contextmanager
def bytes_bar(title: str, total: int | None = None) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar of work on files: told how many files and bytes more are done."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    more = (TransferSpeedColumn(), TimeElapsedColumn())
    with Progress(*columns, *more, console=console, transient=True) as bar:
        task = bar.add_task(title, total=total)
        seen = 0

        def tell(files: int, size: int, name: str) -> None:
            nonlocal seen
            seen += files
            bar.update(task, advance=size, description=f"{title}: {seen} files")

        yield tell
