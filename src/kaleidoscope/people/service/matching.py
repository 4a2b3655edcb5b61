"""Finding the persons that faces are like, in the library as it is now."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.settings import load
from kaleidoscope.ml import catalog
from kaleidoscope.ml.catalog import Pack
from kaleidoscope.ml.settings import MlSettings
from kaleidoscope.people.queries import search
from kaleidoscope.people.rules.matching import Limits, Vectors
from kaleidoscope.people.settings import PeopleSettings

BEST = 10  # candidates from the index per face, besides one for each other face of the photo


def find_pack(name: str | None) -> Pack:
    """The pack of that name, or the one in use; `UnknownPack` for one that nobody knows."""
    return catalog.find(name or catalog.active())


def limits(pack: Pack, persons: int) -> Limits:
    """What decides in a library of so many persons: the pack's figures, or the settings'."""
    chosen, stated = load(PeopleSettings), pack.thresholds
    views = 1 if load(MlSettings).preset == "fast" else 2
    join = stated.join_at(persons, views=views) if chosen.join is None else chosen.join
    found = stated.found_quality if chosen.found_quality is None else chosen.found_quality
    return Limits(join=join, merge=join, same=(1 + join) / 2, found=found)


async def size(session: AsyncSession, pack: str) -> search.Library:
    """How large the library is, as far as it matters for thresholds and the way to search."""
    return await search.library(session, pack, load(PeopleSettings).exact_up_to)


async def near(
    session: AsyncSession,
    pack: str,
    vectors: Vectors,
    least: float,
    library: search.Library,
    suggested: Sequence[int | None],
) -> list[dict[int, float]]:
    """Per face, the persons at least that similar: all of them, or the best the index finds.

    What the ML service suggested is always looked at, by the id that it resolves to now.
    """
    if len(vectors) == 0:
        return []
    settings = load(PeopleSettings)
    if library.persons <= settings.exact_up_to:
        return await search.near_exact(session, pack, vectors, least)
    found = await search.near_indexed(
        session, pack, vectors, least, BEST + len(vectors), settings.search_effort
    )
    hints = [(i, p) for i, p in enumerate(suggested) if p is not None]
    answers = await search.similar_to(session, pack, [(p, vectors[i]) for i, p in hints])
    for (i, _), answer in zip(hints, answers, strict=True):
        if answer is not None and answer[1] >= least:
            found[i][answer[0]] = answer[1]
    return found
