"""Which Kaleidoscope runs in this data folder: `run/up.json`, and the lock that makes it one.

The lock is held by the supervisor and goes with it, however it ends; the file is only believed
while the lock is held. Readable by its owner alone.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Literal

import psutil
from pydantic import BaseModel, ValidationError

from kaleidoscope.kernel.errors import Conflict
from kaleidoscope.kernel.settings import data_dir

READY_WITHIN = 300.0  # seconds; at the very first start the models are converted, too


class Service(BaseModel):
    """A child of the supervisor. `born` is its process's start time: process ids come again."""

    pid: int | None = None
    born: float = 0.0
    state: Literal["starting", "running", "waiting", "stopped"] = "starting"
    restarts: int = 0
    trouble: str | None = None


class Up(BaseModel):
    """A running supervisor. `born` is its process's start time."""

    pid: int
    born: float
    started_at: datetime
    ready: bool = False
    api_url: str
    ml_url: str
    services: dict[str, Service] = {}


def run_dir() -> Path:
    """The folder of what belongs to the running processes."""
    folder = data_dir() / "run"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def log_dir() -> Path:
    """The folder of the services' logs."""
    folder = data_dir() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def only_one() -> Iterator[None]:
    """Be the one supervisor of this data folder. Raises `Conflict` that names the other."""
    descriptor = os.open(run_dir() / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise taken() from None
        yield
    finally:
        os.close(descriptor)


def taken() -> Conflict:
    """The error that tells of the supervisor that is here already."""
    other = last()
    return Conflict(
        f"Kaleidoscope already runs in {data_dir()}"
        + (f" (process {other.pid}, {other.api_url})" if other else ""),
        hint="`kaleidoscope down` stops it; KALEIDOSCOPE_DATA_DIR chooses another folder",
    )


def is_held() -> bool:
    """Whether a supervisor of this data folder is alive."""
    try:
        descriptor = os.open(data_dir() / "run" / "up.lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def running() -> Up | None:
    """The supervisor that is alive; None if there is none, or it has not written anything yet."""
    up = last() if is_held() else None
    return up if up is not None and _process(up.pid, up.born) else None


def last() -> Up | None:
    """The supervisor that was here last, alive or not."""
    try:
        return Up.model_validate_json((data_dir() / "run" / "up.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write(up: Up) -> None:
    """Replace the file, whole or not at all."""
    path = run_dir() / "up.json"
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(up.model_dump_json(indent=1))
    draft.replace(path)


def forget() -> None:
    """Remove the file: nothing runs."""
    (run_dir() / "up.json").unlink(missing_ok=True)


def end_leftovers(grace: float = 5.0) -> int:
    """End the services of a supervisor that was killed; how many were still there."""
    before = last()
    left: list[psutil.Process] = []
    for service in before.services.values() if before else ():
        process = _process(service.pid, service.born)
        if process is not None:
            with suppress(psutil.Error):
                process.terminate()
            left.append(process)
    _, stubborn = psutil.wait_procs(left, timeout=grace)
    for process in stubborn:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(stubborn, timeout=grace)
    return len(left)


def _process(pid: int | None, born: float) -> psutil.Process | None:
    """The process of that id if it is the one that was born then."""
    try:
        process = psutil.Process(-1 if pid is None else pid)
        return process if abs(process.create_time() - born) < 1.0 else None
    except (psutil.Error, ValueError):
        return None
