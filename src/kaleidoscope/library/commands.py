"""Photos at the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, cast, get_args

import typer
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.errors import NotFound
from kaleidoscope.kernel.paths import to_text
from kaleidoscope.kernel.terminal import emit, open_database, run
from kaleidoscope.library import service
from kaleidoscope.library.schemas import Status

app = typer.Typer(help="The ledger of photos and videos.", no_args_is_help=True)

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
