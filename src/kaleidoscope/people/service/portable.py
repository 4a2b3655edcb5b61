"""People without photos: names, birth dates and faces as a file, and back into a library that was
made anew from the same photos.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.batches import batched
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import Invalid, Unavailable
from kaleidoscope.kernel.store import sync_folder
from kaleidoscope.library import service as library
from kaleidoscope.people.queries import naming, reading, search
from kaleidoscope.people.rules.changes import PERSON
from kaleidoscope.people.rules.naming import Claim, spelled
from kaleidoscope.people.schemas import PortableFace, PortablePerson, decode_vector, encode_vector
from kaleidoscope.people.service import matching
from kaleidoscope.people.service.ages import drop_questions
from kaleidoscope.people.service.naming import (
    Heeded,
    find_homes,
    lay_on,
    places,
    region,
)

FACES_AT_ONCE = 500


async def portable(
    session: AsyncSession, *, everybody: bool = False, vectors: bool = True
) -> AsyncIterator[PortablePerson]:
    """Persons with a name, a birth date or confirmed faces, or `everybody`: each with the content
    and place of their faces, and their vectors, which are personal data.
    """
    pack = matching.find_pack(None).name
    rows = await naming.exported_persons(session, everybody=everybody)
    births = await naming.birth_dates(session, [row.id for row in rows])
    for row in rows:
        faces: list[PortableFace] = []
        waiting: list[Row[Any]] = []
        async for face in naming.exported_faces(session, row.id, pack):
            waiting.append(face)
        for some in batched(waiting, FACES_AT_ONCE):
            faces += await _portable_faces(session, some, vectors)
        yield PortablePerson(
            person_id=row.id,
            name=row.name,
            aliases=row.aliases,
            birth_date=births.get(row.id),
            pack=pack,
            faces=faces,
        )


async def _portable_faces(
    session: AsyncSession, rows: Sequence[Row[Any]], vectors: bool
) -> list[PortableFace]:
    ids = sorted({row.photo_id for row in rows})
    photos = {int(photo.photo_id): photo for photo in await library.get_many(session, ids)}
    found = []
    for row in rows:
        photo = photos[row.photo_id]
        vector = None
        if vectors and row.vector is not None:
            vector = encode_vector(search.from_sql(row.vector))
        size = (photo.width, photo.height) if photo.width and photo.height else None
        found.append(
            PortableFace(
                sha256=photo.file_hash,
                bbox=row.bbox,
                size=size,
                confirmed=row.confirmed_by == PERSON,
                embedding=vector,
            )
        )
    return found


async def export_names(
    db: Database, file: Path, *, everybody: bool = False, vectors: bool = True
) -> int:
    """Write persons into a file that only its owner can read, a JSON object a line; how many.

    The file is there whole or not at all.
    """
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}.part")
    count = 0
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as out:
                async with db.transaction() as session:
                    async for person in portable(session, everybody=everybody, vectors=vectors):
                        out.write(person.model_dump_json() + "\n")
                        count += 1
                out.flush()
                os.fsync(out.fileno())
            draft.replace(file)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        sync_folder(file.absolute().parent)
    except OSError as error:
        raise Unavailable(f"{file}: {error.strerror or error}", path=str(file)) from error
    return count


async def import_names(db: Database, file: Path, *, dry_run: bool = False) -> Heeded:
    """Give the persons of this library the names they had in the one that a file was exported from.

    A face is known again by its photo's content and its place there, whatever the ids and the
    model pack; a person of whom no photo is here by their vectors, if the pack is the same. Faces
    confirmed there are confirmed here. What a person said here stands, and is told.
    """
    done, claims, unseen = Heeded(), list[Claim](), list[PortablePerson]()
    births: dict[str, date] = {}
    for person in _lines(file, done):
        name = spelled(person.name or "")
        if not name:
            continue
        if person.birth_date is not None:
            births[name] = person.birth_date
        found = await _claims(db, person, name, done)
        claims += found
        if not found:
            unseen.append(person)
    claims = list({claim.face_id: claim for claim in claims}.values())
    async with db.transaction() as session:
        homes = await find_homes(session, claims)
        for person in unseen:
            claims += await _by_vectors(session, person, homes)
    await lay_on(db, claims, done, homes, dry_run)
    await _bring_births(db, births, done, dry_run)
    return done


def _lines(file: Path, done: Heeded) -> list[PortablePerson]:
    found = []
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    if line.strip():
                        found.append(PortablePerson.model_validate_json(line))
                except ValidationError as error:
                    first = error.errors()[0]
                    where = ".".join(map(str, first["loc"]))
                    done.errors.append(f"{file}, line {number}: {where} {first['msg']}".strip())
    except OSError as error:
        raise Invalid(f"{file}: {error.strerror or error}", path=str(file)) from error
    return found


async def _claims(db: Database, person: PortablePerson, name: str, done: Heeded) -> list[Claim]:
    """The faces here that are this person's, by content and place."""
    claims = []
    known = [face for face in person.faces if face.sha256]
    done.elsewhere += len(person.faces) - len(known)
    for some in batched(known, FACES_AT_ONCE):
        async with db.transaction() as session:
            contents = {face.sha256 for face in some if face.sha256}
            photos = await library.by_contents(session, contents)
            here = await places(session, list(photos.values()))
        of: dict[str, list[PortableFace]] = {}
        for face in some:
            of.setdefault(face.sha256 or "", []).append(face)
        for content, faces in of.items():
            photo = photos.get(content)
            there = here.get(photo.photo_id, []) if photo is not None else []
            if photo is None or not there:
                done.elsewhere += len(faces)
                continue
            sizes = [face.size or (photo.width or 1, photo.height or 1) for face in faces]
            regions = [region(f.bbox, *size) for f, size in zip(faces, sizes, strict=True)]
            pairs = library.pair_regions(regions, [place.region for place in there])
            claims += [Claim(there[j].face_id, name, faces[i].confirmed) for i, j in pairs.items()]
            done.photos += bool(pairs)
            done.elsewhere += len(faces) - len(pairs)
    return claims


async def _by_vectors(
    session: AsyncSession, person: PortablePerson, homes: dict[str, int]
) -> list[Claim]:
    """The unnamed person here who is surely this one: a face of theirs to name them by."""
    name = spelled(person.name or "")
    vectors = [decode_vector(face.embedding) for face in person.faces if face.embedding]
    pack = matching.find_pack(None)
    if name in homes or person.pack != pack.name or not vectors:
        return []
    if any(len(vector) != pack.dimension for vector in vectors):
        return []
    mean = np.stack(vectors).mean(axis=0)
    library_ = await matching.size(session, pack.name)
    least = matching.limits(pack, library_.regulars).join
    [near] = await matching.near(session, pack.name, mean.reshape(1, -1), least, library_, [None])
    for other in sorted(near, key=lambda p: -near[p]):
        row = await reading.person(session, other)
        if other in homes.values() or row.display_name is not None:
            continue
        [face, *_] = await reading.best_faces(session, other, 1)
        homes[name] = other
        return [Claim(face.face_id, name, is_word=False)]
    return []


async def _bring_births(db: Database, births: dict[str, date], done: Heeded, dry_run: bool) -> None:
    """Birth dates of persons who have none here."""
    async with db.transaction() as session:
        named = {spelled(row.name): row.id for row in await naming.named_persons(session)}
        known = await naming.birth_dates(session, list(named.values()))
        for name, born in births.items():
            if name in named and named[name] not in known:
                done.births += 1
                if not dry_run:
                    await naming.set_birth_date(session, named[name], born)
                    await drop_questions(session, named[name])
