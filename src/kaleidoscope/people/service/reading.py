"""What is shown of people."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.library import service as library
from kaleidoscope.library.schemas import Photo
from kaleidoscope.ml.catalog import Pack
from kaleidoscope.people.queries import naming, reading
from kaleidoscope.people.queries.search import from_sql
from kaleidoscope.people.rules.changes import PERSON
from kaleidoscope.people.schemas import (
    ExportedFace,
    ExportedPhoto,
    FaceView,
    PersonLine,
    PersonView,
    PhotoView,
    encode_vector,
)
from kaleidoscope.people.service import matching
from kaleidoscope.people.service.changes import resolve

EXAMPLES = 6
PHOTOS_AT_ONCE = 500


@dataclass(frozen=True)
class Portrait:
    """A face with its photo: path and displayed box."""

    path: str
    bbox: list[float]


async def person(
    session: AsyncSession, person_id: int, *, with_embedding: bool = False
) -> PersonView:
    """The living person that an id stands for, with the photos of the best faces."""
    row = await reading.person(session, await resolve(session, person_id))
    best = await reading.best_photos(session, row.person_id, EXAMPLES)
    births = await naming.birth_dates(session, [row.person_id])
    embedding = None
    if with_embedding:
        written = await reading.mean(session, row.person_id, matching.find_pack(None).name)
        embedding = None if written is None else encode_vector(from_sql(written))
    return PersonView(
        person_id=row.person_id,
        display_name=row.display_name,
        created_at=row.created_at,
        user_id=row.user_id,
        birth_date=births.get(row.person_id),
        faces=row.faces,
        photos=row.photos,
        merged_from=row.merged_from,
        example_photos=[photo.path for photo in await library.get_many(session, best)],
        representative_embedding=embedding,
    )


async def persons(
    session: AsyncSession, *, named: bool | None = None, limit: int = 100, offset: int = 0
) -> list[PersonLine]:
    """Persons with faces, those in most photos first."""
    rows = await reading.persons(session, named=named, limit=limit, offset=offset)
    return [PersonLine(**row._mapping) for row in rows]


async def photo(session: AsyncSession, photo_id: int) -> PhotoView:
    """A photo with its faces; a duplicate shows those of the first."""
    found = await library.get(session, photo_id)
    faces = await reading.faces_of_photo(session, found.duplicate_of or photo_id)
    pack = matching.find_pack(None)
    regulars = (await matching.size(session, pack.name)).regulars
    views = [_view(face, pack, regulars) for face in faces]
    return PhotoView(**found.model_dump(), detections=views)


async def portraits(session: AsyncSession, person_id: int, limit: int) -> list[Portrait]:
    """A person's best faces, the best first."""
    faces = await reading.best_faces(session, await resolve(session, person_id), limit)
    photos = await library.get_many(session, [face.photo_id for face in faces])
    paths = {found.photo_id: found.path for found in photos}
    return [Portrait(paths[face.photo_id], face.bbox) for face in faces]


async def export(session: AsyncSession) -> AsyncIterator[ExportedPhoto]:
    """Every photo with its faces, in the order of ids; a duplicate with those of the first."""
    waiting: list[Photo] = []
    async for found in library.stream(session):
        if found.media_type == "photo":
            waiting.append(found)
        if len(waiting) == PHOTOS_AT_ONCE:
            for exported in await _exported(session, waiting):
                yield exported
            waiting = []
    for exported in await _exported(session, waiting):
        yield exported


async def _exported(session: AsyncSession, photos: list[Photo]) -> list[ExportedPhoto]:
    shown = {p.photo_id: p.duplicate_of or p.photo_id for p in photos}
    faces = await reading.faces_of_photos(session, list(set(shown.values())))
    return [
        ExportedPhoto(
            path=p.path,
            faces=[
                ExportedFace(
                    bbox=face.bbox,
                    person_id=face.person_id,
                    similarity=face.similarity,
                    confirmed_by=face.confirmed_by,
                )
                for face in faces.get(shown[p.photo_id], [])
            ],
        )
        for p in photos
    ]


def _view(face: Row[Any], pack: Pack, regulars: int) -> FaceView:
    known = {name: face._mapping[name] for name in FaceView.model_fields if name != "probability"}
    return FaceView(**known, probability=_probability(face, pack, regulars))


def _probability(face: Row[Any], pack: Pack, regulars: int) -> float | None:
    """How likely the face is of its person: what a person confirmed is certain."""
    if face.confirmed_by == PERSON:
        return 1.0
    of_pack = (face.model_version or "").partition("/")[0] == pack.name
    if face.similarity is None or not of_pack:
        return None
    return round(matching.probability(pack, face.similarity, regulars), 4)


async def counts(session: AsyncSession) -> dict[str, int]:
    """How many persons, names and faces there are."""
    return dict((await reading.counts(session))._mapping)


async def names(session: AsyncSession) -> dict[int, str]:
    """The names of all who have one, by person_id."""
    return await reading.names(session)
