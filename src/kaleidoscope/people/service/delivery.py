"""The callback: the only way by which faces and persons are written for a photo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import NAMESPACE_OID, UUID, uuid5

import numpy as np
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.errors import Conflict, Invalid
from kaleidoscope.library import service as library
from kaleidoscope.ml.catalog import Pack
from kaleidoscope.people.queries import faces as face_rows
from kaleidoscope.people.queries import locks, persons, search
from kaleidoscope.people.queries.faces import NewFace, StoredFace
from kaleidoscope.people.queries.persons import Joining
from kaleidoscope.people.rules.changes import PERSON
from kaleidoscope.people.rules.matching import (
    Sight,
    Vector,
    Vectors,
    Verdict,
    same_places,
)
from kaleidoscope.people.schemas import (
    Callback,
    CallbackAnswer,
    Detection,
    Failure,
    decode_vector,
)
from kaleidoscope.people.service import matching

UNNAMED = {"", "unknown"}  # suggested names that name nobody


async def deliver(session: AsyncSession, callback: Callback) -> CallbackAnswer:
    """Record what an attempt found in a photo; a second delivery gets the first one's answer.

    Raises `NotFound` for an unknown photo, `Invalid` for a payload that contradicts itself, the
    ledger or the pack, `Conflict` for an attempt that another has superseded.
    """
    attempt_id = _attempt(callback)
    await locks.lock_identity(session, alone=False)
    photo = await library.lock(session, callback.photo_id)
    answered = await library.attempt_result(session, attempt_id)
    if answered is not None:
        return CallbackAnswer.model_validate(answered)
    if photo.path != callback.path:
        raise Invalid(
            f"photo {callback.photo_id} is {photo.path}, not {callback.path}",
            photo_id=callback.photo_id,
        )
    if callback.status == "FAILED":
        await _fail(session, callback, attempt_id)
        return CallbackAnswer()
    pack = matching.find_pack(callback.meta.pack)
    vectors = unit_vectors(callback.detections, pack)
    person_ids, created = await _recognise(session, callback, pack, vectors, attempt_id)
    answer = CallbackAnswer(created_person_ids=created)
    accepted = await library.finish(
        session,
        callback.photo_id,
        attempt_id,
        person_ids=person_ids,
        created_person_ids=created,
        faces=len(callback.detections),
        width=callback.meta.width,
        height=callback.meta.height,
        mime_type=callback.meta.mime_type,
        model_version=callback.meta.model_version,
        duration_ms=callback.meta.duration_ms,
        result=answer.model_dump(),
    )
    if not accepted:
        raise Conflict(
            f"attempt {attempt_id} of photo {callback.photo_id} has been superseded",
            photo_id=callback.photo_id,
        )
    return answer


def _attempt(callback: Callback) -> UUID:
    """The attempt it belongs to; for a sender that names none, the same for the same content."""
    named = callback.attempt_id or callback.callback_id
    if named is not None:
        if callback.callback_id not in (None, named):
            raise Invalid("callback_id and attempt_id differ: a callback's id is its attempt's")
        return named
    return uuid5(NAMESPACE_OID, callback.model_dump_json())


async def _fail(session: AsyncSession, callback: Callback, attempt_id: UUID) -> None:
    error = callback.error or Failure(message="the ML service gave no cause")
    await library.fail(
        session,
        callback.photo_id,
        attempt_id,
        code=error.code,
        error=error.message,
        permanent=error.permanent,
    )


def unit_vectors(detections: Sequence[Detection], pack: Pack) -> Vectors:
    """The embeddings as unit rows, [faces, dimension]; `Invalid` for those of another pack."""
    rows = [decode_vector(d.embedding) for d in detections]
    for i, row in enumerate(rows):
        if len(row) != pack.dimension:
            raise Invalid(
                f"detections.{i}.embedding has {len(row)} numbers, {pack.name} has"
                f" {pack.dimension}",
                field=f"detections.{i}.embedding",
            )
    vectors = np.array(rows, np.float32).reshape(len(rows), pack.dimension)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


async def _recognise(
    session: AsyncSession, callback: Callback, pack: Pack, vectors: Vectors, attempt_id: UUID
) -> tuple[list[int], list[int]]:
    """Decide whose the faces are and write them: the photo's persons, and those founded."""
    stored = await face_rows.stored_faces(session, callback.photo_id)
    before = _before(callback.detections, stored)
    names = _suggested_names(callback)
    suggested = [_suggested_id(d) for d in callback.detections]
    verdicts = await _decide(
        session, pack, vectors, _sights(callback.detections, before, stored), suggested
    )
    founders = _founders(callback.detections, verdicts, names)
    created = await persons.found_persons(session, founders) if founders else []
    new = [
        _new_face(detection, vector, was, verdict, created, suggestion)
        for detection, vector, was, verdict, suggestion in zip(
            callback.detections, vectors, before, verdicts, suggested, strict=True
        )
    ]
    gone = [s for s in stored if s not in before and not s.spoken_of]
    if gone:
        await face_rows.delete_faces(session, [s.id for s in gone])
    written = await face_rows.write_faces(
        session,
        callback.photo_id,
        new,
        pack=pack.name,
        model_version=callback.meta.model_version,
        attempt_id=attempt_id,
    )
    if stored:
        touched = {f.person_id for f in new} | {s.person_id for s in stored}
        await persons.recount_persons(session, {p for p in touched if p is not None})
        shown = await face_rows.write_photo_persons(session, [callback.photo_id])
        person_ids = shown[callback.photo_id]
    else:
        vector_ids = [vector_id for _, vector_id in written]
        await persons.add_to_persons(session, pack.name, _joinings(new, vector_ids))
        person_ids = sorted({f.person_id for f in new if f.person_id is not None})
        await face_rows.add_photo_persons(session, callback.photo_id, person_ids)
    return person_ids, created


async def _decide(
    session: AsyncSession,
    pack: Pack,
    vectors: Vectors,
    sights: Sequence[Sight],
    suggested: Sequence[int | None],
) -> list[Verdict]:
    """Match against the library; before anybody is founded, again against those founded since."""
    match = await matching.match(session, pack, vectors, sights, suggested)
    if all(v.founds is None for v in match.verdicts):
        return match.verdicts
    await locks.lock_founding(session)
    newer = await search.near_exact(
        session, pack.name, vectors, match.limits.join, after=match.library.last_id
    )
    return match.with_more(dict(enumerate(newer))).verdicts


def _before(
    detections: Sequence[Detection], stored: Sequence[StoredFace]
) -> list[StoredFace | None]:
    """For each detection, the stored face that lies in the same place."""
    place = same_places([d.bbox for d in detections], [s.bbox for s in stored])
    return [stored[place[i]] if i in place else None for i in range(len(detections))]


def _sights(
    detections: Sequence[Detection],
    before: Sequence[StoredFace | None],
    stored: Sequence[StoredFace],
) -> list[Sight]:
    # Who was confirmed in a face that is not found this time is in the photo all the same.
    elsewhere = {
        s.person_id
        for s in stored
        if s not in before and s.confirmed_by == PERSON and s.person_id is not None
    }
    return [
        Sight(
            quality=_quality(detection),
            refused=(was.refused if was else frozenset()) | elsewhere,
            fixed=was.person_id if was and was.confirmed_by == PERSON else None,
            held=was.person_id if was and was.confirmed_by != PERSON else None,
        )
        for detection, was in zip(detections, before, strict=True)
    ]


def _quality(detection: Detection) -> float:
    """The quality the ML service gave; a sender that measures none vouches for its faces."""
    score = (detection.quality or {}).get("score")
    return 1.0 if score is None else float(score)


def _suggested_id(detection: Detection) -> int | None:
    suggestion = detection.suggested_person_id
    return suggestion if isinstance(suggestion, int) else None


def _suggested_names(callback: Callback) -> dict[str, str | None]:
    """The name suggested for each temporary id; every id that a detection uses is explained."""
    names = {
        p.temp_id: (
            None
            if (p.suggested_display_name or "").strip().lower() in UNNAMED
            else (p.suggested_display_name or "").strip()
        )
        for p in callback.new_persons
    }
    for i, detection in enumerate(callback.detections):
        temp_id = detection.suggested_person_id
        if isinstance(temp_id, str) and temp_id not in names:
            raise Invalid(
                f"detections.{i} suggests {temp_id!r}, which new_persons does not name",
                field=f"detections.{i}.suggested_person_id",
            )
    return names


def _founders(
    detections: Sequence[Detection],
    verdicts: Sequence[Verdict],
    names: Mapping[str, str | None],
) -> list[str | None]:
    """The name, if one was suggested, of each person to found."""
    founders: dict[int, str | None] = {}
    for detection, verdict in zip(detections, verdicts, strict=True):
        if verdict.founds is not None:
            temp_id = detection.suggested_person_id
            name = names[temp_id] if isinstance(temp_id, str) else None
            founders[verdict.founds] = founders.get(verdict.founds) or name
    return [founders[n] for n in sorted(founders)]


def _new_face(
    detection: Detection,
    vector: Vector,
    was: StoredFace | None,
    verdict: Verdict,
    created: Sequence[int],
    suggested: int | None,
) -> NewFace:
    return NewFace(
        id=was.id if was else None,
        person_id=verdict.person_id if verdict.founds is None else created[verdict.founds],
        bbox=detection.bbox,
        landmarks=[v for point in detection.landmarks or [] for v in point] or None,
        suggested_person_id=suggested,
        similarity=verdict.similarity,
        confidence=detection.confidence,
        quality=None if detection.quality is None else _quality(detection),
        measures=detection.quality,
        vector=vector,
    )


def _joinings(faces: Sequence[NewFace], vector_ids: Sequence[int]) -> list[Joining]:
    """What each person gains by these faces."""
    gained: dict[int, list[int]] = {}
    for i, face in enumerate(faces):
        if face.person_id is not None:
            gained.setdefault(face.person_id, []).append(i)
    return [
        Joining(
            person_id=person_id,
            count=len(rows),
            sum=np.sum([faces[i].vector for i in rows], axis=0),
            vector_id=vector_ids[best],
            quality=faces[best].quality or 0.0,
        )
        for person_id, rows in gained.items()
        for best in [max(rows, key=lambda i: (faces[i].quality or 0.0, -vector_ids[i]))]
    ]
