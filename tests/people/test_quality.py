"""How good the machine is, said as surely as the confirmed faces allow."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from album import DIMENSION, Album, detection, face
from typer.testing import CliRunner

from kaleidoscope.kernel import web
from kaleidoscope.kernel.errors import Invalid
from kaleidoscope.kernel.settings import load
from kaleidoscope.people import jobs, service
from kaleidoscope.people.commands import app
from kaleidoscope.people.routes import router
from kaleidoscope.people.rules.consolidation import Whole
from kaleidoscope.people.rules.quality import (
    Matches,
    Outcomes,
    Spoken,
    at,
    least_faces,
    matches,
    outcomes,
    share,
    threshold,
)
from kaleidoscope.people.service import Quality

# ---- the rules themselves ----------------------------------------------------------------------


def test_wilson_s_interval_is_that_of_the_books() -> None:
    """Figures of Newcombe (1998), table I, method 3."""
    for count, of, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)):
        found = share(count, of)
        assert found is not None
        assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, 1e-3))
    none = share(0, 20)
    assert none is not None and (none.low, none.high) == (0.0, pytest.approx(0.1611, abs=1e-4))
    assert share(0, 0) is None


def test_a_second_id_is_missed_and_not_wrong() -> None:
    had = [(1, 1, "confirm"), (1, 1, "merge"), (1, 2, "split"), (1, None, "confirm")]
    found = outcomes([Spoken(*one) for one in had])
    assert found == Outcomes(right=1, apart=1, wrong=1, open=1)
    assert found.precision is not None and (found.precision.count, found.precision.of) == (2, 3)
    assert found.recall is not None and (found.recall.count, found.recall.of) == (1, 4)
    assert outcomes([]).precision is None


def test_a_face_is_matched_without_itself() -> None:
    vectors = np.array([face(1, 0), face(1, 1), face(2, 0)], np.float32)
    means = np.array([(vectors[0] + vectors[1]) / 2, vectors[2]], np.float32)
    known = Whole(np.array([7, 9]), np.array([2, 1]), means)
    found = matches(vectors, np.array([7, 7, 9]), known)
    assert found.right.tolist() == [1, 1, 0] and found.findable == 2
    assert found.similarity[0] == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-5)


def test_a_threshold_is_as_low_as_it_surely_may_be() -> None:
    similarity = np.linspace(0.2, 0.9, 701)
    found = Matches(similarity, (similarity >= 0.5).astype(np.float64), 600)
    lowest = threshold(found, 0.9)
    assert lowest is not None and 0.4 < lowest.similarity < 0.5
    assert lowest.precision.low >= 0.9
    lower = at(found, lowest.similarity - 0.002)
    assert lower is not None and lower.precision.low < 0.9
    assert lowest == at(found, lowest.similarity)
    assert lowest.recall is not None and lowest.recall.of == 600
    assert at(found, 0.95) is None


def test_few_faces_promise_little() -> None:
    assert least_faces(0.99) == 381
    for count, promised in ((380, False), (381, True)):
        found = Matches(np.full(count, 0.9), np.ones(count), count)
        assert (threshold(found, 0.99) is not None) is promised
    assert threshold(Matches(np.full(500, 0.9), np.zeros(500), 500), 0.5) is None
    nobody = Matches(np.array([-np.inf]), np.zeros(1), 0)
    assert threshold(nobody, 0.5) is None


# ---- in a library ------------------------------------------------------------------------------


@pytest.fixture
def lenient(album: Album, monkeypatch: pytest.MonkeyPatch) -> Iterator[Album]:
    """An album that joins at .6: it confuses."""
    monkeypatch.setenv("KALEIDOSCOPE_PEOPLE_JOIN", "0.6")
    load.cache_clear()
    yield album
    load.cache_clear()


def view(*values: float) -> np.ndarray:
    vector = np.zeros(DIMENSION, np.float32)
    vector[: len(values)] = values
    return vector / np.linalg.norm(vector)


async def shot(album: Album, vector: np.ndarray, quality: float = 0.9) -> tuple[int, int | None]:
    """A photo of this face: the face's id, and its person."""
    photo = await album.add()
    found = detection(vector, quality={"score": quality})
    await album.deliver(album.callback(photo, [found]))
    return (await album.face_ids(photo[0]))[0], (await album.persons(photo[0]))[0]


async def judged(album: Album, wanted: float = 0.99) -> Quality:
    async with album.db.transaction() as session:
        return await service.quality(session, wanted)


async def test_of_nothing_nothing_is_said(album: Album) -> None:
    await album.shoot(1)
    found = await judged(album)
    assert (found.faces, found.enough) == (0, False)
    assert found.precision is found.recall is found.now is found.advised is None
    assert "nothing can be said" in found.remarks[0]
    for wrong in (0.0, 1.0, -1.0):
        with pytest.raises(Invalid):
            await judged(album, wrong)


async def test_what_a_person_first_said_judges_the_machine(lenient: Album) -> None:
    right, anna = await shot(lenient, view(1, 0))
    second, _ = await shot(lenient, view(1, 0.1))
    wrong, same = await shot(lenient, view(1, 1))  # .7 alike, and somebody else
    rejected, same_too = await shot(lenient, view(1, 0, 1))
    apart, bea = await shot(lenient, view(0, 0, 1))
    poor, nobody = await shot(lenient, view(0, 0, 0, 1), quality=0.0)
    assert anna == same == same_too != bea and nobody is None
    assert anna is not None and bea is not None
    async with lenient.db.transaction() as session:
        await service.confirm(session, right)
        parted = await service.split(session, anna, [wrong])
        await service.confirm(session, wrong)
        await service.reject(session, rejected)
        await service.confirm(session, rejected, parted.person_id)
        await service.merge(session, anna, [bea])
        await service.confirm(session, apart)
        await service.confirm(session, poor, anna)
    found = await judged(lenient)
    assert (found.faces, found.persons) == (5, 2), f"face {second} is not confirmed"
    assert (found.right, found.apart, found.wrong, found.open) == (1, 1, 2, 1)
    assert found.precision is not None and (found.precision.count, found.precision.of) == (2, 4)
    assert found.recall is not None and (found.recall.count, found.recall.of) == (1, 5)
    assert not found.enough and "are few" in found.remarks[0]
    assert found.advised is None and "no threshold" in found.remarks[1]


async def test_what_was_taken_back_judges_nobody(album: Album) -> None:
    one, anna = await shot(album, face(1))
    _, bea = await shot(album, face(2))
    assert anna is not None
    async with album.db.transaction() as session:
        mistaken = await service.confirm(session, one, bea)
        await service.undo(session, mistaken.event_id)
    assert (await judged(album)).faces == 0
    async with album.db.transaction() as session:
        await service.confirm(session, one)
    found = await judged(album)
    assert (found.right, found.wrong) == (1, 0)
    await jobs.consolidate(album.db)
    assert (await judged(album)).right == 1, "what the machine did later is no person's word"


async def test_by_command_and_over_http(album: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    for number in range(30):
        photo, _ = await album.shoot(0, 1, 2, 3, view=number)
        async with album.db.transaction() as session:
            for one in await album.face_ids(photo):
                await service.confirm(session, one)
    api = web.create_app("test", [router])
    api.state.db = album.db
    transport = httpx.ASGITransport(app=api)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        told = (await client.get("/people/quality", params={"wanted": 0.95})).json()
        for wrong in ("0", "1", "much"):
            answer = await client.get("/people/quality", params={"wanted": wrong})
            assert answer.status_code == 422
    assert (told["faces"], told["persons"], told["right"]) == (120, 4, 120)
    assert told["enough"] is True and told["remarks"] == []
    assert told["precision"] == told["recall"]
    assert 0.95 < told["precision"]["low"] < told["precision"]["value"] == 1.0
    assert told["now"]["similarity"] == told["join"] == 0.948
    assert 0.5 < told["advised"]["similarity"] < 1 and told["advised"]["precision"]["low"] >= 0.95

    monkeypatch.setenv("KALEIDOSCOPE_DATABASE_URL", album.db.url)
    load.cache_clear()

    async def run(*words: str) -> str:
        done = await asyncio.to_thread(CliRunner().invoke, app, ["quality", *words])
        assert done.exit_code == 0, done.output
        return done.stdout

    assert json.loads(await run("--wanted", "0.95", "--json")) == told
    plain = await run()
    assert "120 faces of 4 persons are confirmed" in plain
    assert "precision 1.000 [0.969, 1.000] of 120" in plain
    assert "no threshold surely gives a precision of 0.99" in plain
