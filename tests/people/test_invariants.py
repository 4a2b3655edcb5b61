"""Whatever is done in whatever order, identity stays whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from album import Album, detection, face
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kaleidoscope.kernel.errors import KaleidoscopeError
from kaleidoscope.kernel.settings import load
from kaleidoscope.people import jobs, service
from kaleidoscope.people.service import Consolidated

PEOPLE = st.lists(st.integers(0, 4), min_size=0, max_size=3)
PICK = st.integers(0, 1000)
LIKENESS = st.sampled_from([None, "0.5", "0.98", "1"])
"""What consolidation is told to join at and to merge at; None: what the pack says. The extremes
make it merge strangers and split people, so that there is something to take back."""
OPERATIONS = st.one_of(
    st.tuples(st.just("shoot"), PEOPLE, st.integers(0, 30)),
    st.tuples(st.just("again"), PICK, PEOPLE, st.integers(0, 30)),
    st.tuples(st.just("confirm"), PICK, st.one_of(st.none(), PICK)),
    st.tuples(st.just("reject"), PICK, st.one_of(st.none(), PICK)),
    st.tuples(st.just("merge"), PICK, PICK),
    st.tuples(st.just("split"), PICK, PICK),
    st.tuples(st.just("rename"), PICK, st.sampled_from(["Anna", "Ben", ""])),
    st.tuples(st.just("undo"), PICK),
    st.tuples(st.just("undo-at-once"), PICK, PICK),
    st.tuples(st.just("consolidate"), st.booleans(), LIKENESS, LIKENESS),
    st.tuples(st.just("undo-round"), PICK),
    st.tuples(st.just("undo-round-at-once"), LIKENESS, LIKENESS),
)
MACHINE = {"shoot", "again", "consolidate"}
NOES = 2  # the place of the remembered noes in a state
TABLES = "faces, face_vectors, person_vectors, photo_persons, face_rejections, identity_events"


@dataclass
class Walk:
    """One run of operations. A number picks a thing among those that are there."""

    album: Album

    async def ids(self, table: str, column: str = "id") -> list[int]:
        rows = await self.album.rows(f"SELECT {column} FROM {table} ORDER BY 1")
        return [row[0] for row in rows]

    async def pick(self, number: int | None, table: str, column: str = "id") -> int | None:
        found = await self.ids(table, column)
        return found[number % len(found)] if found and number is not None else None

    async def act(self, verb: Callable[..., Any], *arguments: Any) -> Any:
        """A person's word; one that makes no sense is refused and changes nothing."""
        if arguments and arguments[0] is None:
            return None
        try:
            async with self.album.db.transaction() as session:
                return await verb(session, *arguments)
        except KaleidoscopeError:
            return None

    async def do(self, name: str, *given: Any) -> Any:
        if name == "shoot":
            people, view = given
            await self.album.shoot(*people, view=view)
        elif name == "again":
            photo = await self.pick(given[0], "media_assets", "photo_id")
            if photo is not None:
                faces = [detection(face(p, given[2] + i), i) for i, p in enumerate(given[1])]
                await self.album.again(photo, faces)
        elif name in ("confirm", "reject"):
            verb = service.confirm if name == "confirm" else service.reject
            person = await self.pick(given[1], "persons")
            return await self.act(verb, await self.pick(given[0], "faces"), person)
        elif name == "merge":
            kept, gone = [await self.pick(n, "persons") for n in given]
            return await self.act(service.merge, kept, [gone])
        elif name == "split":
            person = await self.pick(given[0], "persons WHERE merged_into IS NULL")
            theirs = await self.pick(given[1], f"faces WHERE person_id = {person or 0}")
            return await self.act(service.split, person, [theirs])
        elif name == "rename":
            return await self.act(service.rename, await self.pick(given[0], "persons"), given[1])
        elif name == "undo":
            await self.act(service.undo, await self.pick(given[0], "identity_events"))
        elif name == "undo-at-once":
            await self.undo_at_once(*given)
        elif name == "consolidate":
            await self.consolidate(*given)
        elif name == "undo-round":
            round_ = await self.pick(given[0], "identity_events WHERE round IS NOT NULL")
            await self.act(service.undo_round, round_)
        elif name == "undo-round-at-once":
            await self.undo_round_at_once(*given)
        return None

    async def consolidate(
        self, everybody: bool, join: str | None, merge: str | None
    ) -> Consolidated | None:
        """A round at these thresholds; it touches no confirmed face, no name and heeds every no."""
        names, refused = await self.names(), await self.refused()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (("JOIN", join), ("MERGE", merge)):
                if value is not None:
                    patch.setenv(f"KALEIDOSCOPE_PEOPLE_{name}", value)
            load.cache_clear()
            done = await jobs.consolidate(self.album.db, everybody=everybody)
        load.cache_clear()
        assert done is None or done.confirmed_touched == 0
        assert await self.names() == names, "a named person was merged away"
        assert await self.refused() <= refused, "a face went to whom it is known not to be"
        return done

    async def undo_round_at_once(self, join: str | None, merge: str | None) -> None:
        """A round that is taken back leaves all as it was, but for the noes it now remembers."""
        before, persons = await self.state(), await self.ids("persons")
        done = await self.consolidate(True, join, merge)
        if done is None or done.round is None:
            assert await self.state(persons) == before, "a round without an event moved something"
            return
        assert await self.act(service.undo_round, done.round), "a round just made is undoable"
        after = await self.state(persons)
        noes = before.pop(NOES), after.pop(NOES)
        assert after == before and set(noes[0]) <= set(noes[1])
        await self.consolidate(True, join, merge)  # which looks that it heeds these noes

    async def undo_at_once(self, which: int, number: int) -> None:
        verb = ("confirm", "reject", "merge", "split", "rename")[which % 5]
        more = ("Zoe",) if verb == "rename" else (number // 7,)
        before, persons = await self.state(), await self.ids("persons")
        event = await self.do(verb, number, *more)
        if event is not None:
            assert await self.act(service.undo, event.event_id) is not None
            assert await self.state(persons) == before, verb

    async def state(self, persons: list[int] | None = None) -> list[Any]:
        """All that a change may change, of the persons that there were."""
        known = await self.ids("persons") if persons is None else persons
        queries = (
            "SELECT id, person_id, status, confirmed_by, similarity FROM faces ORDER BY id",
            "SELECT id, display_name, merged_into, primary_embedding_id FROM persons"
            " WHERE id = ANY(:known) ORDER BY id",
            "SELECT face_id, person_id FROM face_rejections ORDER BY 1, 2",
            "SELECT photo_id, person_ids FROM media_assets ORDER BY 1",
        )
        return [await self.album.rows(q, **({"known": known} if ":known" in q else {}))
                for q in queries]  # fmt: skip

    async def names(self) -> set[str]:
        """The names that living persons have."""
        rows = await self.album.rows(
            "SELECT DISTINCT display_name FROM persons"
            " WHERE merged_into IS NULL AND display_name IS NOT NULL"
        )
        return {row[0] for row in rows}

    async def refused(self) -> set[tuple[int, int]]:
        """Remembered noes about faces which have that person all the same: who merged the two
        by hand had the last word.
        """
        rows = await self.album.rows(
            "SELECT r.face_id, r.person_id FROM face_rejections r JOIN faces f ON f.id = r.face_id"
            " JOIN persons p ON p.id = r.person_id"
            " WHERE coalesce(p.merged_into, p.id) = f.person_id"
        )
        return {(row.face_id, row.person_id) for row in rows}

    async def confirmed(self) -> list[Any]:
        return await self.album.rows(
            "SELECT id, person_id FROM faces WHERE confirmed_by = 'person' ORDER BY id"
        )

    async def resolved(self, person: int) -> int:
        async with self.album.db.transaction() as session:
            return await service.resolve(session, person)

    async def check(self, persons: list[int]) -> None:
        """The album is whole, and every id ever given out resolves to a living person."""
        await self.album.check()
        living = set(await self.ids("persons WHERE merged_into IS NULL"))
        for person in persons:
            assert await self.resolved(person) in living


async def walk(album: Album, operations: list[tuple[Any, ...]]) -> None:
    await album.rows(f"TRUNCATE {TABLES}, consolidations, persons, media_assets CASCADE")
    run, ever = Walk(album), set[int]()
    for name, *given_ in operations:
        confirmed = await run.confirmed()
        await run.do(name, *given_)
        if name in MACHINE:
            resolved = [(f, await run.resolved(person)) for f, person in confirmed]
            assert await run.confirmed() == resolved, f"{name} moved what a person confirmed"
        ever |= set(await run.ids("persons"))
        await run.check(sorted(ever))


@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(OPERATIONS, min_size=5, max_size=30))
async def test_identity_stays_whole(album: Album, operations: list[tuple[Any, ...]]) -> None:
    await walk(album, operations)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@settings(
    max_examples=250,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking one takes as long again
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(OPERATIONS, min_size=40, max_size=60))
async def test_ten_thousand_operations(album: Album, operations: list[tuple[Any, ...]]) -> None:
    await walk(album, operations)
