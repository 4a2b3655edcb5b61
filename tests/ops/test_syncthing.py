"""Syncthing, as its REST API is documented, spoken by a small server of our own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from kaleidoscope.kernel.settings import load
from kaleidoscope.ops import service

KEY = "abc123"


class Syncthing:
    """What the server answers; https://docs.syncthing.net/dev/rest.html."""

    def __init__(self) -> None:
        self.errors: list[dict[str, str]] | None = None
        self.folders = [{"id": "phone", "label": "Phone", "path": "/x", "paused": False}]
        self.status: dict[str, dict[str, Any]] = {
            "phone": {"state": "idle", "needTotalItems": 0, "pullErrors": 0, "errors": 0}
        }
        self.connected = True

    def answer(self, path: str, query: dict[str, list[str]]) -> object:
        if path == "/rest/system/status":
            return {"myID": "ME", "uptime": 2635}
        if path == "/rest/system/error":
            return {"errors": self.errors}
        if path == "/rest/system/connections":
            return {"connections": {"PHONE": {"connected": self.connected, "paused": False}}}
        if path == "/rest/config/folders":
            return self.folders
        if path == "/rest/db/status":
            return self.status[query["folder"][0]]
        raise KeyError(path)


@pytest.fixture
def syncthing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Syncthing]:
    """One that runs, and the settings that name it."""
    says = Syncthing()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            good = self.headers.get("X-API-Key") == KEY
            body = json.dumps(says.answer(url.path, parse_qs(url.query)) if good else {}).encode()
            self.send_response(200 if good else 403)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("KALEIDOSCOPE_SYNCTHING_URL", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("KALEIDOSCOPE_SYNCTHING_API_KEY", KEY)
    load.cache_clear()
    yield says
    server.shutdown()
    server.server_close()
    load.cache_clear()


async def _says(status: str, task: str) -> None:
    found = await service.syncthing_health()
    assert (found.status, found.task) == (status, task)


async def test_in_sync(syncthing: Syncthing) -> None:
    assert service.watches_syncthing()
    await _says("OK", "in sync, 1 of 1 devices connected")


async def test_on_their_way(syncthing: Syncthing) -> None:
    syncthing.status["phone"] |= {"state": "syncing", "needTotalItems": 12}
    syncthing.connected = False
    await _says("OK", "12 items on their way, 0 of 1 devices connected")


async def test_items_that_cannot_be_synced(syncthing: Syncthing) -> None:
    syncthing.status["phone"] |= {"pullErrors": 3}
    await _says("WARNING", "folder Phone: 3 items cannot be synced")


async def test_a_folder_stopped_by_an_error(syncthing: Syncthing) -> None:
    syncthing.status["phone"] |= {"state": "error", "error": "folder marker missing"}
    await _says("ERROR", "folder Phone: folder marker missing")


async def test_errors_of_its_own(syncthing: Syncthing) -> None:
    syncthing.errors = [{"when": "2026-01-01T00:00:00Z", "message": "disk is full"}]
    await _says("WARNING", "disk is full")


async def test_everything_paused(syncthing: Syncthing) -> None:
    syncthing.folders[0]["paused"] = True
    await _says("WARNING", "every folder is paused")


async def test_a_wrong_key(syncthing: Syncthing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_SYNCTHING_API_KEY", "wrong")
    load.cache_clear()
    found = await service.syncthing_health()
    assert found.status == "ERROR"
    assert found.task is not None and "refuses the API key" in found.task
    assert "wrong" not in found.task


async def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_SYNCTHING_URL", "http://127.0.0.1:1")
    load.cache_clear()
    found = await service.syncthing_health()
    load.cache_clear()
    assert found.status == "ERROR"
    assert found.task is not None and "does not answer" in found.task


def test_without_an_address_it_is_not_watched(data_dir: object) -> None:
    assert not service.watches_syncthing()
