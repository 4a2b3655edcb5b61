"""From one pack to another: every photo is looked at anew, persons and what was said of them stay.

A face that the pack before had found is known again by its place, and keeps its id, its person and
a person's word. While only some faces have vectors of the new pack nobody is consolidated and no
question is asked; the vectors before are removed when no photo is left. Where a migration stands
shows in the ledger: whoever is killed in the middle begins again where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import Conflict, Invalid
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library
from kaleidoscope.ml import catalog
from kaleidoscope.ml.catalog import Pack
from kaleidoscope.ml.settings import MlSettings
from kaleidoscope.people.queries import locks, persons, search
from kaleidoscope.people.queries import migrating as rows
from kaleidoscope.people.service import comparing
from kaleidoscope.people.service.indexing import PERSONS_AT_ONCE, build_index
from kaleidoscope.people.settings import PeopleSettings

PHOTOS_AT_ONCE = 500


@dataclass(frozen=True)
class Migration:
    """How far the library is on its way to a pack.

    `done` photos were looked at with it, `left` with another one, `waiting` ones are on their way,
    `failed` ones cannot be read, and keep what was known of them. Of all `confirmed` faces the pack
    has no vector of `unseen` ones (yet): they keep their person, and nobody is known by them.
    """

    pack: str
    before: list[str]
    done: int
    left: int
    waiting: int
    failed: int
    faces: int
    confirmed: int
    unseen: int
    named: int

    @property
    def over(self) -> bool:
        """Whether no photo is to be looked at any more."""
        return self.left == self.waiting == 0


async def migration(session: AsyncSession, pack: Pack) -> Migration:
    """How far the library is on its way to a pack."""
    looked = await library.looked_at_with(session, models_of(pack))
    known = await rows.figures(session, pack.name)
    return Migration(
        pack=pack.name,
        before=await rows.packs_before(session, pack.name),
        done=looked.done,
        left=looked.left,
        waiting=looked.waiting,
        failed=looked.failed,
        faces=known.faces,
        confirmed=known.confirmed,
        unseen=known.unseen,
        named=known.named,
    )


@dataclass(frozen=True)
class Foreseen:
    """What a migration would take: `seconds` by a few photos looked at with the pack just now, and
    `megabytes` of vectors for the faces there are, beside those there are until the end.
    """

    migration: Migration
    photos: int
    licence: str
    measured_on: int
    seconds: float
    megabytes: float


async def foresee(db: Database, name: str, measure_on: int = 20) -> Foreseen:
    """What migrating to this pack would take. Nothing is changed; raises as `migrate` does."""
    from kaleidoscope.ml import packs  # networks: slow to import

    pack = await asyncio.to_thread(packs.find_whole, name)
    check(pack)
    async with db.transaction() as session:
        state = await migration(session, pack)
        ids = await library.photo_ids(session, limit=measure_on, media_type="photo")
        some = await library.get_many(session, ids)
    looks = (await comparing.look_at(some, [pack]))[pack.name]
    photos = state.left + state.waiting
    return Foreseen(
        state,
        photos,
        pack.licence,
        len(looks),
        comparing.seconds_for(photos, list(looks.values())),
        comparing.megabytes_for(state.faces, pack),
    )


def models_of(pack: Pack) -> str:
    """How the version of every model of a pack begins."""
    return f"{pack.name}/"


async def packs_before(session: AsyncSession, pack: str) -> list[str]:
    """The packs that this one takes the place of, while that is going on."""
    return await rows.packs_before(session, pack)


async def half_way(session: AsyncSession, pack: Pack) -> bool:
    """Whether some photos were looked at with other packs than this one, or are on their way."""
    if not await rows.packs_before(session, pack.name):
        return False  # as nearly always, and soon known
    if await library.on_their_way(session):
        return True  # known without a look at every attempt
    looked = await library.looked_at_with(session, models_of(pack))
    return looked.left + looked.waiting > 0


async def refuse_half_way(session: AsyncSession, pack: Pack) -> None:
    """Raise `Conflict` while persons cannot be judged, because some are not seen by the pack."""
    if await half_way(session, pack):
        raise Conflict(
            f"not all photos have been looked at with {pack.name}: persons are compared when they"
            " have",
            hint=f"`kaleidoscope models migrate {pack.name}` has it done, and shows how far it is",
        )


def check(pack: Pack) -> None:
    """Raise `Invalid` where a setting would have another pack, or another pack's thresholds."""
    chosen, said = load(MlSettings).pack, load(PeopleSettings)
    if chosen not in ("", pack.name):
        raise Invalid(
            f"the setting ml.pack says {chosen}, not {pack.name}",
            hint="take it away, restart the services, and migrate then",
        )
    for name in ("join", "merge"):
        if getattr(said, name) is not None and catalog.active() != pack.name:
            raise Invalid(
                f"the setting people.{name} is a similarity of {catalog.active()}, and means"
                f" nothing for {pack.name}",
                hint="take it away, restart the services, and migrate then",
            )


async def begin(db: Database, pack: Pack) -> None:
    """Note which packs it takes the place of, before it does. Doing it again changes nothing."""
    most = load(PeopleSettings).exact_up_to
    async with db.transaction() as session:
        await rows.note_packs(session, pack.name)
        large = await rows.count_persons(session, most) > most
        indexed = await search.has_index(session, pack.name)
    if large and not indexed:  # made while it is empty: it grows with the vectors
        await build_index(db, pack)


async def ask(session: AsyncSession, pack: Pack, after: int) -> list[int]:
    """Have some photos above an id looked at anew; their ids."""
    return await library.look_with(session, models_of(pack), after, PHOTOS_AT_ONCE)


async def refuse_others(session: AsyncSession, pack: Pack, asked: Sequence[int]) -> None:
    """Raise `Conflict` when photos that were asked for were looked at with another pack."""
    if others := await library.looked_at_otherwise(session, models_of(pack), asked):
        raise Conflict(
            f"photo {others[0]} was looked at with another pack than {pack.name} all the same",
            hint="a service has a setting of its own (`ml.pack`), or another data folder: mend that"
            f" and restart it; then `kaleidoscope models migrate {pack.name}` goes on",
            photo_id=others[0],
        )


async def finish(db: Database, pack: Pack) -> None:
    """Remove the vectors of the packs before, and all else that was theirs.

    What the pack has not seen keeps its old vectors, which are compared with nothing.
    """
    last = 0
    while True:
        async with db.transaction() as session:
            await locks.lock_identity(session, alone=True)
            ids = await persons.ids_after(session, last, PERSONS_AT_ONCE)
            await rows.drop_replaced(session, pack.name, ids)
            await persons.recount_persons(session, ids)
            await rows.measure(session, pack.name, ids)
        if not ids:
            break
        last = ids[-1]
    async with db.transaction() as session:
        await rows.drop_replaced_open(session, pack.name)
        before = await rows.packs_before(session, pack.name)
    for name in before:
        await drop_index(db, name)
    async with db.transaction() as session:
        await rows.forget_packs(session, pack.name)


async def drop_index(db: Database, pack: str) -> None:
    """Remove a pack's search index, beside running work."""
    async with db.engine.connect() as connection:
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await search.drop_index(connection, pack)
