"""Operation at the terminal: status, dead letters, model packs, the database."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from kaleidoscope.bus.messages import DeadLetter
from kaleidoscope.kernel import migrate
from kaleidoscope.kernel.errors import DatabaseError, NotFound
from kaleidoscope.kernel.postgres_programs import client_program
from kaleidoscope.kernel.terminal import (
    about,
    console,
    emit,
    fail,
    open_database,
    reach_database,
    run,
    show_rows,
)
from kaleidoscope.ml import catalog
from kaleidoscope.ops import service
from kaleidoscope.ops.schemas import Overview, PackStatus, Uptimes

if TYPE_CHECKING:
    from kaleidoscope.library.service import LookedAt
    from kaleidoscope.people.service import Foreseen, Migration

T = TypeVar("T")

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]

ops = typer.Typer(help="Care of the heartbeats: uptime, what is kept.", no_args_is_help=True)
dead = typer.Typer(help="Messages whose attempts are spent.", no_args_is_help=True)
models = typer.Typer(help="Model packs: which networks look at the photos.", no_args_is_help=True)
database = typer.Typer(help="The database of this data folder.", no_args_is_help=True)


# -- status


def status(json: Json = False) -> None:
    """How it is going: services, photos, queue, failures."""
    overview = run(_overview())
    emit(overview, json=True) if json else _show(overview)


async def _overview() -> Overview:
    async with open_database() as db, db.transaction() as session:
        return await service.overview(session)


def _show(overview: Overview) -> None:
    out = Console()
    services = _table("service", "status", "last heartbeat", "task")
    for one in overview.services:
        ago = f"{timedelta(seconds=round(one.age_seconds))} ago"
        services.add_row(
            f"[{one.colour}]● {one.service_name}[/]", one.status, ago, one.current_task
        )
    out.print(services if overview.services else "no service was ever started here")
    if overview.services and all(one.current_task == "stopped" for one in overview.services):
        out.print("[yellow]nothing runs:[/] `kaleidoscope up --detach` starts it")
    photos = ", ".join(f"{n} {name}" for name, n in overview.photos.items() if n) or "none"
    out.print(f"\n[bold]photos[/]        {photos}")
    waiting = ", ".join(f"{q.waiting} {q.topic} ({q.group})" for q in overview.queue if q.waiting)
    out.print(f"[bold]queue[/]         {waiting or 'empty'}")
    hint = " (`kaleidoscope dead list`)" if overview.dead_letters else ""
    out.print(f"[bold]dead letters[/]  {overview.dead_letters}{hint}")
    for title, failures in (("failed", overview.failed), ("stuck", overview.stuck)):
        if failures:
            out.print(f"[bold]{title}[/]")
        for photo in failures:
            again = (
                f"again at {photo.next_retry_at:%H:%M:%S}" if photo.next_retry_at else "given up"
            )
            what = photo.error_message or photo.path
            out.print(f"  {photo.photo_id} {escape(what)} ({again})", soft_wrap=True)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column)
    return table


# -- heartbeats


@ops.command()
def uptime(
    hours: Annotated[float, typer.Option(min=0.01, help="How far back.")] = 24.0,
    json: Json = False,
) -> None:
    """How much of the last hours each service was up."""

    async def work() -> Uptimes:
        async with open_database() as db, db.transaction() as session:
            return await service.uptimes(session, hours)

    found = run(work())
    if json:
        return emit(found, json=True)
    table = _table("service", "uptime", "since it was first heard of")
    for one in found.services:
        observed = "" if one.uptime_observed is None else f"{one.uptime_observed:.2%}"
        table.add_row(one.service_name, f"{one.uptime:.2%}", observed)
    return Console().print(table if found.services else "no service was ever started here")


@ops.command()
def cleanup(json: Json = False) -> None:
    """Forget heartbeats older than `ops.history_days`; the scheduler does it every hour, too."""

    async def work() -> int:
        async with open_database() as db, db.transaction() as session:
            return await service.trim(session)

    forgotten = run(work())
    emit({"forgotten": forgotten} if json else f"{forgotten} rows forgotten", json)


@ops.command()
def forget(service_name: str, json: Json = False) -> None:
    """Forget a service that is gone for good, with its history."""

    async def work() -> None:
        async with open_database() as db, db.transaction() as session:
            await service.forget(session, service_name)

    run(work())
    emit({"forgotten": service_name} if json else f"{service_name} is forgotten", json)


# -- models (the runtime of the networks is imported when it is needed: it takes a second)


@models.command("list")
def list_packs(json: Json = False) -> None:
    """The packs there are, and which one is in use."""
    from kaleidoscope.ml import packs

    active = catalog.active()
    found = [
        PackStatus(
            name=pack.name,
            summary=pack.summary,
            licence=pack.licence,
            dimension=pack.recogniser.dimension,
            megabytes=round(sum(file.bytes for file in pack.files) / 1e6, 1),
            here=packs.is_here(pack),
            active=pack.name == active,
        )
        for pack in catalog.packs().values()
    ]
    if json:
        return emit(found, json=True)
    table = _table("", "pack", "here", "MB", "vector", "licence", "what")
    for pack in found:
        mark, here = "[green]●[/]" if pack.active else "", "yes" if pack.here else "no"
        table.add_row(
            *(mark, pack.name, here, str(pack.megabytes), f"{pack.dimension}-d"),
            *(escape(pack.licence), escape(pack.summary)),
        )
    return Console().print(table)


@models.command()
def pull(
    name: str,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Needed for packs for research only.")
    ] = False,
    json: Json = False,
) -> None:
    """Download a pack; an interrupted download continues."""
    from kaleidoscope.ml import packs

    pack = catalog.find(name)
    if pack.non_commercial:
        console.print(f"[yellow]{pack.name}: {escape(pack.licence)}[/]", highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), console=console) as progress:
        bars: dict[str, object] = {}

        def show(file: str, done: int, total: int) -> None:
            bar = bars.get(file) or bars.setdefault(file, progress.add_task(file))
            progress.update(bar, completed=done, total=total or None)  # type: ignore[arg-type]

        files = packs.pull(pack, accept_licence=accept_licence, progress=show)
    emit(files, json=True) if json else emit(f"{pack.name} is here; `models use {pack.name}`")


@models.command("import")
def import_pack(
    paths: Annotated[
        list[Path],
        typer.Argument(help="A folder with a pack.toml or two networks; or the files themselves."),
    ],
    name: Annotated[str, typer.Option(help="What to call it.")] = "",
    reading: Annotated[
        str,
        typer.Option(help="How the recogniser wants faces: arcface, sface, imagenet or dlib."),
    ] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Over one of this name.")] = False,
    json: Json = False,
) -> None:
    """Make a pack of your own networks: a recogniser, and a detector (without one: MTCNN)."""
    from kaleidoscope.ml import packs

    if len(paths) == 1 and paths[0].is_dir():
        pack = packs.import_folder(paths[0], name=name, replace=replace)
    else:
        name = name or paths[-1].stem.lower()
        pack = packs.import_files(paths, name=name, reading=reading, replace=replace)
    emit(pack, json=True) if json else emit(f"imported {pack.name}; `models use {pack.name}`")


@models.command()
def verify(
    name: Annotated[str, typer.Argument(help="Empty: the one in use.")] = "", json: Json = False
) -> None:
    """Hash every file of a pack again; exit code 1 when one is wrong or missing."""
    from kaleidoscope.ml import packs

    files = packs.verify(catalog.find(name or catalog.active()))
    if json:
        emit(files, json=True)
    else:
        for file in files:
            emit(f"{file.name}: {file.state}" + (f", {file.reason}" if file.reason else ""))
    raise typer.Exit(0 if all(file.state == "ok" for file in files) else 1)


@models.command()
def use(name: str, json: Json = False) -> None:
    """Look at photos with this pack from now on."""
    from kaleidoscope.ml import packs

    pack = packs.use(name)
    after = f"`kaleidoscope models migrate {name}` takes the photos there are over to it"
    emit(pack, json=True) if json else emit(f"{pack.name} is in use. {after}")


def migrate_command(reach: Callable[[], AbstractContextManager[object]]) -> Callable[..., None]:
    """The command `models migrate`; `reach` lets services run for as long as it is used."""

    def migrate(
        name: Annotated[str, typer.Argument(metavar="PACK", help="One that is here.")],
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Tell what it would take; change nothing.")
        ] = False,
        json: Json = False,
    ) -> None:
        """Take the whole library over to a pack: persons keep ids, names and what you said."""
        if dry_run:
            foreseen = run(_foresee(name))
            return emit(foreseen, json=True) if json else _show_foreseen(foreseen)
        with reach():
            done = run(_migrate(name))
        return emit(done, json=True) if json else _show_migrated(done)

    return migrate


async def _foresee(name: str) -> Foreseen:
    from kaleidoscope.people import service as people

    async with open_database() as db:
        return await people.foresee(db, name)


async def _migrate(name: str) -> Migration:
    """Migrate, and show how far it is."""
    from kaleidoscope.people.jobs import migrate

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        bar = progress.add_task(f"photos looked at with {name}", total=None)

        def tell(looked: LookedAt) -> None:
            done, rest = looked.done + looked.failed, looked.left + looked.waiting
            progress.update(bar, completed=done, total=done + rest)

        async with open_database() as db:
            try:
                return await migrate(db, name, tell)
            except asyncio.CancelledError:
                console.print(f"begun, and not over: kaleidoscope models migrate {name}")
                raise


def _show_foreseen(found: Foreseen) -> None:
    state = found.migration
    emit(
        f"{found.photos} photos are to be looked at with {state.pack}: {about(found.seconds)}, by"
        f" {found.measured_on} of them; {found.megabytes:g} MB of vectors"
    )
    emit(
        f"{state.confirmed} confirmed faces and {state.named} names stay; licence: {found.licence}"
    )


def _show_migrated(state: Migration) -> None:
    emit(
        f"{state.pack} has looked at {state.done} photos; {state.named} names and"
        f" {state.confirmed} confirmed faces are as they were"
    )
    if state.unseen:
        emit(f"it does not see {state.unseen} of the confirmed faces: they keep their person")
    if state.failed:
        emit(f"{state.failed} photos cannot be read: `kaleidoscope photos list --status FAILED`")


# -- dead letters


@dead.command("list")
def list_dead(
    topic: Annotated[str | None, typer.Option(help="Only of this topic.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the youngest first.")] = 50,
    json: Json = False,
) -> None:
    """Messages that were given up, with their cause."""

    async def work() -> list[DeadLetter]:
        async with open_database() as db, db.transaction() as session:
            return await service.list_dead(session, topic=topic, limit=limit)

    found = run(work())
    if json:
        return emit(found, json=True)
    if not found:
        return emit("no dead letters")
    return show_rows(
        ("id", "died", "topic", "attempts", "cause"),
        (
            (
                *(str(one.id), f"{one.died_at.astimezone():%Y-%m-%d %H:%M:%S}", one.topic),
                *(str(len(one.history)), escape(one.cause)),
            )
            for one in found
        ),
    )


@dead.command()
def retry(
    ids: Annotated[list[int] | None, typer.Argument(help="Which; see `dead list`.")] = None,
    topic: Annotated[str | None, typer.Option(help="All of a topic.")] = None,
    json: Json = False,
) -> None:
    """Send dead letters again, with fresh attempts."""

    async def work() -> list[int]:
        async with open_database() as db, db.transaction() as session:
            return await service.revive(session, ids=ids or None, topic=topic)

    revived = run(work())
    if missing := sorted(set(ids or ()) - set(revived)):
        fail(
            NotFound(
                f"no dead letter {', '.join(map(str, missing))}",
                hint="`kaleidoscope dead list` has all",
            )
        )
    emit({"revived": revived} if json else f"{len(revived)} sent again", json)


# -- the database


@database.command()
def url(json: Json = False) -> None:
    """The address of the database, with its password. It answers only while it runs."""
    found = run(_on_database(lambda url: url))
    emit({"url": found} if json else found, json)


@database.command()
def shell() -> None:
    """`psql` in the database."""
    psql = client_program("psql")
    raise typer.Exit(run(_on_database(lambda url: subprocess.call([psql, url]))))


@database.command()
def upgrade(
    revision: Annotated[str, typer.Argument(help="Up to this one.")] = "head", json: Json = False
) -> None:
    """Migrate up (services do that by themselves when they start)."""
    run(_on_database(lambda url: migrate.upgrade(url, revision)))
    current(json)


@database.command()
def downgrade(revision: str, json: Json = False) -> None:
    """Migrate down to a revision; `base` is an empty database. Stop the services first."""
    run(_on_database(lambda url: migrate.downgrade(url, revision)))
    current(json)


@database.command()
def current(json: Json = False) -> None:
    """The revision that the database is at, and the one that this version expects."""
    found = run(_on_database(migrate.current))
    answer = {"revision": found, "expected": migrate.head()}
    emit(answer if json else f"at {found or 'nothing'}, expected {migrate.head()}", json)


@database.command()
def check(json: Json = False) -> None:
    """Whether the database is fit for service; exit code 9 and the reason when it is not."""
    facts = run(_on_database(_fitness))
    emit(facts if json else "\n".join(f"{name}: {value}" for name, value in facts.items()), json)


def _fitness(url: str) -> dict[str, str]:
    facts = service.database_facts(url)
    if facts["revision"] != migrate.head():
        raise DatabaseError(
            f"the database is at revision {facts['revision']}, expected is {migrate.head()}",
            hint="`kaleidoscope db upgrade`",
        )
    unsafe = [name for name in ("fsync", "full_page_writes") if facts[name] != "on"]
    if unsafe:
        raise DatabaseError(
            f"the database may lose what it has confirmed: {' and '.join(unsafe)} off",
            hint="switch it on in postgresql.conf",
        )
    return facts


async def _on_database(work: Callable[[str], T]) -> T:
    """Do blocking work with the URL of a database that runs meanwhile."""
    async with reach_database() as url:
        return await asyncio.to_thread(work, url)
