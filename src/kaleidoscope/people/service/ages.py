"""Birth dates and the dates of photos, where identity asks for them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.library import service as library
from kaleidoscope.people.queries import healing, naming, review
from kaleidoscope.people.rules.ages import too_early


async def not_born_yet(
    session: AsyncSession, photo_ids: Collection[int]
) -> dict[int, frozenset[int]]:
    """Per photo, who was not born when it was taken. One look at an index where no person has a
    birth date; photos without a date to rely on are left out.
    """
    births = await naming.births(session)
    if not births:
        return {}
    return {
        photo: frozenset(person for person, born in births.items() if too_early(day, born))
        for photo, day in (await library.taken(session, photo_ids)).items()
    }


async def cannot_be_one(
    session: AsyncSession, pairs: Collection[tuple[int, int]]
) -> set[tuple[int, int]]:
    """Of these pairs of persons those of whom one was in a photo before the other was born."""
    births = await naming.births(session)
    ways = [(pair, *way) for pair in pairs for way in (pair, pair[::-1]) if way[0] in births]
    first = await _first_taken(session, {other for _, _, other in ways})
    return {
        pair for pair, one, other in ways if other in first and too_early(first[other], births[one])
    }


async def early_faces(session: AsyncSession, person: int) -> tuple[list[int], list[int]]:
    """The faces of a person in photos from before their birth: those that the machine gave, and
    those that somebody's word keeps there.
    """
    faces = await naming.photos_of_faces(session, person)
    unborn = await not_born_yet(session, set(faces.values()))
    early = [face for face, photo in faces.items() if person in unborn.get(photo, ())]
    if not early:
        return [], []
    kept = await naming.confirmed(session, early) | await healing.held_faces(session)
    return [f for f in early if f not in kept], [f for f in early if f in kept]


async def drop_questions(session: AsyncSession, person: int) -> None:
    """Drop the open questions about a person that a birth date has answered."""
    asked = await review.open_about(session, person)
    unborn = await not_born_yet(session, {row.photo_id for row in asked if row.photo_id})
    pairs = {row.id: (row.person_id, row.other_id) for row in asked if row.other_id}
    never = await cannot_be_one(session, set(pairs.values()))
    gone = [question for question, pair in pairs.items() if pair in never]
    gone += [row.id for row in asked if row.person_id in unborn.get(row.photo_id, ())]
    await review.drop(session, gone)


async def _first_taken(session: AsyncSession, person_ids: Collection[int]) -> dict[int, date]:
    """The day of the first photo of each of these persons, of those with a date to rely on."""
    present = await healing.photos_of(session, person_ids) if person_ids else []
    taken = await library.taken(session, {photo for photo, _ in present}) if present else {}
    first: dict[int, date] = {}
    for photo, person in present:
        if photo in taken:
            first[person] = min(first.get(person, taken[photo]), taken[photo])
    return first
