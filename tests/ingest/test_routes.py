"""Jobs over HTTP."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from workbench import Workbench, fill

from kaleidoscope.ingest import metrics
from kaleidoscope.ingest.routes import router
from kaleidoscope.kernel.secrets import HEADER, service_secret
from kaleidoscope.kernel.settings import load
from kaleidoscope.kernel.web import create_app


@pytest.fixture
async def api(bench: Workbench) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app("ingest", [router])
    app.state.db = bench.db
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


@pytest.fixture
def allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "allowed"
    fill(folder, 3)
    monkeypatch.setenv("KALEIDOSCOPE_INGEST_ROOTS", str(folder))
    load.cache_clear()
    return folder


async def test_the_requests_of_the_seed(
    api: httpx.AsyncClient, bench: Workbench, allowed: Path
) -> None:
    body = {"path": str(allowed), "recursive": True, "batchSize": 2, "jobName": "summer"}
    answer = await api.post("/ingest-folder", json=body)
    assert answer.status_code == 202
    assert list(answer.json()) == ["jobId"]
    job_id = UUID(answer.json()["jobId"])

    before = (await api.get(f"/ingest-status/{job_id}")).json()
    assert (before["status"], before["scanned"], before["batches"]) == ("SCANNED", 0, [])
    await bench.run(job_id)
    await bench.recognise(person_ids=[1], created_person_ids=[1], faces=1)

    after = (await api.get(f"/ingest-status/{job_id}")).json()
    expected = {
        "jobId": str(job_id),
        "jobName": "summer",
        "status": "COMPLETED",
        "scanned": 3,
        "inserted": 3,
        "published": 3,
        "failed_batches": 0,
        "faces_detected": 3,
        "persons_created": 1,
        "persons_matched": 0,
    }
    assert expected.items() <= after.items()
    assert [(b["batch_index"], b["photo_count"]) for b in after["batches"]] == [(0, 2), (1, 1)]
    assert (await api.get(f"/ingest-status/{job_id}?batches=1")).json()["batches"][0][
        "batch_index"
    ] == 1
    (listed,) = (await api.get("/ingest-jobs")).json()["jobs"]
    assert (listed["jobId"], listed["processed"]) == (str(job_id), 3)
    assert (await api.get("/ingest-jobs?status=FAILED")).json() == {"jobs": []}


async def test_dry_run_over_http(api: httpx.AsyncClient, bench: Workbench, allowed: Path) -> None:
    answer = await api.post("/ingest-folder", json={"path": str(allowed), "dryRun": True})
    job_id = UUID(answer.json()["jobId"])
    await bench.run(job_id)
    found = (await api.get(f"/ingest-status/{job_id}")).json()
    assert found["dryRun"] and found["status"] == "COMPLETED"
    assert found["estimate"]["photos"] == 3


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"path": ""},
        {"path": "relative"},
        {"path": "/srv\0"},
        {"path": "/", "batchSize": 0},
        {"path": "/", "unknown": 1},
    ],
)
async def test_orders_that_make_no_sense(api: httpx.AsyncClient, body: dict[str, object]) -> None:
    answer = await api.post("/ingest-folder", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_any_folder_needs_the_secret(
    api: httpx.AsyncClient, allowed: Path, tmp_path: Path
) -> None:
    body = {"path": str(tmp_path)}
    refused = await api.post("/ingest-folder", json=body)
    assert refused.status_code == 403
    assert "ingest.roots" in refused.json()["hint"]
    wrong = await api.post("/ingest-folder", json=body, headers={HEADER: "guess"})
    assert wrong.status_code == 403
    trusted = await api.post("/ingest-folder", json=body, headers={HEADER: service_secret()})
    assert trusted.status_code == 202


async def test_cancel_and_unknown_jobs(
    api: httpx.AsyncClient, bench: Workbench, allowed: Path
) -> None:
    job_id = (await api.post("/ingest-folder", json={"path": str(allowed)})).json()["jobId"]
    cancelled = (await api.post(f"/ingest-jobs/{job_id}/cancel")).json()
    assert (cancelled["status"], cancelled["failure"]) == ("FAILED", "cancelled")
    assert (await api.post(f"/ingest-jobs/{job_id}/cancel")).status_code == 409
    await bench.run(UUID(job_id))
    assert await bench.take() == []
    for path in (f"/ingest-status/{uuid4()}", f"/ingest-status/{uuid4()}/errors"):
        assert (await api.get(path)).status_code == 404
    assert (await api.post(f"/ingest-jobs/{uuid4()}/cancel")).status_code == 404


async def test_errors_come_in_pages(
    api: httpx.AsyncClient, bench: Workbench, allowed: Path
) -> None:
    for name in "abc":
        os.mkfifo(allowed / f"{name}.jpg")
    job = await bench.ingest(allowed)
    first = (await api.get(f"/ingest-status/{job.job_id}/errors?limit=2")).json()
    assert [e["code"] for e in first["errors"]] == ["special-file"] * 2
    assert first["errors"][0]["cause"] == "it is a named pipe, not a file"
    second = (
        await api.get(f"/ingest-status/{job.job_id}/errors?limit=2&after={first['next']}")
    ).json()
    assert (len(second["errors"]), second["next"]) == (1, None)


async def test_the_five_figures(bench: Workbench, allowed: Path) -> None:
    await bench.ingest(allowed, batchSize=2)
    registry = CollectorRegistry()
    async with bench.db.transaction() as session:
        registry.register(await metrics.read(session))
    said = generate_latest(registry).decode()
    for line in (
        "files_scanned_total 3.0",
        "files_inserted_total 3.0",
        "batches_published_total 2.0",
        "kafka_publish_failures_total 0.0",
    ):
        assert line in said.splitlines()
    (average,) = [x for x in said.splitlines() if x.startswith("avg_batch_time ")]
    assert float(average.split()[1]) > 0
