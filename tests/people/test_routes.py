"""People over HTTP."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from album import DIMENSION, Album, detection, face

from kaleidoscope.kernel import clock, secrets, web
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.settings import load
from kaleidoscope.people import jobs, service
from kaleidoscope.people.routes import router

Dump = dict[str, Any]


@pytest.fixture
async def http(album: Album) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API that shows the service secret."""
    app = web.create_app("test", [router])
    app.state.db = album.db
    transport = httpx.ASGITransport(app=app)
    headers = {secrets.HEADER: secrets.service_secret()}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://localhost", headers=headers
    ) as client:
        yield client


async def dump(http: httpx.AsyncClient, **query: Any) -> Dump:
    answer = await http.get("/person-dump", params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_several_callbacks_in_one_request(album: Album, http: httpx.AsyncClient) -> None:
    callbacks = [
        album.callback(await album.add(), [detection(face(1, view))]).model_dump(mode="json")
        for view in range(3)
    ]
    answer = await http.post("/callback/photos-processed", json={"callbacks": callbacks})
    assert answer.status_code == 200, answer.text
    [anna] = answer.json()[0]["created_person_ids"]
    assert [a["created_person_ids"] for a in answer.json()] == [[anna], [], []]
    assert await album.persons(callbacks[2]["photo_id"]) == [anna]
    http.headers.pop(secrets.HEADER)
    refused = await http.post("/callback/photos-processed", json={"callbacks": callbacks})
    assert refused.status_code == 403


async def test_callback_then_photo_and_person(album: Album, http: httpx.AsyncClient) -> None:
    photo = await album.add("beach")
    body = album.callback(photo, [detection(face(1))]).model_dump(mode="json")
    answer = await http.post("/callback/photo-processed", json=body)
    [anna] = answer.json()["created_person_ids"]
    assert answer.json() == {"ok": True, "created_person_ids": [anna]}

    shown = (await http.get(f"/photo/{photo[0]}")).json()
    assert (shown["status"], shown["person_ids"]) == ("PROCESSED", [anna])
    [found] = shown["detections"]
    assert (found["person_id"], found["bbox"], found["confirmed_by"]) == (
        anna,
        [0.0, 10.0, 80.0, 90.0],
        "machine",
    )
    person = (await http.get(f"/person/{anna}")).json()
    assert person["example_photos"] == ["/photos/beach.jpg"]
    assert person["representative_embedding"] is None


async def test_embeddings_and_callbacks_are_for_our_own_services(
    album: Album, http: httpx.AsyncClient
) -> None:
    _, [anna] = await album.shoot(1)
    query = {"include_embedding": "true"}
    answer = await http.get(f"/person/{anna}", params=query)
    vector = np.frombuffer(base64.b64decode(answer.json()["representative_embedding"]), "<f4")
    assert vector @ face(1) > 0.99
    for wrong in ("", "guess"):
        http.headers[secrets.HEADER] = wrong
        assert (await http.get(f"/person/{anna}", params=query)).status_code == 403
        assert (await http.get("/person-dump")).status_code == 403
        assert (await http.post("/callback/photo-processed", json={})).status_code == 403
        assert (await http.get(f"/person/{anna}")).status_code == 200


async def test_errors_are_problem_documents(album: Album, http: httpx.AsyncClient) -> None:
    answer = await http.get("/person/7")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    photo = await album.add()
    body = album.callback(photo, [detection(face(1))]).model_dump(mode="json")
    body["detections"][0]["bbox"] = [5, 5, 1, 1]
    answer = await http.post("/callback/photo-processed", json=body)
    assert answer.status_code == 422
    assert "detections.0.bbox" in answer.json()["detail"]
    for path in ("/person/0", f"/person/{2**63}", "/photo/0"):
        assert (await http.get(path)).status_code == 422


async def test_editing(album: Album, http: httpx.AsyncClient) -> None:
    photo_id, [a, b] = await album.shoot(1, 2)
    [face_id, _] = await album.face_ids(photo_id)
    named = await http.post(f"/people/{a}/rename", json={"display_name": "Anna"})
    assert named.json()["kind"] == "rename"
    merged = (await http.post("/people/merge", json={"kept": b, "gone": [a]})).json()
    assert (merged["person_id"], merged["faces_moved"]) == (b, 1)
    split = (await http.post(f"/people/{b}/split", json={"face_ids": [face_id]})).json()
    assert split["person_id"] not in (a, b)
    await http.post(f"/faces/{face_id}/confirm", json={})
    await http.post(f"/faces/{face_id}/reject", json={"person_id": b})
    listed = (await http.get("/people")).json()
    assert {p["person_id"] for p in listed} == {b, split["person_id"]}
    told = (await http.get("/people/history", params={"person_id": b})).json()
    assert [e["kind"] for e in told] == ["reject", "split", "merge"]
    undone = await http.post("/people/undo", json={"event_id": merged["event_id"]})
    assert undone.status_code == 409
    assert undone.json()["later_event_id"] == told[0]["event_id"] or undone.json()["hint"]
    await album.check()


async def test_the_dump_is_compressed_and_complete(album: Album, http: httpx.AsyncClient) -> None:
    persons = [(await album.shoot(n))[1][0] for n in range(5)]
    await album.shoot(2, view=9)
    answer = await http.get("/person-dump")
    assert answer.headers["content-encoding"] == "gzip"
    whole = answer.json()
    assert [e["person_id"] for e in whole["entries"]] == persons
    assert whole["next_since_id"] is None
    entry = whole["entries"][2]
    assert (entry["meta"]["count"], entry["meta"]["model"]) == (2, "builtin")
    total = np.frombuffer(base64.b64decode(entry["meta"]["sum"]), "<f4")
    mean = np.frombuffer(base64.b64decode(entry["representative_embedding"]), "<f4")
    assert np.allclose(total / np.linalg.norm(total), mean, atol=1e-6)
    assert entry["representative_photo_id"] is not None

    pages, since = [], 0
    while since is not None:
        page = await dump(http, since_id=since, limit=2)
        pages += page["entries"]
        since = page["next_since_id"]
    assert pages == whole["entries"]
    plain = await http.get("/person-dump", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.json()["entries"] == whole["entries"]


async def test_only_changes_are_told(album: Album, http: httpx.AsyncClient) -> None:
    a, b, c = [(await album.shoot(n))[1][0] for n in range(3)]
    version = (await dump(http))["version"]
    assert (await dump(http, changed_since=version))["entries"] == []
    await album.shoot(1, view=4)
    async with album.db.transaction() as session:
        await service.merge(session, b, [c])
    told = (await dump(http, changed_since=version))["entries"]
    assert [(e["person_id"], e["meta"].get("removed", False)) for e in told] == [
        (b, False),
        (c, True),
    ]
    assert a not in [e["person_id"] for e in told]


async def test_a_change_that_commits_late_is_not_missed(
    album: Album, http: httpx.AsyncClient
) -> None:
    """Of two writers the later one commits first; a reader comes in between."""
    _, [a] = await album.shoot(1)
    slow_photo = album.callback(await album.add(), [detection(face(1, 5))])
    async with album.db.transaction() as slow:
        await service.deliver(slow, slow_photo)
        _, [b] = await album.shoot(2)  # begins later, commits earlier
        between = await dump(http)
        assert [e["person_id"] for e in between["entries"]] == [a, b]
    told = (await dump(http, changed_since=between["version"]))["entries"]
    assert {e["person_id"]: e["meta"]["count"] for e in told}[a] == 2


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Persons are merged at .85."""
    monkeypatch.setenv("KALEIDOSCOPE_PEOPLE_MERGE", "0.85")
    load.cache_clear()


async def split_by_order(album: Album) -> list[int]:
    """Two ids of one person: unlike views first, those between later. The photos."""
    photos = []
    for side in (0.35, -0.35, 0.2, -0.2, 0.12, -0.12):
        vector = np.zeros(DIMENSION, np.float32)
        vector[:2] = (1, side)
        photo = await album.add()
        await album.deliver(album.callback(photo, [detection(vector)]))
        photos.append(photo[0])
    return photos


async def living(album: Album, photos: list[int]) -> set[int | None]:
    return {person for photo in photos for person in await album.persons(photo)}


@pytest.mark.usefixtures("lenient")
async def test_consolidation_is_told_made_and_undone(album: Album, http: httpx.AsyncClient) -> None:
    photos = await split_by_order(album)
    one, other = sorted(p for p in await living(album, photos) if p is not None)
    told = (await http.post("/people/consolidate", json={"dry_run": True})).json()
    assert (told["merged"], told["moved"], told["round"]) == (1, 3, None)
    assert await living(album, photos) == {one, other}, "a dry run changes nothing"

    done = (await http.post("/people/consolidate", json={})).json()
    assert done == {**told, "round": done["round"]} and done["confirmed_touched"] == 0
    assert await living(album, photos) == {one}
    assert (await http.get(f"/person/{other}")).json()["person_id"] == one
    [event] = (await http.get("/people/history")).json()
    assert (event["kind"], event["round"]) == ("consolidate", done["round"])

    undone = await http.post("/people/consolidate/undo", json={"round": done["round"]})
    assert [(e["kind"], e["undoes"]) for e in undone.json()] == [("undo", event["event_id"])]
    assert await living(album, photos) == {one, other}
    again = (await http.post("/people/consolidate", json={"everybody": True})).json()
    assert (again["moved"], again["merged"]) == (0, 0), "an undone consolidation stays undone"
    await album.check()


@pytest.mark.usefixtures("lenient")
async def test_settling_waits_for_the_scheduler_that_is_at_it(
    album: Album, http: httpx.AsyncClient
) -> None:
    photos = await split_by_order(album)
    one, _ = sorted(p for p in await living(album, photos) if p is not None)
    begun, over = asyncio.Event(), asyncio.Event()

    async def long_round(_: Database) -> None:
        begun.set()
        await over.wait()

    scheduler = asyncio.create_task(
        clock.run_once(album.db, replace(jobs.CONSOLIDATION, run=long_round))
    )
    await begun.wait()
    settling = asyncio.create_task(http.post("/people/settle"))
    await asyncio.sleep(0.3)
    assert not settling.done() and len(await living(album, photos)) == 2
    over.set()
    assert (await settling).status_code == 204
    assert await living(album, photos) == {one}
    await scheduler


async def test_consolidating_where_there_is_nothing(album: Album, http: httpx.AsyncClient) -> None:
    done = await http.post("/people/consolidate", json={})
    assert (done.status_code, done.json()["moved"], done.json()["round"]) == (200, 0, None)
    gone = await http.post("/people/consolidate/undo", json={"round": 7})
    assert (gone.status_code, gone.json()["round"]) == (404, 7)
    for wrong in ({}, {"round": 0}, {"round": 2**63}, {"round": "all"}):
        assert (await http.post("/people/consolidate/undo", json=wrong)).status_code == 422
    _, [anna] = await album.shoot(1)
    named = (await http.post(f"/people/{anna}/rename", json={"display_name": "Anna"})).json()
    not_one = await http.post("/people/consolidate/undo", json={"round": named["event_id"]})
    assert not_one.status_code == 404, "an event of a person's is no consolidation"


async def test_reviewing(album: Album, http: httpx.AsyncClient) -> None:
    for side in (1, 2):
        vector = np.zeros(DIMENSION, np.float32)
        vector[0], vector[side] = 0.957, np.sqrt(1 - 0.957**2)
        await album.deliver(album.callback(await album.add(), [detection(vector)]))
    assert (await http.get("/people/review")).json() == []
    await jobs.find_questions(album.db)
    [question] = (await http.get("/people/review", params={"limit": 1})).json()
    assert (question["faces"], question["skips"]) == (1, 0)
    answer = f"/people/review/{question['question_id']}/answer"
    assert (await http.post(answer, json={"answer": "perhaps"})).status_code == 422
    skipped = (await http.post(answer, json={"answer": "skip"})).json()
    assert skipped == {"question_id": question["question_id"], "answer": "skip", "event": None}
    done = (await http.post(answer, json={"answer": "yes"})).json()
    assert done["event"]["kind"] == "merge"
    again = await http.post(answer, json={"answer": "yes"})
    assert (again.status_code, again.json()["event_id"]) == (409, done["event"]["event_id"])
    assert (await http.get("/people/review")).json() == []
    assert (await http.get("/people/review", params={"limit": 0})).status_code == 422


async def test_birth_dates(album: Album, http: httpx.AsyncClient) -> None:
    _, [anna] = await album.shoot(1)
    path = f"/people/{anna}/birth-date"
    said = await http.post(path, json={"birth_date": "2001-02-03"})
    assert said.status_code == 200
    assert (said.json()["reopened"], said.json()["kept"]) == ([], []), "no photo is older"
    assert (await http.get(f"/person/{anna}")).json()["birth_date"] == "2001-02-03"
    assert (await http.post(path, json={"birth_date": "9001-02-03"})).status_code == 422
    assert (await http.post(path, json={"birth_date": "tomorrow"})).status_code == 422
    assert (await http.post(path, json={"birth_date": None})).json()["birth_date"] is None
