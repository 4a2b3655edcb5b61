"""The library over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from scans import Ledger, Published, Register, Write

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.web import create_app
from kaleidoscope.library.routes import router
from kaleidoscope.library.service import Registered


@pytest.fixture
async def api(db: Database) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app("library", [router])
    app.state.db = db
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


@pytest.fixture
async def photo(write: Write, register: Register) -> Registered:
    (registered,) = await register([write(b"\xe9.jpg", b"abc")])
    return registered


async def put(api: httpx.AsyncClient, expected: int = 200, **change: Any) -> dict[str, Any]:
    answer = await api.put("/photo/update-status", json=change)
    assert answer.status_code == expected, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_the_body_of_the_seed(
    api: httpx.AsyncClient, photo: Registered, ledger: Ledger
) -> None:
    answer = await put(api, photo_id=photo.photo_id, status="PROCESSING")
    assert answer == {
        "photo_id": photo.photo_id,
        "status": "PROCESSING",
        "attempt_id": str(photo.attempt_id),
        "state": "started",
    }
    assert (await put(api, photo_id=photo.photo_id, status="FAILED"))["status"] == "FAILED"
    (found,) = (await ledger()).values()
    assert (found.status, found.error_message) == ("FAILED", "no cause was given")
    assert (await put(api, photo_id=photo.photo_id, status="READY"))["status"] == "READY"
    await put(api, photo_id=photo.photo_id, status="PROCESSING")
    assert (await put(api, photo_id=photo.photo_id, status="PROCESSED"))["status"] == "PROCESSED"


async def test_by_attempt(api: httpx.AsyncClient, photo: Registered, ledger: Ledger) -> None:
    mine = {"photo_id": photo.photo_id, "attempt_id": str(photo.attempt_id)}
    problem = {"code": "decode", "message": "no JPEG", "permanent": True}
    assert (await put(api, **mine, status="PROCESSING"))["state"] == "started"
    assert (await put(api, **mine, status="FAILED", error=problem))["state"] == "started"
    assert (await put(api, **mine, status="FAILED", error=problem))["state"] == "already-done"
    assert (await put(api, **mine, status="PROCESSING"))["state"] == "already-done"
    (found,) = (await ledger()).values()
    assert (found.error_message, found.next_retry_at) == ("no JPEG", None)
    await put(api, photo_id=photo.photo_id, status="READY")
    assert (await put(api, **mine, status="PROCESSING"))["state"] == "already-done"


async def test_a_superseded_attempt_is_told_so(
    api: httpx.AsyncClient, photo: Registered, published: Published
) -> None:
    await put(api, photo_id=photo.photo_id, status="READY")
    assert len(await published()) == 1
    mine = {"photo_id": photo.photo_id, "attempt_id": str(photo.attempt_id)}
    for status in ("PROCESSING", "PROCESSED", "FAILED"):
        answer = await put(api, **mine, status=status)
        assert (answer["state"], answer["status"]) == ("superseded", "READY")


async def test_an_error_in_words(api: httpx.AsyncClient, photo: Registered, ledger: Ledger) -> None:
    await put(api, photo_id=photo.photo_id, status="FAILED", error="ML service away")
    assert next(iter((await ledger()).values())).error_message == "ML service away"


async def test_what_is_not_processing_cannot_become_processed(
    api: httpx.AsyncClient, photo: Registered
) -> None:
    answer = await put(api, 409, photo_id=photo.photo_id, status="PROCESSED")
    assert "is READY" in answer["detail"] and answer["code"] == "conflict"


async def test_bad_requests(api: httpx.AsyncClient) -> None:
    assert (await put(api, 404, photo_id=5, status="READY"))["photo_id"] == 5
    assert (await put(api, 422, photo_id=5, status="DONE"))["code"] == "invalid"


async def test_the_ledger_page_by_page(
    api: httpx.AsyncClient, write: Write, register: Register
) -> None:
    registered = await register([write(f"{n}.jpg", b"%d" % n) for n in range(5)])
    await register([write("v.mp4", b"v", kind="video")])
    first = (await api.get("/photos", params={"limit": 3, "media_type": "photo"})).json()
    assert [p["photo_id"] for p in first["photos"]] == [r.photo_id for r in registered[:3]]
    after = {"limit": 3, "media_type": "photo", "after": first["next"]}
    second = (await api.get("/photos", params=after)).json()
    assert len(second["photos"]) == 2 and second["next"] is None
    assert (await api.get("/photos", params={"status": "FAILED"})).json()["photos"] == []
    assert (await api.get("/photos", params={"limit": 0})).status_code == 422


async def test_every_column_is_shown(api: httpx.AsyncClient, photo: Registered) -> None:
    from kaleidoscope.library.models import MediaAsset

    (shown,) = (await api.get("/photos")).json()["photos"]
    assert set(shown) == set(MediaAsset.__table__.columns.keys())
