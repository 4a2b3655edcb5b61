"""Dates at the terminal and over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from scans import Register, scan
from typer.testing import CliRunner

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.settings import load
from kaleidoscope.kernel.web import create_app
from kaleidoscope.library import service as library
from kaleidoscope.library.commands import app
from kaleidoscope.library.routes import router
from kaleidoscope.library.service import Registered


@pytest.fixture
async def photos(
    tmp_path: Path,
    register: Register,
    data_dir: Path,
    db: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> list[Registered]:
    """Two photos of one camera, and one of which nothing is known."""
    monkeypatch.setenv("KALEIDOSCOPE_DATABASE_URL", db.url)
    load.cache_clear()
    for n, date in enumerate(["2024:05:03 23:30:00", "2024:05:04 12:00:00", None]):
        exif = Image.Exif()
        if date:
            exif[0x10F], exif[0x110] = "Canon", "Canon EOS 7D"
            exif.get_ifd(0x8769).update({0x9003: date, 0x9011: "+02:00"})
        Image.new("RGB", (40 + n, 20)).save(tmp_path / f"{n}.jpg", exif=exif)
        os.utime(tmp_path / f"{n}.jpg", (1_700_000_000, 1_700_000_000))
    registered = await register([scan(tmp_path / f"{n}.jpg") for n in range(3)])
    await library.date_assets(db)
    return registered


@pytest.fixture
async def api(db: Database) -> AsyncIterator[httpx.AsyncClient]:
    served = create_app("library", [router])
    served.state.db = db
    transport = httpx.ASGITransport(app=served)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


async def call(*arguments: object, code: int = 0) -> str:
    """A command opens a loop of its own, so that it runs in a thread of its own."""
    words = ["dates", *map(str, arguments)]
    result = await asyncio.to_thread(CliRunner().invoke, app, words)
    assert result.exit_code == code, result.output
    return result.stdout


async def told(*arguments: object) -> Any:
    return json.loads(await call(*arguments, "--json"))


async def test_review_correct_and_undo_at_the_terminal(photos: list[Registered]) -> None:
    heads, row = (await call("review")).splitlines()
    assert heads.split() == ["photo", "taken,", "perhaps", "told", "by", "path"]
    assert row.endswith(photos[2].path)
    page = await told("review")
    assert [p["photo_id"] for p in page["photos"]] == [photos[2].photo_id]
    assert "Canon EOS 7D" in await call("cameras")
    (camera,) = await told("cameras")
    assert (camera["photos"], camera["first"]) == (2, "2024-05-03T23:30:00")

    shift = ("shift", "--camera", "Canon EOS 7D", "--by", "+1h30m", "--to", "2024-05-03")
    previewed = await call(*shift, "--dry-run")
    assert "2024-05-03 23:30:00 → 2024-05-04 01:00:00" in previewed
    assert (await told(*shift, "--dry-run"))["photos"] == 1
    done = await told(*shift)
    assert (done["photos"], done["to_be_filed"]) == (1, 1)
    shown = await call("show", photos[0].photo_id)
    assert shown.startswith("2024-05-04 01:00:00 +2:00  person")
    assert "2024-05-03 23:30:00 +2:00" in shown and "exif:DateTimeOriginal" in shown
    assert "shifted by +1:30:00: Canon EOS 7D" in await call("history")
    assert "undone" in await call("undo", done["correction_id"])
    assert (await told("show", photos[0].path))["source"] == "exif:DateTimeOriginal"


async def test_a_date_given_at_the_terminal(photos: list[Registered]) -> None:
    photo = photos[2].photo_id
    assert "1 dates set" in await call("set", photo, "1985-07-14")
    assert (await told("show", photo))["captured_at"] == "1985-07-14T00:00:00"
    await call("set", photos[2].path, "1985-07-14T10:00+02:00")
    found = await told("show", photo)
    assert (found["captured_at"], found["captured_offset"]) == ("1985-07-14T10:00:00", "PT2H")
    assert [c["kind"] for c in await told("history")] == ["set", "set"]
    assert (await told("review"))["total"] == 0
    assert "undone" in await call("undo")


async def test_where_it_was_at_the_terminal_and_over_http(
    register: Register,
    api: httpx.AsyncClient,
    photos: list[Registered],
    db: Database,
    tmp_path: Path,
) -> None:
    path = tmp_path / "PXL_20240701_223005123.jpg"
    path.write_bytes(b"no photo")
    await register([scan(path)])
    await library.date_assets(db)
    assert "→ 2024-07-02 00:30:05" in await call("zone", "Europe/Berlin", "--dry-run")
    done = await told("zone", "Europe/Berlin", "--from", "2024-07-01", "--to", "2024-07-01")
    assert (done["photos"], done["criteria"]["zone"]) == (1, "Europe/Berlin")
    assert "dates set, undone: Europe/Berlin" in await call("undo")
    asked = {"zone": "Asia/Tokyo"}
    preview = (await api.post("/api/dates/zone/preview", json=asked)).json()
    assert preview["examples"][0]["after"] == "2024-07-02T07:30:05.123000"
    assert (await api.post("/api/dates/zone", json=asked)).json()["photos"] == 1
    assert (await api.post("/api/dates/zone", json=asked)).status_code == 404
    await call("zone", "Middle/Earth", code=2)


async def test_what_is_refused_at_the_terminal(photos: list[Registered]) -> None:
    await call("shift", "--camera", "Canon EOS 7D", "--by", "tomorrow", code=2)
    await call("shift", "--camera", "Canon EOS 7D", "--by", "1h", "--from", "May", code=2)
    await call("shift", "--camera", "Leica", "--by", "1h", code=3)
    await call("set", photos[0].photo_id, "2999-01-01", code=2)
    await call("undo", code=3)
    await call("show", 5, code=3)


async def test_over_http(photos: list[Registered], api: httpx.AsyncClient) -> None:
    first, _, third = (p.photo_id for p in photos)
    review = (await api.get("/api/dates/review")).json()
    assert [(p["photo_id"], p["source"]) for p in review["photos"]] == [(third, "mtime")]
    cameras = (await api.get("/api/dates/cameras")).json()
    assert [c["name"] for c in cameras] == ["Canon EOS 7D"]

    asked = {"camera": "Canon EOS 7D", "by": 5400, "until": "2024-05-04T00:00:00"}
    preview = (await api.post("/api/dates/shift/preview", json=asked)).json()
    assert (preview["photos"], preview["examples"][0]["photo_id"]) == (1, first)
    done = (await api.post("/api/dates/shift", json=asked)).json()
    assert (done["photos"], done["shifted_by"]) == (1, "PT1H30M")
    found = (await api.get(f"/api/photos/{first}/dates")).json()
    assert (found["captured_at"], found["source"]) == ("2024-05-04T01:00:00", "person")
    given = {"captured_at": "1985-07-14T00:00:00"}
    assert (await api.put(f"/api/photos/{first}/date", json=given)).status_code == 200
    undo = f"/api/dates/corrections/{done['correction_id']}/undo"
    assert (await api.post(undo)).status_code == 409  # the given date came after
    corrections = (await api.get("/api/dates/corrections")).json()
    for correction in corrections:
        undone = await api.post(f"/api/dates/corrections/{correction['correction_id']}/undo")
        assert undone.json()["undone_at"] is not None
    found = (await api.get(f"/api/photos/{first}/dates")).json()
    assert found["source"] == "exif:DateTimeOriginal"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/dates/shift", {"camera": "Leica", "by": 60}, 404),
        ("POST", "/api/dates/shift", {"camera": "Canon EOS 7D", "by": 0}, 422),
        ("POST", "/api/dates/shift", {"camera": "Canon EOS 7D", "by": "soon"}, 422),
        ("PUT", "/api/photos/5/date", {"captured_at": "1999-01-01T00:00:00"}, 404),
        ("GET", "/api/photos/5/dates", None, 404),
        ("POST", "/api/dates/corrections/5/undo", None, 404),
    ],
)
async def test_what_is_refused_over_http(
    photos: list[Registered],
    api: httpx.AsyncClient,
    method: str,
    path: str,
    body: dict[str, Any] | None,
    status: int,
) -> None:
    answer = await api.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
