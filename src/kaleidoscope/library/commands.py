"""Photos at the terminal."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, cast, get_args

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.errors import NotFound
from kaleidoscope.kernel.paths import to_text
from kaleidoscope.kernel.terminal import bytes_bar, emit, open_database, run
from kaleidoscope.library import service
from kaleidoscope.library.schemas import Decision, Healed, Photo, PlaceView, Status

app = typer.Typer(help="The ledger of photos and videos.", no_args_is_help=True)
originals = typer.Typer(help="The originals on disk.", no_args_is_help=True)
places = typer.Typer(help="The folders that originals lie in.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
StatusOption = Annotated[
    str | None, typer.Option("--status", help="Only READY, PROCESSING, PROCESSED or FAILED ones.")
]


@app.command("list")
def list_photos(
    status: StatusOption = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="One JSON object a line, every column.")
    ] = False,
    json: Json = False,
) -> None:
    """Every photo and video of the ledger, in the order of their numbers."""
    run(_list(_status(status), jsonl, json))


@app.command()
def show(
    photo: Annotated[str, typer.Argument(help="Its photo_id or its path.")], json: Json = False
) -> None:
    """One photo with the history of its attempts."""
    run(_show(photo, json))


@app.command()
def reprocess(
    photos: Annotated[
        list[str] | None, typer.Argument(help="Their photo_ids or paths.", metavar="[PHOTO]...")
    ] = None,
    status: StatusOption = None,
    everything: Annotated[bool, typer.Option("--all", help="The whole ledger.")] = False,
    json: Json = False,
) -> None:
    """Have photos looked at anew: named ones, those with a status, or all."""
    chosen = [bool(photos), status is not None, everything]
    if sum(chosen) != 1:
        raise typer.BadParameter("name photos, or a --status, or --all")
    number = run(_reprocess(photos or [], _status(status)))
    emit({"reprocessing": number} if json else f"{number} photos are looked at anew", json)


async def _list(status: Status | None, jsonl: bool, json: bool) -> None:
    async with open_database() as db, db.transaction() as session:
        photos = service.stream(session, status)
        if jsonl:
            async for photo in photos:
                sys.stdout.write(photo.model_dump_json() + "\n")
        elif json:
            emit([photo async for photo in photos], json=True)
        else:
            async for photo in photos:
                typer.echo(f"{photo.photo_id:>12}  {photo.status:<10}  {photo.path}")


async def _show(name: str, json: bool) -> None:
    async with open_database() as db, db.transaction() as session:
        (photo_id,) = await _ids(session, [name])
        photo = await service.get(session, photo_id)
        history = await service.attempts(session, photo_id)
    attempts = [attempt.model_dump(mode="json") for attempt in history]
    shown = {**photo.model_dump(mode="json"), "attempts": attempts}
    emit(shown, json)


async def _reprocess(names: list[str], status: Status | None) -> int:
    number, after = 0, 0
    async with open_database() as db:
        while True:
            async with db.transaction() as session:
                if names:
                    return await service.reprocess(session, await _ids(session, names))
                ids = await service.photo_ids(session, after=after, status=status)
                if not ids:
                    return number
                number += await service.reprocess(session, ids)
                after = ids[-1]


async def _ids(session: AsyncSession, names: list[str]) -> list[int]:
    """The photos that a user names by number or path."""
    return [await _id(session, name) for name in names]


async def _id(session: AsyncSession, name: str) -> int:
    if name.isdecimal():
        return int(name)
    path = to_text(Path(name).absolute())
    photo = await service.by_path(session, path)
    if photo is None:
        raise NotFound(f"{path} is not in the ledger", path=path)
    return photo.photo_id


def _status(name: str | None) -> Status | None:
    if name is None:
        return None
    if name.upper() not in get_args(Status):
        raise typer.BadParameter(f"{name} is none of {', '.join(get_args(Status))}")
    return cast(Status, name.upper())


# -- originals


@originals.command()
def scrub(json: Json = False) -> None:
    """Read every original through now and compare it with what was taken in.

    Services do that by themselves, slowly. Exit code 1 when one is damaged.
    """
    done = run(_scrub())
    damaged = done.get("damaged", 0)
    told = f"{done.get('read', 0)} originals read, {damaged} damaged"
    emit(done if json else told, json)
    raise typer.Exit(1 if damaged else 0)


@originals.command()
def damaged(json: Json = False) -> None:
    """Originals that are not what was taken in."""
    found = run(_damaged())
    if json:
        return emit(found, json=True)
    for photo in found:
        typer.echo(f"{photo.photo_id:>12}  {photo.path}: {photo.error_message}")
    return None


@originals.command()
def heal(
    photo: Annotated[str, typer.Argument(help="Its photo_id or its path.")], json: Json = False
) -> None:
    """Put a damaged or missing original back from the backup.

    The copy is hashed first; the damaged file is kept beside it.
    """
    healed = run(_heal(photo))
    aside = f"; the damaged file is {healed.kept_aside}" if healed.kept_aside else ""
    emit(healed if json else f"{healed.path} is whole again{aside}", json)


async def _scrub() -> dict[str, int]:
    async with open_database() as db:
        with bytes_bar("reading") as progress:
            return await service.scrub_some(db, timedelta(0), progress=progress)


async def _damaged() -> list[Photo]:
    async with open_database() as db, db.transaction() as session:
        return await service.damaged(session)


async def _heal(name: str) -> Healed:
    async with open_database() as db:
        async with db.transaction() as session:
            (photo_id,) = await _ids(session, [name])
        return await service.heal(db, photo_id)


# -- places


@places.command("list")
def list_places(json: Json = False) -> None:
    """The folders that are watched, and which of them are frozen."""
    found = run(_places())
    if json:
        return emit(found, json=True)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("place", "files", "missing", "folder", ""):
        table.add_column(column, overflow="fold")
    for place in found:
        state = (
            ""
            if place.frozen_at is None
            else f"[red]frozen:[/] {escape(place.frozen_because or '')}"
        )
        if place.frozen_at is not None and place.decision == "wait":
            state += " (waiting)"
        table.add_row(
            *(str(place.place_id), str(place.assets), str(place.missing)),
            *(escape(place.path), state),
        )
    return Console().print(table if found else "no folder was ever taken in here")


@places.command("decide")
def decide_place(
    place: Annotated[int, typer.Argument(help="Its number in `places list`.")],
    decision: Annotated[
        str,
        typer.Argument(help="`wait`: it will come back; `accept-missing`: what is gone is gone."),
    ],
    json: Json = False,
) -> None:
    """Say what a frozen place is to you. Nothing is ever deleted by it."""
    if decision not in get_args(Decision):
        raise typer.BadParameter(f"{decision} is none of {', '.join(get_args(Decision))}")
    found = run(_decide(place, cast(Decision, decision)))
    if json:
        return emit(found, json=True)
    state = "frozen" if found.frozen_at is not None else "watched"
    return emit(f"{found.path} is {state}, {found.missing} of {found.assets} files missing")


async def _places() -> list[PlaceView]:
    async with open_database() as db, db.transaction() as session:
        return await service.places(session)


async def _decide(place_id: int, decision: Decision) -> PlaceView:
    async with open_database() as db:
        async with db.transaction() as session:
            await service.decide(session, place_id, decision)
        await service.watch(db)
        async with db.transaction() as session:
            return next(p for p in await service.places(session) if p.place_id == place_id)
