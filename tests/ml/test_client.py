"""The client turns the service's answers into values and errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest

from kaleidoscope.kernel.errors import (
    Forbidden,
    KaleidoscopeError,
    NotFound,
    TooBusy,
    Unavailable,
    UnreadableMedia,
)
from kaleidoscope.kernel.secrets import HEADER, service_secret
from kaleidoscope.ml.client import MlClient

ATTEMPT = UUID("00000000-0000-4000-8000-000000000001")
FACE = {
    "bbox": [1.0, 2.0, 3.0, 4.0],
    "landmarks": [[1.0, 1.0]] * 5,
    "embedding": "AACAPw==",
    "confidence": 0.9,
    "quality": {"size": 30.0, "sharpness": 100.0, "yaw": 0.0, "score": 0.8},
}
ANALYSIS = {
    "width": 10,
    "height": 20,
    "mime_type": "image/jpeg",
    "pack": "fake",
    "model_version": "fake/1",
    "detections": [FACE],
}

Answer = Callable[[httpx.Request], httpx.Response]


def client(answer: Answer) -> MlClient:
    return MlClient("http://ml", transport=httpx.MockTransport(answer))


def problem(status: int, code: str, **fields: object) -> httpx.Response:
    body = {"detail": f"because of {code}", "code": code, "hint": "do so", **fields}
    return httpx.Response(status, json=body)


@pytest.fixture(autouse=True)
def _secret(data_dir: Path) -> None:
    """A data folder of one's own for the secret."""


async def test_a_photo_is_sent_as_the_contract_says() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(202, json={"attempt_id": str(ATTEMPT), "state": "queued"})

    async with client(answer) as ml:
        state = await ml.process_photo(
            photo_id=7, path="/a.jpg", callback_url="http://api/x", attempt_id=ATTEMPT
        )
    assert (state.attempt_id, state.state, state.error) == (ATTEMPT, "queued", None)
    assert seen[0].headers[HEADER] == service_secret()
    assert seen[0].url.path == "/process-photo"
    assert httpx.Response(200, content=seen[0].content).json() == {
        "photo_id": 7,
        "path": "/a.jpg",
        "callbackUrl": "http://api/x",
        "attempt_id": str(ATTEMPT),
    }


async def test_the_state_of_an_attempt_is_waited_for() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == f"/process-photo/{ATTEMPT}"
        assert request.url.params["wait"] == "20.0"
        assert request.extensions["timeout"]["read"] > 20
        return httpx.Response(
            200, json={"attempt_id": str(ATTEMPT), "state": "undelivered", "error": "no"}
        )

    async with client(answer) as ml:
        state = await ml.attempt_state(ATTEMPT, wait=20.0)
    assert (state.state, state.error) == ("undelivered", "no")


@pytest.mark.parametrize("source", [b"\xff\xd8\xff", "/a.jpg", Path("/a.jpg")])
async def test_faces_of_an_image(source: bytes | str | Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        expected = "multipart/form-data" if isinstance(source, bytes) else "application/json"
        assert request.headers["content-type"].startswith(expected)
        return httpx.Response(200, json=ANALYSIS)

    async with client(answer) as ml:
        found = await ml.embeddings_from_image(source)
    assert (found.width, found.height, found.pack) == (10, 20, "fake")
    assert found.detections[0].bbox == [1.0, 2.0, 3.0, 4.0]
    assert found.detections[0].quality.score == 0.8


@pytest.mark.parametrize(
    ("answered", "kind"),
    [
        (problem(429, "too-busy", retry_after=2), TooBusy),
        (problem(403, "forbidden"), Forbidden),
        (problem(404, "not-found"), NotFound),
        (problem(422, "unreadable-media", reason="empty"), UnreadableMedia),
        (problem(503, "unavailable"), Unavailable),
        (problem(500, "internal"), Unavailable),
        (httpx.Response(502, text="<html>"), Unavailable),
    ],
)
async def test_errors_keep_their_kind(
    answered: httpx.Response, kind: type[KaleidoscopeError]
) -> None:
    async with client(lambda request: answered) as ml:
        with pytest.raises(kind) as caught:
            await ml.attempt_state(uuid4())
    assert type(caught.value) is kind
    if kind is TooBusy:
        assert caught.value.fields == {"retry_after": 2}
    if answered.headers["content-type"] == "application/json":
        assert caught.value.message.startswith("because of")
        assert caught.value.hint == "do so"


async def test_a_service_that_is_away_is_unavailable() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    async with client(answer) as ml:
        for call in (ml.version, ml.health):
            with pytest.raises(Unavailable, match="http://ml does not answer: refused"):
                await call()
