"""Two packs on the same confirmed faces, and nothing of the library touched by it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from album import Album, detection, face
from packs import WIDTH, lay_pack
from sqlalchemy import text
from typer.testing import CliRunner

from kaleidoscope.kernel import web
from kaleidoscope.kernel.errors import Invalid
from kaleidoscope.kernel.settings import load
from kaleidoscope.ml.errors import ModelError, NotPulled
from kaleidoscope.people import service
from kaleidoscope.people.commands import app
from kaleidoscope.people.routes import router
from kaleidoscope.people.rules.comparing import (
    A_PERSON,
    Difference,
    difference,
    differences,
    judge,
    sample,
    verdict,
)
from kaleidoscope.people.service import comparing

# ---- the rules ---------------------------------------------------------------------------------


def flags(both: int, more: int, fewer: int, neither: int) -> tuple[Any, Any]:
    this = [True] * both + [False] * more + [True] * fewer + [False] * neither
    other = [True] * both + [True] * more + [False] * fewer + [False] * neither
    return np.array(this, bool), np.array(other, bool)


def test_the_interval_of_a_difference_is_that_of_the_books() -> None:
    """Newcombe (1998), table III, method 10: cells 36, 12, 2, 0."""
    found = difference(*flags(36, 12, 2, 0))
    assert found is not None and (found.more, found.fewer, found.of) == (12, 2, 50)
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == (pytest.approx(0.0569, abs=1e-3), pytest.approx(0.3404, 1e-2))
    same = difference(*flags(20, 0, 0, 5))
    assert same is not None and same.low < 0 == same.value < same.high
    turned = difference(*flags(36, 2, 12, 0))
    assert turned is not None
    assert (turned.low, turned.high) == (pytest.approx(-found.high), pytest.approx(-found.low))
    assert difference(*flags(0, 0, 0, 0)) is None


def test_the_interval_holds_the_truth_nineteen_times_in_twenty() -> None:
    dice = np.random.default_rng(1)
    held = 0
    for _ in range(1000):
        kinds = dice.multinomial(80, (0.75, 0.12, 0.05, 0.08))
        found = difference(*flags(*kinds.tolist()))
        held += found is not None and found.low <= 0.07 <= found.high
    assert 930 <= held <= 985


def test_who_is_better_is_said_when_the_intervals_say_so() -> None:
    none = Difference(0, 0, 100, 0.0, -0.02, 0.02)
    more = Difference(9, 0, 100, 0.09, 0.04, 0.16)
    less = Difference(0, 9, 100, -0.09, -0.16, -0.04)
    assert verdict(more, none) == verdict(none, less) == verdict(more, less) == "other"
    assert verdict(less, none) == verdict(none, more) == verdict(less, more) == "this"
    assert verdict(more, more) == verdict(less, less) == "mixed"
    assert verdict(none, none) == verdict(None, none) == "open"


def test_a_face_that_is_not_found_is_missed() -> None:
    who = np.array([1, 1, 1, 2, 2, 3])
    found = np.array([True, True, False, True, True, True])
    vectors = np.array([face(1, 0), face(1, 1), face(2, 0), face(2, 1), face(3, 0)], np.float32)
    made = judge(vectors, found, who, 0.8, 0.5)
    assert made.found is not None and (made.found.count, made.found.of) == (5, 6)
    assert made.right.tolist() == [True, True, False, True, True, False]
    assert not made.wrong.any()
    assert made.recall is not None
    assert (made.recall.count, made.recall.of) == (4, 5), "who is alone cannot be found"
    lenient = judge(vectors, found, who, -1.0, 0.5)
    assert lenient.wrong.tolist() == [False] * 5 + [True]
    nothing = judge(vectors[:0], np.zeros(6, bool), who, 0.8, 0.5)
    assert nothing.precision is None and nothing.recall is not None and nothing.recall.count == 0
    right, wrong = differences(nothing, made, who)
    assert right is not None and (right.more, right.fewer, right.of) == (4, 0, 5)
    assert wrong is not None and (wrong.more, wrong.of) == (0, 6)


def test_a_sample_is_of_many_people() -> None:
    persons = [1] * 100 + [2] * 100 + [3] * 3 + [4]
    chosen = [persons[row] for row in sample(persons, 2 * A_PERSON + 4)]
    assert sorted(set(chosen)) == [1, 2, 3, 4]
    assert chosen.count(1) == chosen.count(2) == A_PERSON and chosen.count(4) == 1
    assert sample(persons, 1000) == list(range(204))
    assert sample(persons, 20) == sample(persons, 20) and len(sample(persons, 20)) == 20


# ---- in a library ------------------------------------------------------------------------------


async def shot(album: Album, folder: Path, people: list[int], view: int, **packs: float) -> int:
    """A confirmed photo of people, with what each pack makes of it: the noise on its vectors.

    Without noise said for it, a pack does not see the last face.
    """
    photo_id, path, attempt = await album.add()
    file = folder / path.rsplit("/", 1)[1]
    async with album.db.transaction() as session:
        await session.execute(
            text("UPDATE media_assets SET final_path = :path WHERE photo_id = :id"),
            {"path": str(file), "id": photo_id},
        )
    found = [detection(face(p, view), place) for place, p in enumerate(people)]
    seen = {}
    for pack, width in (("builtin", 128), ("mine", WIDTH)):
        whole = pack in packs
        seen[pack] = [
            {
                "bbox": [side + 6 for side in d["bbox"]],
                "person": person,
                "view": view,
                "noise": packs.get(pack, 0.15),
                "width": width,
            }
            for d, person in zip(found, people, strict=True)
        ][: None if whole else -1]
    file.write_text(json.dumps(seen))
    await album.deliver(album.callback((photo_id, str(file), attempt), found))
    async with album.db.transaction() as session:
        for one in await album.face_ids(photo_id):
            await service.confirm(session, one)
    return photo_id


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child processes see what the photos say."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("KALEIDOSCOPE_ML_PROCESSES", "1")
    monkeypatch.setattr(comparing, "LOOK", "onlookers:look")
    load.cache_clear()


async def everything(album: Album) -> list[Any]:
    tables = ("faces", "face_vectors", "person_vectors", "persons", "identity_events")
    return [await album.rows(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]


async def test_packs_are_compared_and_nothing_is_touched(
    album: Album, looking: None, data_dir: Path, folder: Path
) -> None:
    lay_pack(data_dir)
    for view in range(15):
        # `builtin` confuses nobody and finds half the faces unlike; `mine` knows all of them.
        unlike = 0.15 if view % 2 else 1.5
        await shot(album, folder, [0, 1, 2, 3], view, builtin=unlike, mine=0.15)
    before, told = await everything(album), []
    found = await service.compare(album.db, "mine", progress=lambda *said: told.append(said))
    assert await everything(album) == before
    assert (found.faces, found.persons, found.photos_read, found.photos_unread) == (60, 4, 15, 0)
    this, other = found.this, found.other
    assert (this.pack, this.dimension, other.pack, other.dimension) == ("builtin", 128, "mine", 64)
    assert other.licence == "a licence of our own" and not other.non_commercial
    assert this.even == 0.918 and other.even == 0.75
    assert this.recall is not None and other.recall is not None
    assert this.recall.value < 0.7 and other.recall.value == 1.0 > other.recall.low > 0.85
    assert other.advised is None and found.wanted == 0.99
    assert found.better == "other" and "mine is better, and surely so" in found.verdict
    assert found.right is not None and found.right.low > 0 and found.right.fewer == 0
    assert this.milliseconds == other.milliseconds == 10.0
    assert (found.photos, found.migrate_seconds) == (15, pytest.approx(0.15, abs=0.06))
    assert any("not measured" in remark for remark in found.remarks)
    assert ("builtin", 15, 15) in told and told[-1] == ("mine", 15, 15)


async def test_a_pack_that_misses_faces_is_worse(
    album: Album, looking: None, data_dir: Path, folder: Path
) -> None:
    lay_pack(data_dir)
    gone = 0
    for view in range(20):
        gone = await shot(album, folder, [0, 1, 2], view, builtin=0.15)
    (await_path,) = await album.rows(
        "SELECT final_path FROM media_assets WHERE photo_id = :id", id=gone
    )
    Path(await_path.final_path).unlink()
    found = await service.compare(album.db, "mine", sample=60)
    assert found.photos_unread == 1 and found.faces == 57
    assert any("1 photos are gone" in remark for remark in found.remarks)
    assert found.other.found is not None
    assert (found.other.found.count, found.other.found.of) == (38, 57)
    assert found.better == "this" and found.right is not None and found.right.fewer == 19
    assert found.other.others == 0


async def test_few_faces_are_said_to_be_few(album: Album, data_dir: Path, folder: Path) -> None:
    lay_pack(data_dir)
    for view in range(3):
        await shot(album, folder, [0, 1], view, builtin=0.15, mine=0.15)
    with pytest.raises(Invalid, match=r"6 faces of 2 people.*it takes 50 of two") as few:
        await service.compare(album.db, "mine")
    assert few.value.hint is not None and "people confirm FACE --person PERSON" in few.value.hint
    with pytest.raises(Invalid, match="is the pack in use"):
        await service.compare(album.db, "builtin")
    with pytest.raises(NotPulled):
        await service.compare(album.db, "yunet-sface")
    with pytest.raises(ModelError, match="no model pack"):
        await service.compare(album.db, "nobody-s")


async def test_networks_that_do_not_load_end_it(
    album: Album, looking: None, data_dir: Path, folder: Path
) -> None:
    lay_pack(data_dir)
    lay_pack(data_dir, "broken")
    for view in range(25):
        await shot(album, folder, [0, 1], view, builtin=0.15, mine=0.15)
    with pytest.raises(ModelError, match="do not load"):
        await service.compare(album.db, "broken")


async def test_by_command_and_over_http(
    album: Album, looking: None, data_dir: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_pack(data_dir)
    for view in range(20):
        await shot(album, folder, [0, 1, 2], view, builtin=0.15, mine=0.15)
    api = web.create_app("test", [router])
    api.state.db = album.db
    transport = httpx.ASGITransport(app=api)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        asked = {"pack": "mine", "sample": 50, "wanted": 0.9}
        answer = await client.post("/people/quality/compare", json=asked)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        for wrong in ({"pack": "mine", "sample": 3}, {"pack": "builtin"}, {}):
            refused = await client.post("/people/quality/compare", json=wrong)
            assert refused.status_code == 422
        unknown = await client.post("/people/quality/compare", json={"pack": "nobody-s"})
        assert unknown.status_code == 404
    assert told["better"] == "open" and told["other"]["precision"]["value"] == 1.0
    assert told["other"]["advised"]["precision"]["low"] >= 0.9

    monkeypatch.setenv("KALEIDOSCOPE_DATABASE_URL", album.db.url)
    load.cache_clear()

    async def run(*words: str) -> str:
        words = ("quality", "--compare", "mine", "--wanted", "0.9", *words)
        done = await asyncio.to_thread(CliRunner().invoke, app, words)
        assert done.exit_code == 0, done.output
        return done.stdout

    assert json.loads(await run("--sample", "50", "--json")) == told
    plain = await run()
    assert "these faces do not tell which is better" in plain
    assert "a licence of our own" in plain and "64-d" in plain
    assert "kaleidoscope models migrate mine" in plain
