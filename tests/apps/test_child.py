"""A service is kept alive, its trouble is told, and its end is clean."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from kaleidoscope.apps import child
from kaleidoscope.apps.child import Child, delay_after, rotate, tail

Make = Callable[[str], Child]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def make(data_dir: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> Make:
    """A child that runs a piece of Python in place of `kaleidoscope run NAME`."""

    def made(program: str) -> Child:
        monkeypatch.setattr(child, "command", lambda *_: [sys.executable, "-c", program])
        return Child("thing", ["thing"], {}, say=said.append, changed=lambda: None)

    return made


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the event is in another process
            await asyncio.sleep(0.01)


async def test_what_is_killed_is_started_again(make: Make, said: list[str]) -> None:
    thing = make("import time; time.sleep(60)")
    keeping = asyncio.create_task(thing.keep())
    await _until(lambda: thing.status.pid is not None)
    first = thing.status.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await _until(lambda: thing.status.pid not in (None, first))
    assert said == ["thing was killed by SIGKILL; started again"]
    assert thing.status.restarts == 1 and thing.status.trouble is None
    await thing.stop(5)
    await keeping
    assert thing.status.state == "stopped"


async def test_a_crash_loop_is_told_with_its_cause(
    make: Make, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "LONGEST_DELAY", 0.01)
    thing = make("raise SystemExit('no such port')")
    keeping = asyncio.create_task(thing.keep())
    await _until(lambda: thing.status.trouble is not None)
    assert "3 times in a row: no such port" in said[-1]
    assert str(thing.log) in said[-1]
    thing.kill()
    keeping.cancel()


async def test_what_cannot_be_started_is_tried_again(
    make: Make, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    thing = make("")
    monkeypatch.setattr(thing, "_command", ["/no/such/program"])
    keeping = asyncio.create_task(thing.keep())
    await _until(lambda: len(said) >= 2)
    assert "thing does not start" in said[0] and "/no/such/program" in said[0]
    thing.kill()
    keeping.cancel()


async def test_what_does_not_stop_is_killed(make: Make, said: list[str]) -> None:
    program = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); "
    thing = make(program + "time.sleep(60)")
    keeping = asyncio.create_task(thing.keep())
    await _until(lambda: tail(thing.log) == "1")
    pid = thing.status.pid
    await thing.stop(0.2)
    await keeping
    assert said == ["thing does not stop: killed"]
    assert pid is not None and not psutil.pid_exists(pid)


async def test_a_service_ends_with_its_supervisor(data_dir: Path) -> None:
    """Even one whose supervisor was killed before it could say anything."""
    program = (
        "import os, subprocess, sys, time\n"
        "inner = 'from kaleidoscope.apps.process import end_with_parent; import time;'"
        "'end_with_parent(); time.sleep(60)'\n"
        "env = {**os.environ, 'KALEIDOSCOPE_PARENT': str(os.getpid())}\n"
        "print(subprocess.Popen([sys.executable, '-c', inner], env=env).pid, flush=True)\n"
        "time.sleep(60)"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    service = psutil.Process(int(await parent.stdout.readline()))
    parent.kill()
    await parent.wait()
    await _until(lambda: not service.is_running() or service.status() == psutil.STATUS_ZOMBIE)


def test_delays_grow_up_to_a_limit() -> None:
    delays = [delay_after(failures) for failures in range(1, 12)]
    assert delays[0] == child.FIRST_DELAY and delays[-1] == child.LONGEST_DELAY
    assert delays == sorted(delays)


def test_a_log_that_has_grown_is_moved_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "LOG_BYTES", 10)
    log = tmp_path / "api.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"first of many lines\n")
        rotate(log)
        writer.write(b"second\n")
    assert log.read_bytes() == b"second\n"
    assert (tmp_path / "api.log.1").read_bytes() == b"first of many lines\n"
