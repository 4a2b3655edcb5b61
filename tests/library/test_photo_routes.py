"""The library over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from PIL import Image
from scans import Ledger, Published, Register, Write

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.web import create_app
from kaleidoscope.library import service as library
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


async def test_several_attempts_begin_in_one_request(
    api: httpx.AsyncClient, write: Write, register: Register, ledger: Ledger
) -> None:
    first, other = await register([write("a.jpg", b"abc"), write("b.jpg", b"def")])
    begun = [
        {"photo_id": first.photo_id, "attempt_id": str(first.attempt_id)},
        {"photo_id": other.photo_id, "attempt_id": str(UUID(int=5))},
        {"photo_id": 99, "attempt_id": str(UUID(int=6))},
    ]
    answer = await api.put("/photos/update-status", json={"attempts": begun, "worker": "w"})
    assert answer.status_code == 200, answer.text
    assert answer.json() == [
        {
            "photo_id": first.photo_id,
            "status": "PROCESSING",
            "attempt_id": str(first.attempt_id),
            "path": first.path,
            "state": "started",
        },
        {
            "photo_id": other.photo_id,
            "status": "READY",
            "attempt_id": str(other.attempt_id),
            "path": other.path,
            "state": "superseded",
        },
    ]
    assert sorted(p.status for p in (await ledger()).values()) == ["PROCESSING", "READY"]


async def test_the_body_of_the_seed(
    api: httpx.AsyncClient, photo: Registered, ledger: Ledger
) -> None:
    answer = await put(api, photo_id=photo.photo_id, status="PROCESSING")
    assert answer == {
        "photo_id": photo.photo_id,
        "status": "PROCESSING",
        "attempt_id": str(photo.attempt_id),
        "path": photo.path,
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


async def test_a_picture_comes_with_its_name_and_is_not_sent_twice(
    api: httpx.AsyncClient, write: Write, register: Register, data_dir: Path
) -> None:
    (photo,) = await register([write("a.png", png())])
    for kind, media_type in (("thumbnail", "image/webp"), ("preview", "image/jpeg")):
        url = f"/api/photos/{photo.photo_id}/{kind}"
        first = await api.get(url)
        assert (first.status_code, first.headers["content-type"]) == (200, media_type)
        assert Image.open(BytesIO(first.content)).size == (40, 30)
        assert first.headers["cache-control"] == "private, no-cache"
        tag = first.headers["etag"]
        again = await api.get(url, headers={"If-None-Match": tag})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        by_hash = await api.get(url, params={"v": tag.strip('"').partition("-")[0]})
        assert "immutable" in by_hash.headers["cache-control"]
        assert "immutable" not in (await api.get(url, params={"v": "0"})).headers["cache-control"]


def png() -> bytes:
    file = BytesIO()
    Image.new("RGB", (40, 30), (10, 200, 30)).save(file, "PNG")
    return file.getvalue()


async def test_no_picture_is_a_problem_with_its_cause(
    api: httpx.AsyncClient, photo: Registered, data_dir: Path
) -> None:
    for number, says in ((5, "there is no photo 5"), (photo.photo_id, "neither a photo")):
        answer = await api.get(f"/api/photos/{number}/thumbnail")
        assert answer.status_code == 404, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert says in answer.json()["detail"]
    for wrong in ("0", "x", str(2**63), "%2e%2e%2fetc"):
        assert (await api.get(f"/api/photos/{wrong}/preview")).status_code in (404, 422)


async def test_curation_by_route(api: httpx.AsyncClient, photo: Registered, ledger: Ledger) -> None:
    url = f"/api/photos/{photo.photo_id}/curation"
    answer = await api.put(url, json={"curated": True})
    assert answer.json()["curated"] and answer.json()["curated_at"] is not None
    assert (await api.put(url, json={"curated": True})).json() == answer.json()
    assert (await api.put(url, json={"curated": False})).json()["curated_at"] is None
    (found,) = (await ledger()).values()
    assert (found.is_curated, found.curated_at) == (False, None)
    assert (await api.put("/api/photos/5/curation", json={"curated": True})).status_code == 404


async def test_the_flight_recorder_by_route(
    api: httpx.AsyncClient, photo: Registered, db: Database, ledger: Ledger
) -> None:
    await put(
        api,
        photo_id=photo.photo_id,
        status="FAILED",
        error={"code": "decode", "message": "no JPEG"},
    )
    await library.hash_pending(db)
    await api.put(f"/api/photos/{photo.photo_id}/curation", json={"curated": True})
    told = (await api.get(f"/api/photos/{photo.photo_id}/history")).json()
    assert (told["photo_id"], told["path"]) == (photo.photo_id, photo.path)
    assert (told["has_errors"], told["error_message"]) == (True, "no JPEG")
    seen = [(e["what"], e["outcome"], e["error"], e["retry"]) for e in told["events"]]
    assert seen == [
        ("received", "ok", None, None),
        ("recognised", "failed", "no JPEG", "recognised"),
        ("hashed", "ok", None, None),
        ("curated", "ok", None, None),
    ]
    assert told["events"][1]["retry_at"] is not None
    assert (await api.get("/api/photos/5/history")).status_code == 404


async def test_retries_by_route(
    api: httpx.AsyncClient, photo: Registered, ledger: Ledger, published: Published
) -> None:
    url = f"/api/photos/{photo.photo_id}/retry"
    assert (await api.post(url, json={"what": "recognised"})).status_code == 200
    assert [e["topic"] for e in await published()] == ["photos-to-process"]
    assert (await api.post(url, json={"what": "thumbnailed"})).status_code == 200
    assert (await api.post(url, json={"what": "hashed"})).status_code == 409
    assert (await api.post(url, json={"what": "geocoded"})).status_code == 409  # no position
    for what in ("filed", "scrubbed", "missing"):
        assert (await api.post(url, json={"what": what})).status_code == 409  # nothing has failed
    assert (await api.post(url, json={"what": "curated"})).status_code == 422
    assert (await api.post("/api/photos/5/retry", json={"what": "hashed"})).status_code == 404


async def test_a_place_by_route(api: httpx.AsyncClient, photo: Registered) -> None:
    told = (await api.get(f"/api/photos/{photo.photo_id}/place")).json()
    assert (told["location"], told["city"], told["geocoded_at"]) == (None, None, None)
    assert "GeoNames" in told["attribution"]
    assert (await api.get("/api/photos/5/place")).status_code == 404
