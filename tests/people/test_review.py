"""The review queue: what is asked, in which order, and what the answers do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from album import DIMENSION, Album, detection, face

from kaleidoscope.kernel.errors import Conflict, NotFound
from kaleidoscope.kernel.settings import load
from kaleidoscope.people import jobs, service
from kaleidoscope.people.rules import review as rules
from kaleidoscope.people.schemas import ReviewQuestion

DOUBT = 0.915  # with `builtin`: too little to be merged, enough to be asked about


def like(side: int, similarity: float = DOUBT) -> np.ndarray:
    """A face so similar to that of person zero, and to those of other sides only as that implies"""
    vector = np.zeros(DIMENSION, np.float32)
    vector[0], vector[side] = similarity, np.sqrt(1 - similarity**2)
    return vector


async def shoot(album: Album, vector: np.ndarray, **more: Any) -> tuple[int, int, int | None]:
    """A photo of one face: photo, face, person."""
    photo = await album.add()
    await album.deliver(album.callback(photo, [detection(vector, **more)]))
    [face_id] = await album.face_ids(photo[0])
    [person] = await album.persons(photo[0])
    return photo[0], face_id, person


async def asked(album: Album) -> list[ReviewQuestion]:
    await jobs.find_questions(album.db)
    return await act(album, service.questions)


async def act(album: Album, verb: Any, *arguments: Any) -> Any:
    async with album.db.transaction() as session:
        return await verb(session, *arguments)


def sides(questions: list[ReviewQuestion]) -> list[tuple[int, int | None]]:
    return [(q.person.person_id, q.other and q.other.person_id) for q in questions]


def test_what_is_open_is_worth_more() -> None:
    assert rules.entropy(0.5) == 1 and rules.entropy(1.0) == rules.entropy(0.0) == 0
    old, young = rules.Party(1, None, 40), rules.Party(2, None, 3)
    named = rules.Party(3, "Anna", 2)
    assert rules.about_persons(young, old, 0.9, 0.5).person_id == 1, "the older is asked for"
    assert rules.about_persons(young, old, 0.9, 0.5).faces == 3
    question = rules.about_persons(old, named, 0.9, 0.5)
    assert (question.person_id, question.other_id, question.faces) == (3, 1, 40), "40 get a name"
    assert question.gain == 40 and question.is_named
    assert not rules.may_be_one(named, rules.Party(4, "Bea", 1))


async def test_named_persons_first_then_what_settles_most(album: Album) -> None:
    _, _, zero = await shoot(album, like(1, 1.0))
    others = []
    for side, count in ((2, 1), (3, 4)):
        for _ in range(count):
            _, _, person = await shoot(album, like(side))
        others.append(person)
    own = np.zeros(DIMENSION, np.float32)
    own[50] = 1
    _, _, anna = await shoot(album, own)
    doubted = np.zeros(DIMENSION, np.float32)
    doubted[50], doubted[51] = DOUBT, np.sqrt(1 - DOUBT**2)
    _, _, maybe = await shoot(album, doubted)
    assert len({zero, *others, anna, maybe}) == 5
    await act(album, service.rename, anna, "Anna")
    for _ in range(8):  # person 3's cluster is the larger of what is settled only with a name
        await shoot(album, like(1, 1.0))
    found = await asked(album)
    assert sides(found) == [(anna, maybe), (zero, others[1]), (zero, others[0])]
    assert [q.faces for q in found] == [1, 4, 1]
    assert all(0.05 < q.probability < 0.5 for q in found)
    assert found[0].person.display_name == "Anna" and found[0].person.example is not None
    assert found[0].other is not None and found[0].other.example is not None
    assert found[0].other.example.path.startswith("/photos/")


async def test_yes_merges_and_can_be_undone(album: Album) -> None:
    _, _, zero = await shoot(album, like(1, 1.0))
    for _ in range(3):
        photo, _, many = await shoot(album, like(2))
    [question] = await asked(album)
    said = await act(album, service.answer, question.question_id, "yes")
    assert (said.event.kind, said.event.person_id) == ("merge", many), "the larger keeps its id"
    assert await act(album, service.resolve, zero) == many
    assert await asked(album) == []
    with pytest.raises(Conflict, match="answered already"):
        await act(album, service.answer, question.question_id, "no")
    await act(album, service.undo, said.event.event_id)
    assert await act(album, service.resolve, zero) == zero
    assert sides(await asked(album)) == [(zero, many)]
    assert await album.persons(photo) == [many]
    await album.check()


async def test_a_no_is_for_ever(album: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, zero = await shoot(album, like(1, 1.0))
    await shoot(album, like(1, 1.0))
    _, other, few = await shoot(album, like(2))
    [question] = await asked(album)
    said = await act(album, service.answer, question.question_id, "no")
    assert (said.event.kind, said.event.faces_moved) == ("reject", 0)
    noes = await album.rows("SELECT face_id, person_id FROM face_rejections")
    assert [tuple(no) for no in noes] == [(other, zero)], "the smaller side's faces tell it"
    assert await asked(album) == []
    await shoot(album, like(1, 1.0))  # both have changed since
    await shoot(album, like(2))
    assert await asked(album) == []
    monkeypatch.setenv("KALEIDOSCOPE_PEOPLE_MERGE", "0.85")
    load.cache_clear()
    await jobs.consolidate(album.db, everybody=True)
    assert len({zero, few} & await living(album)) == 2, "nor does the machine merge"
    await act(album, service.undo, said.event.event_id)
    monkeypatch.delenv("KALEIDOSCOPE_PEOPLE_MERGE")
    load.cache_clear()
    assert sides(await asked(album)) == [(zero, few)], "an answer taken back is asked again"
    await album.check()


async def living(album: Album) -> set[int]:
    return {r.id for r in await album.rows("SELECT id FROM persons WHERE merged_into IS NULL")}


async def test_what_is_skipped_comes_last_and_stays_so(album: Album) -> None:
    _, _, zero = await shoot(album, like(1, 1.0))
    _, _, two = await shoot(album, like(2))
    for _ in range(3):
        _, _, three = await shoot(album, like(3))
        await shoot(album, like(1, 1.0))
    first, second = await asked(album)
    assert sides([first, second]) == [(zero, three), (zero, two)]
    said = await act(album, service.answer, first.question_id, "skip")
    assert said.event is None
    await shoot(album, like(3))  # looked at again: still put off
    found = await asked(album)
    assert sides(found) == [(zero, two), (zero, three)]
    assert [q.skips for q in found] == [0, 1]


async def test_a_poor_face_is_asked_about(album: Album) -> None:
    poor = {"quality": {"score": 0.0}}
    _, _, zero = await shoot(album, like(1, 1.0))
    photo, doubtful, nobody = await shoot(album, like(2), **poor)
    assert nobody is None
    [question] = await asked(album)
    assert question.other is None and question.face is not None
    assert (question.face.face_id, question.person.person_id) == (doubtful, zero)
    no = await act(album, service.answer, question.question_id, "no")
    assert await asked(album) == []
    await act(album, service.undo, no.event.event_id)
    [question] = await asked(album)
    yes = await act(album, service.answer, question.question_id, "yes")
    assert yes.event.kind == "confirm"
    assert await album.persons(photo) == [zero]
    assert await asked(album) == []
    await album.check()


async def test_nothing_is_asked_that_is_known(album: Album) -> None:
    """Two in one photo, two of different names, a face somebody has rejected."""
    photo = await album.add()
    faces = [detection(like(1, 1.0), 0), detection(like(2), 1)]
    await album.deliver(album.callback(photo, faces))
    zero, two = await album.persons(photo[0])
    assert await asked(album) == []
    _, own, three = await shoot(album, like(3))
    assert sides(await asked(album)) == [(zero, three)]
    await act(album, service.reject, own, zero)
    assert await act(album, service.questions) == [], "at once, not only when looked at again"
    assert await asked(album) == []
    _, _, four = await shoot(album, like(4))
    await act(album, service.rename, four, "Vera")
    assert sides(await asked(album)) == [(four, zero)], "it is asked whether zero is Vera"
    await act(album, service.rename, zero, "Zoe")
    assert await asked(album) == []
    await act(album, service.rename, zero, "Vera")
    assert sides(await asked(album)) == [(zero, four)], "two of one name may be one"
    assert {two} & await living(album)


async def test_the_search_goes_on_where_it_was(
    album: Album, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kaleidoscope.people.service import review

    for n in range(7):
        await shoot(album, face(n))
        await shoot(album, face(100 + n), quality={"score": 0.0})
    monkeypatch.setattr(review, "PORTION", 2)
    assert await jobs.find_questions(album.db, portions=1) == 4
    assert await jobs.find_questions(album.db) == 10
    assert await jobs.find_questions(album.db) == 0, "nothing has changed"
    await shoot(album, face(3, 5))
    assert await jobs.find_questions(album.db) == 1


async def test_a_late_commit_is_not_missed(album: Album) -> None:
    """Of two writers the later one commits first; a search comes in between."""
    _, _, zero = await shoot(album, like(1, 1.0))
    await shoot(album, face(9))
    slow_photo = album.callback(await album.add(), [detection(like(2))])
    async with album.db.transaction() as slow:
        await service.deliver(slow, slow_photo)
        await shoot(album, face(9, 1))  # nobody is founded: that would wait
        await jobs.find_questions(album.db)
    [two] = await album.persons(slow_photo.photo_id)
    assert sides(await asked(album)) == [(zero, two)]


async def test_only_one_searches_at_a_time(album: Album) -> None:
    from kaleidoscope.people.queries import locks

    await shoot(album, face(1))
    async with album.db.transaction() as other:
        assert await locks.try_lock_review(other)
        assert await jobs.find_questions(album.db) == 0
    assert await jobs.find_questions(album.db) == 1


async def test_it_waits_for_quiet(album: Album) -> None:
    await shoot(album, face(1))
    await album.rows("UPDATE media_assets SET status = 'PROCESSED'")
    assert await jobs.find_questions_when_quiet(album.db) == 0, "not consolidated yet"
    await jobs.consolidate(album.db)
    await album.add()
    assert await jobs.find_questions_when_quiet(album.db) == 0, "a photo is on its way"
    await album.rows("UPDATE media_assets SET status = 'PROCESSED'")
    assert await jobs.find_questions_when_quiet(album.db) == 1


async def test_through_the_index_as_well(album: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_PEOPLE_EXACT_UP_TO", "0")
    load.cache_clear()
    _, _, zero = await shoot(album, like(1, 1.0))
    _, _, two = await shoot(album, like(2))
    _, poor, _ = await shoot(album, like(3), quality={"score": 0.0})
    found = await asked(album)
    assert sides(found) == [(zero, two), (zero, None)]
    assert found[1].face is not None and found[1].face.face_id == poor


async def test_unknown_questions_and_settled_ones(album: Album) -> None:
    with pytest.raises(NotFound, match="no question 7"):
        await act(album, service.answer, 7, "yes")
    _, _, zero = await shoot(album, like(1, 1.0))
    _, _, two = await shoot(album, like(2))
    [question] = await asked(album)
    await act(album, service.merge, zero, [two])
    with pytest.raises(Conflict, match="one already"):
        await act(album, service.answer, question.question_id, "yes")
