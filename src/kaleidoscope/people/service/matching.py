"""Finding the persons that faces are like, in the library as it is now."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.settings import load
from kaleidoscope.ml import catalog
from kaleidoscope.ml.catalog import Pack
from kaleidoscope.ml.settings import MlSettings
from kaleidoscope.people.queries import locks, search
from kaleidoscope.people.rules.matching import (
    Limits,
    Sitting,
    Vector,
    Vectors,
    Verdict,
    decide_all,
)
from kaleidoscope.people.settings import PeopleSettings

COPY_CANDIDATES = 5  # persons whose single faces are looked at
BEST = 10  # candidates from the index per face, besides one for each other face of the photo


def find_pack(name: str | None) -> Pack:
    """The pack of that name, or the one in use; `UnknownPack` for one that nobody knows."""
    return catalog.find(name or catalog.active())


def limits(pack: Pack, persons: int) -> Limits:
    """What decides in a library of so many regulars: the pack's figures, or the settings'.

    Who states where persons are merged means it in any company.
    """
    chosen, stated = load(PeopleSettings), pack.thresholds
    preset = load(MlSettings).preset
    join = stated.join_at(persons, preset=preset) if chosen.join is None else chosen.join
    plain = chosen.merge is not None
    merge = stated.merge_at(persons, preset=preset) if chosen.merge is None else chosen.merge
    found = stated.found_quality if chosen.found_quality is None else chosen.found_quality
    return Limits(
        join=join,
        merge=merge,
        # Between a person's likeness and identity lie copies of one picture, whatever the pack.
        copy=(1 + join) / 2,
        same=(3 + join) / 4,
        found=found,
        rival=0.0 if plain else stated.rival,
        caution=0.0 if plain else stated.caution,
        legible=stated.legible_quality,
        lonely=merge if plain else stated.lonely_at(persons, preset=preset),
    )


def probability(pack: Pack, similarity: float, persons: int) -> float:
    """How likely a face so similar is of its person, in a library of so many regulars."""
    preset = load(MlSettings).preset
    return pack.thresholds.probability(similarity, persons, preset=preset)


def even(pack: Pack, persons: int) -> float:
    """The similarity at which yes is as likely as no, in a library of so many regulars."""
    preset = load(MlSettings).preset
    return pack.thresholds.even_at(persons, preset=preset)


async def size(session: AsyncSession, pack: str) -> search.Library:
    """How large the library is, as far as it matters for thresholds and the way to search."""
    return await search.library(session, pack, load(PeopleSettings).exact_up_to)


async def match_all(
    session: AsyncSession, pack: Pack, sittings: Sequence[Sitting], *, may_found: bool
) -> list[list[Verdict]]:
    """Match the faces of photos, one photo after the other, against the library as it is now.

    Whoever is like nobody on average is compared with single faces, because the average can miss
    the person whose photo this is once more: one of many unlike faces. Before anybody is founded
    (`may_found`) the faces are matched again, alone, against those founded since.
    """
    library = await size(session, pack.name)
    chosen = limits(pack, library.regulars)
    if not any(len(s.sights) for s in sittings):
        return [[] for _ in sittings]
    vectors = np.concatenate([s.vectors for s in sittings])
    suggested = [person for s in sittings for person in s.suggested]
    best = BEST + max(len(s.sights) for s in sittings)
    similar = await near(session, pack.name, vectors, chosen.join, library, suggested, best)
    copies: dict[int, dict[int, float]] = {}
    known: dict[int, tuple[int, Vector]] = {}
    while True:
        if len(sittings) > 1:
            named = {p for row in [*similar, *copies.values()] for p in row} - known.keys()
            known |= await search.totals(session, pack.name, sorted(named)) if named else {}
        outcome = decide_all(sittings, similar, copies, known, chosen)
        if unseen := [row for row in outcome.lonely if row not in copies]:
            found = await search.near_faces(
                session, pack.name, vectors[unseen], chosen.copy, COPY_CANDIDATES
            )
            copies |= zip(unseen, found, strict=True)
            if any(found):
                continue
        if not outcome.founded or not may_found:
            return outcome.verdicts
        may_found = False
        await locks.lock_founding(session)
        newer = await search.near_exact(
            session, pack.name, vectors, chosen.join, after=library.last_id
        )
        if not any(newer):
            return outcome.verdicts
        similar = [{**row, **more} for row, more in zip(similar, newer, strict=True)]


async def near(
    session: AsyncSession,
    pack: str,
    vectors: Vectors,
    least: float,
    library: search.Library,
    suggested: Sequence[int | None],
    best: int | None = None,
) -> list[dict[int, float]]:
    """Per vector, the persons at least that similar: all, or the `best` that the index finds.

    What the ML service suggested is always looked at, by the id that it resolves to now.
    """
    settings = load(PeopleSettings)
    if library.persons <= settings.exact_up_to:
        return await search.near_exact(session, pack, vectors, least)
    found = await search.near_indexed(
        session, pack, vectors, least, best or BEST + len(vectors), settings.search_effort
    )
    hints = [(i, p) for i, p in enumerate(suggested) if p is not None]
    answers = await search.similar_to(session, pack, [(p, vectors[i]) for i, p in hints])
    for (i, _), answer in zip(hints, answers, strict=True):
        if answer is not None and answer[1] >= least:
            found[i][answer[0]] = answer[1]
    return found
