"""Names from and for other programs and libraries: XMP files, exported people, birth dates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from kaleidoscope.kernel.terminal import console, emit, open_database, run
from kaleidoscope.people import service
from kaleidoscope.people.schemas import BornView
from kaleidoscope.people.service import Heeded, Written
from kaleidoscope.people.service.sidecars import Tell

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")]
SHOWN = 20  # conflicts and errors that are listed; --json has all


def register(app: typer.Typer) -> None:
    """Add these commands to `kaleidoscope people`."""
    app.command("read-sidecars")(read_sidecars)
    app.command("write-sidecars")(write_sidecars)
    app.command("export-names")(export_names)
    app.command("import-names")(import_names)
    app.command("set-birth-date")(set_birth_date)


def read_sidecars(dry_run: DryRun = False, json: AsJson = False) -> None:
    """Take the names that digiKam, Lightroom, Picasa … gave to faces, from photos and XMP files.

    They count as confirmed by you. What you said here yourself stands, and is listed.
    """

    async def work() -> Heeded:
        async with open_database() as db:
            with _progress("reading") as tell:
                return await service.read_sidecars(db, tell, dry_run=dry_run)

    _tell_heeded(run(work()), dry_run, json)


def write_sidecars(
    everybody: Annotated[
        bool, typer.Option("--all", help="Also faces that only the machine has given to a person.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put our name where a sidecar has another one.")
    ] = False,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Write the names of confirmed faces into the XMP files beside the photos, as digiKam and
    Lightroom read them. No original is touched, and nothing else in the files.
    """

    async def work() -> Written:
        async with open_database() as db:
            with _progress("writing") as tell:
                return await service.write_sidecars(
                    db, tell, everybody=everybody, replace=replace, dry_run=dry_run
                )

    done = run(work())
    if json:
        return emit(done, json=True)
    would = "would be written" if dry_run else "written"
    emit(f"{done.names} names of {done.photos} photos {would}, in {done.files} files")
    _list("other names stand there", [f"{f}: {there}, not {ours}" for f, ours, there
                                      in done.conflicts])  # fmt: skip
    return _list("problems", done.errors)


def export_names(
    file: Annotated[Path, typer.Argument(help="The file to write; it is replaced.")],
    everybody: Annotated[
        bool, typer.Option("--all", help="Also persons without a name or confirmed face.")
    ] = False,
    without_embeddings: Annotated[
        bool, typer.Option("--without-embeddings", help="Leave the faces' vectors out.")
    ] = False,
    json: AsJson = False,
) -> None:
    """People without photos: names, birth dates, and whose face is where in which content.

    The file holds face vectors, which are personal data: it is readable by its owner alone.
    """

    async def work() -> int:
        async with open_database() as db:
            return await service.export_names(
                db, file, everybody=everybody, vectors=not without_embeddings
            )

    count = run(work())
    if json:
        return emit({"persons": count, "file": str(file)}, json=True)
    return emit(f"{count} persons in {file}")


def import_names(
    file: Annotated[Path, typer.Argument(help="A file of `people export-names`.")],
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Give a library that was made anew from the same photos its names back."""

    async def work() -> Heeded:
        async with open_database() as db:
            return await service.import_names(db, file, dry_run=dry_run)

    _tell_heeded(run(work()), dry_run, json)


def set_birth_date(
    person: Annotated[int, typer.Argument(metavar="PERSON", help="A person_id.", min=1)],
    born: Annotated[str, typer.Argument(help='YYYY-MM-DD; "" takes it away.')],
    json: AsJson = False,
) -> None:
    """Say when a person was born."""
    try:
        day = datetime.strptime(born.strip(), "%Y-%m-%d").date() if born.strip() else None
    except ValueError:
        raise typer.BadParameter(f"{born} is no day such as 2001-12-31") from None

    async def work() -> BornView:
        async with open_database() as db, db.transaction() as session:
            born = await service.set_birth_date(session, person, day)
            living = await service.person(session, born.person_id)
        return BornView(**living.model_dump(), reopened=born.reopened, kept=born.kept)

    found = run(work())
    if json:
        return emit(found, json=True)
    emit(f"person {found.person_id}: " + (f"born {day}" if day else "no birth date"))
    if found.reopened:
        emit(
            f"{len(found.reopened)} faces in older photos are somebody else's: the next"
            " consolidation looks whose"
        )
    _list(
        "faces in older photos stay, because somebody said so; reject them, or correct the dates",
        [f"face {face}" for face in found.kept],
    )
    return None


@contextmanager
def _progress(title: str) -> Iterator[Tell]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task, seen = bar.add_task(title), 0

        def tell(photos: int) -> None:
            nonlocal seen
            seen += photos
            bar.update(task, description=f"{title}: {seen} photos with faces")

        yield tell


def _tell_heeded(done: Heeded, dry_run: bool, json: bool) -> None:
    if json:
        return emit(done, json=True)
    would = "would be " if dry_run else ""
    emit(
        f"{done.claims} named faces in {done.photos} photos: {done.confirmed} faces {would}"
        f"confirmed ({done.moved} moved), {done.named} persons {would}named,"
        f" {done.founded} {would}founded, {done.births} birth dates; {done.elsewhere} named places"
        " without a face here"
    )
    _list(
        "against what was said here, which stands",
        [f"face {c.face_id}: {c.claimed}, here {c.here}" for c in done.conflicts],
    )
    _list("problems", done.errors)
    for event in done.events:
        console.print(f"[dim]`kaleidoscope people undo {event}` takes it back[/]")
    return None


def _list(title: str, lines: list[str]) -> None:
    if lines:
        emit(f"{len(lines)} {title}:")
        for line in lines[:SHOWN]:
            emit(f"  {line}")
        if len(lines) > SHOWN:
            emit(f"  … and {len(lines) - SHOWN} more: --json has all")
