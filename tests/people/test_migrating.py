"""From one pack to another: names stay, nothing is done twice, nobody is judged half-way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from album import Album, detection
from packs import JOIN, WIDTH, lay_pack, view_of

from kaleidoscope.kernel.errors import Conflict, Invalid
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library
from kaleidoscope.ml import catalog
from kaleidoscope.ml.errors import NotPulled
from kaleidoscope.people import jobs, service
from kaleidoscope.people.queries import search
from kaleidoscope.people.service import matching, migrating

WIDTHS = {"builtin": 128, "mine": WIDTH}
ANNA, BEA, CARL, DORA, POOR = range(5)


class House:
    """Photos of a household, and services that look at those that are READY with the pack in use.

    Each face is a person and whether the pack `mine` sees it.
    """

    def __init__(self, album: Album) -> None:
        self.album, self.db = album, album.db
        self.shown: dict[int, list[tuple[int, bool]]] = {}
        self.unreadable: set[int] = set()
        self.pack: str | None = None  # None: the one in use, as it should be

    async def photo(self, *people: int, unseen: tuple[int, ...] = ()) -> int:
        photo_id, _, _ = await self.album.add()
        self.shown[photo_id] = [(p, p not in unseen) for p in people]
        await self.look()
        return photo_id

    async def look(self, most: int = 1000) -> int:
        """Look at photos that are READY; how many."""
        rows = await self.album.rows(
            "SELECT photo_id, final_path, attempt_id FROM media_assets WHERE status = 'READY'"
            " ORDER BY photo_id LIMIT :most",
            most=most,
        )
        for row in rows:
            await self._deliver(row.photo_id, row.final_path, row.attempt_id)
        return len(rows)

    async def _deliver(self, photo_id: int, path: str, attempt_id: Any) -> None:
        pack = self.pack or catalog.active()
        if photo_id in self.unreadable:
            async with self.db.transaction() as session:
                await library.fail(
                    session, photo_id, attempt_id, code="x", error="is gone", permanent=True
                )
            return
        found = []
        for place, (person, seen) in enumerate(self.shown[photo_id]):
            if pack == "mine" and not seen:
                continue
            vector = view_of(person, photo_id % 1000 + 7 * place, WIDTHS[pack])
            score = 0.0 if person == POOR else 0.9
            made = detection(vector, place, quality={"score": score})
            if pack == "mine":
                made["bbox"] = [side + 6 for side in made["bbox"]]
            found.append(made)
        meta = {"pack": pack, "model_version": f"{pack}/test"}
        await self.album.deliver(
            self.album.callback((photo_id, path, attempt_id), found, meta=meta)
        )

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """The services run."""

        async def run() -> None:
            while True:
                await self.look(3)
                await asyncio.sleep(0.01)

        task = asyncio.create_task(run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def migrate(self, name: str = "mine") -> migrating.Migration:
        async with self.at_work():
            return await jobs.migrate(self.db, name)

    async def who(self) -> dict[int, tuple[int | None, str]]:
        """Of each face its person and who said so."""
        rows = await self.album.rows("SELECT id, person_id, confirmed_by FROM faces")
        return {row.id: (row.person_id, row.confirmed_by) for row in rows}

    async def whose(self, among: Collection[int] | None = None) -> dict[int, int]:
        """Of each face (among those) that has a person, who that is."""
        known = {face: person for face, (person, _) in (await self.who()).items()}
        return {f: p for f, p in known.items() if p and (among is None or f in among)}

    async def packs(self) -> dict[str, int]:
        """How many faces have a vector of each pack."""
        rows = await self.album.rows("SELECT pack, count(*) AS n FROM face_vectors GROUP BY 1")
        return {row.pack: row.n for row in rows}

    async def looks(self) -> set[int]:
        """How often each photo was looked at with `mine` to the end: the numbers that occur."""
        rows = await self.album.rows(
            "SELECT (SELECT count(*) FROM processing_attempts a WHERE a.photo_id = m.photo_id"
            "  AND outcome = 'PROCESSED' AND model_version = 'mine/test') AS n FROM media_assets m"
        )
        return {row.n for row in rows}


@pytest.fixture
def house(album: Album, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    lay_pack(data_dir)
    monkeypatch.setattr(jobs, "LOOK_EVERY", 0.02)
    monkeypatch.setattr(migrating, "PHOTOS_AT_ONCE", 4)
    return House(album)


async def family(house: House) -> dict[str, Any]:
    """A household of which much has been said."""
    for _ in range(6):
        await house.photo(ANNA, BEA)
    for _ in range(4):
        await house.photo(CARL)
    for _ in range(3):
        await house.photo(DORA, ANNA)
    await house.photo(POOR)
    await jobs.consolidate(house.db)
    persons = {}
    for name, who in (("Anna", ANNA), ("Bea", BEA), ("Carl", CARL), ("Dora", DORA)):
        photo = next(p for p, shown in house.shown.items() if (who, True) in shown)
        place = [p for p, _ in house.shown[photo]].index(who)
        persons[name] = (await house.album.persons(photo))[place]
    anna, _, carl, _ = persons.values()
    assert len({*persons.values(), None}) == 5
    photos = sorted(house.shown)
    face = (await house.album.face_ids(photos[0]))[0]
    last = (await house.album.face_ids(photos[6]))[0]
    async with house.db.transaction() as session:
        for name, person in list(persons.items())[:3]:
            await service.rename(session, person, name)
        await service.confirm(session, face, anna)
        await service.reject(session, last, carl)
        second = await service.split(session, anna, [(await house.album.face_ids(photos[1]))[0]])
        await service.merge(session, anna, [second.person_id or 0])
    return {**persons, "second": second.person_id, "confirmed": face, "rejected": last}


async def test_a_household_keeps_its_names(house: House) -> None:
    known = await family(house)
    before = await house.who()
    named = await house.album.rows("SELECT id, display_name, merged_into FROM persons ORDER BY id")
    noes = await house.album.rows("SELECT face_id, person_id FROM face_rejections ORDER BY 1, 2")
    assert len(noes) == 1

    done = await house.migrate()

    assert catalog.active() == "mine" and done.over and done.before == []
    assert (done.done, done.left, done.failed, done.unseen) == (14, 0, 0, 0)
    after = await house.who()
    assert after.keys() == before.keys(), "faces keep their ids"
    for name in ("Anna", "Bea", "Dora"):
        faces = {f for f, (person, _) in before.items() if person == known[name]}
        assert faces == {f for f, (person, _) in after.items() if person == known[name]}
    assert after[known["confirmed"]] == (known["Anna"], "person")
    assert after[known["rejected"]][0] != known["Carl"]
    assert noes == await house.album.rows(
        "SELECT face_id, person_id FROM face_rejections ORDER BY 1, 2"
    )
    assert named == await house.album.rows(
        "SELECT id, display_name, merged_into FROM persons WHERE id <= :last ORDER BY id",
        last=named[-1].id,
    )
    async with house.db.transaction() as session:
        assert await service.resolve(session, known["second"]) == known["Anna"]
        limits = matching.limits(matching.find_pack(None), 4)
    assert limits.join == JOIN, "the thresholds are those of the pack"
    assert await house.packs() == {"mine": len(after)}
    similar = await house.album.value(
        "SELECT count(*) FROM faces WHERE person_id = :anna AND similarity > .8",
        anna=known["Anna"],
    )
    assert similar == 9, "it is stated how alike a face is by the new pack"
    await house.album.check()


async def test_migrating_again_does_nothing_again(house: House) -> None:
    await family(house)
    await house.migrate()
    assert await house.looks() == {1}
    faces = await house.album.rows("SELECT id, attempt_id FROM faces ORDER BY id")
    again = await house.migrate()
    assert again.over and await house.looks() == {1}
    assert faces == await house.album.rows("SELECT id, attempt_id FROM faces ORDER BY id")


async def test_half_way_nobody_is_judged(house: House) -> None:
    await family(house)
    before = await house.who()
    pack = catalog.find("mine")
    await migrating.begin(house.db, pack)
    from kaleidoscope.ml import packs

    packs.use("mine")
    async with house.db.transaction() as session:
        assert len(await migrating.ask(session, pack, 0)) == 4
    await house.look()
    # No photo is on its way, and four of fourteen have been looked at.
    events = await house.album.value("SELECT count(*) FROM identity_events")
    assert await jobs.consolidate_when_quiet(house.db) is None
    assert await jobs.find_questions_when_quiet(house.db) == 0
    with pytest.raises(Conflict, match="not all photos") as refused:
        await jobs.consolidate(house.db)
    assert "models migrate mine" in str(refused.value.hint)
    assert await house.album.value("SELECT count(*) FROM identity_events") == events
    assert await house.who() == before
    assert await house.packs() == {"builtin": len(before), "mine": 8}
    await house.album.check()


async def test_who_is_more_alike_half_way_gets_nobody_s_face(house: House) -> None:
    """By the few vectors of the new pack Anna's face may be more like somebody else's."""
    first = await house.photo(ANNA)
    second = await house.photo(BEA)
    anna, bea = (await house.album.persons(first)), (await house.album.persons(second))
    assert anna != bea
    mine = {"pack": "mine", "model_version": "mine/test"}
    same = view_of(BEA, 1, WIDTH)
    await house.album.again(second, [detection(same)], meta=mine)
    await house.album.again(first, [detection(same)], meta=mine)
    assert await house.album.persons(first) == anna
    await house.album.again(first, [detection(same)], meta=mine)
    assert await house.album.persons(first) == anna, "and held from then on"


async def test_killed_at_any_step_it_goes_on_where_it_was(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await family(house)
    before = await house.whose()
    for photos in (0, 3, 5):  # how many are looked at before it is killed
        task = asyncio.create_task(jobs.migrate(house.db, "mine"))
        await asyncio.sleep(0.05)
        looked = 0
        while looked < photos:
            looked += await house.look(1)
            await asyncio.sleep(0.01)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def killed(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(migrating.rows, "forget_packs", killed)
        with pytest.raises(RuntimeError, match="killed"):
            await house.migrate()
    assert await house.looks() == {1} and "builtin" not in await house.packs()
    done = await house.migrate()
    assert done.over and done.before == []
    assert await house.looks() == {1}, "no photo was looked at twice"
    assert await house.whose(before) == before
    await house.album.check()


async def test_what_the_new_pack_does_not_see(house: House) -> None:
    """Confirmed faces stay, and nobody who has a name loses the last face; others go."""
    for _ in range(3):
        await house.photo(ANNA)
    both = await house.photo(ANNA, BEA, CARL, DORA, unseen=(BEA, CARL, DORA))
    anna, bea, carl, dora = await house.album.persons(both)
    faces = await house.album.face_ids(both)
    async with house.db.transaction() as session:
        await service.confirm(session, faces[1])
        await service.rename(session, carl, "Carl")
    done = await house.migrate()
    assert await house.album.persons(both) == [anna, bea, carl]
    assert (await house.album.face_ids(both))[:3] == faces[:3]
    assert done.confirmed == done.unseen == 1
    assert await house.packs() == {"mine": 4, "builtin": 2}
    await house.album.check()
    assert (await house.migrate("builtin")).over
    assert (await house.album.persons(both))[:3] == [anna, bea, carl]
    assert await house.packs() == {"builtin": 7}, f"person {dora} has another id"


async def test_a_photo_that_is_gone_keeps_what_was_known(house: House) -> None:
    await family(house)
    gone = min(house.shown)
    before = await house.album.persons(gone)
    house.unreadable.add(gone)
    done = await house.migrate()
    assert (done.done, done.failed) == (13, 1) and done.over
    assert await house.album.persons(gone) == before
    assert (await house.packs())["builtin"] == 2
    assert await jobs.arrived(house.db), "there is nothing left to wait for"
    house.unreadable.clear()
    async with house.db.transaction() as session:
        await library.reprocess(session, [gone])
    await house.look()
    assert await house.album.persons(gone) == before
    await house.album.check()


async def test_there_and_back_half_way(house: House) -> None:
    await family(house)
    before = await house.who()
    task = asyncio.create_task(jobs.migrate(house.db, "mine"))
    looked = 0
    while looked < 6:
        looked += await house.look(1)
        await asyncio.sleep(0.01)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    done = await house.migrate("builtin")
    assert catalog.active() == "builtin" and done.over
    assert await house.packs() == {"builtin": len(before)}
    after = await house.who()
    assert after.keys() == before.keys()
    await house.album.check()


async def test_the_clock_ends_what_was_begun_by_hand(house: House) -> None:
    """`models use` and `photos reprocess --all`, as before: the clock sees when all is there."""
    await family(house)
    from kaleidoscope.ml import packs

    packs.use("mine")
    await house.photo(CARL)
    assert await jobs.consolidate_when_quiet(house.db) is None
    async with house.db.transaction() as session:
        await library.reprocess(session, sorted(house.shown))
    await house.look()
    await jobs.consolidate_when_quiet(house.db)
    assert await house.packs() == {"mine": await house.album.value("SELECT count(*) FROM faces")}
    await house.album.check()


async def test_a_large_library_has_its_index_first(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_PEOPLE_EXACT_UP_TO", "2")
    load.cache_clear()
    await family(house)
    before = await house.whose()
    await migrating.begin(house.db, catalog.find("mine"))
    async with house.db.transaction() as session:
        assert await search.has_index(session, "mine")
    await house.migrate()
    assert await house.whose(before) == before
    await house.migrate("builtin")
    async with house.db.transaction() as session:
        assert not await search.has_index(session, "mine")
        assert await search.has_index(session, "builtin")


async def test_settings_that_would_spoil_it_are_said_first(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.photo(ANNA)
    with pytest.raises(NotPulled):
        await jobs.migrate(house.db, "yunet-sface")
    for name, value, told in (
        ("ML_PACK", "builtin", "ml.pack says builtin"),
        ("PEOPLE_JOIN", "0.9", "people.join is a similarity of builtin"),
        ("PEOPLE_MERGE", "0.9", "people.merge"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(f"KALEIDOSCOPE_{name}", value)
            load.cache_clear()
            with pytest.raises(Invalid, match=told):
                await jobs.migrate(house.db, "mine")
        load.cache_clear()
    assert catalog.active() == "builtin" and await house.looks() == {0}


async def test_services_that_look_with_another_pack_are_told_of(house: House) -> None:
    await family(house)
    house.pack = "builtin"
    with pytest.raises(Conflict, match="looked at with another pack than mine"):
        await house.migrate()


async def test_what_it_would_take_is_foreseen(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kaleidoscope.people.service import comparing

    async def looks(photos: Any, packs: Any, *_: object) -> Any:
        return {p.name: {x.photo_id: comparing.Look([], [], 120.0) for x in photos} for p in packs}

    monkeypatch.setattr(comparing, "look_at", looks)
    monkeypatch.setenv("KALEIDOSCOPE_ML_PROCESSES", "2")
    load.cache_clear()
    await family(house)
    found = await service.foresee(house.db, "mine")
    assert (found.photos, found.measured_on, found.seconds) == (14, 14, 0.8)
    assert found.licence == "a licence of our own" and found.migration.named == 3
    assert catalog.active() == "builtin" and await house.looks() == {0}
