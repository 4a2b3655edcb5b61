"""The terminal edge: commands that reach the database, answers, and errors in one line."""

from __future__ import annotations

import asyncio
import json as json_module
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

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

from kaleidoscope.kernel.errors import DatabaseError, Invalid, KaleidoscopeError
from kaleidoscope.kernel.settings import KernelSettings, data_dir, load

if TYPE_CHECKING:  # what reaches the database is imported where it does: help comes without
    from kaleidoscope.kernel.db import Database

T = TypeVar("T")

console = Console(stderr=True)
"""For progress and remarks; stdout is for the answer alone."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work; what a user can act on ends it as `fail` says."""
    import structlog
    from sqlalchemy.exc import DataError, OperationalError

    from kaleidoscope.kernel import log

    if not structlog.is_configured():
        log.configure("command", calm=True)
    try:
        return asyncio.run(work)
    except KaleidoscopeError as error:
        fail(error)
    except OperationalError as error:
        fail(DatabaseError(f"the database does not answer: {str(error.orig).strip()}"))
    except DataError as error:
        fail(Invalid(f"the database cannot take that: {str(error.orig).strip()}"))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def fail(error: KaleidoscopeError) -> NoReturn:
    """End the command: one line that says what and why, one what to do next, the exit code."""
    message = escape(" ".join(error.message.split()))
    console.print(f"[red]error:[/] {message}", soft_wrap=True, highlight=False)
    if error.hint:
        console.print(f"[dim]hint: {escape(error.hint)}[/]", soft_wrap=True, highlight=False)
    raise typer.Exit(error.exit_code)


@asynccontextmanager
async def reach_database() -> AsyncIterator[str]:
    """The URL of this installation's database, at whatever revision it is.

    The embedded PostgreSQL is started when nobody has, and stopped when nobody uses it any more.
    """
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
