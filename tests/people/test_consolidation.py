"""Consolidation: what order split is merged, and nobody's word is broken."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from album import DIMENSION, Album, detection, face

from kaleidoscope.kernel.errors import NotFound
from kaleidoscope.kernel.settings import load
from kaleidoscope.ml.catalog import BUILTIN
from kaleidoscope.people import jobs, service
from kaleidoscope.people.queries import persons
from kaleidoscope.people.rules import clustering, consolidation
from kaleidoscope.people.rules.clustering import Rule, each_together, together
from kaleidoscope.people.rules.consolidation import Faces, Regrouping, Said, Whole, regroup
from kaleidoscope.people.rules.matching import Limits
from kaleidoscope.people.service import Consolidated, healing


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
    monkeypatch.setenv("KALEIDOSCOPE_PEOPLE_MERGE", "0.85")
    load.cache_clear()
    return album


async def test_what_order_split_is_merged(lenient: Album) -> None:
    one, other, photos = await split_by_order(lenient)
    assert (await jobs.consolidate(lenient.db) or Consolidated()).merged == 1
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


@pytest.fixture
async def in_many(album: Album, monkeypatch: pytest.MonkeyPatch) -> int:
    """A person in many photos of a large library, not consolidated yet."""
    monkeypatch.setattr(healing, "SMALL", 0)
    monkeypatch.setattr(healing, "MANY", 2)
    monkeypatch.setattr(healing, "LONGEST_WRITING", timedelta(0))
    _, [person] = await album.shoot(1)
    for view in range(1, 4):
        await album.shoot(1, view=view)
    assert person is not None
    return person


async def test_of_who_is_in_many_photos_only_new_faces_are_looked_at(
    album: Album, in_many: int
) -> None:
    assert await looked_at(album) == 4
    await jobs.consolidate(album.db)
    await album.shoot(1, view=9)
    await album.shoot(2)
    assert await looked_at(album) == 2
    done = await jobs.consolidate(album.db)
    assert done is not None and done.moved == 0
    assert await looked_at(album) == 0
    assert await looked_at(album, thorough=True) == 6, "until all are taken apart once"
    await jobs.consolidate_thoroughly(album.db)
    assert await looked_at(album, thorough=True) == 0
    assert await album.value("SELECT count(*) FROM faces WHERE person_id = :p", p=in_many) == 5
    await album.check()


async def test_a_new_face_is_taken_from_who_is_in_many_photos(album: Album, in_many: int) -> None:
    await jobs.consolidate(album.db)
    photo, [stranger] = await album.shoot(2)
    await album.rows("UPDATE faces SET person_id = :p WHERE photo_id = :x", p=in_many, x=photo)
    await album.rows(
        "UPDATE photo_persons SET person_id = :p WHERE photo_id = :x", p=in_many, x=photo
    )
    async with album.db.transaction() as session:
        await persons.recount_persons(session, [in_many, stranger or 0])
    done = await jobs.consolidate(album.db)
    assert done is not None and (done.split, done.founded, done.moved) == (1, 1, 1)
    assert await album.persons(photo) != [in_many]
    assert await album.value("SELECT count(*) FROM faces WHERE person_id = :p", p=in_many) == 4
    await album.check()


async def looked_at(album: Album, *, thorough: bool = False) -> int:
    """How many faces the next round takes apart."""
    async with album.db.transaction() as session:
        found = await healing.look(session, BUILTIN, thorough=thorough)
    return 0 if found is None else len(found.faces.ids)


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


async def test_a_face_too_poor_to_be_told_from_others_stays_open(album: Album) -> None:
    blurred = await album.add()
    quality = {"score": 0.05}
    _, [anna] = await album.shoot(1, view=1)
    vague = face(1, noise=0.25)  # .96 like the other: it would join
    await album.deliver(album.callback(blurred, [detection(vague, quality=quality)]))
    await jobs.consolidate(album.db)
    assert await album.persons(blurred[0]) == [None]
    again = await album.add()
    await album.deliver(album.callback(again, [detection(face(1, 1), quality=quality)]))
    assert await album.persons(again[0]) == [anna], "but this is the very face"
    await album.check()


async def test_an_open_face_finds_its_person_later(album: Album) -> None:
    poor = await album.add()
    quality = {"score": 0.15}
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
    assert (await jobs.consolidate_when_quiet(lenient.db) or Consolidated()).merged == 1


async def mixed_by_order(album: Album) -> tuple[int, list[int]]:
    """Two people whom arrival order made one: a face between them came first."""
    photos = []
    for view in (unit(1, 0), unit(1, 0.3), unit(1, -0.3)):
        photo = await album.add()
        await album.deliver(album.callback(photo, [detection(view)]))
        photos.append(photo[0])
    for side in (1, -1):
        for more in range(3):
            photo = await album.add()
            await album.deliver(
                album.callback(photo, [detection(unit(1, side * (0.5 + more / 50)))])
            )
            photos.append(photo[0])
    return (await album.persons(photos[0]))[0] or 0, photos


@pytest.fixture
def strict(album: Album, monkeypatch: pytest.MonkeyPatch) -> Album:
    """An album that joins carelessly at first and is then told to be strict: at .97."""
    monkeypatch.setenv("KALEIDOSCOPE_PEOPLE_JOIN", "0.8")
    monkeypatch.setenv("KALEIDOSCOPE_PEOPLE_MERGE", "0.97")
    load.cache_clear()
    return album


async def grow_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_PEOPLE_JOIN", "0.97")
    load.cache_clear()


async def test_what_order_merged_is_split(strict: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    person, photos = await mixed_by_order(strict)
    assert {p for photo in photos for p in await strict.persons(photo)} == {person}
    await grow_strict(monkeypatch)
    done = await jobs.consolidate(strict.db)
    assert done is not None and done.split == 1 and done.founded >= 1
    left, right = await strict.persons(photos[3]), await strict.persons(photos[6])
    assert left != right and None not in left + right
    await strict.check()
    again = await jobs.consolidate(strict.db)
    assert again is None or again.moved == 0, "what was split stays so"


async def test_a_dry_run_tells_and_does_nothing(
    strict: Album, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, photos = await mixed_by_order(strict)
    await grow_strict(monkeypatch)
    foreseen = await jobs.consolidate(strict.db, dry_run=True)
    assert {p for photo in photos for p in await strict.persons(photo)} == {person}
    done = await jobs.consolidate(strict.db)
    assert foreseen is not None and done is not None and done.round is not None
    assert foreseen == Consolidated(**{**vars(done), "round": None})
    assert foreseen.confirmed_touched == 0 < foreseen.moved


async def test_a_round_is_undone_as_a_whole_and_not_made_again(
    strict: Album, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, photos = await mixed_by_order(strict)
    await grow_strict(monkeypatch)
    done = await jobs.consolidate(strict.db)
    assert done is not None and done.round is not None
    async with strict.db.transaction() as session:
        events = await service.undo_round(session, done.round)
    assert sum(e.faces_moved for e in events) == done.moved
    assert {p for photo in photos for p in await strict.persons(photo)} == {person}
    await strict.check()
    again = await jobs.consolidate(strict.db)
    assert again is None or again.moved == 0
    async with strict.db.transaction() as session:
        with pytest.raises(NotFound):
            await service.undo_round(session, done.round)


async def test_who_was_merged_by_a_person_is_not_split(
    strict: Album, monkeypatch: pytest.MonkeyPatch
) -> None:
    await grow_strict(monkeypatch)
    _, [one] = await strict.shoot(1)
    _, [other] = await strict.shoot(2)
    assert one is not None and other is not None and one != other
    async with strict.db.transaction() as session:
        await service.merge(session, one, [other])
    done = await jobs.consolidate(strict.db, everybody=True)
    assert done is not None and done.moved == 0


async def test_a_confirmed_face_stays_where_the_rest_goes(
    strict: Album, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, photos = await mixed_by_order(strict)
    [face_id] = await strict.face_ids(photos[6])
    async with strict.db.transaction() as session:
        await service.confirm(session, face_id)
    await grow_strict(monkeypatch)
    done = await jobs.consolidate(strict.db)
    assert done is not None and done.split == 1 and done.confirmed_touched == 0
    assert await strict.persons(photos[6]) == [person]
    assert await strict.persons(photos[3]) != [person]


# ---- the rules themselves ----------------------------------------------------------------------


def groups(means: list[np.ndarray], least: float, **more: Any) -> list[int]:
    rule = Rule(least, more.pop("floor", least), more.pop("rival", 0.0), more.pop("caution", 0.0))
    counts = np.array(more.pop("counts", [1] * len(means)), np.float64)
    apart = np.array(more.pop("apart", []), np.int64).reshape(-1, 2)
    found: list[int] = together(np.array(means, np.float32), counts, apart, rule, **more).tolist()
    return found


def test_the_most_similar_pair_goes_first_and_changes_the_rest() -> None:
    assert groups([unit(1, 0), unit(1, 0.1), unit(1, 0.5)], 0.9)[:2] == [0, 0]
    alone = groups([unit(1, -0.4), unit(1, 0), unit(1, 0.45)], 0.91)
    assert len(set(alone)) == 2, "the third is near one of the two, and not near both on average"


@pytest.mark.parametrize("seed", range(5))
def test_average_linkage_is_what_clustering_from_scratch_gives(seed: int) -> None:
    scipy = pytest.importorskip("scipy.cluster.hierarchy")
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(12, 16))
    faces = np.repeat(centres, 6, axis=0) + 0.55 * rng.normal(size=(72, 16))
    faces = (faces / np.linalg.norm(faces, axis=1, keepdims=True)).astype(np.float32)
    least = 0.55
    first = groups(list(faces), least)
    distances = 1 - (faces @ faces.T)[np.triu_indices(72, 1)]
    expected = scipy.fcluster(scipy.linkage(distances, "average"), 1 - least, "distance")
    ours = {frozenset(j for j in range(72) if first[j] == g) for g in set(first)}
    theirs = {frozenset(np.nonzero(expected == c)[0].tolist()) for c in set(expected)}
    assert ours == theirs


def test_in_a_crowd_more_is_needed() -> None:
    pair = [unit(1, 0, 0), unit(1, 0.5, 0)]  # .89 alike
    crowd = [unit(1, 0.2, 0.45), unit(1, 0.2, -0.45), unit(1, 0.25, 0.4, 0.3)]
    apart = [(a, b) for a in range(5) for b in range(2, 5) if a != b]
    assert groups(pair, 0.893, rival=1.0, floor=0.8) == [0, 0]
    assert groups(pair + crowd, 0.893, rival=1.0, floor=0.8, apart=apart)[:2] == [0, 1]
    assert groups(pair + crowd, 0.893, apart=apart)[:2] == [0, 0]


def test_two_with_many_faces_must_be_nearer() -> None:
    pair = [unit(1, 0), unit(1, 0.4)]
    assert groups(pair, 0.9, caution=0.02, counts=[1, 50]) == [0, 0]
    assert groups(pair, 0.9, caution=0.02, counts=[50, 50]) == [0, 1]


def test_only_what_is_fresh_is_looked_at() -> None:
    means = [unit(1, 0), unit(1, 0.05), unit(0, 0, 1), unit(0, 0.05, 1)]
    assert groups(means, 0.9, fresh=np.array([False, False, True, False])) == [0, 1, 2, 2]


def test_foes_stay_foes_of_what_they_become_part_of() -> None:
    means = [unit(1, 0), unit(1, 0.05), unit(1, 0.1)]
    assert len(set(groups(means, 0.9, apart=[(0, 2)]))) == 2
    assert len(set(groups(means, 0.9, whose=np.array([1, 0, 2])))) == 2
    assert len(set(groups(means, 0.9, whose=np.array([1, 0, 1])))) == 1


def crowd(rng: np.random.Generator, count: int) -> np.ndarray:
    """Faces of some people, more or less alike; a few are there twice."""
    centres = rng.normal(size=(max(1, count // 5), 16))
    faces = centres[rng.integers(0, len(centres), count)] + 0.55 * rng.normal(size=(count, 16))
    faces[rng.integers(0, count, min(count // 8, 3))] = faces[0]
    found: np.ndarray = faces / np.linalg.norm(faces, axis=1, keepdims=True)
    return found.astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_small_sets_side_by_side_become_what_each_alone_does(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clustering, "KEPT", 200)  # alone, everybody is looked at, however many foes
    monkeypatch.setattr(clustering, "WIDTH", 100)
    monkeypatch.setattr(clustering, "SIDE_BY_SIDE", 5000)
    rng = np.random.default_rng(seed)
    sizes = [1, 0, 2, 2, 3, 5, 8, 9, 16, 17, 40, 70, 100]
    faces = np.concatenate([crowd(rng, n) for n in sizes if n] + [crowd(rng, 20)])
    order, ends = rng.permutation(len(faces)), np.cumsum(sizes)
    sets = [np.sort(rows) for rows in np.split(order[: ends[-1]], ends[:-1])]
    apart = rng.integers(0, len(faces), (600, 2))
    apart = apart[apart[:, 0] != apart[:, 1]]
    first = each_together(faces, sets, apart, 0.6)
    grown = 0
    for rows in sets:
        within = np.searchsorted(rows, apart[np.isin(apart, rows).all(axis=1)])
        alone = together(faces[rows], np.ones(len(rows)), within, Rule(0.6, 0.6))
        assert np.array_equal(first[rows], rows[alone])
        grown += len(rows) - len(np.unique(alone))
    assert grown > 20
    rest = np.setdiff1d(np.arange(len(faces)), order[: ends[-1]])
    assert np.array_equal(first[rest], rest)


@pytest.mark.parametrize("rule", [Rule(0.5, 0.5), Rule(0.5, 0.3, rival=0.6, caution=0.03)])
@pytest.mark.parametrize("sparse", [0, 4096])
def test_who_has_grown_is_near_those_whom_looking_again_would_find(
    rule: Rule, sparse: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clustering, "SPARSE", sparse)
    rng = np.random.default_rng(sparse)
    faces, apart = crowd(rng, 700), rng.integers(0, 700, (3000, 2))
    apart, fresh = apart[apart[:, 0] != apart[:, 1]], rng.random(700) < 0.5
    looked: list[int] = []
    look = clustering._Groups._look

    def counted(self: clustering._Groups, rows: np.ndarray) -> None:
        looked.append(len(rows))
        look(self, rows)

    def forget(self: clustering._Groups, rows: np.ndarray, *_: np.ndarray) -> None:
        self.known[rows] = False

    monkeypatch.setattr(clustering._Groups, "_look", counted)
    found = together(faces, np.ones(700), apart, rule, fresh=fresh)
    few = sum(looked)
    monkeypatch.setattr(clustering._Groups, "_bear_in_mind", forget)
    assert np.array_equal(found, together(faces, np.ones(700), apart, rule, fresh=fresh))
    assert few < (sum(looked) - few) * 0.9
    assert len(np.unique(found)) < 600


LIMITS = Limits(join=0.95, merge=0.9, copy=0.98, same=0.99, found=0.1, lonely=0.9)


def regrouped(persons: list[int], vectors: list[np.ndarray], **more: Any) -> list[Regrouping]:
    n = len(persons)
    faces = Faces(
        np.arange(101, 101 + n),
        np.array(persons),
        np.array(more.pop("photos", range(n))),
        np.array(more.pop("qualities", [1.0] * n)),
        np.array(more.pop("confirmed", [False] * n)),
        np.array(more.pop("copies", [0] * n)),
        np.array(vectors, np.float32),
    )
    none = np.zeros(0, np.int64)
    whole = more.pop("whole", Whole(none, none, np.zeros((0, DIMENSION), np.float32)))
    if "confirmed_persons" in more:
        more["confirmed"] = frozenset(more.pop("confirmed_persons"))
    limits = more.pop("limits", LIMITS)
    return regroup(faces, whole, Said(**more), limits)


def settled(person: int, count: int, mean: np.ndarray) -> Whole:
    """A person of whose faces `count` are taken as they are."""
    return Whole(np.array([person]), np.array([count]), np.array([mean], np.float32))


NEAR = [unit(1, 0.02 * i) for i in range(4)]
FAR = [unit(0.02 * i, 1) for i in range(4)]


def test_the_id_that_most_faces_had_remains() -> None:
    [one] = regrouped([1, 2, 2, 2], NEAR)
    assert one.merged == {1: 2} and {f: p for f, (p, _) in one.faces.items()} == {101: 2}
    [named] = regrouped([1, 2, 2, 2], NEAR, names={1: "Anna"})
    assert named.merged == {2: 1}
    assert regrouped([1, 2, 2, 2], NEAR, names={1: "Anna", 2: "Bea"}) == []
    [older] = regrouped([1, 1, 2, 2], NEAR)
    assert older.merged == {2: 1}


def test_who_is_split_keeps_the_id_with_the_most_faces() -> None:
    [found] = regrouped([1] * 7, [*NEAR, *FAR[:3]])
    assert found.split == {1} and found.founded == {-1: 1} and not found.merged
    assert {f: p for f, (p, _) in found.faces.items()} == {105: -1, 106: -1, 107: -1}


def test_a_face_too_poor_to_found_is_open_again() -> None:
    [found] = regrouped([1] * 5, [*NEAR, FAR[0]], qualities=[1, 1, 1, 1, 0.05])
    assert found.faces == {105: (None, None)}
    [placed] = regrouped([1] * 4 + [0], [*NEAR, NEAR[0]], qualities=[1, 1, 1, 1, 0.05])
    assert placed.faces[105][0] == 1


def test_two_in_one_photo_are_two_unless_nearly_identical() -> None:
    left, right = unit(1, 0), unit(1, 0.3)
    assert len(regrouped([1, 2], [left, right])) == 1
    assert regrouped([1, 2], [left, right], photos=[7, 7]) == []
    assert len(regrouped([1, 2], [left, left], photos=[7, 7])) == 1


def test_a_no_keeps_apart_what_is_alike() -> None:
    assert regrouped([1, 2], NEAR[:2], face_noes=[(101, 2)]) == []
    assert regrouped([1, 0], NEAR[:2], face_noes=[(102, 1)], qualities=[1, 0.0]) == []


def test_confirmed_faces_keep_their_person() -> None:
    assert regrouped([1, 2], NEAR[:2], confirmed=[True, True], confirmed_persons=[1, 2]) == []


def test_whole_persons_take_part_as_they_are() -> None:
    whole = settled(5, 9, unit(1, 0.01))
    [found] = regrouped([1, 1], NEAR[:2], whole=whole)
    assert found.merged == {1: 5} and found.persons == {1, 5}
    assert regrouped([1, 1], NEAR[:2], whole=whole, present=[(0, 5)]) == []


def test_new_faces_of_who_is_in_many_photos_stay_with_the_settled_ones() -> None:
    assert regrouped([5] * 4, NEAR, whole=settled(5, 90, unit(1, 0.01))) == []
    of_two = regrouped(
        [5, 5], [unit(1), unit(1, 0.3)], photos=[7, 7], whole=settled(5, 90, unit(1))
    )
    assert [set(moves.faces) for moves in of_two] == [{102}], "one of two in a photo is another"


def test_strangers_among_the_new_faces_leave_the_id_to_the_settled_ones() -> None:
    [found] = regrouped([5] * 4, FAR, whole=settled(5, 3, unit(1, 0.01)))
    assert {f: p for f, (p, _) in found.faces.items()} == dict.fromkeys((101, 102, 103, 104), -1)
    assert found.split == {5} and not found.merged


def test_settled_faces_go_where_somebody_larger_takes_them_in() -> None:
    [found] = regrouped([5, 6, 6, 6, 6, 5], [*NEAR, NEAR[0], FAR[0]], whole=settled(5, 2, NEAR[1]))
    assert found.merged == {5: 6}, "they are not among the faces: their id becomes the other's"
    assert {f: p for f, (p, _) in found.faces.items()} == {101: 6, 106: -1}


def test_of_a_person_known_in_part_the_rest_is_the_rest() -> None:
    faces = Faces(
        np.array([101, 102]),
        np.array([5, 5]),
        np.array([1, 2]),
        np.ones(2),
        np.zeros(2, np.bool_),
        np.array([0, 101]),  # a copy counts for nothing
        np.array([FAR[0], FAR[0]], np.float32),
    )
    mean = (3 * NEAR[0] + FAR[0]) / 4
    rest = settled(5, 4, mean).without(faces, [5])
    assert rest.counts.tolist() == [3] and np.allclose(rest.means, NEAR[0], atol=1e-6)
    assert len(settled(5, 4, mean).without(faces).ids) == 0


def test_of_a_crowd_the_strangers_are_found_too() -> None:
    rng = np.random.default_rng(5)
    near = [unit(1, *(0.05 * rng.normal(size=8))) for _ in range(120)]
    astray = [unit(0.5, 1, *(0.02 * rng.normal(size=8))) for _ in range(4)]
    [found] = regrouped([1] * 124, [*near, *astray])
    assert sorted(found.faces) == [221, 222, 223, 224] and found.split == {1}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_in_a_small_library_arrival_order_leaves_no_trace(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(seed)
    faces = [unit(*rng.normal((np.cos(turn), np.sin(turn)), 0.03)) for turn in rng.random(96) * 2]
    arrivals = [[0] * 96, [1] * 96, *(rng.integers(0, 9, 96).tolist() for _ in range(4))]

    def ends() -> set[frozenset[frozenset[int]]]:
        return {partition(persons, regrouped(persons, faces)) for persons in arrivals}

    assert len(ends()) == 1
    monkeypatch.setattr(consolidation, "ALONE", 0)
    assert len(ends()) > 1, "in a large one it may"


def partition(persons: list[int], moves: list[Regrouping]) -> frozenset[frozenset[int]]:
    """Who is one with whom once these moves are made, whatever their ids."""
    now: dict[int, tuple[int, int]] = {}
    for number, moved in enumerate(moves):
        for id_, (person, _) in moved.faces.items():
            assert person is not None
            now[id_] = (number if person < 0 else -1, person)
    for id_, person in enumerate(persons, 101):
        now.setdefault(id_, (-1, person))
    together = {where: {f for f in now if now[f] == where} for where in set(now.values())}
    return frozenset(frozenset(faces) for faces in together.values())


def test_a_name_goes_with_the_most_faces_of_who_had_it() -> None:
    [found] = regrouped([1] * 5, [FAR[0], *NEAR], names={1: "Anna"})
    assert {f: p for f, (p, _) in found.faces.items()} == {101: -1}


@pytest.mark.parametrize("said", ["nothing", "confirmed", "confirmed and named", "noes"])
def test_rounds_come_to_rest(said: str) -> None:
    for seed in range(25):
        assert rounds_until_rest(seed, said) <= 4, f"seed {seed}"


def rounds_until_rest(seed: int, what: str, most: int = 8) -> int:
    """After how many rounds nobody moves in a library of 80 faces, some of them in one photo."""
    rng = np.random.default_rng(seed)
    people = np.eye(1, DIMENSION) + rng.normal(0, 0.22, (10, DIMENSION)) * (
        np.arange(DIMENSION) < 16
    )
    who = rng.integers(0, 10, 80)
    within = rng.normal(0, 0.09, (80, DIMENSION)) * (np.arange(DIMENSION) < 16)
    vectors = [unit(*(people[p] + noise)) for p, noise in zip(who, within, strict=True)]
    persons = np.where(rng.random(80) < 0.6, who + 1, rng.integers(1, 13, 80))
    confirmed = (rng.random(80) < 0.05) if "confirmed" in what else np.zeros(80, np.bool_)
    photos = rng.integers(0, 60, 80)
    names = {int(p): f"N{p}" for p in rng.choice(12, 4, replace=False) + 1}
    noes = [(101 + int(f), int(rng.integers(1, 13))) for f in rng.choice(80, 10)]
    limits = Limits(
        join=0.9,
        merge=0.85,
        copy=0.98,
        same=0.995,
        found=0.2,
        rival=1.0,
        caution=0.004,
        lonely=0.84,
    )
    for number in range(most):
        moves = regrouped(
            persons.tolist(),
            vectors,
            photos=photos,
            confirmed=confirmed,
            confirmed_persons=persons[confirmed].tolist(),
            names={p: n for p, n in names.items() if p in persons} if "named" in what else {},
            face_noes=[no for no in noes if no[1] in persons] if what == "noes" else [],
            limits=limits,
        )
        if not moves:
            return number
        before = persons.copy()
        for group, regrouping in enumerate(moves):
            for id_, (person, _) in regrouping.faces.items():
                new = 1000 * (number + 1) + 20 * group
                persons[id_ - 101] = 0 if person is None else person if person > 0 else new - person
        assert (persons[confirmed] == before[confirmed]).all()
    return most


def test_many_noes_are_kept_by_pieces() -> None:
    """A no to a pair of persons is one of each face of the smaller to the other."""
    rng = np.random.default_rng(3)
    vectors = np.array([*(NEAR[0] + 0.01 * rng.normal(size=(1000, DIMENSION)))], np.float32)
    vectors[500:] = FAR[0] + 0.01 * rng.normal(size=(500, DIMENSION))
    n = np.arange(1000)
    faces = Faces(
        n + 101, 1 + n // 500, n, np.ones(1000), np.zeros(1000, np.bool_), 0 * n,
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
    )  # fmt: skip
    none = Whole(n[:0], n[:0], vectors[:0])
    few = consolidation._Atoms(faces, none, Said(face_noes=[(101, 2)]), LIMITS)
    assert len(few.counts) == 1000
    noes = [(face, 2) for face in range(101, 601)]
    many = consolidation._Atoms(faces, none, Said(face_noes=noes), LIMITS)
    assert len(many.counts) < 20 and len(many.apart) < 100
