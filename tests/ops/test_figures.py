"""Counters, disks, errors by cause, the stream and the metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import text

from kaleidoscope.bus import service as bus
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import DatabaseError
from kaleidoscope.kernel.settings import load
from kaleidoscope.kernel.web import create_app
from kaleidoscope.library import service as library
from kaleidoscope.library.service import Happened
from kaleidoscope.ops import metrics, service
from kaleidoscope.ops.routes import router
from kaleidoscope.ops.schemas import Figures
from kaleidoscope.ops.service import Health, Heartbeat, Pulse, checks


@pytest.fixture
async def client(db: Database) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app("test", [router])
    app.state.db = db
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as opened:
        yield opened


async def _photo(db: Database, name: str, error: str | None = None, **more: str) -> int:
    async with db.transaction() as session:
        found = await session.execute(
            text(
                "INSERT INTO media_assets (file_hash, original_name, original_path, final_path,"
                " size_bytes, filename, media_type, status) VALUES"
                " (:hash, :name, :path, :path, 1000, :name, 'photo', :status)"
                " RETURNING photo_id"
            ),
            {
                "hash": uuid4().hex * 2,
                "name": name,
                "path": f"/p/{name}",
                "status": "FAILED" if error else more.get("status", "PROCESSED"),
            },
        )
        photo_id = int(found.scalar_one())
        if error:
            failed = Happened(photo_id, more.get("what", "recognised"), "failed", error=error)  # type: ignore[arg-type]
            await library.note(session, [failed])
        return photo_id


async def test_counters_and_latest_assets(db: Database, client: httpx.AsyncClient) -> None:
    first = await _photo(db, "a.jpg")
    second = await _photo(db, "b.jpg", status="READY")
    found = (await client.get("/api/ops/figures")).raise_for_status().json()
    assert found["assets"]["total"] == found["assets"]["photos"] == 2
    assert found["assets"]["bytes"] == 2000
    assert (found["filed_last_hour"], found["waiting"]) == (2, 1)
    assert [one["photo_id"] for one in found["latest"]] == [second, first]


async def test_the_disk_of_the_data_folder_is_measured_once(
    db: Database, client: httpx.AsyncClient, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data_dir / "more").mkdir()
    monkeypatch.setenv("KALEIDOSCOPE_OPS_DISKS", f"{data_dir / 'more'}:{data_dir / 'away'}")
    load.cache_clear()
    assert await service.measure_disks(db) == 1
    (disk,) = (await client.get("/api/ops/figures")).json()["disks"]
    assert disk["folder"] == str(data_dir)
    assert disk["total_bytes"] >= disk["used_bytes"] > 0
    assert disk["days_until_full"] is None


async def test_days_until_full_come_from_the_history(
    db: Database, client: httpx.AsyncClient
) -> None:
    async with db.transaction() as session:
        await session.execute(
            text(
                "INSERT INTO disk_usage SELECT '/photos', now() - make_interval(hours => n),"
                " 10000, 4800 - 10 * n, 5200 + 10 * n FROM generate_series(0, 47) AS n"
            )
        )
    (disk,) = (await client.get("/api/ops/figures")).json()["disks"]
    assert disk["days_until_full"] == pytest.approx(5200 / 240, rel=0.01)


async def test_errors_are_grouped_by_cause(db: Database, client: httpx.AsyncClient) -> None:
    await _photo(db, "a.jpg", "/p/a.jpg: is an empty file")
    last = await _photo(db, "b.jpg", "/p/b.jpg: is an empty file")
    await _photo(db, "c.jpg", "the ML service is away")
    async with db.transaction() as session:
        await bus.dead_letter(session, "folders-to-ingest", "k", {}, "no folder /x/y")
        await bus.dead_letter(session, "photos-to-process", "k", {}, "the ML service is away")
    found = (await client.get("/api/ops/errors")).raise_for_status().json()
    assert found["total"] == 4
    assert [(g["what"], g["cause"], g["kind"], g["count"]) for g in found["groups"]] == [
        ("recognised", "is an empty file", "asset", 2),
        ("folders-to-ingest", "no folder …", "message", 1),
        ("recognised", "the ML service is away", "asset", 1),
    ]
    assert found["groups"][0]["photo_ids"][0] == last
    assert found["groups"][0]["example"] == "/p/b.jpg: is an empty file"


async def test_what_is_kept_beside_the_assets_is_told_of_too(
    db: Database, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """Gone files of one kind are one cause, with one of them by its path; found, they are none."""
    paths = [tmp_path / "my photos" / f"{n}.xmp" for n in "ab"]
    for path in paths:
        await _kept(db, path, "missing", "a sidecar is gone")
    await _kept(db, tmp_path / "c.json", "rot", "the file is damaged")
    found = (await client.get("/api/ops/errors")).raise_for_status().json()
    assert [(g["what"], g["cause"], g["kind"], g["count"]) for g in found["groups"]] == [
        ("missing", "a sidecar is gone", "file", 2),
        ("scrubbed", "the file is damaged", "file", 1),
    ]
    assert found["groups"][0]["example"] in [f"{path}: a sidecar is gone" for path in paths]
    paths[0].parent.mkdir()
    paths[0].write_text("back")
    answer = await client.post("/api/ops/errors/retry", json={"cause": "a sidecar is gone"})
    assert answer.json() == {"assets": 0, "messages": 0, "files": 2}
    groups = (await client.get("/api/ops/errors")).json()["groups"]
    assert {g["cause"]: g["count"] for g in groups} == {
        "a sidecar is gone": 1,
        "the file is damaged": 1,
    }


async def _kept(db: Database, path: Path, code: str, error: str) -> None:
    async with db.transaction() as session:
        await session.execute(
            text(
                "INSERT INTO kept_files (kind, final_path, size_bytes, modified_at, file_hash,"
                " missing_since, error_code, error, failed_at) VALUES ('sidecar', :path, 4, now(),"
                " repeat('a', 64), CASE :code WHEN 'missing' THEN now() END, :code, :error, now())"
            ),
            {"path": str(path), "code": code, "error": error},
        )


async def test_all_of_a_cause_are_tried_again(db: Database, client: httpx.AsyncClient) -> None:
    ids = [await _photo(db, f"{n}.jpg", f"/p/{n}.jpg: is an empty file") for n in "ab"]
    other = await _photo(db, "c.jpg", "the ML service is away")
    async with db.transaction() as session:
        await bus.dead_letter(session, "photos-to-process", "k", {}, "/p/a.jpg: is an empty file")
        await bus.dead_letter(session, "folders-to-ingest", "k", {}, "no folder /x/y")
    answer = await client.post("/api/ops/errors/retry", json={"cause": "is an empty file"})
    assert answer.json() == {"assets": 2, "messages": 1, "files": 0}
    async with db.transaction() as session:
        rows = await session.execute(text("SELECT photo_id FROM media_assets WHERE status='READY'"))
        assert sorted(rows.scalars()) == sorted(ids)
        assert sum((await bus.count_dead(session)).values()) == 1
    wish = {"cause": "no folder …", "what": "folders-to-ingest"}
    answer = await client.post("/api/ops/errors/retry", json=wish)
    assert answer.json() == {"assets": 0, "messages": 1, "files": 0}
    assert (await client.post("/api/ops/errors/retry", json={"cause": "?"})).status_code == 404
    left = (await client.get("/api/ops/errors")).json()["groups"]
    assert other in [photo_id for group in left for photo_id in group["photo_ids"]]


async def test_another_pass_takes_its_failures_up_again(
    db: Database, client: httpx.AsyncClient
) -> None:
    photo_id = await _photo(db, "a.jpg", "/p/a.jpg: too large", what="thumbnailed")
    await _photo(db, "b.jpg", "/p/b.jpg: too large", what="backed-up")
    wish = {"cause": "too large", "what": "thumbnailed"}
    answer = await client.post("/api/ops/errors/retry", json=wish)
    assert answer.json() == {"assets": 1, "messages": 0, "files": 0}
    async with db.transaction() as session:
        due = "SELECT photo_id FROM asset_problems WHERE retry_at <= now()"
        assert list((await session.execute(text(due))).scalars()) == [photo_id]


async def test_history_and_uptime_over_http(db: Database, client: httpx.AsyncClient) -> None:
    async with db.transaction() as session:
        await service.beat(session, "librarian", Health())
    found = (await client.get("/api/ops/history?service=librarian&hours=2")).json()
    assert found["services"][0]["service_name"] == "librarian"
    assert found["services"][0]["segments"][0]["state"] == "unknown"
    assert (await client.get("/api/ops/history?service=nobody")).status_code == 404
    assert (await client.get("/api/ops/history?hours=0")).status_code == 422
    assert (await client.get("/api/ops/uptime")).json()["services"][0]["uptime"] < 0.01


async def test_the_stream_tells_news_to_all_who_listen(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_OPS_STREAM_SECONDS", "0.05")
    load.cache_clear()
    gone = asyncio.Event()
    pulse = Pulse(db, gone.is_set)
    load.cache_clear()
    heard: list[list[str]] = [[], []]

    async def listen(which: int) -> None:
        async for news in pulse.listen():
            heard[which].append(news.name)

    async def heard_of(name: str, times: int) -> None:
        async with asyncio.timeout(20):
            while any(names.count(name) < times for names in heard):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    listeners = [asyncio.create_task(listen(n)) for n in range(2)]
    for name in ("status", "figures", "errors"):
        await heard_of(name, 1)
    assert pulse.listeners == 2
    await _photo(db, "a.jpg", "is an empty file")
    await heard_of("errors", 2)
    await heard_of("figures", 2)
    async with db.transaction() as session:
        await service.beat(session, "librarian", Health())
    gone.set()
    async with asyncio.timeout(10):
        await asyncio.gather(*listeners)
    assert pulse.listeners == 0


async def test_who_comes_after_a_pause_hears_how_it_is_now(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_OPS_STREAM_SECONDS", "0.05")
    load.cache_clear()
    pulse = Pulse(db)
    load.cache_clear()

    async def first_figures() -> int:
        async with asyncio.timeout(20), aclosing(pulse.listen()) as news:
            async for one in news:
                if isinstance(one.data, Figures):
                    return one.data.assets.total
        raise AssertionError("the stream has ended")

    assert await first_figures() == 0
    await _photo(db, "a.jpg")
    async with asyncio.timeout(20):
        while pulse.reads:  # noqa: ASYNC110 - it ends a moment after the last listener
            await asyncio.sleep(0.02)
    assert await first_figures() == 1


async def test_metrics_tell_of_services_assets_and_disks(db: Database, data_dir: Path) -> None:
    await _photo(db, "a.jpg", "is an empty file")
    await service.measure_disks(db)
    async with db.transaction() as session:
        await service.beat(session, "librarian", Health("ERROR", "no disk"))
        registry = CollectorRegistry()
        registry.register(await metrics.read(session))
    told = generate_latest(registry).decode()
    assert 'kaleidoscope_service_colour{service="librarian"} 2.0' in told
    assert "kaleidoscope_assets_secured 1.0" in told
    assert "kaleidoscope_errors 1.0" in told
    assert f'kaleidoscope_disk_free_bytes{{folder="{data_dir}"}}' in told


async def test_a_process_whose_heart_has_stopped_is_not_alive(db: Database) -> None:
    app = create_app("test", [router])
    app.state.db = db
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
        Heartbeat(db, "api") as heart,
    ):
        app.state.heart = heart
        assert (await client.get("/health/live")).is_success
        assert heart._beats is not None
        heart._beats.cancel()
        await asyncio.sleep(0.05)
        answer = await client.get("/health/live")
        assert answer.status_code == 503
        assert answer.json()["detail"] == "the heart of api has stopped"


async def test_the_database_is_examined_by_using_it(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await service.database_health(db)
    assert found.status == "OK"
    assert found.task is not None and "revision" in found.task
    monkeypatch.setattr(checks, "CROWDED", 0.0)
    crowded = await service.database_health(db)
    assert crowded.status == "WARNING"
    assert crowded.task is not None and "connections are in use" in crowded.task
    monkeypatch.setattr(checks, "OLD", 0)
    assert (await service.database_health(db)).status == "ERROR"
    async with db.transaction() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    with pytest.raises(DatabaseError, match="revision 0001"):
        await service.database_health(db)
