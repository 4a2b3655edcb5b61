"""The originals and their ledger at the terminal."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.status import Status

from kaleidoscope.kernel.paths import to_text
from kaleidoscope.kernel.terminal import bytes_bar, console, emit, open_database, run
from kaleidoscope.library import service
from kaleidoscope.library.schemas import Healed, HealedFile, KeptFile, Photo

app = typer.Typer(help="The originals and their ledger.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@app.command()
def rebuild(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look; write nothing.")] = False,
    json: Json = False,
) -> None:
    """Make the ledger anew from the originals alone; what is known of a content is kept."""
    done = run(_rebuild(dry_run))
    if json:
        emit(done, json=True)
        return
    would = "would be " if dry_run else ""
    emit(
        f"{done.files} originals: {done.known} known, {done.moved} {would}linked to their rows, "
        f"{done.added} {would}added ({done.duplicates} of them copies), {done.sidecars} sidecars"
    )
    for problem in done.problems:
        emit(f"{problem.path}: {problem.cause}")


async def _rebuild(dry_run: bool) -> service.Rebuilt:
    with Status("reading the originals", console=console) as status:
        async with open_database() as db, service.children() as work:
            return await service.rebuild(
                db,
                work,
                dry_run=dry_run,
                told=lambda done: status.update(f"{done.files} originals read"),
            )


@app.command()
def scrub(json: Json = False) -> None:
    """Read every original through now and compare it with what was taken in.

    Services do that by themselves, slowly. Exit code 1 when one is damaged.
    """
    done = run(_scrub())
    damaged = done.get("damaged", 0)
    told = f"{done.get('read', 0)} originals read, {damaged} damaged"
    emit(done if json else told, json)
    raise typer.Exit(1 if damaged else 0)


@app.command()
def damaged(json: Json = False) -> None:
    """Originals that are not what was taken in."""
    found = run(_damaged())
    if json:
        return emit(found, json=True)
    for photo in found:
        typer.echo(f"{photo.photo_id:>12}  {photo.path}: {photo.error_message}")
    return None if found else emit("none that is known")


@app.command()
def kept(
    damaged: Annotated[
        bool, typer.Option("--damaged", help="Only what is damaged, gone, or not to be copied.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 1000,
    json: Json = False,
) -> None:
    """Sidecars, duplicates and what was set aside: kept, backed up and read through, too."""
    found = run(_kept(damaged, limit))
    if json:
        return emit(found, json=True)
    for file in found:
        state = file.error or ("it is gone" if file.missing_since else "")
        state = state or ("" if file.is_backed_up else "not in the backup")
        typer.echo(f"{file.kind:>10}  {file.final_path}{': ' if state else ''}{state}")
    return None if found else emit("none")


@app.command("accept-missing")
def accept_missing(
    path: Annotated[
        Path | None, typer.Argument(help="The file, or the folder that they lay in; default: all.")
    ] = None,
    json: Json = False,
) -> None:
    """Say that files kept beside the originals which are gone are gone: nobody looks for them.

    `kept --damaged` lists them. What comes back by itself is kept anew.
    """
    gone = run(_accept_missing(None if path is None else to_text(path.absolute())))
    emit({"forgotten": gone} if json else f"{len(gone)} that are gone are kept no more", json)


@app.command()
def heal(
    photo: Annotated[str, typer.Argument(help="Its photo_id, path or file name.")],
    json: Json = False,
) -> None:
    """Put a damaged or missing original, or a file kept beside them, back from the backup.

    The copy is hashed first; the damaged file is kept beside it.
    """
    healed = run(_heal(photo))
    aside = f"; the damaged file is {healed.kept_aside}" if healed.kept_aside else ""
    emit(healed if json else f"{healed.path} is whole again{aside}", json)


async def _scrub() -> dict[str, int]:
    async with open_database() as db:
        with bytes_bar("reading") as progress:
            return await service.scrub_some(db, timedelta(0), progress=progress)


async def _kept(unwell: bool, limit: int) -> list[KeptFile]:
    async with open_database() as db, db.transaction() as session:
        return await service.kept_files(session, limit=limit, unwell=unwell)


async def _accept_missing(below: str | None) -> list[str]:
    async with open_database() as db, db.transaction() as session:
        return await service.accept_missing(session, below)


async def _damaged() -> list[Photo]:
    async with open_database() as db, db.transaction() as session:
        return await service.damaged(session)


async def _heal(name: str) -> Healed | HealedFile:
    path = to_text(Path(name).absolute())
    async with open_database() as db:
        async with db.transaction() as session:
            is_beside = await service.is_kept(session, path)
        if is_beside:
            return await service.heal_kept(db, path)
        async with db.transaction() as session:
            photo_id = await service.number_of(session, name)
        return await service.heal(db, photo_id)
