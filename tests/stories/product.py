"""The whole product as a user has it: its command, its HTTP, its processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

COMMAND = str(Path(sys.executable).with_name("kaleidoscope"))


class Product:
    """Kaleidoscope in one data folder."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o711)
        foreign = [name for name in os.environ if name.startswith("KALEIDOSCOPE_")]
        inherited = {k: v for k, v in os.environ.items() if k not in foreign}
        ours = {
            "KALEIDOSCOPE_DATA_DIR": str(folder),
            "KALEIDOSCOPE_INGEST_ROOTS": str(folder.parent),
        }
        self.env = {**inherited, **ours, **settings}

    def run(self, *words: str, code: int = 0) -> str:
        """What `kaleidoscope WORDS` prints; its exit code must be `code`."""
        done = subprocess.run([COMMAND, *words], env=self.env, capture_output=True, text=True)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))

    def up(self) -> None:
        self.run("up", "--detach")

    def down(self) -> None:
        self.run("down")

    @property
    def state(self) -> dict[str, Any]:
        """What the supervisor notes of itself."""
        found: dict[str, Any] = json.loads((self.folder / "run" / "up.json").read_text())
        return found

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The answer of the API, which must be a good one."""
        answer = httpx.request(method, self.state["api_url"] + path, json=body, timeout=60)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        """The rows of a query, in the database that runs."""
        root = self.folder / "postgres"
        password, port = (root / "password").read_text(), (root / "port").read_text()
        url = f"postgresql://kaleidoscope:{password.strip()}@127.0.0.1:{port.strip()}/kaleidoscope"
        with psycopg.connect(url) as connection:
            return connection.execute(query.encode()).fetchall()

    def ingest(self, folder: Path) -> str:
        """Order a folder in; the job's id."""
        body = {"path": str(folder), "recursive": True}
        job: str = self.call("POST", "/ingest-folder", body)["jobId"]
        return job

    def job_status(self, job: str) -> dict[str, Any]:
        status: dict[str, Any] = self.call("GET", f"/ingest-status/{job}")
        return status

    def finish(self, job: str, timeout: float = 240) -> dict[str, Any]:
        """Wait for the end of a job, through outages of the API."""
        began = time.monotonic()
        status: dict[str, Any] = {}
        while time.monotonic() - began < timeout:
            with suppress(httpx.TransportError, AssertionError, FileNotFoundError):
                status = self.job_status(job)
                if status["status"] in ("COMPLETED", "FAILED"):
                    return status
            time.sleep(0.1)
        pytest.fail(f"job {job} does not end: {status}\n{self.run('status')}")

    def complete(self, folder: Path, timeout: float = 240) -> dict[str, Any]:
        """Take a folder in, to the end, which must be a good one."""
        return self.completed(self.ingest(folder), timeout)

    def completed(self, job: str, timeout: float = 240) -> dict[str, Any]:
        """The last status of a job that must end well."""
        status = self.finish(job, timeout)
        assert status["status"] == "COMPLETED", status
        return status

    def kill(self, what: str) -> bool:
        """`kill -9` of the supervisor, a service or the postmaster; False if there is none."""
        pid = None
        with suppress(FileNotFoundError, ValueError, IndexError):
            if what == "supervisor":
                pid = self.state["pid"]
            elif what == "postmaster":
                cluster = self.folder / "postgres" / "cluster"
                pid = int((cluster / "postmaster.pid").read_text().split()[0])
            else:
                pid = self.state["services"][what]["pid"]
        if pid is None:
            return False
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True
