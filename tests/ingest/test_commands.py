"""Folders and jobs at the terminal."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import typer
import uvicorn
from fastapi import FastAPI
from typer.testing import CliRunner, Result
from workbench import Workbench, fill

from kaleidoscope.ingest.commands import folder, jobs
from kaleidoscope.ingest.routes import router
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.settings import load
from kaleidoscope.kernel.terminal import Api
from kaleidoscope.kernel.web import create_app

WORKING = 0.05  # seconds between two rounds of the machinery behind the API


@pytest.fixture
async def api(bench: Workbench, database_url: str) -> AsyncIterator[str]:
    """An API in a thread, and here the worker behind it that scans, recognises and tells."""
    app = create_app("ingest", [router], lifespan=_database(database_url))
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()  # who calls before the server is up waits for it
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    over = asyncio.Event()
    worker = asyncio.create_task(_work(bench, over))
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    over.set()
    await worker
    server.should_exit = True
    await asyncio.to_thread(thread.join)
    listening.close()


def _database(url: str) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def alive(app: FastAPI) -> AsyncIterator[None]:
        app.state.db = Database(url)
        yield
        await app.state.db.close()

    return alive


async def _work(bench: Workbench, over: asyncio.Event) -> None:
    while not over.is_set():
        for row in await bench.rows(
            "SELECT job_id FROM ingest_jobs WHERE status = 'SCANNED' AND scanned_at IS NULL"
        ):
            await bench.run(row.job_id)
        await bench.recognise(person_ids=[3], created_person_ids=[3], faces=1)
        await asyncio.sleep(WORKING)


@pytest.fixture(autouse=True)
def use_the_database(bench: Workbench, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_DATABASE_URL", database_url)
    load.cache_clear()


async def call(app: typer.Typer, *arguments: str, code: int = 0, told: bool = False) -> str:
    """A command opens a loop of its own, so that it runs in a thread of its own.

    `told`: with its remarks, too.
    """
    result: Result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    assert result.exit_code == code, f"{result.output} {result.exception!r}"
    return result.output if told else result.stdout


def ingesting(url: str) -> typer.Typer:
    @contextmanager
    def reach() -> Iterator[Api]:
        yield Api(url)

    app = typer.Typer()
    app.command()(folder.ingest_command(reach))
    return app


async def test_ingest_waits_and_sums_up(api: str, tmp_path: Path) -> None:
    fill(tmp_path, 4)
    os.mkfifo(tmp_path / "fifo.jpg")
    said = await call(ingesting(api), str(tmp_path))
    assert "COMPLETED" in said
    assert "4 found: 4 new, 0 known, 0 changed" in said
    assert "1 new, 0 known" in said
    assert "1 special-file" in said
    for hint in ("kaleidoscope people list", "kaleidoscope people montage", "jobs errors"):
        assert hint in said


async def test_what_is_known_already_is_said_so(api: str, tmp_path: Path) -> None:
    fill(tmp_path, 4)
    await call(ingesting(api), str(tmp_path))
    again = await call(ingesting(api), str(tmp_path))
    assert "4 photos and videos were known already, nothing is new" in again
    assert "0 of 0" not in again
    first, second = (await call(jobs.app, "list")).splitlines()
    assert "nothing new" in first and "4/4 done" in second


async def test_ingest_as_json(api: str, tmp_path: Path) -> None:
    fill(tmp_path, 2)
    fill(tmp_path / "sub", 1, start=2)
    said = json.loads(await call(ingesting(api), str(tmp_path), "--no-recursive", "--json"))
    assert (said["status"], said["scanned"], said["faces_detected"]) == ("COMPLETED", 2, 2)
    dry = json.loads(await call(ingesting(api), str(tmp_path), "--dry-run", "--json"))
    assert (dry["dryRun"], dry["estimate"]["photos"], dry["estimate"]["known"]) == (True, 3, 2)
    said = json.loads(
        await call(ingesting(api), str(tmp_path), "--no-wait", "--name", "later", "--json")
    )
    assert (said["status"], said["jobName"]) == ("SCANNED", "later")


async def test_dry_run_for_people(api: str, tmp_path: Path) -> None:
    fill(tmp_path, 3)
    said = await call(ingesting(api), str(tmp_path), "--dry-run")
    assert "assumed" in said and "kaleidoscope ingest" in said


async def test_names_of_any_bytes(api: str, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    fill(folder, 1)
    said = json.loads(await call(ingesting(api), str(folder), "--json"))
    assert (said["path"], said["processed"]) == (f"{tmp_path}/caf\\xe9", 1)


async def test_a_folder_that_is_not_there(api: str, tmp_path: Path) -> None:
    await call(ingesting(api), str(tmp_path / "nowhere"), code=3)


async def test_an_api_that_is_not_there(tmp_path: Path) -> None:
    await call(ingesting("http://127.0.0.1:9"), str(tmp_path), code=7)


async def test_jobs(bench: Workbench, tmp_path: Path) -> None:
    assert "no folder" in await call(jobs.app, "list")
    await call(jobs.app, "show", code=3)
    fill(tmp_path, 2)
    await bench.ingest(tmp_path, dryRun=True)
    assert "nothing was passed over" in await call(jobs.app, "errors", told=True)
    os.mkfifo(tmp_path / "fifo.jpg")
    job = await bench.ingest(tmp_path, jobName="summer")
    job_id = str(job.job_id)
    listed = await call(jobs.app, "list")
    assert "PUBLISHED" in listed and "0/2" in listed
    (plain,) = json.loads(await call(jobs.app, "list", "--status", "published", "--json"))
    assert (plain["jobId"], plain["jobName"]) == (job_id, "summer")
    assert json.loads(await call(jobs.app, "show", "--json"))["published"] == 2
    errors = await call(jobs.app, "errors", job_id)
    assert errors == f"special-file\t{tmp_path}/fifo.jpg\tit is a named pipe, not a file\n"
    assert "cancelled" in await call(jobs.app, "cancel", job_id)
    await call(jobs.app, "cancel", job_id, code=4)
    assert "cancelled" in await call(jobs.app, "show", job_id)
    await call(jobs.app, "list", "--status", "wrong", code=2)
