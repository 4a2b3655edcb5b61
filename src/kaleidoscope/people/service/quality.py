"""How good the machine's assignments are in this library, by the faces a person confirmed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.errors import Invalid
from kaleidoscope.people.queries import quality as words
from kaleidoscope.people.queries import search
from kaleidoscope.people.rules import quality as rules
from kaleidoscope.people.rules.quality import Matches, Share, Spoken, Threshold
from kaleidoscope.people.service import matching

FEWEST = 100  # confirmed faces, below which the figures are called a hint
MOST_PERSONS = 200_000  # that are all compared with


@dataclass(frozen=True)
class Quality:
    """What the machine had made of the confirmed faces (`right`, `apart`: with their person under
    a second id, `wrong`, `open`); `now`: each matched anew without itself, at the threshold in
    use, `join`; `advised`: the lowest threshold that surely gives the precision `wanted`.
    """

    pack: str
    faces: int
    persons: int
    right: int
    apart: int
    wrong: int
    open: int
    precision: Share | None
    recall: Share | None
    join: float
    now: Threshold | None
    wanted: float
    advised: Threshold | None
    enough: bool
    remarks: list[str]


async def quality(session: AsyncSession, wanted: float = 0.99) -> Quality:
    """Judge the machine by what people said; `Invalid` for a precision that nothing can have."""
    if not 0 < wanted < 1:
        raise Invalid(f"a wanted precision lies between 0 and 1, {wanted} does not", field="wanted")
    pack = matching.find_pack(None)
    spoken = [Spoken(row.person_id, row.had, row.kind) for row in await words.first_words(session)]
    persons = {face.person for face in spoken}
    library = await search.library(session, pack.name, MOST_PERSONS)
    limits = matching.limits(pack, library.regulars)
    found = None
    if spoken and library.persons <= MOST_PERSONS:
        faces = await search.read_faces(session, pack.name, pack.dimension, sorted(persons))
        known = await search.read_means(session, pack.name, pack.dimension)
        told = faces.confirmed & (faces.copies == 0) & np.isin(faces.persons, known.ids)
        vectors, who = faces.vectors[told], faces.persons[told]
        found = await asyncio.to_thread(rules.matches, vectors, who, known)
    said = rules.outcomes(spoken)
    advised = None if found is None else await asyncio.to_thread(rules.threshold, found, wanted)
    return Quality(
        pack.name,
        len(spoken),
        len(persons),
        said.right,
        said.apart,
        said.wrong,
        said.open,
        said.precision,
        said.recall,
        round(limits.join, 4),
        None if found is None else rules.at(found, limits.join),
        wanted,
        advised,
        len(spoken) >= FEWEST,
        _remarks(len(spoken), library.persons, found, advised, wanted),
    )


def _remarks(
    faces: int, persons: int, found: Matches | None, advised: Threshold | None, wanted: float
) -> list[str]:
    """What somebody who reads the figures should know."""
    remarks = []
    if not faces:
        remarks.append("no face is confirmed by a person: nothing can be said")
    elif faces < FEWEST:
        remarks.append(
            f"{faces} confirmed faces are few: take the intervals, not the figures, for an"
            f" answer; from {FEWEST} on they are worth something"
        )
    if persons > MOST_PERSONS:
        remarks.append(f"thresholds are not judged in libraries of more than {MOST_PERSONS}")
    elif found is not None and advised is None:
        least = rules.least_faces(wanted)
        remarks.append(
            f"no threshold surely gives a precision of {wanted:g}: that takes {least} matched"
            f" faces at least, all of them right, and there are {len(found.similarity)}"
        )
    return remarks
