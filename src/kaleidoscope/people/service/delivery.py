"""The callback: the only way by which faces and persons are written for a photo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import NAMESPACE_OID, UUID, uuid5

import numpy as np
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.errors import Conflict, Invalid
from kaleidoscope.library import service as library
from kaleidoscope.library.service import Held
from kaleidoscope.ml.catalog import Pack
from kaleidoscope.people.queries import faces as face_rows
from kaleidoscope.people.queries import locks, persons, pictures
from kaleidoscope.people.queries.faces import NewFace, StoredFace
from kaleidoscope.people.queries.persons import Joining
from kaleidoscope.people.queries.pictures import Picture
from kaleidoscope.people.rules.changes import PERSON
from kaleidoscope.people.rules.copies import Known, originals
from kaleidoscope.people.rules.matching import (
    Sight,
    Sitting,
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
from kaleidoscope.people.service.ages import not_born_yet

UNNAMED = {"", "unknown"}  # suggested names that name nobody


async def deliver(session: AsyncSession, callback: Callback) -> CallbackAnswer:
    """Record what an attempt found in a photo; a second delivery gets the first one's answer.

    Raises `NotFound` for an unknown photo, `Invalid` for a payload that contradicts itself, the
    ledger or the pack, `Conflict` for an attempt that another has superseded.
    """
    return (await deliver_all(session, [callback]))[0]


async def deliver_all(session: AsyncSession, callbacks: Sequence[Callback]) -> list[CallbackAnswer]:
    """The same for photos, as if one were delivered after the other; what one raises, all do."""
    tried = {callback.photo_id: _attempt(callback) for callback in callbacks}
    if len(tried) < len(callbacks):
        raise Invalid("a photo is delivered twice at once: one delivery after the other, please")
    await locks.lock_identity(session, alone=False)
    photos = await library.lock_all(session, list(tried))
    answered = await library.attempt_results(session, list(tried.values()))
    fresh = [c for c in callbacks if tried[c.photo_id] not in answered]
    moved = await _looked_for_elsewhere(session, fresh, photos, tried)
    answers = {c.photo_id: CallbackAnswer() for c in callbacks}
    for photo_id, attempt_id in tried.items():
        if attempt_id in answered:
            answers[photo_id] = CallbackAnswer.model_validate(answered[attempt_id])
    by_pack: dict[str | None, list[Callback]] = {}
    if moved:
        await library.ask_again(session, sorted(moved))
    for callback in fresh:
        if callback.photo_id in moved:
            continue
        if callback.status == "FAILED":
            await _fail(session, callback, tried[callback.photo_id])
        else:
            by_pack.setdefault(callback.meta.pack, []).append(callback)
    for pack, seen in by_pack.items():
        answers |= await _record(session, matching.find_pack(pack), seen, tried, photos)
    return [answers[callback.photo_id] for callback in callbacks]


async def _looked_for_elsewhere(
    session: AsyncSession,
    callbacks: Sequence[Callback],
    photos: Mapping[int, Held],
    tried: Mapping[int, UUID],
) -> set[int]:
    """The photos of which a failure says nothing: filed elsewhere while they waited to be seen.

    What was seen at the old place is as good as at the new one. Raises `Invalid` for a path that
    was never the photo's.
    """
    old = [c for c in callbacks if photos[c.photo_id].path != c.path]
    if not old:
        return set()
    lay_there = await library.lay_at(session, {c.photo_id: c.path for c in old})
    for callback in old:
        photo = photos[callback.photo_id]
        if callback.photo_id not in lay_there:
            raise Invalid(
                f"photo {callback.photo_id} is {photo.path}, not {callback.path}",
                photo_id=callback.photo_id,
            )
    failed = [c.photo_id for c in old if c.status == "FAILED"]
    return {p for p in failed if photos[p].attempt_id == tried[p]}


async def _record(
    session: AsyncSession,
    pack: Pack,
    callbacks: Sequence[Callback],
    tried: Mapping[int, UUID],
    photos: Mapping[int, Held],
) -> dict[int, CallbackAnswer]:
    """Recognise the faces of photos, and end their attempts."""
    vectors = [unit_vectors(callback.detections, pack) for callback in callbacks]
    recognised = await _recognise(session, callbacks, pack, vectors, tried)
    answers = {
        photo_id: CallbackAnswer(created_person_ids=created)
        for photo_id, (_, created) in recognised.items()
    }
    accepted = await library.finish_all(
        session,
        [
            library.Finding(
                callback.photo_id,
                tried[callback.photo_id],
                person_ids=recognised[callback.photo_id][0],
                created_person_ids=recognised[callback.photo_id][1],
                faces=len(callback.detections),
                width=callback.meta.width,
                height=callback.meta.height,
                mime_type=callback.meta.mime_type,
                model_version=callback.meta.model_version,
                duration_ms=callback.meta.duration_ms,
                result=answers[callback.photo_id].model_dump(),
            )
            for callback in callbacks
        ],
        photos,
    )
    for photo_id, counts in accepted.items():
        if not counts:
            raise Conflict(
                f"attempt {tried[photo_id]} of photo {photo_id} has been superseded",
                photo_id=photo_id,
            )
    return answers


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
    session: AsyncSession,
    callbacks: Sequence[Callback],
    pack: Pack,
    vectors: Sequence[Vectors],
    tried: Mapping[int, UUID],
) -> dict[int, tuple[list[int], list[int]]]:
    """Decide whose the faces are and write them: each photo's persons, and those it founded."""
    stored = await face_rows.stored_faces(session, [c.photo_id for c in callbacks], pack.name)
    befores = [_before(c.detections, stored[c.photo_id]) for c in callbacks]
    names = [_suggested_names(callback) for callback in callbacks]
    unborn = await not_born_yet(session, [c.photo_id for c in callbacks])
    sittings = [
        Sitting(
            _sights(
                callback.detections,
                before,
                stored[callback.photo_id],
                unborn.get(callback.photo_id, frozenset()),
            ),
            own,
            [_suggested_id(d) for d in callback.detections],
        )
        for callback, before, own in zip(callbacks, befores, vectors, strict=True)
    ]
    copied = await _copied(session, pack, callbacks, sittings)
    sittings = [_with(sitting, same) for sitting, same in zip(sittings, copied, strict=True)]
    verdicts = await matching.match_all(session, pack, sittings, may_found=True)
    founders = _founders(callbacks, verdicts, names)
    found_ids = await persons.found_persons(session, [f.name for f in founders]) if founders else []
    new = {
        callback.photo_id: [
            _new_face(callback, tried, found_ids, *face)
            for face in zip(
                callback.detections,
                sitting.vectors,
                before,
                decided,
                sitting.suggested,
                originals,
                strict=True,
            )
        ]
        for callback, sitting, before, decided, originals in zip(
            callbacks, sittings, befores, verdicts, copied, strict=True
        )
    }
    shown = await _write(session, pack, new, stored, befores)
    return {
        callback.photo_id: (
            shown[callback.photo_id],
            [
                person_id
                for person_id, founder in zip(found_ids, founders, strict=True)
                if founder.photo_id == callback.photo_id
            ],
        )
        for callback in callbacks
    }


async def _copied(
    session: AsyncSession,
    pack: Pack,
    callbacks: Sequence[Callback],
    sittings: Sequence[Sitting],
) -> list[Sequence[Known | None]]:
    """For each face the same one in a picture of which its photo is a copy; and remember how the
    photos look. A face that was known before is no copy now.
    """
    looks = {c.photo_id: look for c in callbacks if (look := _picture(c)) is not None}
    if not looks:
        return [[None] * len(sitting.sights) for sitting in sittings]
    alike = await pictures.faces_alike(session, pack.name, list(looks.values()))
    await pictures.remember(session, list(looks.values()))
    least = matching.limits(pack, persons=0).merge
    found: list[Sequence[Known | None]] = []
    for callback, sitting in zip(callbacks, sittings, strict=True):
        known = alike.get(callback.photo_id)
        if not known:
            found.append([None] * len(sitting.sights))
            continue
        look, boxes = looks[callback.photo_id], [d.bbox for d in callback.detections]
        same = originals(boxes, (look.width, look.height), sitting, known, least)
        found.append(
            [
                original if sight.held is None and sight.fixed is None else None
                for original, sight in zip(same, sitting.sights, strict=True)
            ]
        )
    return found


def _picture(callback: Callback) -> Picture | None:
    """How the photo looks, where there are faces and somebody looked."""
    meta = callback.meta
    if meta.picture_hash is None or meta.width is None or meta.height is None:
        return None
    if not callback.detections:
        return None
    return Picture(callback.photo_id, meta.picture_hash, meta.width, meta.height)


async def _write(
    session: AsyncSession,
    pack: Pack,
    new: Mapping[int, Sequence[NewFace]],
    stored: Mapping[int, Sequence[StoredFace]],
    befores: Sequence[Sequence[StoredFace | None]],
) -> dict[int, list[int]]:
    """Write the faces of photos; answers each photo's persons."""
    found_again = {face.id for before in befores for face in before if face is not None}
    known = [face for faces in stored.values() for face in faces]
    lost = [face for face in known if face.id not in found_again and not face.spoken_of]
    if lost:
        # Another pack need not see what one saw; that costs nobody their name.
        unseen = [face.id for face in lost if not face.seen]
        kept = await face_rows.last_of_named(session, unseen) if unseen else set()
        await face_rows.delete_faces(session, {face.id for face in lost} - kept)
    faces = [face for of_photo in new.values() for face in of_photo]
    vector_ids = await face_rows.write_faces(session, faces, pack=pack.name)
    again = [photo_id for photo_id in new if stored[photo_id]]
    touched = {face.person_id for photo_id in again for face in new[photo_id]}
    touched |= {face.person_id for face in known}
    recounted = {person_id for person_id in touched if person_id is not None}
    joining = _joinings(
        [(f, v) for f, v in zip(faces, vector_ids, strict=True) if f.person_id not in recounted]
    )
    if recounted:
        await persons.hold_persons(session, {*recounted, *(j.person_id for j in joining)})
        await persons.recount_persons(session, recounted)
    await persons.add_to_persons(session, pack.name, joining)
    shown = {
        photo_id: sorted({f.person_id for f in of_photo if f.person_id is not None})
        for photo_id, of_photo in new.items()
    }
    if again:
        shown |= await face_rows.write_photo_persons(session, again)
    await face_rows.add_photo_persons(
        session, {photo: ids for photo, ids in shown.items() if not stored[photo]}
    )
    return shown


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
    unborn: frozenset[int],
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
            refused=(was.refused if was else frozenset()) | elsewhere | unborn,
            fixed=was.person_id if was and _is_settled(was) else None,
            held=was.person_id if was and not _is_settled(was) else None,
        )
        for detection, was in zip(detections, before, strict=True)
    ]


def _is_settled(was: StoredFace) -> bool:
    """Whether a stored face is not decided anew: a person said whose it is, or another pack did.

    While a library goes from one pack to another, few have vectors of the new one, and who is like
    a face by those few is chance. Consolidation judges when all are there.
    """
    return was.confirmed_by == PERSON or not was.seen


def _with(sitting: Sitting, copied: Sequence[Known | None]) -> Sitting:
    """The faces with whose they are in the picture of which the photo is a copy."""
    sights = [
        replace(sight, copied=original.person_id) if original else sight
        for sight, original in zip(sitting.sights, copied, strict=True)
    ]
    return replace(sitting, sights=sights)


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


@dataclass(frozen=True)
class Founder:
    """A person to found: the photo that does, and the name, if one was suggested."""

    photo_id: int
    name: str | None


def _founders(
    callbacks: Sequence[Callback],
    verdicts: Sequence[Sequence[Verdict]],
    names: Sequence[Mapping[str, str | None]],
) -> list[Founder]:
    """The persons to found, in the order of their numbers."""
    founders: dict[int, Founder] = {}
    for callback, decided, known in zip(callbacks, verdicts, names, strict=True):
        for detection, verdict in zip(callback.detections, decided, strict=True):
            if verdict.founds is None:
                continue
            temp_id = detection.suggested_person_id
            name = known[temp_id] if isinstance(temp_id, str) else None
            founder = founders.setdefault(verdict.founds, Founder(callback.photo_id, name))
            if founder.name is None and founder.photo_id == callback.photo_id:
                founders[verdict.founds] = Founder(callback.photo_id, name)
    return [founders[n] for n in sorted(founders)]


def _new_face(
    callback: Callback,
    tried: Mapping[int, UUID],
    founded: Sequence[int],
    detection: Detection,
    vector: Vector,
    was: StoredFace | None,
    verdict: Verdict,
    suggested: int | None,
    original: Known | None,
) -> NewFace:
    follows = original is not None and verdict.person_id == original.person_id
    return NewFace(
        id=was.id if was else None,
        photo_id=callback.photo_id,
        attempt_id=tried[callback.photo_id],
        model_version=callback.meta.model_version,
        person_id=verdict.person_id if verdict.founds is None else founded[verdict.founds],
        bbox=detection.bbox,
        landmarks=[v for point in detection.landmarks or [] for v in point] or None,
        suggested_person_id=suggested,
        similarity=verdict.similarity,
        confidence=detection.confidence,
        quality=None if detection.quality is None else _quality(detection),
        measures=detection.quality,
        vector=vector,
        copy_of=original.face_id if original and follows else None,
    )


def _joinings(faces: Sequence[tuple[NewFace, int]]) -> list[Joining]:
    """What each person gains by these faces, each with the id of its vector."""
    gained: dict[int, list[tuple[NewFace, int]]] = {}
    for face, vector_id in faces:
        if face.person_id is not None and face.copy_of is None:
            gained.setdefault(face.person_id, []).append((face, vector_id))
    return [
        Joining(
            person_id=person_id,
            count=len(rows),
            sum=np.sum([face.vector for face, _ in rows], axis=0),
            vector_id=vector_id,
            quality=best.quality or 0.0,
        )
        for person_id, rows in gained.items()
        for best, vector_id in [max(rows, key=lambda row: (row[0].quality or 0.0, -row[1]))]
    ]
