"""Start and stop the whole product: `up` and `down`.

The supervisor starts the embedded PostgreSQL (or uses the URL of the settings), migrates, starts
the services, starts again whatever dies, and stops everything in order: services, then database.
Killed itself, it takes the services with it (each watches its parent); the next `kaleidoscope up`
attaches to the PostgreSQL that is left.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from contextlib import suppress

from kaleidoscope.apps import state
from kaleidoscope.apps.process import PARENT, begin, command
from kaleidoscope.apps.supervisor import Supervisor, Wishes, say
from kaleidoscope.kernel.embedded_postgres import EmbeddedPostgres
from kaleidoscope.kernel.errors import Unavailable
from kaleidoscope.kernel.settings import data_dir

DOWN_WITHIN = 90.0  # seconds


def up(wishes: Wishes) -> int:
    """Run everything until Ctrl-C or SIGTERM (or, `once`, until the folder is in).

    Answers the exit code; raises `Conflict` when this data folder is already served.
    """
    begin("supervisor", calm=True)
    with state.only_one():
        state.end_leftovers()  # of one that was killed: they hold its ports
        try:
            return asyncio.run(_up(wishes))
        finally:
            state.forget()


async def _up(wishes: Wishes) -> int:
    supervisor = Supervisor(wishes)
    told = asyncio.Event()

    def stop() -> None:
        if told.is_set():
            supervisor.kill()
        told.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    work = asyncio.create_task(supervisor.run())
    waiting = asyncio.create_task(told.wait())
    try:
        await asyncio.wait([work, waiting], return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        say("stopping (Ctrl-C again: at once)")
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
        return 0
    finally:
        waiting.cancel()
        await supervisor.stop()


def down() -> bool:
    """Stop the supervisor of this data folder and all it started; whether there was anything."""
    if not state.is_held():
        left = state.end_leftovers()
        state.forget()
        return _stop_left_database() or left > 0
    began = time.monotonic()
    asked = 0
    while state.is_held():
        waited = time.monotonic() - began
        wanted = 1 if waited < DOWN_WITHIN / 2 else 2  # asked again, it kills its services
        if asked < wanted and (running := state.running()):
            with suppress(ProcessLookupError):
                os.kill(running.pid, signal.SIGTERM)
            asked += 1
        if waited > DOWN_WITHIN:
            raise Unavailable("the supervisor does not stop", hint=f"see {state.log_dir()}")
        time.sleep(0.05)
    return True


def _stop_left_database() -> bool:
    """Stop the embedded PostgreSQL of a supervisor that was killed, if it is still there."""
    embedded = EmbeddedPostgres(data_dir() / "postgres")
    if embedded.running_url() is None:
        return False
    embedded.stop()
    return embedded.running_url() is None


def start_detached(wishes: Wishes, *, end_with_us: bool = False) -> state.Up:
    """Start `kaleidoscope up` in the background and wait until it is ready.

    Its console goes to `logs/up.log`. Raises `Conflict` where one runs.
    `end_with_us`: it ends when this process does.
    """
    if state.is_held():
        raise state.taken()
    arguments = ["up", *(["--port", str(wishes.port)] if wishes.port else [])]
    env = {**os.environ, **({PARENT: str(os.getpid())} if end_with_us else {})}
    log = state.log_dir() / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(*arguments),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    while True:
        running = state.running()
        if running is not None and running.pid == process.pid and running.ready:
            return running
        if process.poll() is not None:
            lines = log.read_text(errors="replace").strip().splitlines()
            errors = [line for line in lines if "error" in line] or lines[-1:]
            reason = errors[-1].removeprefix("error: ") if errors else "no reason given"
            raise Unavailable(
                f"Kaleidoscope does not start: {reason}",
                hint=f"see {log}",
            )
        time.sleep(0.05)
