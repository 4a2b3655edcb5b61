"""A photo seen through to its end by the worker, whatever the ML service does meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import httpx
import pytest
from album import Album
from sqlalchemy import text

from kaleidoscope.bus.handlers import Retry
from kaleidoscope.kernel import web
from kaleidoscope.library import service as library
from kaleidoscope.library.events import PhotoToProcess
from kaleidoscope.library.routes import router as library_routes
from kaleidoscope.ml.client import MlClient
from kaleidoscope.people import jobs
from kaleidoscope.people.jobs import Services
from kaleidoscope.people.routes import router

Script = list[tuple[int, dict[str, Any]] | Exception]


class Ml:
    """An ML service that answers by a script: to photos, and to questions how an attempt stands.

    A problem with a status below 500 is told of the photo, others of the request.
    """

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.posts: Script = []
        self.gets: Script = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        if request.url.path == "/process-photos":
            self.sent += asked["photos"]
            answer = self.posts.pop(0)
        else:
            answer = self.gets.pop(0)
        if isinstance(answer, Exception):
            raise answer
        status, body = answer
        if status >= 500:
            return httpx.Response(status, json=body)
        if status >= 400:
            told = {"attempt_id": str(UUID(int=1)), "refusal": {"status": status, **body}}
            return httpx.Response(202, json=[told])
        return httpx.Response(202, json=[body])


def state(name: str, **more: Any) -> tuple[int, dict[str, Any]]:
    return 200, {"attempt_id": str(UUID(int=1)), "state": name, **more}


def problem(status: int, **more: Any) -> tuple[int, dict[str, Any]]:
    return status, {"detail": "no", "code": "x", **more}


@pytest.fixture
async def services(album: Album, ml: Ml) -> AsyncIterator[Services]:
    app = web.create_app("test", [router, library_routes])
    app.state.db = album.db
    client = MlClient("http://ml", transport=httpx.MockTransport(ml))
    found = Services("http://localhost", client)
    found.api = httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://localhost"
    )
    yield found
    await found.api.aclose()


@pytest.fixture
def ml() -> Ml:
    return Ml()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(jobs.asyncio, "sleep", sleep)
    return waited


@pytest.fixture
async def event(album: Album) -> PhotoToProcess:
    photo_id, path, attempt_id = await album.add()
    async with album.db.transaction() as session:
        created_at = (await library.get(session, photo_id)).created_at
    return PhotoToProcess(
        photo_id=photo_id, path=path, attempt_id=attempt_id, created_at=created_at
    )


async def status(album: Album, event: PhotoToProcess) -> str:
    async with album.db.transaction() as session:
        return (await library.get(session, event.photo_id)).status


async def test_a_photo_that_was_filed_again_is_looked_for_where_it_lies_now(
    album: Album, services: Services, ml: Ml, event: PhotoToProcess
) -> None:
    """Its message was queued before, and tells the old path."""
    async with album.db.transaction() as session:
        await session.execute(
            text("UPDATE media_assets SET final_path = '/filed/again.jpg' WHERE photo_id = :id"),
            {"id": event.photo_id},
        )
    ml.posts = [state("delivered")]
    await jobs.recognise(services, event)
    assert [sent["path"] for sent in ml.sent] == ["/filed/again.jpg"]


async def test_delivered(album: Album, services: Services, ml: Ml, event: PhotoToProcess) -> None:
    ml.posts = [state("queued")]
    ml.gets = [state("running"), state("delivered")]
    await jobs.recognise(services, event)
    assert ml.sent == [
        {
            "photo_id": event.photo_id,
            "path": event.path,
            "callbackUrl": "http://localhost/callback/photo-processed",
            "callbacksUrl": "http://localhost/callback/photos-processed",
            "attempt_id": str(event.attempt_id),
        }
    ]
    assert await status(album, event) == "PROCESSING", "the callback says more, not the worker"


async def test_photos_of_one_moment_share_their_requests(
    album: Album, services: Services, ml: Ml, event: PhotoToProcess
) -> None:
    photo_id, path, attempt_id = await album.add()
    other = event.model_copy(update={"photo_id": photo_id, "path": path, "attempt_id": attempt_id})
    gone = event.model_copy(update={"photo_id": 99, "attempt_id": UUID(int=9)})
    requests: list[list[str]] = []

    def service(request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        ids = asked.get("attempt_ids") or [p["attempt_id"] for p in asked["photos"]]
        requests.append(ids)
        done = "delivered" if "attempt_ids" in asked else "queued"
        return httpx.Response(202, json=[{"attempt_id": i, "state": done} for i in ids])

    services.ml = MlClient("http://ml", transport=httpx.MockTransport(service))
    await asyncio.gather(*[jobs.recognise(services, e) for e in (event, other, gone)])
    both = [str(event.attempt_id), str(other.attempt_id)]
    assert requests == [both, both]
    assert [await status(album, e) for e in (event, other)] == ["PROCESSING"] * 2


async def test_a_service_that_restarts_is_sent_the_photo_again(
    services: Services, ml: Ml, event: PhotoToProcess, no_waiting: list[float]
) -> None:
    ml.posts = [state("queued"), state("queued")]
    ml.gets = [problem(404), state("delivered")]
    await jobs.recognise(services, event)
    assert [s["attempt_id"] for s in ml.sent] == [str(event.attempt_id)] * 2
    assert no_waiting == []


async def test_a_service_that_is_away_is_waited_for(
    services: Services, ml: Ml, event: PhotoToProcess, no_waiting: list[float]
) -> None:
    ml.posts = [httpx.ConnectError("refused"), problem(503), state("queued"), state("queued")]
    ml.gets = [httpx.ReadError("reset"), state("delivered")]
    await jobs.recognise(services, event)
    assert no_waiting == [0.25, 0.5, 1.0]


async def test_a_full_service_says_when_to_come_back(
    services: Services, ml: Ml, event: PhotoToProcess, no_waiting: list[float]
) -> None:
    ml.posts = [problem(429, retry_after=3), state("delivered")]
    await jobs.recognise(services, event)
    assert no_waiting == [3]


@pytest.mark.parametrize(
    ("post", "retried"),
    [
        (state("undelivered", error="the API refused it"), True),
        (problem(403), False),
    ],
)
async def test_what_cannot_be_delivered_has_failed(
    album: Album, services: Services, ml: Ml, event: PhotoToProcess, post: Any, retried: bool
) -> None:
    ml.posts = [post]
    await jobs.recognise(services, event)
    async with album.db.transaction() as session:
        photo = await library.get(session, event.photo_id)
    assert photo.status == "FAILED"
    assert (photo.next_retry_at is not None) == retried
    assert photo.error_message in ("the API refused it", "no")


async def test_an_attempt_that_has_ended_is_not_sent(
    album: Album, services: Services, ml: Ml, event: PhotoToProcess
) -> None:
    await album.deliver(album.callback((event.photo_id, event.path, event.attempt_id), []))
    await jobs.recognise(services, event)
    assert ml.sent == []
    assert await status(album, event) == "PROCESSED"


async def test_a_superseded_attempt_is_not_sent(
    album: Album, services: Services, ml: Ml, event: PhotoToProcess
) -> None:
    async with album.db.transaction() as session:
        await library.new_attempt(session, event.photo_id)
    await jobs.recognise(services, event)
    assert ml.sent == []


async def test_an_api_that_is_away_is_no_failure_of_the_photo(
    services: Services, event: PhotoToProcess
) -> None:
    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    services.api = httpx.AsyncClient(
        transport=httpx.MockTransport(away), base_url="http://localhost"
    )
    with pytest.raises(Retry) as raised:
        await jobs.recognise(services, event)
    assert raised.value.count is False


def test_the_handler_hears_photos_to_process() -> None:
    [handler] = jobs.HANDLERS
    assert (handler.topic, handler.group, handler.event) == (
        "photos-to-process",
        "people",
        PhotoToProcess,
    )
    assert isinstance(jobs.CLOCK[0].run, Callable)  # type: ignore[arg-type]
    assert asyncio.iscoroutinefunction(handler.run)
