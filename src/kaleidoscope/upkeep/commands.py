"""Backup and maintenance at the terminal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import SettingsError
from kaleidoscope.kernel.settings import config_file, load
from kaleidoscope.kernel.terminal import bytes_bar, console, emit, open_database, run
from kaleidoscope.library import service as library
from kaleidoscope.library.settings import BackupSettings
from kaleidoscope.upkeep import jobs, service
from kaleidoscope.upkeep.schemas import BackupStatus, Bloat, Drill, Manifest, Restored

app = typer.Typer(help="A second copy of every original and of the database.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]


# -- backup


@app.command("run")
def back_up(
    full: Annotated[
        bool, typer.Option("--full", help="Copy the whole database, due or not.")
    ] = False,
    new_target: Annotated[
        bool, typer.Option("--new-target", help="The target is a new, empty disk: copy all anew.")
    ] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Copy what is not in the backup yet: originals, and the database; exit code 1 when an
    original cannot be copied. Services do that by themselves."""
    if dry_run:
        found = run(_status())
        told = f"{found.pending} originals ({_size(found.pending_bytes)}) and the database"
        return emit(found if json else f"would copy {told} to {found.target}", json)
    done = run(_back_up(full, new_target))
    originals = done["originals"]
    failed = originals["failed"]
    if json:
        emit(done, json=True)
    else:
        emit(f"{originals['copied']} originals copied ({_size(originals['bytes'])})")
        emit(f"the database is copied: {done['database'].get('name') or 'what was new in it'}")
        if failed:
            emit(f"{failed} originals are not copied; the page says why, the next run tries again")
    raise typer.Exit(1 if failed else 0)


@app.command()
def verify(json: Json = False) -> None:
    """Read the whole backup back and hash it; exit code 1 when something in it is damaged.

    A damaged copy of an original is made anew by the next run.
    """
    done = run(_verify())
    wrong = [*done["damaged"], *done["damaged_database_files"]]
    if json:
        emit(done, json=True)
    else:
        emit(f"{done['read']} copies and {done['databases']} databases read, {len(wrong)} damaged")
        for name in wrong:
            emit(f"damaged: {name}")
    raise typer.Exit(1 if wrong else 0)


@app.command()
def restore(
    source: Annotated[
        str, typer.Argument(help="The backup's folder or URL; default: that of the settings.")
    ] = "",
    database: Annotated[
        str | None, typer.Option(help="A copy of the database, instead of the newest.")
    ] = None,
    at: Annotated[
        datetime | None,
        typer.Option(help="As it was then (UTC). Only for the embedded PostgreSQL."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="KEY=VALUE of [backup.options], to reach a URL."),
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Bring library and database back, into an empty data folder.

    Originals outside the data folder go back to where they were; nothing that lies there is
    overwritten. Killed, it goes on when it is started again.
    """
    source = source or load(BackupSettings).target
    if not source:
        raise typer.BadParameter("name the backup's folder or URL")
    options = {**load(BackupSettings).options, **_options(option or [])}
    until = None if at is None else at.replace(tzinfo=UTC)
    restored = run(_restore(source, options, database, until, dry_run))
    if json:
        emit(restored, json=True)
    elif isinstance(restored, Manifest):
        emit(f"would restore the database {restored.name} and {restored.originals} originals")
    else:
        _show_restored(restored)
    if isinstance(restored, Restored) and restored.failed:
        raise typer.Exit(1)


@app.command("status")
def show_status(json: Json = False) -> None:
    """How the backup stands: what is in it, what is not yet, the last runs and restore drill."""
    found = run(_status())
    emit(found, json=True) if json else _show(found)


@app.command()
def drill(json: Json = False) -> None:
    """Restore the newest backup on the side and look through it; exit code 1 when it is red."""
    found = run(_drill())
    told = f"{found.colour}: {found.cause or 'the backup can be restored'}"
    emit(found if json else told, json)
    raise typer.Exit(0 if found.colour == "green" else 1)


@app.command()
def prune(dry_run: DryRun = False, json: Json = False) -> None:
    """Remove old copies of the database, and copies of originals that nobody has any more.

    The only thing that ever deletes from the backup. See --dry-run first.
    """
    done = run(_prune(dry_run))
    what = f"{len(done['databases'])} databases, {len(done['originals'])} originals"
    verb = "would remove" if dry_run else "removed"
    emit(done if json else f"{verb} {what} ({_size(done['bytes'])})", json)


async def _back_up(full: bool, new_target: bool) -> dict[str, Any]:
    done: dict[str, Any] = {}

    async def work(db: Database) -> object:
        async with db.transaction() as session:
            _, size = await library.count_pending(session)
        with bytes_bar("copying", size) as progress:
            done.update(
                await service.back_up(db, new_target=new_target, full=full, progress=progress)
            )
        return done

    async with open_database() as db:
        library.store()  # no target: said before anything is begun
        await service.alone(db, jobs.ORIGINALS, lambda db: _database_too(db, work), "the backup")
    return done


async def _database_too(db: Database, work: Any) -> object:
    await service.alone(db, jobs.DATABASE, work, "copying the database")
    return None


async def _verify() -> dict[str, Any]:
    done: dict[str, Any] = {}

    async def work(db: Database) -> object:
        with bytes_bar("reading back") as progress:
            done.update(await service.verify(db, progress=progress))
        return done

    async with open_database() as db:
        library.store()
        await service.alone(db, jobs.VERIFY, work, "reading the backup back")
    return done


async def _restore(
    source: str,
    options: dict[str, Any],
    database: str | None,
    until: datetime | None,
    dry_run: bool,
) -> Restored | Manifest:
    with bytes_bar("restoring") as progress:
        return await service.restore(
            source,
            options,
            name=database,
            until=until,
            dry_run=dry_run,
            tell=lambda step: console.print(f"[dim]restoring {step}[/]"),
            progress=progress,
        )


async def _status() -> BackupStatus:
    async with open_database() as db:
        return await service.status(db)


async def _drill() -> Drill:
    found: list[Drill] = []

    async def work(db: Database) -> object:
        found.append(await service.drill(db))
        return found

    async with open_database() as db:
        library.store()
        await service.alone(db, jobs.DRILL, work, "a restore drill")
    return found[0]


async def _prune(dry_run: bool) -> dict[str, Any]:
    done: dict[str, Any] = {}

    async def work(db: Database) -> object:
        done.update(await service.prune(db, dry_run=dry_run))
        return done

    async with open_database() as db:
        library.store()
        await service.alone(db, jobs.ORIGINALS, lambda db: _database_too(db, work), "the backup")
    return done


def _show(found: BackupStatus) -> None:
    out = Console(highlight=False, soft_wrap=True)
    if found.target is None:
        out.print(f"[yellow]no backup is set up[/]; in {escape(str(config_file()))}:\n")
        out.print(escape('[backup]\ntarget = "/a/folder/on/another/disk"'))
        return
    out.print(f"[bold]target[/]    {escape(found.target)}")
    if found.trouble:
        out.print(f"[red]{escape(found.trouble)}[/]")
    out.print(f"[bold]copied[/]    {found.copies} originals ({_size(found.bytes)})")
    out.print(f"[bold]waiting[/]   {found.pending} originals ({_size(found.pending_bytes)})")
    if found.damaged:
        out.print(f"[red]damaged[/]   {found.damaged} copies; the next run makes them anew")
    last = f", the newest {found.databases[-1]}" if found.databases else ""
    out.print(f"[bold]databases[/] {len(found.databases)}{last}")
    for one in found.runs:
        end = f"[red]{escape(one.error)}[/]" if one.error else "ok" if one.finished_at else "runs"
        out.print(f"  {one.kind:<10} {one.started_at.astimezone():%Y-%m-%d %H:%M}  {end}")
    if found.drill is not None:
        when = f"{found.drill.started_at.astimezone():%Y-%m-%d %H:%M}"
        colour = found.drill.colour or "yellow"
        out.print(
            f"[bold]drill[/]     [{colour}]● {colour}[/] {when} {escape(found.drill.cause or '')}"
        )


def _show_restored(done: Restored) -> None:
    emit(f"the database {done.database}: {done.originals} originals, {done.persons} persons")
    emit(f"{done.restored} originals put back, {done.there} lay there already")
    for path in done.without_copy:
        emit(f"never copied: {path}")
    for path, cause in done.failed.items():
        emit(f"not put back: {path}: {cause}")
    emit("next: kaleidoscope up")


def _options(given: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for one in given:
        key, mark, value = one.partition("=")
        if not mark:
            raise SettingsError(f"--option {one}: write KEY=VALUE")
        options[key] = value
    return options


# -- the database's maintenance: `kaleidoscope db …`


def maintenance(
    reindex: Annotated[
        bool, typer.Option("--reindex", help="Build every index anew, too.")
    ] = False,
    json: Json = False,
) -> None:
    """VACUUM ANALYZE, and with --reindex every index anew; services go on meanwhile."""
    done = run(_maintain(reindex))
    if json:
        return emit(done, json=True)
    for kind, figures in done.items():
        before, after = _size(figures["bytes_before"]), _size(figures["bytes_after"])
        emit(f"{kind}: {figures['tables']} tables, {before} before, {after} after")
    return None


def bloat(
    limit: Annotated[int, typer.Option(min=1, help="At most so many tables.")] = 20,
    json: Json = False,
) -> None:
    """How large the tables are, and how much of them is air."""
    found = run(_bloat())[:limit]
    if json:
        return emit(found, json=True)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("table", "rows", "dead", "size", "indexes", "air", "vacuumed"):
        table.add_column(column, justify="left" if column in ("table", "vacuumed") else "right")
    for one in found:
        when = f"{one.last_vacuum.astimezone():%Y-%m-%d}" if one.last_vacuum else "never"
        table.add_row(
            *(one.table, str(one.rows), str(one.dead_rows), _size(one.bytes)),
            *(_size(one.index_bytes), f"{one.wasted_share:.0%}", when),
        )
    return Console().print(table)


async def _maintain(reindex: bool) -> dict[str, Any]:
    done: dict[str, Any] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("tables", total=None)

        def tell(table: str, of: int) -> None:
            bar.update(task, advance=1, total=of, description=table)

        async def vacuum(db: Database) -> object:
            done["vacuum"] = await service.vacuum(db, tell)
            return done

        async def index(db: Database) -> object:
            bar.reset(task)
            done["reindex"] = await service.reindex(db, tell)
            return done

        async with open_database() as db:
            await service.alone(db, jobs.VACUUM, vacuum, "vacuuming")
            if reindex:
                await service.alone(db, jobs.REINDEX, index, "building indexes")
    return done


async def _bloat() -> list[Bloat]:
    async with open_database() as db, db.transaction() as session:
        return await service.bloat(session)


def _size(size: int) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000  # type: ignore[assignment]
    return f"{size:.1f} TB"
