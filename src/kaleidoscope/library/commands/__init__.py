"""Photos at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated, cast, get_args

import typer
from pydantic_core import to_jsonable_python
from rich.markup import escape
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.terminal import emit, open_database, run, show_rows
from kaleidoscope.library import service
from kaleidoscope.library.commands import dates, originals, places
from kaleidoscope.library.schemas import (
    History,
    HistoryEvent,
    Photo,
    PlaceName,
    Retryable,
    Status,
)

app = typer.Typer(help="The ledger of photos and videos.", no_args_is_help=True)
app.add_typer(dates.app, name="dates")
__all__ = ["app", "originals", "places"]

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
    photo: Annotated[str, typer.Argument(help="Its photo_id, path or file name.")],
    json: Json = False,
) -> None:
    """One photo: what is known of it, and everything that happened to it."""
    run(_show(photo, json))


@app.command()
def reprocess(
    photos: Annotated[
        list[str] | None,
        typer.Argument(help="Their photo_ids, paths or file names.", metavar="PHOTO"),
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


@app.command()
def curate(
    photos: Annotated[list[str], typer.Argument(help="Their photo_ids, paths or file names.")],
    undo: Annotated[bool, typer.Option("--undo", help="Take it back.")] = False,
    json: Json = False,
) -> None:
    """Say that you have looked photos through."""
    number = run(_curate(photos, not undo))
    word = "not curated any more" if undo else "curated"
    emit({"changed": number} if json else f"{number} photos are {word}", json)


@app.command()
def retry(
    what: Annotated[str, typer.Argument(help=f"What again: {', '.join(get_args(Retryable))}.")],
    photos: Annotated[list[str], typer.Argument(help="Their photo_ids, paths or file names.")],
    json: Json = False,
) -> None:
    """Have something done again in the next round of its pass, however it went before."""
    if what not in get_args(Retryable):
        raise typer.BadParameter(f"{what} is none of {', '.join(get_args(Retryable))}")
    number = run(_retry(photos, cast(Retryable, what)))
    emit({"retried": number} if json else f"{number} photos will be {what} again", json)


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
        attempts = await service.attempts(session, photo_id)
        history = await service.history(session, photo_id)
        place = await service.place_of(session, photo_id)
    if json:
        told = {"attempts": attempts, "events": history.events, "place": place}
        emit(photo.model_dump(mode="json") | to_jsonable_python(told), json)
        return
    show_rows(
        ("", ""), ((f"[dim]{fact}[/]", escape(value)) for fact, value in _facts(photo, place))
    )
    if history.events:
        typer.echo()
        show_rows(("when", "what", "outcome", "try", "ms", "of it"), _timeline(history))


def _facts(photo: Photo, place: PlaceName) -> Iterator[tuple[str, str]]:
    """What a person wants to know of a photo first."""
    yield "photo", f"{photo.photo_id}  {photo.status}"
    yield "path", photo.path
    if photo.original_path != photo.path:
        yield "received as", photo.original_path
    size = f"{photo.width} × {photo.height}, " if photo.width else ""
    yield "file", f"{photo.media_type}, {size}{photo.size_bytes:,} bytes, {photo.mime_type or '?'}"
    if photo.captured_at is not None:
        yield "taken", f"{photo.captured_at} ({photo.captured_at_source or 'no source'})"
    if photo.location is not None:
        names = [place.district, place.city, place.region, place.country]
        told = ", ".join(name for name in names if name) or "no place known near"
        yield "where", f"{photo.location['lat']:.5f}, {photo.location['lon']:.5f}: {told}"
    if place.city is not None:
        yield "", place.attribution
    if photo.person_ids:
        yield "persons", ", ".join(map(str, photo.person_ids))
    if photo.duplicate_of is not None:
        yield "duplicate of", str(photo.duplicate_of)
    if photo.has_errors:
        yield "wrong", photo.error_message or "?"


def _timeline(history: History) -> Iterator[tuple[str, ...]]:
    """What happened, one line each, the oldest first."""
    colours = {"ok": "green", "failed": "red", "skipped": "dim", "running": "yellow"}
    for event in history.events:
        said = [event.error, event.model_version, _detail(event)]
        if event.retry is not None:
            said.append(f"again: kaleidoscope photos retry {event.retry} {history.photo_id}")
        yield (
            f"{event.at.astimezone():%Y-%m-%d %H:%M:%S}",
            event.what,
            f"[{colours[event.outcome]}]{event.outcome}[/]",
            str(event.attempt) if event.attempt > 1 else "",
            "" if event.duration_ms is None else str(event.duration_ms),
            escape("; ".join(word for word in said if word)),
        )


def _detail(event: HistoryEvent) -> str:
    return ", ".join(f"{key} {value}" for key, value in (event.detail or {}).items() if value)


async def _curate(names: list[str], curated: bool) -> int:
    async with open_database() as db, db.transaction() as session:
        ids = await _ids(session, names)
        for photo_id in ids:
            await service.get(session, photo_id)
        return await service.curate(session, ids, curated)


async def _retry(names: list[str], what: Retryable) -> int:
    async with open_database() as db, db.transaction() as session:
        ids = await _ids(session, names)
        for photo_id in ids:
            await service.retry(session, photo_id, what)
        return len(ids)


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
    """The photos that a user names by number, path or file name."""
    return [await service.number_of(session, name) for name in names]


def _status(name: str | None) -> Status | None:
    if name is None:
        return None
    if name.upper() not in get_args(Status):
        raise typer.BadParameter(f"{name} is none of {', '.join(get_args(Status))}")
    return cast(Status, name.upper())
