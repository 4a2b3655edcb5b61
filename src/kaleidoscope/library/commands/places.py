"""The folders that are watched for vanishing, at the terminal."""

from __future__ import annotations

from typing import Annotated, cast, get_args

import typer
from rich.markup import escape

from kaleidoscope.kernel.terminal import emit, open_database, run, show_rows
from kaleidoscope.library import service
from kaleidoscope.library.schemas import Decision, PlaceView

app = typer.Typer(help="The folders that originals lie in.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@app.command("list")
def list_places(json: Json = False) -> None:
    """The folders that are watched, and which of them are frozen."""
    found = run(_places())
    if json:
        return emit(found, json=True)
    if not found:
        return emit("no folder was ever taken in here")
    return show_rows(
        ("place", "files", "missing", "folder"),
        (
            (*map(str, (place.place_id, place.assets, place.missing)), _told(place))
            for place in found
        ),
    )


@app.command("decide")
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


def _told(place: PlaceView) -> str:
    """A folder, and what is wrong with it."""
    if place.frozen_at is None:
        return escape(place.path)
    waiting = " (waiting)" if place.decision == "wait" else ""
    return f"{escape(place.path)}  [red]frozen:[/] {escape(place.frozen_because or '')}{waiting}"


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
