"""One service as a child process that is started again whenever it ends."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from kaleidoscope.apps import state
from kaleidoscope.apps.process import LISTEN, PARENT, command

HEALTHY_AFTER = 20.0  # seconds of life after which an end counts as the first one
FIRST_DELAY = 0.2
LONGEST_DELAY = 15.0
LOOPING_AFTER = 3  # ends in a row
LOG_BYTES = 10 << 20  # a log that is larger is moved to `.1`
ROTATE_EVERY = 60.0


def delay_after(failures: int) -> float:
    """Seconds before the next start, after so many ends in a row."""
    return float(min(FIRST_DELAY * 2 ** max(0, failures - 1), LONGEST_DELAY))


class Child:
    """`kaleidoscope run ARGUMENTS`, kept alive by `keep` until `stop`.

    Its output goes to `logs/NAME.log`. `changed` is called whenever `status` has changed, `say`
    with a line for people. It inherits `listener`, which stays the supervisor's.
    """

    def __init__(
        self,
        name: str,
        arguments: list[str],
        env: Mapping[str, str],
        *,
        say: Callable[[str], None],
        changed: Callable[[], None],
        listener: socket.socket | None = None,
    ) -> None:
        self.name = name
        self.status = state.Service()
        self.log = state.log_dir() / f"{name}.log"
        self._command = command("run", *arguments)
        self._env = {**os.environ, **env, PARENT: str(os.getpid())}
        self._fds = [listener.fileno()] if listener else []
        if listener:
            self._env[LISTEN] = str(listener.fileno())
        self._say = say
        self._changed = changed
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False

    async def keep(self) -> None:
        """Start it, and again whenever it ends, with growing delays while it does so at once."""
        failures = 0
        while not self._stopping:
            began = time.monotonic()
            try:
                end = _how(await self._run())
            except OSError as error:  # no memory, no process, no disk
                end = f"does not start: {error}"
            if self._stopping:
                break
            failures = 1 if time.monotonic() - began > HEALTHY_AFTER else failures + 1
            delay = delay_after(failures)
            self._report(end, failures, delay)
            await asyncio.sleep(delay)
        self._set("stopped", None)

    async def stop(self, grace: float) -> None:
        """Ask it to end, and end it after `grace` seconds; the last signal is SIGKILL."""
        self._stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace):
                await process.wait()
        except TimeoutError:
            self._say(f"{self.name} does not stop: killed")
            self.kill()
            await process.wait()

    def kill(self) -> None:
        """End it at once."""
        self._stopping = True
        self._signal(signal.SIGKILL)

    async def _run(self) -> int:
        rotate(self.log)
        with self.log.open("ab") as output:
            # A group of its own: a Ctrl-C on the terminal is the supervisor's to hand on, in order.
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env=self._env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
                pass_fds=self._fds,
            )
        with suppress(psutil.Error):
            self.status.born = psutil.Process(self._process.pid).create_time()
        self._set("running", self._process.pid)
        caring = asyncio.create_task(self._care())
        try:
            return await self._process.wait()
        finally:
            caring.cancel()

    async def _care(self) -> None:
        """While it lives: forget its trouble when it has settled, and keep its log small."""
        await asyncio.sleep(HEALTHY_AFTER)
        self.status.trouble = None
        self._changed()
        while True:
            rotate(self.log)
            await asyncio.sleep(ROTATE_EVERY)

    def _report(self, end: str, failures: int, delay: float) -> None:
        self.status.restarts += 1
        if failures >= LOOPING_AFTER:
            self.status.trouble = f"{end}, {failures} times in a row: {tail(self.log)}"
            self._say(f"{self.name} {self.status.trouble} (see {self.log}); again in {delay:.0f} s")
        else:
            self._say(f"{self.name} {end}; started again")
        self._set("waiting", None)

    def _set(self, now: str, pid: int | None) -> None:
        self.status.state = now  # type: ignore[assignment]
        self.status.pid = pid
        self._changed()

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)


def _how(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"


def rotate(log: Path) -> None:
    """Move the content of a log that has grown too large to `.1`; its writers go on appending."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        shutil.copyfile(log, log.with_name(log.name + ".1"))
        os.truncate(log, 0)


def tail(log: Path) -> str:
    """The last line of a log that says something."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    except OSError:
        return ""
    return next((line for line in reversed(lines) if line), "")
