"""`kaleidoscope photos dates`: when photos were taken; review, correct, undo."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

import typer
from rich.markup import escape

from kaleidoscope.kernel.terminal import console, emit, open_database, run, show_rows
from kaleidoscope.library import service
from kaleidoscope.library.schemas import (
    Camera,
    Correction,
    DoubtfulDates,
    PhotoDates,
    ShiftPreview,
)

app = typer.Typer(help="When photos were taken: review, correct, undo.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@app.command("show")
def show_dates(
    photo: Annotated[str, typer.Argument(help="Its photo_id, path or file name.")],
    json: Json = False,
) -> None:
    """When a photo was taken, what says so, and every other date that something tells."""

    async def work() -> PhotoDates:
        async with open_database() as db, db.transaction() as session:
            return await service.photo_dates(session, await service.number_of(session, photo))

    found = run(work())
    if json:
        emit(found, json=True)
        return
    typer.echo(f"{_date(found.captured_at, found.captured_offset)}  {found.source or 'not read'}")
    for told in found.candidates:
        when = _date(told.captured_at, told.captured_offset)
        typer.echo(f"  {when:<34} {told.confidence:<7} {told.source}")


@app.command()
def review(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 100,
    after: Annotated[int, typer.Option(min=0, help="Only photo_ids above this one.")] = 0,
    json: Json = False,
) -> None:
    """Photos whose date is of low confidence, and what tells it."""

    async def work() -> DoubtfulDates:
        async with open_database() as db, db.transaction() as session:
            return await service.doubtful_dates(session, after, limit)

    found = run(work())
    if json:
        emit(found, json=True)
        return
    if found.photos:
        show_rows(
            ("photo", "taken, perhaps", "told by", "path"),
            (
                (
                    *(str(photo.photo_id), _date(photo.captured_at, photo.captured_offset)),
                    *(escape(photo.source or ""), escape(photo.path)),
                )
                for photo in found.photos
            ),
        )
    more = f", more with --after {found.next}" if found.next else ""
    console.print(f"{found.total} photos have a date of low confidence{more}")


@app.command("cameras")
def list_cameras(json: Json = False) -> None:
    """Every camera, and from when to when it took what."""

    async def work() -> list[Camera]:
        async with open_database() as db, db.transaction() as session:
            return await service.cameras(session)

    found = run(work())
    if json:
        emit(found, json=True)
        return
    for camera in found:
        days = f"{_day(camera.first)} to {_day(camera.last)}"
        typer.echo(f"{camera.photos:>8}  {days}  {camera.name}  {camera.serial or ''}".rstrip())


@app.command("set")
def set_date(
    photo: Annotated[str, typer.Argument(help="Its photo_id, path or file name.")],
    date: Annotated[
        str,
        typer.Argument(help="By the clock on the wall there: 1985-07-14, 2024-05-03T14:00+02:00"),
    ],
    json: Json = False,
) -> None:
    """Say when a photo was taken: to be believed above all that its file tells."""
    at, offset = _moment(date)

    async def work() -> Correction:
        async with open_database() as db, db.transaction() as session:
            return await service.set_date(
                session, await service.number_of(session, photo), at, offset
            )

    _tell_correction(run(work()), json)


@app.command()
def shift(
    camera: Annotated[str, typer.Option(help="Whose clock was wrong: `dates cameras` has them.")],
    by: Annotated[str, typer.Option(help="What to add to its dates: +1h30m, -2d, 45s.")],
    since: Annotated[
        str | None, typer.Option("--from", help="Only dates from then on, as they are now.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", help="Only dates before then; a day is included.")
    ] = None,
    serial: Annotated[
        str | None, typer.Option(help="Only the camera with this serial number.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would be done.")
    ] = False,
    json: Json = False,
) -> None:
    """A camera's clock was wrong: shift the dates of what it took."""
    amount = service.read_shift(by)
    if amount is None:
        raise typer.BadParameter(f"{by} is no shift such as +1h30m or -2d", param_hint="--by")
    first = _moment(since)[0] if since else None
    end = _end(until) if until else None

    async def work() -> ShiftPreview | Correction:
        async with open_database() as db, db.transaction() as session:
            verb = service.preview_shift if dry_run else service.shift_dates
            return await verb(session, camera, amount, first, end, serial)

    _tell_changes(run(work()), json)


@app.command("zone")
def set_zone(
    zone: Annotated[str, typer.Argument(help="Where: Europe/Berlin, America/New_York …")],
    since: Annotated[str | None, typer.Option("--from", help="Only from then on, in UTC.")] = None,
    until: Annotated[
        str | None, typer.Option("--to", help="Only before then, in UTC; a day is included.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would be done.")
    ] = False,
    json: Json = False,
) -> None:
    """Say where videos without a position were taken: their dates are known in UTC alone."""
    first = _moment(since)[0] if since else None
    end = _end(until) if until else None

    async def work() -> ShiftPreview | Correction:
        async with open_database() as db, db.transaction() as session:
            verb = service.preview_zone if dry_run else service.set_zone
            return await verb(session, zone, first, end)

    _tell_changes(run(work()), json)


@app.command("undo")
def undo_correction(
    correction: Annotated[
        int | None, typer.Argument(help="The correction; else the last one.", min=1)
    ] = None,
    json: Json = False,
) -> None:
    """Take a correction of dates back, exactly."""

    async def work() -> Correction:
        async with open_database() as db, db.transaction() as session:
            return await service.undo_correction(session, correction)

    _tell_correction(run(work()), json)


@app.command("history")
def date_history(
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50, json: Json = False
) -> None:
    """Corrections of dates, the newest first."""

    async def work() -> list[Correction]:
        async with open_database() as db, db.transaction() as session:
            return await service.date_corrections(session, limit=limit)

    found = run(work())
    if json:
        emit(found, json=True)
        return
    for correction in found:
        _tell_correction(correction, json=False)


def _tell_changes(done: Correction | ShiftPreview, json: bool) -> None:
    if json or isinstance(done, Correction):
        _tell_correction(done, json)
        return
    for photo in done.examples:
        typer.echo(f"{_date(photo.before, None)} → {_date(photo.after, None)}  {photo.path}")
    console.print(
        f"{done.photos} dates would be changed, {done.to_be_filed} of them to another day"
    )


def _tell_correction(done: Correction | ShiftPreview, json: bool) -> None:
    if json or isinstance(done, ShiftPreview):
        emit(done, json)
        return
    what = "set" if done.shifted_by is None else f"shifted by {_signed(done.shifted_by)}"
    undone = ", undone" if done.undone_at else ""
    meant = done.criteria
    whose = meant.get("camera") or meant.get("zone") or f"photo {meant.get('photo_id')}"
    typer.echo(f"{done.correction_id:>6}  {done.photos} dates {what}{undone}: {whose}")


def _date(at: datetime | None, offset: timedelta | None) -> str:
    if at is None:
        return "no date"
    return at.isoformat(" ", "seconds") + ("" if offset is None else f" {_signed(offset)[:-3]}")


def _signed(shift: timedelta) -> str:
    return f"{'-' if shift < timedelta(0) else '+'}{abs(shift)}"


def _day(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d}" if at else "?"


def _moment(written: str) -> tuple[datetime, timedelta | None]:
    try:
        at = datetime.fromisoformat(written.strip())
    except ValueError:
        raise typer.BadParameter(
            f"{written} is no date such as 2024-05-03 or 2024-05-03T14:00"
        ) from None
    return at.replace(tzinfo=None), at.utcoffset()


def _end(written: str) -> datetime:
    """Of a day its end; of a moment the moment."""
    at, _ = _moment(written)
    return at + timedelta(days=1) if len(written.strip()) == len("2024-05-03") else at
