"""`kaleidoscope people`: who is known, and a person's word on who is who."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from kaleidoscope.kernel.errors import NotFound
from kaleidoscope.kernel.terminal import about, console, emit, open_database, run, show_rows
from kaleidoscope.people import jobs, service
from kaleidoscope.people.commands import names
from kaleidoscope.people.commands.review import review
from kaleidoscope.people.rules.quality import Share, Threshold
from kaleidoscope.people.schemas import PersonLine, PersonView
from kaleidoscope.people.service import Comparison, Consolidated, Event, Portrait, Quality

app = typer.Typer(no_args_is_help=True, help="People: list, show, name, merge, split, undo.")
app.command()(review)
names.register(app)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
PersonArgument = Annotated[int, typer.Argument(metavar="PERSON", help="A person_id.", min=1)]
FaceArgument = Annotated[int, typer.Argument(metavar="FACE", help="A face_id.", min=1)]


@app.command("list")
def list_(
    named: Annotated[
        bool | None, typer.Option("--named/--unnamed", help="Only those with, or without, a name.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    json: AsJson = False,
) -> None:
    """Persons, those in most photos first."""

    async def work() -> list[PersonLine]:
        async with open_database() as db, db.transaction() as session:
            return await service.persons(session, named=named, limit=limit)

    found = run(work())
    if json:
        return emit(found, json=True)
    table = Table("person", "name", "photos", "faces", "since")
    for person in found:
        since = f"{person.created_at:%Y-%m-%d}"
        name = person.display_name or ""
        table.add_row(str(person.person_id), name, str(person.photos), str(person.faces), since)
    return _print(table)


@app.command()
def show(
    person: PersonArgument,
    limit: Annotated[int, typer.Option(min=1, help="At most so many faces.")] = 10,
    json: AsJson = False,
) -> None:
    """One person with their best faces; a merged id shows who it was merged into."""

    async def work() -> tuple[PersonView, list[Portrait]]:
        async with open_database() as db, db.transaction() as session:
            found = await service.person(session, person)
            return found, await service.portraits(session, found.person_id, limit)

    found, faces = run(work())
    emit(found, json=True) if json else _show(found, faces)


@app.command()
def merge(
    kept: Annotated[int, typer.Argument(help="The person whose id remains.", min=1)],
    gone: Annotated[list[int], typer.Argument(help="Those who are the same person.", min=1)],
    json: AsJson = False,
) -> None:
    """Say that persons are one: the ids merged away keep resolving."""

    async def work() -> Event:
        async with open_database() as db, db.transaction() as session:
            return await service.merge(session, kept, gone)

    _tell(run(work()), json)


@app.command()
def split(
    person: PersonArgument,
    faces: Annotated[list[int], typer.Argument(help="face_ids that are somebody else.", min=1)],
    name: Annotated[str | None, typer.Option(help="The name of that somebody.")] = None,
    json: AsJson = False,
) -> None:
    """Say that some faces of a person are somebody else, who gets an id."""

    async def work() -> Event:
        async with open_database() as db, db.transaction() as session:
            return await service.split(session, person, faces, name)

    _tell(run(work()), json)


@app.command()
def rename(
    person: PersonArgument,
    name: Annotated[str, typer.Argument(help='The name; "" takes it away.')],
    json: AsJson = False,
) -> None:
    """Name a person."""

    async def work() -> Event:
        async with open_database() as db, db.transaction() as session:
            return await service.rename(session, person, name)

    _tell(run(work()), json, f": {name.strip()}" if name.strip() else ": no name any more")


@app.command()
def confirm(
    face: FaceArgument,
    person: Annotated[
        int | None, typer.Option("--person", help="Who it is; else the person it has.", min=1)
    ] = None,
    json: AsJson = False,
) -> None:
    """Say that a face is a person: the machine never moves it again."""

    async def work() -> Event:
        async with open_database() as db, db.transaction() as session:
            return await service.confirm(session, face, person)

    _tell(run(work()), json)


@app.command()
def reject(
    face: FaceArgument,
    person: Annotated[
        int | None, typer.Option("--person", help="Who it is not; else the person it has.", min=1)
    ] = None,
    json: AsJson = False,
) -> None:
    """Say that a face is not a person: remembered for ever."""

    async def work() -> Event:
        async with open_database() as db, db.transaction() as session:
            return await service.reject(session, face, person)

    _tell(run(work()), json)


@app.command()
def undo(
    event: Annotated[
        int | None, typer.Argument(help="The event; else the last that a person made.", min=1)
    ] = None,
    json: AsJson = False,
) -> None:
    """Take a change back, exactly."""

    async def work() -> Event:
        async with open_database() as db, db.transaction() as session:
            return await service.undo(session, event)

    _tell(run(work()), json)


@app.command()
def history(
    person: Annotated[int | None, typer.Argument(help="Only of this person.", min=1)] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    json: AsJson = False,
) -> None:
    """Merges, splits, names and undoings, newest first."""

    async def work() -> list[Event]:
        async with open_database() as db, db.transaction() as session:
            return await service.history(session, person, limit=limit)

    found = run(work())
    if json:
        return emit(found, json=True)
    return show_rows(
        ("event", "when", "what", "by", "faces moved", "undone by", "persons"),
        (
            (
                *(str(event.event_id), _when(event.created_at)),
                event.kind + (f" of {event.undoes}" if event.undoes else ""),
                *(event.made_by, str(event.faces_moved), str(event.undone_by or "")),
                ", ".join(map(str, event.person_ids)),
            )
            for event in found
        ),
    )


@app.command()
def export(
    jsonl: Annotated[bool, typer.Option("--jsonl", help="One JSON object a photo.")] = True,
) -> None:
    """Every photo with its faces: path, boxes in displayed pixels, persons.

    Consolidates first, if no photo is on its way: what is handed out shall last.
    """

    async def work() -> None:
        async with open_database() as db:
            await jobs.consolidate_when_quiet(db)
            async with db.transaction() as session:
                async for photo in service.export(session):
                    sys.stdout.write(photo.model_dump_json() + "\n")

    run(work())


@app.command()
def montage(
    person: PersonArgument,
    out: Annotated[Path, typer.Option("--out", help="The picture to write.")],
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many faces.")] = 64,
) -> None:
    """A contact sheet of a person's faces, the best first."""

    async def work() -> tuple[int, list[str]]:
        async with open_database() as db, db.transaction() as session:
            faces = await service.portraits(session, person, limit)
        if not faces:
            raise NotFound(
                f"person {person} has no face that could be shown",
                hint="`kaleidoscope people list` has all",
            )
        from kaleidoscope.people.outside import montage as sheets  # decoders: slow to import

        cuts = [sheets.Cut(face.path, face.bbox) for face in faces]
        sheet, unread = await asyncio.to_thread(sheets.contact_sheet, cuts)
        await asyncio.to_thread(sheets.save, sheet, out)
        return len(cuts), unread

    count, unread = run(work())
    console.print(f"{count} faces of person {person} in {out}", soft_wrap=True, highlight=False)
    if unread:
        listed = "".join(f"\n  {escape(path)}" for path in sorted(set(unread)))
        console.print(
            f"[yellow]{len(unread)} of them are crossed squares: their originals are gone or cannot"
            f" be read[/]{listed}",
            soft_wrap=True,
            highlight=False,
        )


@app.command()
def consolidate(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would be done.")
    ] = False,
    everybody: Annotated[
        bool, typer.Option("--all", help="Look at all persons anew, not at those that changed.")
    ] = False,
    undo: Annotated[
        int | None,
        typer.Option("--undo", metavar="ID", help="Take a consolidation back as a whole.", min=1),
    ] = None,
    json: AsJson = False,
) -> None:
    """Merge persons that arrival order split, split whom it merged: now rather than when the
    library is quiet. No confirmed face is touched.
    """

    async def work() -> Consolidated:
        async with open_database() as db:
            done = await jobs.consolidate(db, everybody=everybody, dry_run=dry_run)
            return done or Consolidated()

    async def back() -> list[Event]:
        async with open_database() as db, db.transaction() as session:
            return await service.undo_round(session, undo or 0)

    if undo is not None:
        events = run(back())
        if json:
            return emit(events, json=True)
        return emit(f"consolidation {undo} undone: {sum(e.faces_moved for e in events)} faces back")
    done = run(work())
    if json:
        return emit(done, json=True)
    emit(
        f"{done.moved} faces move, {done.merged} persons merged, {done.split} persons split,"
        f" {done.placed} open faces placed, {done.confirmed_touched} confirmed touched"
    )
    if done.round is not None:
        again = f"kaleidoscope people consolidate --undo {done.round}"
        console.print(f"[dim]`{again}` takes it back[/]")
    return None


@app.command()
def calibrate(
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Photos with one folder a person, instead of your confirmed faces.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    diagram: Annotated[
        Path | None, typer.Option(help="Write the reliability diagram there, as SVG.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only measure, change nothing.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Fit what a similarity means, so that a probability of 0.85 is right 85 times in 100.

    Kept with the pack in use.
    """
    from kaleidoscope.people.service import calibrating  # networks: slow to import

    pack = service.find_pack(None)

    async def known() -> tuple[Any, Any]:
        async with open_database() as db, db.transaction() as session:
            return await calibrating.confirmed(session, pack)

    async def work() -> calibrating.Calibrated:
        if folder is None:
            vectors, who = await known()
        else:
            vectors, who = await asyncio.to_thread(calibrating.labelled, folder, pack)
        return await asyncio.to_thread(calibrating.calibrate, pack, vectors, who)

    found = run(work())
    if diagram is not None:
        from kaleidoscope.people.outside import diagram as diagrams

        diagrams.save(found.bins, found.error, f"{pack.name}: {found.faces} faces", diagram)
    if not dry_run:
        calibrating.keep(pack, found)
    if json:
        return emit(found, json=True)
    return emit(f"{pack.name}: {found.measured}; slope {found.slope}, even at {found.even}")


@app.command()
def quality(
    wanted: Annotated[
        float, typer.Option(help="The precision that a threshold is looked for, 0 to 1.")
    ] = 0.99,
    compare: Annotated[
        str | None,
        typer.Option(metavar="PACK", help="Look at the photos of some confirmed faces with it."),
    ] = None,
    sample: Annotated[
        int, typer.Option(min=50, help="With --compare: on so many faces at most.")
    ] = 300,
    json: AsJson = False,
) -> None:
    """How good the machine is here, by the faces you confirmed, and how sure that is."""

    async def work() -> Quality:
        async with open_database() as db, db.transaction() as session:
            return await service.quality(session, wanted)

    if compare is not None:
        comparison = run(_compared(compare, sample, wanted))
        return emit(comparison, json=True) if json else _show_comparison(comparison)
    found = run(work())
    if json:
        return emit(found, json=True)
    emit(f"{found.pack}: {found.faces} faces of {found.persons} persons are confirmed by a person")
    emit(
        f"the machine had {found.right} right, {found.apart} under a second id of the person,"
        f" {found.wrong} wrong, {found.open} with nobody"
    )
    emit(f"precision {_share(found.precision)}, recall {_share(found.recall)}")
    for what, at in (("in use", found.now), (f"for {found.wanted:g}", found.advised)):
        if at is not None:
            emit(
                f"threshold {what}: {at.similarity:g}; matched anew, precision"
                f" {_share(at.precision)}, recall {_share(at.recall)}"
            )
    for remark in found.remarks:
        emit(remark)
    return None


async def _compared(pack: str, sample: int, wanted: float) -> Comparison:
    """Compare the pack in use with this one, and show how far it is."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        bars: dict[str, TaskID] = {}

        def tell(name: str, done: int, total: int) -> None:
            if name not in bars:
                bars[name] = progress.add_task(name, total=total)
            progress.update(bars[name], completed=done)

        async with open_database() as db:
            return await service.compare(db, pack, sample=sample, wanted=wanted, progress=tell)


def _show_comparison(found: Comparison) -> None:
    emit(
        f"{found.faces} confirmed faces of {found.persons} persons in {found.photos_read} photos,"
        " each matched without itself against the others"
    )
    show_rows(("", "in use", "the other"), _facts_of_packs(found))
    emit(found.verdict)
    for remark in found.remarks:
        emit(remark)
    for side in (found.this, found.other):
        emit(f"licence of {side.pack}: {side.licence}")
    emit(
        f"to migrate, {found.photos} photos are looked at anew: {about(found.migrate_seconds)} of"
        f" looking. `kaleidoscope models migrate {found.other.pack}`"
    )


def _facts_of_packs(found: Comparison) -> Iterator[tuple[str, str, str]]:
    """What is told of both packs, a line each."""
    this, other = found.this, found.other
    yield "", this.pack, other.pack
    yield "sees the face", _share(this.found), _share(other.found)
    yield "faces besides", str(this.others), str(other.others)
    yield "likely from", f"{this.even:g}", f"{other.even:g}"
    yield "precision", _share(this.precision), _share(other.precision)
    yield "recall", _share(this.recall), _share(other.recall)
    yield f"for {found.wanted:g}", _advised(this.advised), _advised(other.advised)
    yield "ms a photo", f"{this.milliseconds:g}", f"{other.milliseconds:g}"
    yield (
        "vector",
        f"{this.dimension}-d, {this.megabytes:g} MB in all",
        f"{other.dimension}-d, {other.megabytes:g} MB in all",
    )


def _advised(threshold: Threshold | None) -> str:
    if threshold is None:
        return "no threshold surely"
    return f"from {threshold.similarity:g}, recall {_share(threshold.recall)}"


@app.command()
def reindex(json: AsJson = False) -> None:
    """Recompute every person from their faces and rebuild the search index."""

    async def work() -> object:
        async with open_database() as db:
            return {"persons": await service.reindex(db)}

    emit(run(work()), json)


def _show(person: PersonView, faces: list[Portrait]) -> None:
    emit(f"person {person.person_id}: {person.display_name or 'no name yet'}")
    emit(f"{person.faces} faces in {person.photos} photos, since {_when(person.created_at)}")
    if person.birth_date:
        emit(f"born {person.birth_date}")
    if person.merged_from:
        emit(f"merged from {', '.join(map(str, person.merged_from))}")
    show_rows(("face", "in"), ((str(face.face_id), escape(face.path)) for face in faces))
    if person.faces > len(faces):
        more = f"kaleidoscope people show {person.person_id} --limit {person.faces}"
        console.print(f"[dim]`{more}` lists all {person.faces} faces[/]")


def _tell(event: Event, json: bool, remark: str = "") -> None:
    if json:
        return emit(event, json=True)
    person = f" → person {event.person_id}" if event.person_id is not None else ""
    moved = f", {event.faces_moved} faces moved" if event.faces_moved else ""
    emit(f"event {event.event_id}: {event.kind}{person}{moved}{remark}")
    if event.kind == "undo":  # which is final: what was undone may be done again
        return None
    return console.print(f"[dim]`kaleidoscope people undo {event.event_id}` takes it back[/]")


def _share(share: Share | None) -> str:
    if share is None:
        return "unknown"
    return f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}] of {share.of}"


def _when(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else ""


def _print(table: Table) -> None:
    from rich.console import Console

    Console().print(table)
