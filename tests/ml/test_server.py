"""The ML service over HTTP, with the fake engine in real child processes, and a real callback."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import numpy as np
import pytest
from fastapi import FastAPI, Request, Response
from PIL import Image
from serving import client, served

from kaleidoscope.kernel.secrets import HEADER, service_secret
from kaleidoscope.kernel.settings import load
from kaleidoscope.ml import fakes
from kaleidoscope.ml.attempts import Attempts
from kaleidoscope.ml.schemas import ProcessPhoto
from kaleidoscope.ml.server import create_server

Json = dict[str, Any]


@dataclass
class Api:
    """What the ML service knows of the API: it is called back, and asked for persons."""

    url: str = ""
    answers: list[int] = field(default_factory=list)  # status codes of the next callbacks
    callbacks: list[Json] = field(default_factory=list)
    lots: list[int] = field(default_factory=list)  # how many came in each request for several
    takes_lots: bool = True
    secrets: list[str | None] = field(default_factory=list)
    persons: list[Json] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def know(self, person_id: int, number: int, count: int = 3) -> None:
        total = base64.b64encode((count * fakes.embedding(number)).tobytes()).decode()
        meta = {"count": count, "sum": total, "model": "fake", "version": len(self.persons)}
        self.persons.append({"person_id": person_id, "meta": meta})

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/callback/photo-processed")
        async def callback(request: Request) -> Response:
            self.secrets.append(request.headers.get(HEADER))
            status = self.answers.pop(0) if self.answers else 200
            if status == 200:
                self.callbacks.append(await request.json())
            return Response('{"ok": true}', status, headers={"Location": "http://example.com/"})

        @app.post("/callback/photos-processed")
        async def callbacks(request: Request) -> Response:
            sent = (await request.json())["callbacks"]
            self.lots.append(len(sent))
            if self.takes_lots:
                self.callbacks += sent
            return Response("[]", 200 if self.takes_lots else 409)

        @app.get("/person-dump")
        async def dump(request: Request) -> Json:
            self.asked.append(str(request.query_params))
            return {"version": len(self.persons), "entries": self.persons, "next_since_id": None}

        return app


@dataclass
class Running:
    """A started ML service, its neighbour, and a folder that it may read."""

    http: httpx.AsyncClient
    api: Api
    photos: Path
    app: FastAPI

    def photo(self, name: str, people: list[int], seed: int = 0) -> Path:
        path = self.photos / name
        path.write_bytes(fakes.picture(people, seed=seed))
        return path

    async def send(self, path: Path | str, **more: Any) -> httpx.Response:
        body = {
            "photo_id": 1_000_000_007,
            "path": str(path),
            "callbackUrl": f"{self.api.url}/callback/photo-processed",
            "attempt_id": str(uuid4()),
        }
        return await self.http.post("/process-photo", json=body | more)

    async def end_of(self, accepted: httpx.Response) -> Json:
        assert accepted.status_code == 202, accepted.text
        answer = await self.http.get(
            f"/process-photo/{accepted.json()['attempt_id']}", params={"wait": 20}
        )
        told: Json = answer.json()
        return told

    async def result(self, path: Path | str, **more: Any) -> Json:
        told = await self.end_of(await self.send(path, **more))
        assert told["state"] == "delivered"
        return self.api.callbacks[-1]


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch
    load.cache_clear()


@pytest.fixture(scope="module")
async def service(
    patch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Running]:
    photos, data = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("data")
    patch.setenv("KALEIDOSCOPE_DATA_DIR", str(data))
    patch.setenv("KALEIDOSCOPE_ML_ROOTS", str(photos))
    patch.setenv("KALEIDOSCOPE_ML_PACK", "fake")
    patch.setenv("KALEIDOSCOPE_ML_PROCESSES", "1")
    patch.setenv("KALEIDOSCOPE_ML_QUEUE", "3")
    patch.setenv("KALEIDOSCOPE_ML_DUMP_SECONDS", "0.05")
    patch.setenv("KALEIDOSCOPE_ML_CALLBACK_SECONDS", "5")
    load.cache_clear()
    api = Api()
    async with served(api.app()) as api.url:
        app = create_server(api_url=api.url)
        async with app.router.lifespan_context(app), client(app) as http:
            yield Running(http, api, photos, app)


@pytest.fixture(autouse=True)
def _fresh(request: pytest.FixtureRequest) -> None:
    if "service" in request.fixturenames:
        api = request.getfixturevalue("service").api
        api.answers, api.callbacks, api.secrets, api.persons = [], [], [], []


async def test_a_photo_ends_in_a_callback(service: Running) -> None:
    photo = service.photo("two.jpg", [3, 200])
    attempt = str(uuid4())
    body = await service.result(photo, attempt_id=attempt)
    assert body["photo_id"] == 1_000_000_007
    assert body["path"] == str(photo)
    assert body["status"] == "PROCESSED"
    assert body["callback_id"] == body["attempt_id"] == attempt
    assert [d["suggested_person_id"] for d in body["detections"]] == ["t-1", "t-2"]
    first = body["detections"][0]
    assert set(first) == {
        *("bbox", "landmarks", "embedding", "confidence", "quality", "suggested_person_id")
    }
    x1, y1, x2, y2 = first["bbox"]
    assert 0 <= x1 < x2 <= 96
    assert 0 <= y1 < y2 <= 96
    assert np.array(first["landmarks"]).shape == (5, 2)
    embedding = np.frombuffer(base64.b64decode(first["embedding"]), "<f4")
    assert float(embedding @ fakes.embedding(3)) > 0.95
    assert [p["temp_id"] for p in body["new_persons"]] == ["t-1", "t-2"]
    assert body["new_persons"][0]["embedding"] == first["embedding"]
    meta = body["meta"]
    assert (meta["pack"], meta["model_version"]) == ("fake", "fake/1")
    assert (meta["width"], meta["height"], meta["mime_type"]) == (192, 96, "image/jpeg")
    assert set(meta["timings"]) == {"decode", "detect", "align", "embed"}
    assert service.api.secrets == [service_secret()]


async def test_boxes_are_in_pixels_of_the_original(service: Running) -> None:
    large = service.photos / "large.png"
    with Image.open(service.photo("small.jpg", [9])) as small:
        small.resize((2880, 2880), Image.Resampling.NEAREST).save(large)
    body = await service.result(large)
    assert body["detections"][0]["bbox"] == pytest.approx([288, 288, 2592, 2592], abs=3)


async def test_a_photo_without_faces(service: Running) -> None:
    body = await service.result(service.photo("nobody.jpg", []))
    assert (body["detections"], body["new_persons"]) == ([], [])


async def test_an_attempt_is_done_once(service: Running) -> None:
    photo, attempt = service.photo("once.jpg", [1]), str(uuid4())
    accepted = [await service.send(photo, attempt_id=attempt) for _ in range(3)]
    for answer in accepted:
        assert (await service.end_of(answer))["state"] == "delivered"
    again = await service.send(photo, attempt_id=attempt)
    assert again.json() == {"attempt_id": attempt, "state": "delivered", "error": None}
    assert len(service.api.callbacks) == 1


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("empty.jpg", b"", "empty file"),
        ("text.jpg", b"just text", "neither a photo nor a video"),
        ("broken.png", b"\x89PNG\r\n\x1a\n" + bytes(50), "damaged"),
    ],
)
async def test_a_file_that_is_no_photo_fails_for_good(
    service: Running, name: str, content: bytes, cause: str
) -> None:
    path = service.photos / name
    path.write_bytes(content)
    body = await service.result(path)
    assert body["status"] == "FAILED"
    assert body["error"]["code"] == "unreadable-media"
    assert body["error"]["permanent"] is True
    assert str(path) in body["error"]["message"]
    assert cause in body["error"]["message"]


async def test_a_file_that_is_not_there_may_come_back(service: Running) -> None:
    body = await service.result(service.photos / "gone.jpg")
    assert body["error"]["permanent"] is False
    assert "no such file" in body["error"]["message"]


async def test_the_callback_is_repeated_while_the_api_is_away(service: Running) -> None:
    service.api.answers = [503, 500, 429]
    await service.result(service.photo("patience.jpg", [1]))
    assert len(service.api.secrets) == 4


@pytest.mark.parametrize("taken", [True, False])
async def test_photos_sent_together_are_delivered_together(service: Running, taken: bool) -> None:
    """A request for several that is refused is made one by one: then each has its own verdict."""
    service.api.takes_lots = taken
    service.api.lots.clear()
    url = f"{service.api.url}/callback/photo"
    photos = [
        {
            "photo_id": n,
            "path": str(service.photo(f"{n}.jpg", [n], seed=n)),
            "callbackUrl": f"{url}-processed",
            "callbacksUrl": f"{url}s-processed",
            "attempt_id": str(uuid4()),
        }
        for n in (1, 2)
    ]
    outside = {**photos[0], "path": "/etc/passwd", "attempt_id": str(uuid4())}
    answer = await service.http.post("/process-photos", json={"photos": [*photos, outside]})
    assert answer.status_code == 202, answer.text
    first, second, refused = answer.json()
    assert (first["refusal"], second["refusal"]) == (None, None)
    assert (refused["state"], refused["refusal"]["status"]) == (None, 403)
    open_ones = [photo["attempt_id"] for photo in photos]
    while open_ones:
        told = await service.http.post(
            "/process-photos/states", params={"wait": 20}, json={"attempt_ids": open_ones}
        )
        assert {a["state"] for a in told.json()} <= {"queued", "running", "delivered"}
        open_ones = [a["attempt_id"] for a in told.json() if a["state"] != "delivered"]
    assert sorted(body["photo_id"] for body in service.api.callbacks) == [1, 2]
    assert sum(service.api.lots) in (0, 2)  # alone where the first one was very quick


async def test_of_several_attempts_the_unknown_ones_are_named(service: Running) -> None:
    told = await service.http.post(
        "/process-photos/states", params={"wait": 20}, json={"attempt_ids": [str(uuid4())]}
    )
    assert [answer["refusal"]["status"] for answer in told.json()] == [404]


@pytest.mark.parametrize("status", [403, 404, 409, 422, 307])
async def test_a_refused_callback_is_undelivered_and_not_followed(
    service: Running, status: int
) -> None:
    service.api.answers = [status]
    accepted = await service.send(service.photo("refused.jpg", [1]))
    told = await service.end_of(accepted)
    assert told["state"] == "undelivered"
    assert str(status) in told["error"]
    again = await service.send(
        service.photos / "refused.jpg", attempt_id=accepted.json()["attempt_id"]
    )
    assert (await service.end_of(again))["state"] == "delivered"


async def test_too_many_photos_are_refused_for_a_while(service: Running) -> None:
    service.api.answers = [503] * 3
    photo = service.photo("many.jpg", [1])
    accepted = [await service.send(photo) for _ in range(3)]
    refused = await service.send(photo)
    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == "1"
    assert refused.json()["code"] == "too-busy"
    for answer in accepted:
        assert (await service.end_of(answer))["state"] == "delivered"
    assert (await service.end_of(await service.send(photo)))["state"] == "delivered"


async def test_an_unknown_attempt_is_not_found(service: Running) -> None:
    answer = await service.http.get(f"/process-photo/{uuid4()}", params={"wait": 5})
    assert answer.status_code == 404


async def test_paths_outside_of_the_roots_are_refused(service: Running, tmp_path: Path) -> None:
    outside = tmp_path / "x.jpg"
    outside.write_bytes(fakes.picture([1]))
    link = service.photos / "link.jpg"
    link.symlink_to(outside)
    for path in (outside, link, service.photos / ".." / "x.jpg", "/etc/passwd"):
        for answer in (
            await service.send(path),
            await service.http.post("/embeddings/from-image", json={"path": str(path)}),
        ):
            assert answer.status_code == 403, path


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "http://127.0.0.1.example.com/",
        "http://169.254.169.254/latest",
        "file:///etc/passwd",
        "http://localhost@example.com/",
        "",
    ],
)
async def test_callbacks_go_to_allowed_hosts_only(service: Running, url: str) -> None:
    answer = await service.send(service.photo("x.jpg", [1]), callbackUrl=url)
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/process-photo"),
        ("POST", "/process-photos"),
        ("POST", "/process-photos/states"),
        ("GET", f"/process-photo/{UUID(int=7)}"),
        ("POST", "/embeddings/from-image"),
    ],
)
async def test_the_secret_is_needed(service: Running, method: str, path: str) -> None:
    for headers in ({HEADER: ""}, {HEADER: "guess"}):
        answer = await service.http.request(method, path, headers=headers, json={})
        assert answer.status_code == 403


async def test_faces_of_an_image_in_three_ways(service: Running) -> None:
    photo = service.photo("direct.jpg", [5, 6, 7])
    content = photo.read_bytes()
    answers = [
        await service.http.post("/embeddings/from-image", json={"path": str(photo)}),
        await service.http.post("/embeddings/from-image", files={"image": ("a.jpg", content)}),
        await service.http.post(
            "/embeddings/from-image", content=content, headers={"Content-Type": "image/jpeg"}
        ),
    ]
    documents = [answer.raise_for_status().json() for answer in answers]
    assert documents[0] == documents[1] == documents[2]
    assert (documents[0]["width"], documents[0]["height"]) == (288, 96)
    assert documents[0]["model_version"] == "fake/1"
    assert len(documents[0]["detections"]) == 3


async def test_faces_of_what_is_no_image(service: Running) -> None:
    for answer in (
        await service.http.post("/embeddings/from-image", content=b"text"),
        await service.http.post("/embeddings/from-image", files={"image": ("a.jpg", b"text")}),
    ):
        assert answer.status_code == 422
        assert answer.json()["code"] == "unreadable-media"
        assert answer.json()["detail"].startswith("the picture: is neither")
    answer = await service.http.post("/embeddings/from-image", json={"file": "x"})
    assert answer.status_code == 422


async def test_known_persons_are_suggested(service: Running) -> None:
    service.api.know(2_000_000_001, 40)
    service.api.know(2_000_000_002, 41)
    asked = len(service.api.asked)
    while len(service.api.asked) < asked + 2:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    body = await service.result(service.photo("known.jpg", [41, 42, 40]))
    suggested = [d["suggested_person_id"] for d in body["detections"]]
    assert suggested == [2_000_000_002, "t-1", 2_000_000_001]
    assert body["detections"][0]["similarity"] > 0.95
    assert [p["temp_id"] for p in body["new_persons"]] == ["t-1"]
    assert "changed_since=" in service.api.asked[-1]


async def test_what_another_pack_saw_is_compared_with_nobody(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pack in use was changed while the photo was being looked at."""
    service.api.know(2_000_000_001, 5)
    before = service.app.state.service.analyse

    async def looked_with_another(path: str, **more: Any) -> Json:
        found: Json = await before(path, **more)
        return found | {"pack": "builtin"}

    monkeypatch.setattr(service.app.state.service, "analyse", looked_with_another)
    body = await service.result(service.photo("changed.jpg", [5, 6]))
    assert body["meta"]["pack"] == "builtin" and body["new_persons"] == []
    assert [d.get("suggested_person_id") for d in body["detections"]] == [None, None]


async def test_health_version_metrics(service: Running) -> None:
    version = (await service.http.get("/version")).json()
    assert (version["pack"], version["model_version"]) == ("fake", "fake/1")
    assert set(version) == {"version", "pack", "model_version", "onnxruntime"}
    health = await service.http.get("/health")
    assert health.status_code == 200, health.text
    assert health.json()["model_version"] == "fake/1"
    assert (await service.http.get("/health/live")).status_code == 200
    metrics = (await service.http.get("/metrics")).text
    assert 'kaleidoscope_ml_photos_total{outcome="PROCESSED"}' in metrics


async def test_health_says_what_does_not_work(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_ML_PACK", "yunet-sface")
    monkeypatch.setenv("KALEIDOSCOPE_ML_PROCESSES", "1")
    load.cache_clear()
    app = create_server(api_url="http://127.0.0.1:9")
    async with app.router.lifespan_context(app), client(app) as http:
        health = await http.get("/health")
        assert health.status_code == 503
        assert "yunet-sface" in health.json()["detail"]
        assert "models pull" in health.json()["hint"]
        assert app.state.service.trouble


async def test_the_real_pack_finds_the_drawn_face(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_ML_PACK", "builtin")
    monkeypatch.setenv("KALEIDOSCOPE_ML_PROCESSES", "1")
    load.cache_clear()
    app = create_server(api_url="http://127.0.0.1:9")
    async with app.router.lifespan_context(app), client(app) as http:
        health = await http.get("/health")
        assert health.status_code == 200, health.text
        assert health.json()["pack"] == "builtin"


async def test_an_error_nobody_foresaw_ends_the_attempt() -> None:
    async def process(request: ProcessPhoto) -> Json:
        raise ZeroDivisionError("by accident")

    async def deliver(request: ProcessPhoto, body: Json) -> None:
        raise AssertionError("there is nothing to deliver")

    attempts = Attempts(process, deliver, capacity=1, at_once=1)
    working = asyncio.create_task(attempts.run())
    told = attempts.accept(ProcessPhoto(photo_id=1, path="/a.jpg", callback_url="http://x"))
    ended = await attempts.state(told.attempt_id, 5)
    assert (ended.state, ended.error) == ("undelivered", "ZeroDivisionError: by accident")
    assert attempts.open == 0
    working.cancel()
