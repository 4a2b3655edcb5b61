"""How it is going, as the routes and the service tell it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from kaleidoscope.bus import service as bus
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import DatabaseError
from kaleidoscope.kernel.web import create_app
from kaleidoscope.ops import service
from kaleidoscope.ops.routes import router
from kaleidoscope.ops.service import Health


@pytest.fixture
async def client(db: Database) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app("test", [router])
    app.state.db = db
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as opened:
        yield opened


async def _failed_photo(db: Database, error: str) -> int:
    async with db.transaction() as session:
        found = await session.execute(
            text(
                "INSERT INTO media_assets (file_hash, original_name, original_path, final_path,"
                " size_bytes, filename, media_type, status, has_errors, error_message, retry_count,"
                " next_retry_at) VALUES (:hash, 'a.jpg', '/p/a.jpg', '/p/a.jpg', 1, 'a.jpg',"
                " 'photo', 'FAILED', true, :error, 1, now() + interval '1 minute')"
                " RETURNING photo_id"
            ),
            {"hash": uuid4().hex * 2, "error": error},
        )
        return int(found.scalar_one())


async def test_status_shows_services_photos_and_what_failed(
    db: Database, client: httpx.AsyncClient
) -> None:
    photo_id = await _failed_photo(db, "not a picture: a.jpg")
    async with db.transaction() as session:
        await service.beat(session, "worker-1", Health("WARNING", "the ML service is away"))
        await bus.dead_letter(session, "photos-to-process", "k", {"photo_id": 1}, "spent")
    found = (await client.get("/api/ops/status")).raise_for_status().json()
    (worker,) = found["services"]
    assert (worker["service_name"], worker["status"], worker["colour"]) == (
        *("worker-1", "WARNING"),
        "yellow",
    )
    assert found["photos"]["FAILED"] == 1
    assert found["dead_letters"] == 1
    (failure,) = found["failed"]
    assert failure["photo_id"] == photo_id
    assert failure["error_message"] == "not a picture: a.jpg"
    assert failure["next_retry_at"] is not None
    assert found["stuck"] == []


async def test_alive_and_ready(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health/live")).json() == {"status": "alive"}
    assert (await client.get("/health/ready")).json()["status"] == "ready"


async def test_not_ready_behind_the_migrations(db: Database, client: httpx.AsyncClient) -> None:
    async with db.transaction() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    answer = await client.get("/health/ready")
    assert answer.status_code == 503
    assert "revision 0001" in answer.json()["detail"]
    assert (await client.get("/health/live")).is_success


async def test_not_ready_without_migrations(db: Database) -> None:
    async with db.transaction() as session:
        await session.execute(text("DROP TABLE alembic_version"))
        with pytest.raises(DatabaseError, match="at revision None"):
            await service.check_ready(session)


async def test_not_ready_without_a_database(client: httpx.AsyncClient) -> None:
    app = create_app("test", [router])
    app.state.db = Database("postgresql://nobody@127.0.0.1:1/nothing")
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as away:
        assert (await away.get("/health/ready")).status_code == 503
        assert (await away.get("/health/live")).is_success


def test_facts_of_the_database(database_url: str) -> None:
    facts = service.database_facts(database_url)
    assert facts["fsync"] == facts["full_page_writes"] == facts["synchronous_commit"] == "on"
    assert facts["revision"] != "none"
