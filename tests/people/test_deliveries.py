"""Several photos delivered at once: as if one after the other, all of them or none."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from album import Album, detection, face

from kaleidoscope.kernel.errors import Conflict, Invalid, NotFound
from kaleidoscope.library import service as library
from kaleidoscope.people import service
from kaleidoscope.people.rules.matching import (
    Limits,
    Sight,
    Sitting,
    Vector,
    Verdict,
    decide,
    decide_all,
)
from kaleidoscope.people.schemas import Callback, CallbackAnswer


async def deliver(album: Album, callbacks: list[Callback]) -> list[CallbackAnswer]:
    async with album.db.transaction() as session:
        return await service.deliver_all(session, callbacks)


async def lot(album: Album, *photos: list[int], view: int = 0) -> list[Callback]:
    """A callback for a new photo of each of these groups of people."""
    return [
        album.callback(
            await album.add(),
            [detection(face(p, view + 50 * n + i), i) for i, p in enumerate(people)],
        )
        for n, people in enumerate(photos)
    ]


async def test_a_person_of_several_photos_is_founded_once(album: Album) -> None:
    _, [anna] = await album.shoot(1, view=900)
    callbacks = await lot(album, [2, 1], [1], [], [3, 2], [2])
    answers = await deliver(album, callbacks)
    persons = [await album.persons(c.photo_id) for c in callbacks]
    ben, carl = persons[0][0], persons[3][0]
    assert persons == [[ben, anna], [anna], [], [carl, ben], [ben]]
    assert [a.created_person_ids for a in answers] == [[ben], [], [], [carl], []]
    assert len({anna, ben, carl}) == 3
    async with album.db.transaction() as session:
        shown = [await library.get(session, c.photo_id) for c in callbacks]
    assert [p.status for p in shown] == ["PROCESSED"] * 5
    assert [p.no_faces for p in shown] == [False, False, True, False, False]
    assert [p.person_ids for p in shown] == [sorted(p for p in of if p) for of in persons]
    await album.check()


async def test_delivered_again_they_get_the_first_answers(album: Album) -> None:
    callbacks = await lot(album, [1], [2, 1])
    first = await deliver(album, callbacks)
    more = await lot(album, [1, 3], view=700)
    assert (await deliver(album, [*more, *callbacks]))[1:] == first
    assert await album.value("SELECT count(*) FROM faces") == 5
    assert await album.value("SELECT count(*) FROM persons") == 3
    await album.check()


async def test_a_failure_among_them_is_recorded_as_one(album: Album) -> None:
    callbacks = await lot(album, [1], [1])
    bad = await album.add()
    error = {"code": "unreadable-media", "message": "truncated", "permanent": True}
    callbacks.insert(1, album.callback(bad, [], status="FAILED", error=error))
    await deliver(album, callbacks)
    async with album.db.transaction() as session:
        statuses = [(await library.get(session, c.photo_id)).status for c in callbacks]
    assert statuses == ["PROCESSED", "FAILED", "PROCESSED"]


async def test_one_at_fault_keeps_all_from_being_written(album: Album) -> None:
    good, late = await lot(album, [1], [2])
    async with album.db.transaction() as session:
        await library.new_attempt(session, late.photo_id)
    with pytest.raises(Conflict, match="superseded"):
        await deliver(album, [good, late])
    with pytest.raises(NotFound):
        await deliver(album, [good, late.model_copy(update={"photo_id": 77})])
    with pytest.raises(Invalid, match="not /elsewhere"):
        await deliver(album, [good.model_copy(update={"path": "/elsewhere"})])
    with pytest.raises(Invalid, match="twice"):
        await deliver(album, [good, good])
    assert await album.value("SELECT count(*) FROM persons") == 0
    await deliver(album, [good])
    await album.check()


async def test_photos_looked_at_again_come_beside_new_ones(album: Album) -> None:
    first, [anna] = await album.shoot(1, view=1)
    second, [ben] = await album.shoot(2, view=1)
    again = []
    for photo_id, person in ((first, 1), (second, 2)):
        async with album.db.transaction() as session:
            attempt_id = await library.new_attempt(session, photo_id)
            path = (await library.get(session, photo_id)).path
        found = [detection(face(person, 2)), detection(face(3, photo_id), 1)]
        again.append(album.callback((photo_id, path, attempt_id), found))
    new = await lot(album, [2, 3], view=800)
    await deliver(album, [again[0], *new, again[1]])
    carl = (await album.persons(first))[1]
    assert await album.persons(first) == [anna, carl]
    assert await album.persons(second) == [ben, carl]
    assert await album.persons(new[0].photo_id) == [ben, carl]
    await album.check()


async def test_racing_lots_found_each_person_once(album: Album) -> None:
    """Eight writers deliver lots with the same new people at once, in any order."""
    rng = np.random.default_rng(5)
    for round_ in range(10):
        people = [10 * round_ + n for n in range(4)]
        lots = [
            await lot(album, *[rng.permutation(people)[:2].tolist() for _ in range(4)], view=view)
            for view in range(0, 8000, 1000)
        ]
        await asyncio.gather(*[deliver(album, callbacks) for callbacks in lots])
        persons = await album.value("SELECT count(*) FROM persons")
        assert persons == 4 * (round_ + 1)
    await album.check()


LIMITS = Limits(join=0.7, merge=0.7, copy=0.85, same=0.925, found=0.3)


@pytest.mark.parametrize("seed", range(20))
def test_deciding_at_once_is_deciding_one_after_the_other(seed: int) -> None:
    """With faces so unlike that averages move across the threshold, and copies matter."""
    rng = np.random.default_rng(seed)
    people = rng.normal(size=(6, 16))

    def seen(person: int) -> Vector:
        vector = people[person] + rng.uniform(0.3, 1.0) * rng.normal(size=16)
        return (vector / np.linalg.norm(vector)).astype(np.float32)

    sittings = []
    for _ in range(30):
        who = rng.permutation(6)[: rng.integers(0, 4)].tolist()
        vectors = np.array([seen(p) for p in who], np.float32).reshape(len(who), 16)
        sights = [Sight(quality=float(rng.uniform())) for _ in who]
        sittings.append(Sitting(sights, vectors, [None] * len(who)))
    before, after = sittings[:10], sittings[10:]
    library: dict[int, list[Vector]] = {}
    for sitting in before:
        join(library, sitting, one_by_one(library, sitting))

    rows = [v for sitting in after for v in sitting.vectors]
    outcome = decide_all(
        after,
        [averages(library, row) for row in rows],
        {i: copies(library, row) for i, row in enumerate(rows)},
        {p: (len(faces), np.sum(faces, axis=0)) for p, faces in library.items()},
        LIMITS,
    )
    known = set(library)
    for sitting, verdicts in zip(after, outcome.verdicts, strict=True):
        expected = one_by_one(library, sitting)
        join(library, sitting, expected)
        got = [1000 + v.founds if v.founds is not None else v.person_id for v in verdicts]
        order = [p for p in library if p not in known]  # the n-th founded is 1000 + n
        assert got == [1000 + order.index(p) if p in order else p for p in expected]


def averages(library: dict[int, list[Vector]], row: Vector) -> dict[int, float]:
    found = {p: float(row @ np.mean(faces, axis=0)) for p, faces in library.items()}
    return {p: s for p, s in found.items() if s >= LIMITS.join}


def copies(library: dict[int, list[Vector]], row: Vector) -> dict[int, float]:
    found = {p: float((np.stack(faces) @ row).max()) for p, faces in library.items()}
    return {p: s for p, s in found.items() if s >= LIMITS.copy}


def one_by_one(library: dict[int, list[Vector]], sitting: Sitting) -> list[int | None]:
    """The person of each face; who is founded gets the next number of the library."""
    similar = [averages(library, row) for row in sitting.vectors]

    def decided() -> list[Verdict]:
        sights = [
            Sight(quality=sight.quality, similar=own)
            for sight, own in zip(sitting.sights, similar, strict=True)
        ]
        return decide(sights, sitting.vectors, LIMITS)

    for i, verdict in enumerate(decided()):
        if verdict.person_id is None:
            similar[i] |= copies(library, sitting.vectors[i])
    return [v.person_id if v.founds is None else len(library) + v.founds for v in decided()]


def join(library: dict[int, list[Vector]], sitting: Sitting, persons: list[int | None]) -> None:
    for person, vector in sorted(
        ((p, v) for p, v in zip(persons, sitting.vectors, strict=True) if p is not None),
        key=lambda pair: pair[0],
    ):
        library.setdefault(person, []).append(vector)
