"""Age and time: nobody is in a photo before being born, and a chain of years joins a life."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pytest
from album import DIMENSION, Album, detection

from kaleidoscope.people import jobs, service
from kaleidoscope.people.rules.ages import MARGIN, too_early, too_early_all, years
from kaleidoscope.people.rules.chains import STRICT, Dated, chained, life, link
from kaleidoscope.people.rules.clustering import Rule
from kaleidoscope.people.rules.consolidation import Faces, Regrouping, Said, Whole, regroup
from kaleidoscope.people.rules.matching import Limits
from kaleidoscope.people.service import healing

LIMITS = Limits(join=0.95, merge=0.9, copy=0.98, same=0.999, found=0.1, lonely=0.9)
A_YEAR = 6.0  # degrees by which a face turns in a year: nine tenths alike after four years


def turned(degrees: float, *aside: float) -> np.ndarray:
    """A face turned so far from that of somebody; `aside` leads away from all of those."""
    vector = np.zeros(DIMENSION, np.float32)
    vector[:2] = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    vector[2 : 2 + len(aside)] = aside
    return vector / np.linalg.norm(vector)


def regrouped(
    persons: list[int], vectors: list[np.ndarray], taken: list[float] | None, **more: Any
) -> list[Regrouping]:
    n = len(persons)
    faces = Faces(
        np.arange(101, 101 + n),
        np.array(persons),
        np.array(more.pop("photos", range(n))),
        np.ones(n),
        np.array(more.pop("confirmed", [False] * n)),
        np.zeros(n, np.int64),
        np.array(vectors, np.float32),
        None if taken is None else np.array(taken),
    )
    none = np.zeros(0, np.int64)
    whole = more.pop("whole", Whole(none, none, np.zeros((0, DIMENSION), np.float32)))
    return regroup(faces, whole, Said(**more), LIMITS)


# ---- before birth ------------------------------------------------------------------------------


def test_dates_may_be_wrong_by_a_year() -> None:
    born = date(2010, 6, 1)
    assert not too_early(born - MARGIN, born) and not too_early(date(2030, 1, 1), born)
    assert too_early(date(2009, 5, 31), born)
    days = np.array([years(date(2009, 5, 31)), years(born), np.nan])
    assert too_early_all(days, years(born)).tolist() == [True, False, False]


def test_an_open_face_of_before_birth_joins_nobody_born_later() -> None:
    alike = [turned(0), turned(1), turned(2)]
    taken = [2012.0, 2013.0, 2000.0]
    [found] = regrouped([1, 1, 0], alike, taken)
    assert found.faces[103][0] == 1
    [found] = regrouped([1, 1, 0], alike, taken, births={1: 2010.0})
    assert found.faces == {103: (-1, None)} and found.founded == {-1: 0}
    [undated] = regrouped([1, 1, 0], alike, [2012.0, 2013.0, np.nan], births={1: 2010.0})
    assert undated.faces[103][0] == 1


def test_the_machine_takes_back_faces_of_before_birth() -> None:
    alike = [turned(i) for i in range(4)]
    taken = [2012.0, 2013.0, 2000.0, 2001.0]
    assert regrouped([1] * 4, alike, taken) == []
    [found] = regrouped([1] * 4, alike, taken, births={1: 2010.0}, names={1: "Anna"})
    assert {face: person for face, (person, _) in found.faces.items()} == {103: -1, 104: -1}
    assert found.split == {1} and found.before == {103: 1, 104: 1} and not found.merged


def test_nobody_is_left_of_a_person_born_after_all_photos_but_the_person() -> None:
    [found] = regrouped([1, 1], [turned(0), turned(1)], [2000.0, 2001.0], births={1: 2010.0})
    assert {person for person, _ in found.faces.values()} == {-1} and not found.merged


def test_what_a_person_confirmed_stays_whatever_the_dates() -> None:
    alike = [turned(i) for i in range(3)]
    told: dict[str, Any] = {"births": {1: 2010.0}, "confirmed": [False, False, True]}
    assert regrouped([1] * 3, alike, [2012.0, 2013.0, 2000.0], **told) == []


def test_whole_persons_are_not_joined_by_faces_of_before_birth() -> None:
    whole = Whole(np.array([5]), np.array([9]), np.array([turned(1)], np.float32))
    faces = [1, 1], [turned(0), turned(2)], [2000.0, 2001.0]
    assert len(regrouped(*faces, whole=whole)) == 1
    assert regrouped(*faces, whole=whole, births={5: 2010.0}) == []


# ---- chains of years ---------------------------------------------------------------------------


def a_life(first: float, last: float, *aside: float) -> tuple[list[np.ndarray], list[float]]:
    """Faces of somebody three times a year, from one age to another; the age is the year."""
    ages = np.arange(first, last, 1 / 3).tolist()
    return [turned(A_YEAR * age, *aside) for age in ages], ages


def persons_after(persons: list[int], found: list[Regrouping]) -> list[int | None]:
    """Whose the faces are afterwards."""
    given = {face: person for group in found for face, (person, _) in group.faces.items()}
    merged = {gone: kept for group in found for gone, kept in group.merged.items()}
    return [given.get(101 + i, merged.get(person, person)) for i, person in enumerate(persons)]


def test_a_chain_of_years_joins_a_child_and_the_teenager_it_became() -> None:
    vectors, ages = a_life(4, 22)
    without = persons_after([0] * len(ages), regrouped([0] * len(ages), vectors, None))
    assert len(set(without)) > 1, "the ends of this life are not alike"
    chained = persons_after([0] * len(ages), regrouped([0] * len(ages), vectors, ages))
    assert len(set(chained)) == 1
    child = [1 if age < 11 else 2 for age in ages]
    assert len(set(persons_after(child, regrouped(child, vectors, ages)))) == 1
    names = {1: "Anna", 2: "Bea"}
    assert len(set(persons_after(child, regrouped(child, vectors, ages, names=names)))) > 1


def test_what_is_not_dated_is_as_before() -> None:
    vectors, ages = a_life(4, 22)
    nobody = [0] * len(ages)
    unknown = [np.nan] * len(ages)
    assert regrouped(nobody, vectors, unknown) == regrouped(nobody, vectors, None)


def test_a_gap_of_many_years_is_not_bridged() -> None:
    early, first = a_life(4, 8)
    late, second = a_life(14, 18)
    persons = [1] * len(early) + [2] * len(late)
    assert regrouped(persons, early + late, first + second) == []


@pytest.mark.parametrize("later", [0.0, 9.0])
def test_siblings_who_resemble_stay_two(later: float) -> None:
    mine, ages = a_life(4, 13)
    theirs, others = a_life(4 + later, 13 + later, 0.55)  # at the same age .88 alike
    alike = float(turned(0) @ turned(0, 0.55))
    assert 0.86 < alike < LIMITS.merge
    nobody = [0] * (len(ages) + len(others))
    after = persons_after(nobody, regrouped(nobody, mine + theirs, ages + others))
    assert not set(after[: len(ages)]) & set(after[len(ages) :])


def test_two_in_one_photo_are_not_chained() -> None:
    vectors, ages = a_life(4, 22)
    child = [1 if age < 11 else 2 for age in ages]
    photos = list(range(len(ages)))
    photos[0] = photos[-1]  # the child beside the grown-up
    after = persons_after(child, regrouped(child, vectors, ages, photos=photos))
    assert after[0] != after[-1]


def links(*lives: tuple[list[np.ndarray], list[float]], rival: float = 0.0) -> list[int]:
    """The groups that chains make of these."""
    counts = np.array([len(ages) for _, ages in lives])
    vectors = np.array([vector for faces, _ in lives for vector in faces], np.float32)
    taken = np.array([age for _, ages in lives for age in ages])
    dated = Dated(np.repeat(np.arange(len(lives)), counts), taken, vectors, {})
    means = np.array([np.mean(faces, axis=0) for faces, _ in lives], np.float32)
    found: list[int] = chained(
        means,
        counts.astype(np.float64),
        np.zeros((0, 2), np.int64),
        Rule(LIMITS.merge, LIMITS.lonely, rival),
        dated,
        fresh=np.ones(len(lives), np.bool_),
        whose=np.zeros(len(lives), np.int64),
    ).tolist()
    return found


def test_of_the_same_years_the_average_has_spoken() -> None:
    mine, theirs = a_life(4, 14), a_life(4, 14, 0.36)  # at the same age .94 alike
    one, other = (life(np.array(ages), np.array(vectors)) for vectors, ages in (mine, theirs))
    assert (link(one, other) or 0) > LIMITS.merge + STRICT * (1 - LIMITS.merge)
    assert links(mine, theirs) == [0, 1]
    assert links(mine, a_life(14, 22)) == [0, 0]
    assert links(a_life(14, 22), a_life(22, 26), mine, theirs) == [0, 0, 0, 3], "the nearer first"


def test_who_might_as_well_be_another_is_not_chained() -> None:
    child, *grown = a_life(4, 12), *(a_life(12, 20, aside) for aside in (0.33, 0.35, 0.37))
    assert links(child, grown[1], rival=1.0) == [0, 0]
    assert links(child, *grown, rival=1.0) == [0, 1, 2, 3]


def test_of_a_child_faces_tell_for_a_shorter_time() -> None:
    early, late = np.array([2005.0] * 3), np.array([2007.0] * 3)
    faces = np.array([turned(i) for i in range(3)])
    assert link(life(early, faces), life(late, faces)) is not None
    assert link(life(early, faces, born=2000.0), life(late, faces)) is None
    assert link(life(early, faces, born=1970.0), life(late, faces)) is not None


def test_different_birth_dates_are_different_people() -> None:
    vectors, ages = a_life(4, 22)
    child = [1 if age < 11 else 2 for age in ages]
    births = {1: 0.0, 2: 3.0}
    assert len(set(persons_after(child, regrouped(child, vectors, ages, births=births)))) > 1


# ---- through the product -----------------------------------------------------------------------


async def shoot(
    album: Album, day: date | None, *vectors: np.ndarray, confidence: str = "high"
) -> tuple[list[int], list[int | None]]:
    """A photo of that day: its faces, and their persons."""
    photo = await album.add()
    if day is not None:
        await album.rows(
            "UPDATE media_assets SET captured_at = :day, captured_at_confidence = :confidence,"
            " captured_at_source = 'exif:DateTimeOriginal' WHERE photo_id = :photo",
            day=day,
            confidence=confidence,
            photo=photo[0],
        )
    await album.deliver(album.callback(photo, [detection(v, i) for i, v in enumerate(vectors)]))
    return await album.face_ids(photo[0]), await album.persons(photo[0])


async def act(album: Album, verb: Any, *arguments: Any) -> Any:
    async with album.db.transaction() as session:
        return await verb(session, *arguments)


async def person_of(album: Album, face: int) -> int | None:
    found: int | None = await album.value("SELECT person_id FROM faces WHERE id = :id", id=face)
    return found


async def test_who_is_born_later_is_not_in_a_new_photo(album: Album) -> None:
    _, [anna] = await shoot(album, date(2012, 1, 1), turned(0))
    await act(album, service.set_birth_date, anna, date(2010, 1, 1))
    assert (await shoot(album, date(2009, 6, 1), turned(1)))[1] == [anna], "within the margin"
    assert (await shoot(album, None, turned(1)))[1] == [anna]
    assert (await shoot(album, date(2000, 1, 1), turned(1), confidence="low"))[1] == [anna]
    _, [other] = await shoot(album, date(2000, 1, 1), turned(1), confidence="medium")
    assert other not in (None, anna)
    await jobs.consolidate(album.db)
    assert await act(album, service.resolve, other) == other
    await album.check()


async def test_a_birth_date_reopens_what_the_machine_gave(album: Album) -> None:
    [kept], [anna] = await shoot(album, date(2000, 1, 1), turned(0))
    [moved], _ = await shoot(album, date(2001, 1, 1), turned(1))
    [own], _ = await shoot(album, date(2012, 1, 1), turned(2))
    await act(album, service.confirm, kept)
    await jobs.consolidate(album.db)
    assert {await person_of(album, face) for face in (kept, moved, own)} == {anna}
    born = await act(album, service.set_birth_date, anna, date(2010, 1, 1))
    assert (born.person_id, born.reopened, born.kept) == (anna, [moved], [kept])
    await jobs.consolidate(album.db)
    assert await person_of(album, kept) == await person_of(album, own) == anna
    assert await person_of(album, moved) not in (None, anna)
    await album.check()
    born = await act(album, service.set_birth_date, anna, None)
    assert (born.reopened, born.kept) == ([], [])


DOUBT = np.degrees(np.arccos(0.915))  # too little to be merged, enough to be asked about


async def test_nobody_is_asked_about_photos_of_before_birth(album: Album) -> None:
    _, [anna] = await shoot(album, date(2012, 1, 1), turned(0))
    _, [other] = await shoot(album, date(2000, 1, 1), turned(float(DOUBT)))
    quality = {"score": 0.15}  # founds nobody
    photo = await album.add()
    await album.rows(
        "UPDATE media_assets SET captured_at = '2001-01-01', captured_at_confidence = 'high'"
        " WHERE photo_id = :photo",
        photo=photo[0],
    )
    doubtful = detection(turned(-float(DOUBT)), quality=quality)
    await album.deliver(album.callback(photo, [doubtful]))
    await jobs.find_questions(album.db)
    asked = await act(album, service.questions)
    assert {(q.other and q.other.person_id) for q in asked if q.person.person_id == anna} == {
        other,
        None,
    }
    await act(album, service.set_birth_date, anna, date(2010, 1, 1))
    assert await act(album, service.questions) == [], "those that stood are dropped"
    await album.rows("UPDATE review_progress SET face_id = 0")
    await jobs.find_questions(album.db)
    assert await act(album, service.questions) == [], "and do not come up again"


async def through_the_years(album: Album, first: int, last: int) -> list[int]:
    """Faces of somebody who turns seven degrees a year, in four photos of each of these years."""
    faces = []
    for year in range(first, last):
        for month in (2, 5, 8, 11):
            view = turned(7 * (year + month / 12))
            faces += (await shoot(album, date(2000 + year, month, 1), view))[0]
    return faces


async def test_a_life_in_photos_is_one_person(album: Album) -> None:
    faces = await through_the_years(album, 0, 12)
    await jobs.consolidate(album.db)
    assert len({await person_of(album, face) for face in faces}) == 1
    await album.check()
    await album.rows("UPDATE media_assets SET captured_at = NULL")
    await jobs.consolidate(album.db, everybody=True)
    assert len({await person_of(album, face) for face in faces}) > 1, "the dates did it"


async def test_in_a_large_library_too(album: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healing, "SMALL", 0)
    old = (await shoot(album, date(2000, 1, 1), turned(0)))[1]
    await jobs.consolidate(album.db)
    await jobs.consolidate(album.db)
    _, [born] = await shoot(album, date(2012, 1, 1), turned(float(DOUBT) + 1))
    assert [born] != old
    await act(album, service.set_birth_date, born, date(2010, 1, 1))
    assert (await shoot(album, date(2013, 1, 1), turned(float(DOUBT) - 7)))[1] == [born]
    await jobs.consolidate(album.db)
    assert await act(album, service.resolve, old[0]) == old[0]
    assert await act(album, service.resolve, born) == born
    await act(album, service.set_birth_date, born, None)
    await jobs.consolidate(album.db)
    assert await act(album, service.resolve, old[0]) == await act(album, service.resolve, born)


async def test_in_a_large_library_a_life_goes_on(
    album: Album, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = await through_the_years(album, 0, 8)
    await jobs.consolidate(album.db)
    await jobs.consolidate(album.db)
    assert await jobs.consolidate(album.db) is None
    monkeypatch.setattr(healing, "SMALL", 0)
    old = {await person_of(album, face) for face in faces}
    assert len(old) == 1
    later = await through_the_years(album, 10, 13)
    assert not old & {await person_of(album, face) for face in later}, "too old to be known again"
    await jobs.consolidate(album.db, thorough=True)
    assert len({await person_of(album, face) for face in faces + later}) == 1
