"""Names of faces read from and written to the XMP files beside photos."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import KaleidoscopeError
from kaleidoscope.library import service as library
from kaleidoscope.library.schemas import Photo
from kaleidoscope.library.service import NamedRegion
from kaleidoscope.ml.pool import Pool
from kaleidoscope.people.rules.naming import Claim
from kaleidoscope.people.service.naming import (
    Heeded,
    Place,
    claims_of,
    find_homes,
    lay_on,
    places,
)

PHOTOS_AT_ONCE = 100
Tell = Callable[[int], None]


@dataclass
class Written:
    """What was written beside photos, or would be: files, names that are new in them, and names
    of others that stand there at the same place (file, ours, theirs).
    """

    photos: int = 0
    files: int = 0
    names: int = 0
    conflicts: list[tuple[str, str, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


async def read_sidecars(db: Database, tell: Tell, *, dry_run: bool = False) -> Heeded:
    """Take the names that digiKam, Lightroom, Picasa and others gave to faces, from the photos and
    the XMP files beside them, as confirmed by a person. Files are only read.
    """
    done, claims = Heeded(), list[Claim]()
    async with library.names_reader() as pool:
        async for photos, faces in _photos(db):
            answers = await _each(pool, [{"path": p.final_path} for p in photos])
            for photo, answer in zip(photos, answers, strict=True):
                regions = [NamedRegion(**name) for name in answer.get("names", [])]
                found = claims_of(regions, faces[photo.photo_id])
                claims += found
                done.photos += bool(regions)
                done.elsewhere += len(regions) - len(found)
                done.errors += answer["errors"]
            tell(len(photos))
    claims = list({claim.face_id: claim for claim in reversed(claims)}.values())[::-1]
    async with db.transaction() as session:
        homes = await find_homes(session, claims)
    await lay_on(db, claims, done, homes, dry_run)
    return done


async def write_sidecars(
    db: Database,
    tell: Tell,
    *,
    everybody: bool = False,
    replace: bool = False,
    dry_run: bool = False,
) -> Written:
    """Write the names of confirmed faces (`everybody`: of all who have a named person) into the XMP
    files beside the photos, which are made where there are none. No original is touched.

    A name that stands there already stays, unless `replace`; all else in the file always does.
    """
    done = Written()
    async with library.names_writer() as pool:
        async for photos, faces in _photos(db):
            tasks = []
            for photo in photos:
                names = [asdict(f.region) for f in faces[photo.photo_id] if _wanted(f, everybody)]
                if names:
                    tasks.append(
                        {
                            "path": photo.final_path,
                            "names": names,
                            "replace": replace,
                            "dry_run": dry_run,
                        }
                    )
            for answer in await _each(pool, tasks):
                written = answer.get("written", [])
                done.photos += bool(written)
                done.files += len(written)
                done.names += answer.get("added", 0)
                done.conflicts += [(file, ours, theirs) for file, ours, theirs
                                   in answer.get("conflicts", [])]  # fmt: skip
                done.errors += answer["errors"]
            tell(len(photos))
    return done


def _wanted(face: Place, everybody: bool) -> bool:
    return bool(face.region.name) and (face.is_confirmed or everybody)


async def _photos(db: Database) -> AsyncIterator[tuple[list[Photo], dict[int, list[Place]]]]:
    """The photos that are there and have faces, some at a time, with those."""
    after: int | None = 0
    while after is not None:
        async with db.transaction() as session:
            page = await library.page(
                session, after=after, limit=PHOTOS_AT_ONCE, media_type="photo"
            )
            there = [photo for photo in page.photos if photo.missing_since is None]
            faces = await places(session, there)
        yield [photo for photo in there if faces.get(photo.photo_id)], faces
        after = page.next


async def _each(pool: Pool, tasks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a child answers to each task; of one that kills it, why."""
    if not tasks:
        return []
    try:
        answers: list[dict[str, Any]] = await pool.run(tasks, name=tasks[0]["path"])
    except KaleidoscopeError as error:
        if len(tasks) == 1:
            return [{"errors": [error.message]}]
        half = len(tasks) // 2
        return [*await _each(pool, tasks[:half]), *await _each(pool, tasks[half:])]
    return answers
