"""The local copy of who is known, and who the faces of one photo could be."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest

from kaleidoscope.ml import catalog, fakes
from kaleidoscope.ml.dump import PersonDump, Persons, assign

Vectors = npt.NDArray[np.float32]
DIMENSION = catalog.FAKE.dimension
JOIN = 0.8


def faces(*people: int) -> Vectors:
    return np.stack([fakes.embedding(person) for person in people])


class Server:
    """Answers /person-dump from `entries`: id → (version, meta)."""

    def __init__(self, page: int = 2) -> None:
        self.entries: dict[int, tuple[int, dict[str, Any]]] = {}
        self.version = 0
        self.page = page
        self.asked: list[dict[str, str]] = []

    def put(self, person: int, vector: Vectors | None, *, model: str = "fake", n: int = 2) -> None:
        self.version += 1
        meta: dict[str, Any] = {"count": 0, "model": model, "removed": True}
        if vector is not None:
            total = base64.b64encode((vector * n).astype("<f4").tobytes()).decode()
            meta = {"count": n, "sum": total, "model": model}
        self.entries[person] = (self.version, meta)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        asked = dict(request.url.params)
        self.asked.append(asked)
        changed = int(asked.get("changed_since", -1))
        rows = [
            {"person_id": person, "meta": meta}
            for person, (version, meta) in sorted(self.entries.items())
            if person > int(asked["since_id"]) and version >= changed
        ]
        more = rows[self.page - 1]["person_id"] if len(rows) > self.page else None
        page = {"version": self.version, "entries": rows[: self.page], "next_since_id": more}
        return httpx.Response(200, json=page)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def dump(server: Server) -> PersonDump:
    client = httpx.AsyncClient(transport=httpx.MockTransport(server))
    return PersonDump(client, "http://api", "fake", DIMENSION)


async def suggested(dump: PersonDump, vectors: Vectors) -> list[int | str | None]:
    found = await dump.suggest(vectors, [True] * len(vectors), catalog.FAKE.thresholds, "balanced")
    return [one.person_id for one in found]


async def test_everybody_comes_in_pages_then_only_what_changed(
    dump: PersonDump, server: Server
) -> None:
    for person in range(1, 6):
        server.put(person, fakes.embedding(person))
    await dump.refresh()
    assert len(server.asked) == 3
    assert await suggested(dump, faces(4, 1, 9)) == [4, 1, "t-1"]
    server.put(2, fakes.embedding(77))
    server.put(6, fakes.embedding(9))
    server.put(4, None)
    await dump.refresh()
    assert server.asked[-1]["changed_since"] == "5"
    assert await suggested(dump, faces(9, 77, 2, 4)) == [6, 2, "t-1", "t-2"]
    assert len(dump.persons) == 5


async def test_another_database_starts_it_anew(dump: PersonDump, server: Server) -> None:
    for person in (1, 2, 3):
        server.put(person, fakes.embedding(person))
    await dump.refresh()
    server.entries, server.version = {}, 0
    server.put(1, fakes.embedding(50))
    await dump.refresh()
    assert await suggested(dump, faces(50, 2)) == [1, "t-1"]


async def test_vectors_of_another_model_are_nobody(dump: PersonDump, server: Server) -> None:
    server.put(1, fakes.embedding(1), model="builtin/mtcnn-1/dlib-2")
    server.put(2, fakes.embedding(2), model="fake/1")
    await dump.refresh()
    assert await suggested(dump, faces(1, 2)) == ["t-1", 2]


async def test_nobody_is_known_until_it_was_fetched(dump: PersonDump) -> None:
    assert await suggested(dump, faces(1)) == ["t-1"]
    assert await suggested(dump, np.zeros((0, DIMENSION), np.float32)) == []


def test_persons_are_put_replaced_and_removed() -> None:
    persons, truth = Persons(4), {}
    random = np.random.default_rng(1)
    for person in random.integers(0, 500, 4000).tolist():
        if random.random() < 0.4:
            persons.remove(person)
            truth.pop(person, None)
        else:
            truth[person] = random.standard_normal(4).astype(np.float32)
            persons.put(person, truth[person])
    assert len(persons) == len(truth)
    found = {int(i): m for i, m in zip(persons.ids, persons.means[: len(persons)], strict=False)}
    assert all((found[person] == mean).all() for person, mean in truth.items())


def test_two_faces_of_a_photo_are_two_people() -> None:
    """The more similar one gets the person, the other its next best or nobody."""
    vectors = np.eye(3, DIMENSION, dtype=np.float32)
    ids = np.array([[7, 8], [7, 8], [7, 8]])
    similarities = np.array([[0.95, 0.70], [0.97, 0.85], [0.90, 0.82]], np.float32)
    found = assign(vectors, ids, similarities, JOIN, [True] * 3)
    assert [one.person_id for one in found] == ["t-1", 7, 8]
    assert found[1].similarity == pytest.approx(0.97)


def test_a_face_and_its_mirror_image_are_one_person() -> None:
    vectors = np.stack([fakes.embedding(1), fakes.embedding(1), fakes.embedding(2)])
    ids, similarities = np.full((3, 1), 7), np.array([[0.9], [0.9], [0.1]], np.float32)
    known = assign(vectors, ids, similarities, JOIN, [True] * 3)
    assert [one.person_id for one in known] == [7, 7, "t-1"]
    new = assign(vectors, ids, similarities * 0, JOIN, [True] * 3)
    assert [one.person_id for one in new] == ["t-1", "t-1", "t-2"]


def test_a_poor_face_founds_nobody_and_may_join() -> None:
    vectors = np.eye(2, DIMENSION, dtype=np.float32)
    ids, similarities = np.full((2, 1), 7), np.array([[0.9], [0.1]], np.float32)
    found = assign(vectors, ids, similarities, JOIN, [False, False])
    assert [one.person_id for one in found] == [7, None]
