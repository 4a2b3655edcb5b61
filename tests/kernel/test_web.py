"""The HTTP edge: who may call, what a transaction is, and what an error looks like."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel
from sqlalchemy import text
from starlette.types import Message, Receive, Scope, Send

from kaleidoscope.kernel import log, secrets
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import Conflict
from kaleidoscope.kernel.web import ServiceOnly, Session, create_app

routes = APIRouter()


class Note(BaseModel):
    n: int


@routes.post("/notes")
async def add(note: Note, session: Session) -> dict[str, int]:
    await session.execute(text("INSERT INTO notes VALUES (:n)"), {"n": note.n})
    if note.n == 13:
        raise Conflict("no thirteen", hint="take fourteen", n=13)
    if note.n == 0:
        raise ZeroDivisionError
    return {"n": note.n}


@routes.get("/services", dependencies=[ServiceOnly])
async def for_services() -> None: ...


@pytest.fixture
def quiet(data_dir: Path) -> Iterator[None]:
    log.configure("test")
    yield
    structlog.reset_defaults()


@pytest.fixture
async def app(db: Database, quiet: None) -> FastAPI:
    async with db.transaction() as session:
        unique = "n int UNIQUE DEFERRABLE INITIALLY DEFERRED"  # violated at commit
        await session.execute(text(f"CREATE TABLE notes ({unique})"))
    made = create_app("test", [routes], hosts=["Photos.example"])
    made.state.db = db
    return made


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8420") as opened:
        yield opened


async def notes(db: Database) -> list[int]:
    async with db.transaction() as session:
        return list((await session.execute(text("SELECT n FROM notes ORDER BY n"))).scalars())


async def test_a_request_is_committed_before_its_answer_leaves(app: FastAPI, db: Database) -> None:
    seen: list[list[int]] = []

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        async def watching(message: Message) -> None:
            seen.append(await notes(db))
            await send(message)

        await app(scope, receive, watching)

    transport = httpx.ASGITransport(watched)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.post("/notes", json={"n": 1})).json() == {"n": 1}
    assert seen[0] == [1]


async def test_an_error_rolls_back_and_becomes_a_problem(
    client: httpx.AsyncClient, db: Database
) -> None:
    answer = await client.post("/notes", json={"n": 13})
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "urn:kaleidoscope:conflict",
        "title": "conflict",
        "status": 409,
        "detail": "no thirteen",
        "code": "conflict",
        "hint": "take fourteen",
        "n": 13,
    }
    assert await notes(db) == []


async def test_an_unexpected_error_rolls_back_and_tells_nothing(
    client: httpx.AsyncClient, db: Database
) -> None:
    answer = await client.post("/notes", json={"n": 0})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "ZeroDivision" not in answer.text
    assert await notes(db) == []


async def test_a_commit_that_fails_is_no_success(client: httpx.AsyncClient, db: Database) -> None:
    assert (await client.post("/notes", json={"n": 1})).status_code == 200
    assert (await client.post("/notes", json={"n": 1})).status_code == 500
    assert await notes(db) == [1]


async def test_a_database_that_is_away_is_503(app: FastAPI, client: httpx.AsyncClient) -> None:
    app.state.db = Database("postgresql://nobody@127.0.0.1:1/none")
    answer = await client.post("/notes", json={"n": 1})
    assert (answer.status_code, answer.json()["code"]) == (503, "database")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/notes", {"n": "many"}, 422, "invalid"),
        ("GET", "/nowhere", None, 404, "not-found"),
        ("GET", "/notes", None, 405, "method-not-allowed"),
    ],
)
async def test_the_frameworks_own_errors_are_problems_too(
    client: httpx.AsyncClient, method: str, path: str, body: Any, status: int, code: str
) -> None:
    answer = await client.request(method, path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    if status == 422:
        assert answer.json()["errors"][0]["field"] == "n"
    if status == 405:
        assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 404),
        ("127.0.0.1:8420", 404),
        ("[::1]:8420", 404),
        ("photos.example", 404),
        ("evil.example", 421),
        ("127.0.0.1.nip.io", 421),
        ("localhost@evil.example", 421),
        ("", 421),
        ("[", 421),
    ],
)
async def test_it_answers_only_for_its_own_names(
    client: httpx.AsyncClient, host: str, status: int
) -> None:
    assert (await client.get("/nowhere", headers={"host": host})).status_code == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:8420", 200),
        ("http://127.0.0.1:3000", 403),
        ("http://localhost:8420", 403),
        ("https://evil.example", 403),
        ("null", 403),
    ],
)
async def test_pages_of_others_may_not_drive_it(
    client: httpx.AsyncClient, db: Database, origin: str, status: int
) -> None:
    answer = await client.post("/notes", json={"n": 1}, headers={"origin": origin})
    assert answer.status_code == status
    assert await notes(db) == ([1] if status == 200 else [])


async def test_routes_of_services_need_the_secret(
    client: httpx.AsyncClient, data_dir: Path
) -> None:
    assert (await client.get("/services")).status_code == 403
    wrong = {secrets.HEADER: "guess"}
    assert (await client.get("/services", headers=wrong)).json()["code"] == "forbidden"
    right = {secrets.HEADER: secrets.service_secret()}
    assert (await client.get("/services", headers=right)).status_code == 200
