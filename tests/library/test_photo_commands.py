"""Photos at the terminal."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from scans import Register, Write
from sqlalchemy import text
from typer.testing import CliRunner

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library
from kaleidoscope.library.commands import app
from kaleidoscope.library.models import MediaAsset
from kaleidoscope.library.service import Happened, Registered


@pytest.fixture
async def photos(
    write: Write,
    register: Register,
    data_dir: Path,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> list[Registered]:
    monkeypatch.setenv("KALEIDOSCOPE_DATABASE_URL", database_url)
    load.cache_clear()
    return await register([write(f"{n}.jpg", b"%d" % n) for n in range(3)] + [write(b"\xe9", b"x")])


async def call(*arguments: str, code: int = 0) -> str:
    """A command opens a loop of its own, so that it runs in a thread of its own."""
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    assert result.exit_code == code, result.output
    return result.stdout


async def test_list_every_column_as_json_lines(photos: list[Registered]) -> None:
    lines = [json.loads(line) for line in (await call("list", "--jsonl")).splitlines()]
    assert [line["photo_id"] for line in lines] == [p.photo_id for p in photos]
    assert set(lines[0]) == set(MediaAsset.__table__.columns.keys())


async def test_list_for_people_and_as_one_document(photos: list[Registered]) -> None:
    assert photos[0].path in await call("list")
    assert len(json.loads(await call("list", "--json"))) == 4
    assert await call("list", "--status", "failed") == ""
    await call("list", "--status", "done", code=2)


async def test_show_by_number_and_by_path(photos: list[Registered]) -> None:
    for name in (str(photos[0].photo_id), photos[0].path):
        shown = json.loads(await call("show", name, "--json"))
        assert (shown["final_path"], shown["attempts"]) == (photos[0].path, [])
    shown = (await call("show", str(photos[0].photo_id))).splitlines()
    assert any(line.endswith(photos[0].path) for line in shown)  # in one piece
    await call("show", "5", code=3)
    await call("show", str(10**30), code=3)


async def test_a_file_name_is_enough_where_one_file_has_it(
    photos: list[Registered], write: Write, register: Register
) -> None:
    shown = json.loads(await call("show", "1.jpg", "--json"))
    assert shown["photo_id"] == photos[1].photo_id
    assert "\\xe9" in await call("show", "\udce9", "--json")
    await call("show", "elsewhere/1.jpg", code=3)
    await register([write("again/1.jpg", b"other")])
    await call("show", "1.jpg", code=2)
    await call("show", "/no/such/photo", code=3)


async def test_reprocess(photos: list[Registered], db: Database) -> None:
    first = str(photos[0].photo_id)
    assert json.loads(await call("reprocess", first, photos[1].path, "--json")) == {
        "reprocessing": 2
    }
    assert json.loads(await call("reprocess", "--all", "--json")) == {"reprocessing": 4}
    assert "0 photos" in await call("reprocess", "--status", "FAILED")
    await call("reprocess", code=2)
    await call("reprocess", first, "--all", code=2)
    async with db.transaction() as session:
        asked = await session.execute(text("SELECT count(*) FROM bus_outbox"))
        assert asked.scalar_one() == 6


async def test_curate_and_take_it_back(photos: list[Registered], db: Database) -> None:
    first, second = str(photos[0].photo_id), photos[1].path
    assert json.loads(await call("curate", first, second, "--json")) == {"changed": 2}
    assert json.loads(await call("curate", first, "--json")) == {"changed": 0}
    assert "1 photos are not curated" in await call("curate", first, "--undo")
    await call("curate", "5", code=3)
    async with db.transaction() as session:
        rows = await session.execute(
            text("SELECT photo_id, curated_at IS NOT NULL FROM media_assets WHERE is_curated")
        )
        assert rows.all() == [(photos[1].photo_id, True)]


async def test_show_tells_what_happened(photos: list[Registered], db: Database) -> None:
    photo = photos[0]
    async with db.transaction() as session:
        await library.fail(
            session, photo.photo_id, photo.attempt_id, code="decode", error="no [JPEG]"
        )
    async with db.transaction() as session:
        await library.note(session, [Happened(photo.photo_id, "dated", duration_ms=12)])
    shown = await call("show", str(photo.photo_id))
    assert photo.path in shown
    lines = [line.split() for line in shown.splitlines()]
    assert any("dated" in line and "12" in line for line in lines)
    assert "no [JPEG]" in shown
    assert "photos retry recognised" in shown
    told = json.loads(await call("show", photo.path, "--json"))
    assert [e["what"] for e in told["events"]] == ["received", "recognised", "dated"]
    assert len(told["attempts"]) == 1


async def test_retry(photos: list[Registered], db: Database) -> None:
    first = str(photos[0].photo_id)
    assert json.loads(await call("retry", "recognised", first, "--json")) == {"retried": 1}
    await call("retry", "hashed", first, code=4)
    await call("retry", "nothing", first, code=2)
