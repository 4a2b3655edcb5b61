"""The review queue: what a person's word would settle, asked in the order of how much.

Questions are searched for in the background, some persons and open faces at a time, among those
that have changed; what is handed out is read from an index.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal

import numpy as np
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel import clock
from kaleidoscope.kernel.errors import Conflict, NotFound
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library
from kaleidoscope.ml.catalog import Pack
from kaleidoscope.people.queries import healing, ledger, locks, persons, search
from kaleidoscope.people.queries import review as rows
from kaleidoscope.people.queries.review import Progress
from kaleidoscope.people.rules import changes, review
from kaleidoscope.people.rules.changes import PERSON
from kaleidoscope.people.rules.review import NEIGHBOURS, Question
from kaleidoscope.people.schemas import ReviewFace, ReviewParty, ReviewQuestion
from kaleidoscope.people.service import matching
from kaleidoscope.people.service.ages import cannot_be_one, not_born_yet
from kaleidoscope.people.service.changes import Event, confirm, merge, record, reject
from kaleidoscope.people.settings import PeopleSettings

PORTION = 200  # persons, and open faces, that are looked at in one transaction
AGAIN = timedelta(days=1)  # every open face is looked at that often: persons near it may be new

Word = Literal["yes", "no", "skip"]


@dataclass(frozen=True)
class Answered:
    """What an answer did: the event that can be undone; none, when the question was put off."""

    question_id: int
    answer: Word
    event: Event | None


async def questions(session: AsyncSession, limit: int = 20) -> list[ReviewQuestion]:
    """What a person should be asked next: those about named persons first, then by how many faces
    an answer settles times how open it is; what was skipped comes last.
    """
    found = await rows.queue(session, matching.find_pack(None).name, limit)
    photo_ids = {i for row in found for i in (row.person_photo, row.other_photo) if i is not None}
    photos = await library.get_many(session, sorted(photo_ids))
    paths = {int(photo.photo_id): photo.path for photo in photos}
    return [_view(row, paths) for row in found]


async def answer(session: AsyncSession, question_id: int, word: Word) -> Answered:
    """Settle a question: yes merges the persons or confirms the face, no is remembered for ever,
    skip asks again after all others.

    Raises `NotFound`, or `Conflict` for a question that is answered, or settled otherwise.
    """
    await locks.lock_identity(session, alone=True)
    row = await rows.question(session, question_id)
    if row is None:
        raise NotFound(
            f"there is no question {question_id}",
            hint="`kaleidoscope people review --json` has those that are open",
            question_id=question_id,
        )
    if row.event_id is not None:
        raise Conflict(
            f"question {question_id} is answered already",
            hint=f"`kaleidoscope people undo {row.event_id}` takes the answer back",
            event_id=row.event_id,
        )
    if word == "skip":
        await rows.skip(session, question_id)
        return Answered(question_id, word, None)
    event = await (_about_face if row.face_id is not None else _about_person)(session, row, word)
    await rows.answered(session, question_id, event.event_id)
    return Answered(question_id, word, event)


async def _about_face(session: AsyncSession, row: Row[Any], word: Word) -> Event:
    verb = confirm if word == "yes" else reject
    return await verb(session, row.face_id, row.person_id)


async def _about_person(session: AsyncSession, row: Row[Any], word: Word) -> Event:
    living = await persons.resolve(session, [row.person_id, row.other_id])
    one, other = living[row.person_id], living[row.other_id]
    if one == other:
        raise Conflict(
            f"persons {row.person_id} and {row.other_id} are one already",
            hint="ask for the next question",
        )
    before = await ledger.load_state(session, [one, other])
    sizes = {p: [f for f, s in before.faces.items() if s.person_id == p] for p in (one, other)}
    names = {p: before.persons[p].name for p in (one, other)}
    kept, gone = sorted((one, other), key=lambda p: (names[p] is None, -len(sizes[p]), p))
    if word == "yes":
        return await merge(session, kept, [gone])
    # Of either side each face is not the other: the fewer noes say the same.
    few, many = sorted((one, other), key=lambda p: (len(sizes[p]), p))
    after = changes.refuse(before, sizes[few], many)
    return await record(session, "reject", PERSON, before, after, person_id=many)


async def look(session: AsyncSession, pack: Pack) -> int:
    """Search some changed persons and some open faces for questions; how many were looked at.

    Bounded work, whatever the size of the library: one search of the index for each of them.
    """
    if not await locks.try_lock_review(session):
        return 0
    version = await healing.version(session)
    reached = await rows.progress(session, pack.name)
    size = await matching.size(session, pack.name)
    after, people = await _look_at_persons(session, pack, reached, version, size)
    after, faces = await _look_at_faces(session, pack, after, size)
    if after != reached:
        await rows.save_progress(session, pack.name, after)
    return people + faces


async def _look_at_persons(
    session: AsyncSession, pack: Pack, reached: Progress, version: int, size: search.Library
) -> tuple[Progress, int]:
    changed = await rows.changed(session, reached, PORTION)
    if not changed:
        return reached, 0
    living = [row.id for row in changed if row.lives]
    known = await search.read_means(session, pack.name, pack.dimension, living)
    pairs = {(min(pair), max(pair)) for pair in await rows.partners(session, living)}
    least, nobody = _least(pack, size), [None] * len(known.ids)
    near_by = await matching.near(
        session, pack.name, known.means, least, size, nobody, NEIGHBOURS + 1
    )
    for person, near in zip(known.ids.tolist(), near_by, strict=True):
        others = [p for p in sorted(near, key=lambda p: -near[p]) if p != person]
        pairs |= {(min(p, person), max(p, person)) for p in others[:NEIGHBOURS]}
    pairs -= await cannot_be_one(session, pairs)
    found = []
    for one, other, similarity in await rows.pairs(session, pack.name, sorted(pairs)):
        if similarity >= least and review.may_be_one(one, other):
            p = matching.probability(pack, similarity, size.regulars)
            found.append(review.about_persons(one, other, similarity, p))
    await rows.drop_about_persons(session, [row.id for row in changed], found)
    await rows.write(session, pack.name, found)
    last = changed[-1]
    if len(changed) < PORTION or last.version >= version:
        # Who is written by a transaction that still runs is not seen yet.
        beyond = version > last.version
        mark = (version, 0) if beyond else min((last.version, last.id), (version, 0))
    else:
        mark = (last.version, last.id)
    moved = mark > (reached.version, reached.person_id)
    after = replace(reached, version=mark[0], person_id=mark[1]) if moved else reached
    return after, len(changed) if moved else 0


async def _look_at_faces(
    session: AsyncSession, pack: Pack, reached: Progress, size: search.Library
) -> tuple[Progress, int]:
    faces = await rows.open_faces(session, pack.name, reached.face_id, PORTION)
    if not faces:
        now = clock.now()
        due = reached.faces_since is None or now - reached.faces_since > AGAIN
        return (replace(reached, face_id=0, faces_since=now), 0) if due else (reached, 0)
    vectors = np.stack([search.from_sql(row.vector) for row in faces])
    least, nobody = _least(pack, size), [None] * len(faces)
    near_by = await matching.near(session, pack.name, vectors, least, size, nobody, NEIGHBOURS)
    likely = [
        (row.id, person, similarity)
        for row, near in zip(faces, near_by, strict=True)
        for person, similarity in sorted(near.items(), key=lambda item: -item[1])
    ]
    unborn = await not_born_yet(session, {row.photo_id for row in faces})
    early = {(row.id, person) for row in faces for person in unborn.get(row.photo_id, ())}
    likely = [(f, p, similarity) for f, p, similarity in likely if (f, p) not in early]
    may = await rows.candidates(session, [(face, person) for face, person, _ in likely])
    found: dict[int, Question] = {}
    for face, person, similarity in likely:
        if face not in found and (face, person) in may:
            p = matching.probability(pack, similarity, size.regulars)
            found[face] = review.about_face(may[face, person], face, similarity, p)
    last = faces[-1].id
    asked = list(found.values())
    await rows.drop_about_faces(session, reached.face_id, last, asked)
    await rows.write(session, pack.name, asked)
    return replace(reached, face_id=last), len(faces)


def _least(pack: Pack, size: search.Library) -> float:
    """The similarity at which two are one with the least probability that is asked about."""
    least = load(PeopleSettings).ask_from
    even = matching.even(pack, size.regulars)
    return even + math.log(least / (1 - least)) / pack.thresholds.slope


def _view(row: Row[Any], paths: dict[int, str]) -> ReviewQuestion:
    def face(number: int | None, photo: int, bbox: list[float]) -> ReviewFace | None:
        if number is None or photo not in paths:
            return None
        return ReviewFace(face_id=number, photo_id=photo, path=paths[photo], bbox=bbox)

    asked = face(row.other_face, row.other_photo, row.other_bbox)
    other = None
    if row.other_id is not None:
        other = ReviewParty(
            person_id=row.other_id,
            display_name=row.other_name,
            faces=row.other_faces,
            example=asked,
        )
    return ReviewQuestion(
        question_id=row.question_id,
        person=ReviewParty(
            person_id=row.person_id,
            display_name=row.person_name,
            faces=row.person_faces,
            example=face(row.person_face, row.person_photo, row.person_bbox),
        ),
        other=other,
        face=asked if other is None else None,
        similarity=row.similarity,
        probability=row.probability,
        faces=row.faces,
        gain=row.gain,
        skips=row.skips,
    )


def in_words(question: ReviewQuestion) -> str:
    """A question in words."""
    person = _called(question.person)
    if question.other is not None:
        return f"Is {_called(question.other)} the same as {person}?"
    face = question.face.face_id if question.face else "?"
    return f"Is face {face} {person}?"


def _called(party: ReviewParty) -> str:
    name = f"{party.display_name}, " if party.display_name else ""
    return f"{name}person {party.person_id} ({party.faces} faces)"
