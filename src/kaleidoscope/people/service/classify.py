"""Who is in one photo, asked and answered at once."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import Invalid, KaleidoscopeError, UnreadableMedia
from kaleidoscope.library import service as library
from kaleidoscope.library.schemas import Photo
from kaleidoscope.ml.client import MlClient
from kaleidoscope.ml.schemas import Analysis
from kaleidoscope.people.rules.matching import Sight, Sitting
from kaleidoscope.people.schemas import (
    Callback,
    CallbackMeta,
    Classified,
    ClassifiedFace,
    Detection,
)
from kaleidoscope.people.service import matching, reading
from kaleidoscope.people.service.delivery import deliver, unit_vectors


async def classify(
    db: Database, *, photo_id: int | None = None, path: str | None = None
) -> Classified:
    """The persons of a photo of the ledger, by its id or path, recorded as the callback does it.

    A file that is not in the ledger is only matched: nothing is registered, nobody is founded.
    Raises `Invalid`, `NotFound`, and whatever is wrong with the file or the ML service.
    """
    if (photo_id is None) == (path is None):
        raise Invalid("give either photo_id or path")
    async with db.transaction() as session:
        photo = await _photo(session, photo_id, path)
    async with MlClient() as ml:
        if photo is not None:
            return await _recorded(db, ml, photo)
        assert path is not None
        return await _matched(db, await ml.embeddings_from_image(path))


async def _photo(session: AsyncSession, photo_id: int | None, path: str | None) -> Photo | None:
    """The photo asked for, or the one that it is a duplicate of."""
    if photo_id is not None:
        found: Photo | None = await library.get(session, photo_id)
    else:
        assert path is not None
        found = await library.by_path(session, path)
    if found is not None and found.duplicate_of is not None:
        found = await library.get(session, found.duplicate_of)
    if found is not None and found.media_type != "photo":
        raise Invalid(f"{found.path} is a {found.media_type}", path=found.path)
    return found


async def _recorded(db: Database, ml: MlClient, photo: Photo) -> Classified:
    async with db.transaction() as session:
        attempt_id = await library.new_attempt(session, photo.photo_id, "classify-photo")
    try:
        seen = await ml.embeddings_from_image(photo.path)
    except KaleidoscopeError as error:
        permanent = isinstance(error, UnreadableMedia)
        async with db.transaction() as session:
            await library.fail(
                session,
                photo.photo_id,
                attempt_id,
                code=error.code,
                error=error.message,
                permanent=permanent,
            )
        raise
    callback = Callback(
        photo_id=photo.photo_id,
        path=photo.path,
        status="PROCESSED",
        attempt_id=attempt_id,
        detections=_detections(seen),
        meta=CallbackMeta.model_validate(seen.model_dump()),
    )
    async with db.transaction() as session:
        await deliver(session, callback)
    async with db.transaction() as session:
        shown = await reading.photo(session, photo.photo_id)
    return Classified(
        photo_id=photo.photo_id,
        person_ids=shown.person_ids or [],
        faces=[ClassifiedFace.model_validate(f.model_dump()) for f in shown.detections],
    )


async def _matched(db: Database, seen: Analysis) -> Classified:
    pack = matching.find_pack(seen.pack)
    detections = _detections(seen)
    vectors = unit_vectors(detections, pack)
    sitting = Sitting([Sight() for _ in detections], vectors, [None] * len(detections))
    async with db.transaction() as session:
        (verdicts,) = await matching.match_all(session, pack, [sitting], may_found=False)
    known = {v.person_id for v in verdicts if v.person_id is not None}
    return Classified(
        photo_id=None,
        person_ids=sorted(known),
        faces=[
            ClassifiedFace(bbox=d.bbox, person_id=v.person_id, similarity=v.similarity)
            for d, v in zip(detections, verdicts, strict=True)
        ],
    )


def _detections(seen: Analysis) -> list[Detection]:
    return [Detection.model_validate(face.model_dump()) for face in seen.detections]
