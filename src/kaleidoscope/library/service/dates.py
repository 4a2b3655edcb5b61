"""Dates: read from files indexed in place, in the background, and a person's word on them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import structlog
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.clock import now
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import (
    Conflict,
    Invalid,
    KaleidoscopeError,
    NotFound,
    Unavailable,
    UnreadableMedia,
)
from kaleidoscope.kernel.settings import load
from kaleidoscope.library.ids import PhotoId
from kaleidoscope.library.queries import dates as rows
from kaleidoscope.library.queries.dates import Dated, Meant, Undated
from kaleidoscope.library.queries.history import close_problems
from kaleidoscope.library.rules import dates as rules
from kaleidoscope.library.rules import names
from kaleidoscope.library.rules.dates import Candidate, Chosen
from kaleidoscope.library.schemas import (
    Camera,
    CorrectedPhoto,
    Correction,
    DateCandidate,
    DoubtfulDate,
    DoubtfulDates,
    Photo,
    PhotoDates,
    ShiftPreview,
)
from kaleidoscope.library.service.custody import Outcome, refile
from kaleidoscope.library.service.history import Happened, note
from kaleidoscope.library.service.ledger import get, get_many, no_photo
from kaleidoscope.library.settings import LibrarySettings
from kaleidoscope.ml.pool import Pool

log = structlog.get_logger(__name__)

WORK = "kaleidoscope.library.outside.metadata:read_files"
AT_ONCE = 200
A_HAND_OVER = 20
EXAMPLES = 20

Reading = Mapping[str, Any]
"""What `outside.metadata.read_file` answers."""


# Reading


def metadata_reader(size: int = 1, *, background: bool = False) -> Pool:
    """Child processes that read what files say of themselves: they take lists of `task`s."""
    settings = load(LibrarySettings)
    return Pool(
        WORK,
        size=size,
        memory=settings.metadata_memory,
        seconds=settings.metadata_seconds,
        background=background,
    )


async def date_assets(db: Database) -> dict[str, int]:
    """Read the dates of all assets that have none, some at a time; answers how it went.

    A file that cannot be reached is noted, and asked again when its time has come.
    """
    done = {"dated": 0, "doubtful": 0, "failed": 0}
    after = 0
    pool: Pool | None = None
    try:
        while True:
            async with db.transaction() as session:
                assets = await rows.undated(session, after, AT_ONCE)
            if not assets:
                return {what: number for what, number in done.items() if number}
            after = assets[-1].photo_id
            if pool is None:
                size = load(LibrarySettings).metadata_processes
                pool = metadata_reader(size, background=True)
            read = await _read_all(pool, assets)
            chosen = await _told(db, read)
            done["dated"] += len(chosen)
            done["doubtful"] += sum(c.confidence == "low" for c in chosen.values())
            done["failed"] += sum(not _is_reached(reading) for _, reading, _ in read)
    finally:
        if pool is not None:
            await pool.close()


async def undated_asset(session: AsyncSession, photo_id: int) -> Undated | None:
    """The asset, where its date has not been read."""
    return await rows.as_undated(session, photo_id)


def metadata_task(asset: Undated) -> dict[str, Any]:
    """What a child is given to read an asset's file."""
    return {
        "path": asset.path,
        "name": asset.name,
        "mime_type": asset.mime_type,
        "media_type": asset.media_type,
        "modified_at": None if asset.modified_at is None else asset.modified_at.isoformat(),
        "sidecars": None,
        "zone": load(LibrarySettings).home_zone,
    }


async def tell_dates(
    session: AsyncSession, read: Sequence[tuple[Undated, Reading, int | None]]
) -> dict[int, Chosen]:
    """Write what was read of assets (and the milliseconds it took): their date, place and camera.

    Answers what was chosen for whom. One that was dated meanwhile, or whose file has changed, is
    left alone; one that was not reached gets its problem noted.
    """
    dated = [_dated(asset, reading) for asset, reading, _ in read if _is_reached(reading)]
    written = await rows.write(session, dated)
    chosen = {d.asset.photo_id: d.chosen for d in dated if d.asset.photo_id in written}
    events = []
    for asset, reading, took in read:
        if not _is_reached(reading):
            events.append(
                Happened(
                    asset.photo_id,
                    "dated",
                    "failed",
                    error=reading["error"],
                    code=reading["error_code"],
                )
            )
        elif asset.photo_id in chosen:
            detail = {
                "source": chosen[asset.photo_id].source,
                "confidence": chosen[asset.photo_id].confidence,
            }
            if reading["error"] is not None:
                detail["problem"] = reading["error"]
            events.append(Happened(asset.photo_id, "dated", duration_ms=took, detail=detail))
    await note(session, events)
    return chosen


async def _told(
    db: Database, read: Sequence[tuple[Undated, Reading, int | None]]
) -> dict[int, Chosen]:
    """`tell_dates` in a transaction; what the database refuses costs no other asset its date."""
    try:
        async with db.transaction() as session:
            return await tell_dates(session, read)
    except (DataError, IntegrityError) as error:
        if len(read) > 1:
            chosen: dict[int, Chosen] = {}
            for one in read:
                chosen |= await _told(db, [one])
            return chosen
        asset, _, took = read[0]
        log.warning("a reading was refused", photo_id=asset.photo_id, error=str(error.orig))
        refused = UnreadableMedia(f"{asset.path}: what it tells cannot be kept: {error.orig}")
        return await _told_bare(db, asset, refused, took)


async def _told_bare(
    db: Database, asset: Undated, refused: KaleidoscopeError, took: int | None
) -> dict[int, Chosen]:
    async with db.transaction() as session:
        return await tell_dates(session, [(asset, _unread(asset, refused), took)])


async def _read_all(
    pool: Pool, assets: Sequence[Undated]
) -> list[tuple[Undated, Reading, int | None]]:
    portions = [assets[i : i + A_HAND_OVER] for i in range(0, len(assets), A_HAND_OVER)]
    answers = await asyncio.gather(*(_read(pool, portion) for portion in portions))
    return [one for answer in answers for one in answer]


async def _read(pool: Pool, assets: Sequence[Undated]) -> list[tuple[Undated, Reading, int | None]]:
    """What the files of some assets say. When a child dies of them, each is read by itself."""
    begun = time.monotonic()
    try:
        readings = await pool.run([metadata_task(a) for a in assets], name=assets[0].path)
    except Unavailable:
        raise
    except KaleidoscopeError as error:
        if len(assets) == 1:
            return [(assets[0], _unread(assets[0], error), None)]
        return [one for asset in assets for one in await _read(pool, [asset])]
    took = round((time.monotonic() - begun) * 1000 / len(assets))
    return [(asset, reading, took) for asset, reading in zip(assets, readings, strict=True)]


def _unread(asset: Undated, error: KaleidoscopeError) -> Reading:
    """What is known of a file that its decoder dies of."""
    given = metadata_task(asset)
    zone = ZoneInfo(given["zone"]) if given["zone"] else None
    outer = names.outer_candidates(asset.name, given["modified_at"], zone)
    return {
        **rules.NOTHING,
        "candidates": [rules.to_plain(c) for c in outer if rules.possible(c.at, now())],
        "error": error.message,
        "error_code": UnreadableMedia.code,
    }


def _is_reached(reading: Reading) -> bool:
    """Whether the file was read, whatever is wrong with its content."""
    return reading["error_code"] in (None, UnreadableMedia.code)


def _dated(asset: Undated, reading: Reading) -> Dated:
    candidates = rules.from_plain(reading["candidates"])
    return Dated(asset, rules.choose(candidates), candidates, reading)


# A person's look and word


async def photo_dates(session: AsyncSession, photo_id: int) -> PhotoDates:
    """An asset's date, and every date that something tells; raises `NotFound`."""
    photo = await get(session, photo_id)
    told = await rows.candidates(session, photo_id)
    return PhotoDates(
        photo_id=photo.photo_id,
        path=photo.path,
        captured_at=photo.captured_at,
        captured_offset=photo.captured_offset,
        source=photo.captured_at_source,
        confidence=photo.captured_at_confidence,
        camera=camera_name(photo.camera_make, photo.camera_model),
        candidates=_in_order([DateCandidate.model_validate(row) for row in told]),
    )


async def doubtful_dates(session: AsyncSession, after: int = 0, limit: int = 100) -> DoubtfulDates:
    """Assets whose date is of low confidence, in the order of their ids, and all that tells one."""
    found = await rows.doubtful(session, after, limit + 1)
    shown = [
        DoubtfulDate(
            photo_id=row.photo_id,
            path=row.path,
            captured_at=row.captured_at,
            captured_offset=row.captured_offset,
            source=row.captured_at_source,
            confidence="low",
            camera=camera_name(row.camera_make, row.camera_model),
            candidates=_in_order([DateCandidate.model_validate(c) for c in row.candidates]),
        )
        for row in found[:limit]
    ]
    return DoubtfulDates(
        photos=shown,
        total=await rows.count_doubtful(session),
        next=shown[-1].photo_id if len(found) > limit else None,
    )


async def cameras(session: AsyncSession) -> list[Camera]:
    """Every camera that has taken something, the busiest first."""
    return [
        Camera(
            name=camera_name(row.make, row.model) or "",
            make=row.make,
            model=row.model,
            serial=row.serial,
            photos=row.photos,
            first=row.first,
            last=row.last,
        )
        for row in await rows.cameras(session)
    ]


async def preview_shift(
    session: AsyncSession,
    camera: str,
    by: timedelta,
    since: datetime | None = None,
    until: datetime | None = None,
    serial: str | None = None,
) -> ShiftPreview:
    """What `shift_dates` would do, and for some of the photos how; raises as that does."""
    meant = await _meant(session, camera, serial, since, until)
    return _preview(await _shifted(session, meant, by, held=False))


async def shift_dates(
    session: AsyncSession,
    camera: str,
    by: timedelta,
    since: datetime | None = None,
    until: datetime | None = None,
    serial: str | None = None,
) -> Correction:
    """The clock of a camera was wrong: add `by` to the dates of what it took.

    `since` and `until` (exclusive) by the dates it has now. Raises `NotFound` for a camera that
    took nothing (then), `Invalid` for a date that would be impossible.
    """
    meant = await _meant(session, camera, serial, since, until)
    changes = await _shifted(session, meant, by, held=True)
    criteria = {
        "camera": camera_name(meant.make, meant.model),
        "serial": serial,
        "from": since and since.isoformat(),
        "to": until and until.isoformat(),
    }
    return await _correct(session, "shift", by, criteria, changes)


async def preview_zone(
    session: AsyncSession,
    zone: str,
    since: datetime | None = None,
    until: datetime | None = None,
) -> ShiftPreview:
    """What `set_zone` would do; raises as that does."""
    return _preview(await _in_zone(session, zone, since, until, held=False))


async def set_zone(
    session: AsyncSession,
    zone: str,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Correction:
    """Say where that was taken whose date is known in UTC alone: videos without a position.

    `since` and `until` (exclusive) in UTC. Raises `Invalid` for no zone, `NotFound` where there is
    nothing of the kind.
    """
    changes = await _in_zone(session, zone, since, until, held=True)
    criteria = {
        "zone": zone,
        "from": since and since.isoformat(),
        "to": until and until.isoformat(),
    }
    return await _correct(session, "set", None, criteria, changes)


async def set_date(
    session: AsyncSession, photo_id: int, at: datetime, offset: timedelta | None = None
) -> Correction:
    """A person says when a photo was taken: to be believed above all that its file tells."""
    if not rules.possible(at, now()):
        raise Invalid(f"{at} is no date at which a photo can have been taken")
    held = await rows.hold(session, [photo_id])
    if not held:
        raise no_photo(photo_id)
    change = CorrectedPhoto(
        photo_id=PhotoId(photo_id), path="", before=held[0].captured_at, after=at, offset=offset
    )
    return await _correct(session, "set", None, {"photo_id": photo_id}, [change])


async def undo_correction(session: AsyncSession, correction_id: int | None = None) -> Correction:
    """Take a correction back, exactly: without a number the last one that stands.

    Raises `NotFound`, or `Conflict` for one that is undone or that a later one builds upon. Dates
    that were read anew meanwhile stay as they are.
    """
    correction_id = correction_id or await rows.last_correction(session)
    if correction_id is None:
        raise NotFound(
            "no correction of dates is left to undo",
            hint="`kaleidoscope photos dates history` has all",
        )
    found = await rows.correction(session, correction_id)
    if found is None:
        raise NotFound(
            f"there is no correction {correction_id}",
            hint="`kaleidoscope photos dates history` has all",
            correction_id=correction_id,
        )
    if found.undone_at is not None:
        raise Conflict(f"correction {correction_id} is undone already")
    if later := await rows.built_upon(session, correction_id):
        raise Conflict(
            f"correction {later[-1]} came after {correction_id} and concerns the same photos",
            hint=f"undo {later[-1]} first",
            correction_id=later[-1],
        )
    await rows.hold(session, await rows.photos_of(session, correction_id))
    restored = await rows.undo(session, correction_id)
    await _note_corrected(session, restored, {"correction": correction_id, "undone": True})
    (undone,) = await date_corrections(session, before=correction_id + 1, limit=1)
    return undone


async def date_corrections(
    session: AsyncSession, before: int | None = None, limit: int = 50
) -> list[Correction]:
    """Corrections of dates, the newest first."""
    return [
        Correction.model_validate(row) for row in await rows.corrections(session, before, limit)
    ]


def read_shift(written: str) -> timedelta | None:
    """A shift of a clock as people write it (+1h30m, -2d); None: it is none."""
    return rules.read_shift(written)


async def file_corrected(db: Database) -> dict[str, int]:
    """File originals anew whose day a correction has changed; answers how it went.

    What cannot be moved is noted, and tried again when its time has come.
    """
    done = {"filed": 0, "left": 0}
    after = 0
    while True:
        async with db.transaction() as session:
            waiting = await rows.to_be_filed(session, after, AT_ONCE)
        if not waiting:
            return {what: number for what, number in done.items() if number}
        after = waiting[-1]
        outcomes = await refile(db, waiting)
        left = {outcome.path: outcome for outcome in outcomes if outcome.what == "left"}
        async with db.transaction() as session:
            photos = await get_many(session, waiting)
            filed = [p.photo_id for p in photos if p.path not in left]
            await rows.filed(session, filed)
            await close_problems(session, [(photo_id, "filed") for photo_id in filed])
            await note(session, [_not_filed(p, left[p.path]) for p in photos if p.path in left])
        done["filed"] += sum(outcome.what == "refiled" for outcome in outcomes)
        done["left"] += len(waiting) - len(filed)


def _not_filed(photo: Photo, outcome: Outcome) -> Happened:
    error = f"{photo.path}: {outcome.cause or 'cannot be moved'}"
    return Happened(
        photo.photo_id, "filed", "failed", error=error, code=outcome.kind or "not-moved"
    )


def camera_name(make: str | None, model: str | None) -> str | None:
    """How people call a camera: the model, with its maker where that does not say it."""
    if model is None:
        return make
    first = (make or "").split(" ")[0]
    return model if not first or model.lower().startswith(first.lower()) else f"{make} {model}"


async def _meant(
    session: AsyncSession,
    camera: str,
    serial: str | None,
    since: datetime | None,
    until: datetime | None,
) -> Meant:
    """The one camera of this name."""
    wanted = camera.strip().lower()
    known = await rows.cameras(session)
    found = {
        (row.make, row.model)
        for row in known
        if wanted
        in {row.model.lower(), f"{row.make} {row.model}".lower(), _lower(row.make, row.model)}
    }
    if not found:
        cameras = sorted({camera_name(row.make, row.model) or "" for row in known})
        raise NotFound(
            f"no photo was taken by a camera {camera}",
            hint=f"cameras are: {', '.join(cameras[:20])}" if known else "no camera is known yet",
            camera=camera,
        )
    if len(found) > 1:
        full = " or ".join(sorted(f"{make} {model}" for make, model in found))
        raise Invalid(f"{camera} may be {full}: name it in full", camera=camera)
    ((make, model),) = found
    return Meant(make, model, serial, since, until)


def _lower(make: str | None, model: str | None) -> str:
    return (camera_name(make, model) or "").lower()


async def _shifted(
    session: AsyncSession, meant: Meant, by: timedelta, *, held: bool
) -> list[CorrectedPhoto]:
    """Each photo's date before and after."""
    if not by:
        raise Invalid("a shift by nothing changes nothing")
    found = await rows.matching(session, meant, held=held)
    if not found:
        raise NotFound(
            f"{camera_name(meant.make, meant.model)} took nothing then",
            hint="`kaleidoscope photos dates cameras` tells from when to when its photos are",
        )
    changes = []
    for row in found:
        try:
            after = row.captured_at + by
            impossible = not rules.possible(after, now())
        except OverflowError:
            impossible = True
        if impossible:
            raise Invalid(
                f"{row.path} of {row.captured_at} would be dated before photography or in the "
                "future",
                photo_id=row.photo_id,
            )
        changes.append(
            CorrectedPhoto(
                photo_id=row.photo_id,
                path=row.path,
                before=row.captured_at,
                after=after,
                offset=row.captured_offset,
            )
        )
    return changes


async def _in_zone(
    session: AsyncSession,
    zone: str,
    since: datetime | None,
    until: datetime | None,
    *,
    held: bool,
) -> list[CorrectedPhoto]:
    try:
        there = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise Invalid(
            f"{zone} is no time zone", hint="name one as Europe/Berlin or America/New_York"
        ) from error
    found = await rows.told_in_utc(session, since, until, held=held)
    if not found:
        raise NotFound(
            "no date is known in UTC alone",
            hint="only videos without a position have such dates: there is nothing to set",
        )
    changes = []
    for row in found:
        at, offset = rules.local(row.captured_at, there)
        changes.append(
            CorrectedPhoto(
                photo_id=row.photo_id,
                path=row.path,
                before=row.captured_at,
                after=at,
                offset=offset,
            )
        )
    return changes


def _preview(changes: Sequence[CorrectedPhoto]) -> ShiftPreview:
    step = max(1, len(changes) // EXAMPLES)
    return ShiftPreview(
        photos=len(changes),
        to_be_filed=sum(_changes_day(c) for c in changes),
        examples=list(changes[::step])[:EXAMPLES],
    )


async def _correct(
    session: AsyncSession,
    kind: Literal["shift", "set"],
    by: timedelta | None,
    criteria: Mapping[str, Any],
    changes: Sequence[CorrectedPhoto],
) -> Correction:
    begun = await rows.begin_correction(session, kind, by, criteria)
    await rows.correct(
        session, begun.correction_id, {c.photo_id: (c.after, c.offset) for c in changes}
    )
    await _note_corrected(
        session, [c.photo_id for c in changes], {"correction": begun.correction_id}
    )
    return Correction(
        correction_id=begun.correction_id,
        kind=kind,
        shifted_by=by,
        criteria=dict(criteria),
        made_at=begun.made_at,
        undone_at=None,
        photos=len(changes),
        to_be_filed=sum(_changes_day(c) for c in changes),
    )


async def _note_corrected(
    session: AsyncSession, photo_ids: Sequence[int], detail: Mapping[str, Any]
) -> None:
    await note(session, [Happened(i, "date-corrected", detail=detail) for i in photo_ids])


def _changes_day(change: CorrectedPhoto) -> bool:
    return change.before is None or change.before.date() != change.after.date()


def _in_order(candidates: Sequence[DateCandidate]) -> list[DateCandidate]:
    """As `rules.choose` would take them."""
    ranked = rules.ranked(
        [Candidate(c.source, c.captured_at, c.captured_offset, c.confidence) for c in candidates]
    )
    by_source = {c.source: c for c in candidates}
    return [by_source[c.source] for c in ranked]
