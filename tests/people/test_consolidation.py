"""Consolidation: what order split is merged, and nobody's word is broken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from album import DIMENSION, Album, detection, face

from kaleidoscope.people import jobs, service
from kaleidoscope.people.rules.clustering import Cluster, Merge, consolidate, near_pairs


def unit(*values: float) -> np.ndarray:
    vector = np.zeros(DIMENSION, np.float32)
    vector[: len(values)] = values
    return vector / np.linalg.norm(vector)


async def split_by_order(album: Album) -> tuple[int, int, list[int]]:
    """One person whom arrival order split in two: unlike views first, those between later."""
    left, right = unit(1, 0.35), unit(1, -0.35)  # .78 alike: two persons
    photos = []
    for view in (left, right, unit(1, 0.2), unit(1, -0.2), unit(1, 0.12), unit(1, -0.12)):
        photo = await album.add()
        await album.deliver(album.callback(photo, [detection(view)]))
        photos.append(photo[0])
    persons = {p for photo in photos for p in await album.persons(photo)}
    assert len(persons) == 2
    one, other = sorted(persons)
    return one, other, photos


@pytest.fixture
def lenient(album: Album, monkeypatch: pytest.MonkeyPatch) -> Album:
    """An album whose persons are merged at .85."""
    from kaleidoscope.kernel.settings import load

    monkeypatch.setenv("KALEIDOSCOPE_PEOPLE_MERGE", "0.85")
    load.cache_clear()
    return album


async def test_what_order_split_is_merged(lenient: Album) -> None:
    one, other, photos = await split_by_order(lenient)
    assert (await jobs.consolidate(lenient.db) or {})["merged"] == 1
    assert {p for photo in photos for p in await lenient.persons(photo)} == {one}
    async with lenient.db.transaction() as session:
        assert await service.resolve(session, other) == one
        [event] = await service.history(session)
    assert (event.kind, event.made_by) == ("consolidate", "machine")
    await lenient.check()


async def test_a_second_round_looks_at_changes_alone(lenient: Album) -> None:
    await split_by_order(lenient)
    await jobs.consolidate(lenient.db)
    await jobs.consolidate(lenient.db)  # the survivor of the first round has changed
    assert await jobs.consolidate(lenient.db) is None


async def test_an_undone_merge_is_not_made_again(lenient: Album) -> None:
    one, other, _ = await split_by_order(lenient)
    await jobs.consolidate(lenient.db)
    async with lenient.db.transaction() as session:
        [event] = await service.history(session)
        await service.undo(session, event.event_id)
    await jobs.consolidate(lenient.db)
    async with lenient.db.transaction() as session:
        assert await service.resolve(session, other) == other != one
    await lenient.check()


async def test_differently_named_persons_stay_apart(lenient: Album) -> None:
    one, other, _ = await split_by_order(lenient)
    async with lenient.db.transaction() as session:
        await service.rename(session, one, "Anna")
        await service.rename(session, other, "Bea")
    await jobs.consolidate(lenient.db)
    async with lenient.db.transaction() as session:
        assert await service.resolve(session, other) == other


async def test_the_named_one_survives(lenient: Album) -> None:
    one, other, _ = await split_by_order(lenient)
    async with lenient.db.transaction() as session:
        await service.rename(session, other, "Bea")
    await jobs.consolidate(lenient.db)
    async with lenient.db.transaction() as session:
        assert await service.resolve(session, one) == other


async def test_two_in_one_photo_stay_apart(lenient: Album) -> None:
    one, other, _ = await split_by_order(lenient)
    photo = await lenient.add()
    both = [detection(unit(1, 0.3), 0), detection(unit(1, -0.3), 1)]
    await lenient.deliver(lenient.callback(photo, both))
    assert set(await lenient.persons(photo[0])) == {one, other}
    await jobs.consolidate(lenient.db)
    async with lenient.db.transaction() as session:
        assert await service.resolve(session, other) == other


async def test_a_no_keeps_persons_apart(lenient: Album) -> None:
    one, other, photos = await split_by_order(lenient)
    [face_id] = await lenient.face_ids(photos[0])
    async with lenient.db.transaction() as session:
        await service.reject(session, face_id, other)
    await jobs.consolidate(lenient.db)
    async with lenient.db.transaction() as session:
        assert await service.resolve(session, other) == other != one


async def test_an_open_face_finds_its_person_later(album: Album) -> None:
    poor = await album.add()
    quality = {"score": 0.01}
    await album.deliver(album.callback(poor, [detection(face(1), quality=quality)]))
    assert await album.persons(poor[0]) == [None]
    _, [anna] = await album.shoot(1, view=1)
    await jobs.consolidate(album.db)
    assert await album.persons(poor[0]) == [anna]
    await album.check()


async def test_while_photos_are_on_their_way_it_waits(lenient: Album) -> None:
    await split_by_order(lenient)
    await lenient.add()
    assert await jobs.consolidate_when_quiet(lenient.db) is None
    await lenient.rows("UPDATE persons SET created_at = now() - interval '2 h' RETURNING 1")
    assert (await jobs.consolidate_when_quiet(lenient.db) or {})["merged"] == 1


# ---- the rule itself ---------------------------------------------------------------------------


def merges(means: list[np.ndarray], least: float, **more: Any) -> list[Merge]:
    counts = more.pop("counts", [1] * len(means))
    names = more.pop("names", [None] * len(means))
    stacked = np.array(means, np.float32)
    clusters = [Cluster(i, n, name) for i, (n, name) in enumerate(zip(counts, names, strict=True))]
    pairs = near_pairs(stacked, np.arange(len(means)), least)
    return consolidate(clusters, stacked, pairs, least, more.pop("apart", {}))


def test_the_most_similar_pair_goes_first_and_changes_the_rest() -> None:
    found = merges([unit(1, 0), unit(1, 0.1), unit(1, 0.5)], 0.9)
    assert (found[0].kept, found[0].gone) == (0, 1)
    alone = merges([unit(1, -0.4), unit(1, 0), unit(1, 0.45)], 0.91)
    assert len(alone) == 1, "the third is near one of the two, and not near both on average"


def test_average_linkage_is_what_clustering_from_scratch_gives() -> None:
    scipy = pytest.importorskip("scipy.cluster.hierarchy")
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(12, 16))
    faces = np.repeat(centres, 6, axis=0) + 0.55 * rng.normal(size=(72, 16))
    faces = (faces / np.linalg.norm(faces, axis=1, keepdims=True)).astype(np.float32)
    least = 0.55
    parent = list(range(72))
    for merge in merges(list(faces), least):
        parent[merge.gone] = merge.kept
    for i in range(72):
        while parent[i] != parent[parent[i]]:
            parent[i] = parent[parent[i]]
    distances = 1 - (faces @ faces.T)[np.triu_indices(72, 1)]
    expected = scipy.fcluster(scipy.linkage(distances, "average"), 1 - least, "distance")
    ours = {frozenset(j for j in range(72) if parent[j] == p) for p in set(parent)}
    theirs = {frozenset(np.nonzero(expected == c)[0].tolist()) for c in set(expected)}
    assert ours == theirs


def test_foes_stay_foes_of_what_they_become_part_of() -> None:
    means = [unit(1, 0), unit(1, 0.05), unit(1, 0.1)]
    found = merges(means, 0.9, apart={0: {2}, 2: {0}})
    assert len(found) == 1


def test_who_survives() -> None:
    means = [unit(1, 0), unit(1, 0.05)]
    assert merges(means, 0.9, counts=[1, 5])[0].kept == 1
    assert merges(means, 0.9, counts=[1, 5], names=["Anna", None])[0].kept == 0
    assert merges(means, 0.9, names=["Anna", "Bea"]) == []
    assert merges(means, 0.9)[0].kept == 0
