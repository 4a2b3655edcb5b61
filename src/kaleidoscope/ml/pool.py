"""Child processes for what may crash, hang or eat memory: decoders, and networks on their pixels.

One child a core, each with one thread. A child that crashes or takes too long costs the file that
it was at, and nothing else: what it was given together with others is done again, one by one.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import structlog

from kaleidoscope.kernel.errors import KaleidoscopeError, Unavailable
from kaleidoscope.kernel.settings import load
from kaleidoscope.ml.child import LENGTH
from kaleidoscope.ml.settings import MlSettings

log = structlog.get_logger(__name__)

START_SECONDS = 60.0
BACKGROUND = 10  # how far work that nobody waits for steps back (nice)
STOPPED = "the child processes are being stopped"
TRIES = 2  # of a task whose child dies: it may have been killed for another's memory

_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


class Crashed(KaleidoscopeError):
    """The process that worked on a file died of it."""

    code, status, exit_code = "decoder-crashed", 422, 13


class TookTooLong(KaleidoscopeError):
    """A file took more time than one file may."""

    code, status, exit_code = "took-too-long", 422, 14


class WorkFailed(KaleidoscopeError):
    """The work on a file ended with an error that nobody foresaw."""

    code, status, exit_code = "work-failed", 500, 1


class Pool:
    """`size` child processes (0: one a core) that run `work`, spelled "module:function".

    The function takes and returns plain data as JSON has it. Its module's `on_idle()`, where there
    is one, is called when a child has had nothing to do for `idle_seconds`. `memory` is each
    child's limit in megabytes of address space (0: `share_of_memory`), `seconds` what a task may
    take. Of the tasks that wait a child is given up to so many `together`, see `ml.child`.
    `background`: they take what processor time others leave.
    """

    def __init__(
        self,
        work: str,
        *,
        size: int = 0,
        memory: int = 0,
        seconds: float = 60.0,
        idle_seconds: float = 300.0,
        together: int = 1,
        background: bool = False,
    ) -> None:
        self.work = work
        self.size = size or cores()
        self.crashes = 0
        self._seconds = seconds
        memory = memory or share_of_memory(self.size)
        self._arguments = [
            work,
            str(memory),
            str(idle_seconds),
            str(BACKGROUND if background else 0),
        ]
        self._children = [_Child(self._arguments) for _ in range(self.size)]
        self._idle = deque(self._children)  # who waits longest is served first
        self._wishes: deque[_Wish] = deque()
        self.together = together
        self._working: set[asyncio.Task[None]] = set()
        self._closed = False

    async def __aenter__(self) -> Pool:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def run(self, task: Any, *, name: str, first: bool = False) -> Any:
        """What the function answers to `task`; `name` is what errors call it, a file's path mostly.
        `first`: before all that wait.

        Raises the `KaleidoscopeError` that the function raised, `WorkFailed` for any other,
        `Crashed` when a child died of the task (tried twice), `TookTooLong`, `Unavailable` when
        children cannot be started.
        """
        if self._closed:
            raise Unavailable(STOPPED)
        wish = _Wish(task, name, asyncio.get_running_loop().create_future())
        (self._wishes.appendleft if first else self._wishes.append)(wish)
        self._hand_out()
        return self._outcome(await wish.answer, name)

    async def warm(self) -> None:
        """Start every child now instead of with its first task."""
        await asyncio.gather(*(child.started() for child in self._children if not child.busy))

    async def close(self) -> None:
        """End every child at once; tasks under way end with `Unavailable`."""
        self._closed = True
        while self._wishes:
            self._wishes.popleft().refuse(Unavailable(STOPPED))
        for child in self._children:
            child.kill()
        await asyncio.gather(*(child.gone() for child in self._children))
        await asyncio.gather(*self._working)

    def _hand_out(self) -> None:
        """Give those who are idle what waits, to each about as much as to the others."""
        while self._idle and self._wishes:
            number = min(self.together, -(-len(self._wishes) // len(self._idle)))
            those = [self._wishes.popleft() for _ in range(number)]
            if wanted := [wish for wish in those if not wish.answer.cancelled()]:
                work = asyncio.create_task(self._work(self._idle.popleft(), wanted))
                self._working.add(work)
                work.add_done_callback(self._working.discard)

    async def _work(self, child: _Child, wishes: Sequence[_Wish]) -> None:
        try:
            if len(wishes) == 1 or not await self._done_together(child, wishes):
                for wish in wishes:
                    if not wish.answer.done():
                        await self._done_alone(child, wish)
        finally:
            for wish in wishes:  # who still waits would wait for ever
                wish.refuse(Unavailable(STOPPED))
            if child.busy:  # its answer would be taken for the next task's
                child.kill()
            self._idle.append(child)
            if not self._closed:
                self._hand_out()

    async def _done_together(self, child: _Child, wishes: Sequence[_Wish]) -> bool:
        """Whether they are answered; else each is to be done alone, to see whose fault it is.

        They may take as long as one: they hardly ever do, and one that hangs holds up the others.
        """
        try:
            answers = await self._asked(child, wishes)
        except Unavailable as error:
            for wish in wishes:
                wish.refuse(error)
            return True
        except (EOFError, ConnectionError):
            await self._ended(child, wishes, tried_again=True)
            return False
        except Exception:  # it takes too long, cannot be started, answers nonsense
            child.kill()
            return False
        for wish, answer in zip(wishes, answers, strict=True):
            wish.fulfil(answer)
        return True

    async def _done_alone(self, child: _Child, wish: _Wish) -> None:
        try:
            wish.fulfil(await self._tried(child, wish))
        except Exception as error:
            wish.refuse(error)

    async def _tried(self, child: _Child, wish: _Wish) -> dict[str, Any]:
        name = wish.name
        for left in reversed(range(TRIES)):
            try:
                (answer,) = await self._asked(child, [wish])
                return answer
            except TimeoutError:
                child.kill()
                raise TookTooLong(
                    f"{name}: took longer than {self._seconds:g} s", path=name
                ) from None
            except (EOFError, ConnectionError):
                end = await self._ended(child, [wish], tried_again=left > 0)
                if not (left or self._closed):
                    raise Crashed(f"{name}: decoder crashed ({end})", path=name) from None
        raise Unavailable(STOPPED)

    async def _asked(self, child: _Child, wishes: Sequence[_Wish]) -> list[dict[str, Any]]:
        """As many answers. A child is killed over what nobody waits for any more."""

        def nobody_waits() -> bool:
            return self._closed or all(wish.answer.cancelled() for wish in wishes)

        def given_up(_: object) -> None:
            if child.busy and nobody_waits():
                child.kill()

        if not nobody_waits():
            await child.started()
        if nobody_waits():  # while it started, too, when there was nothing to kill
            child.kill()
            raise Unavailable(STOPPED)
        for wish in wishes:
            wish.answer.add_done_callback(given_up)
        try:
            async with asyncio.timeout(self._seconds):
                answers = await child.ask([wish.task for wish in wishes])
        finally:
            for wish in wishes:
                wish.answer.remove_done_callback(given_up)
        if len(answers) != len(wishes):
            raise ValueError(f"{len(answers)} answers to {len(wishes)} tasks")
        return answers

    async def _ended(self, child: _Child, wishes: Sequence[_Wish], *, tried_again: bool) -> str:
        """How a child ended, in words; noted unless that was our will."""
        end = await child.gone()
        names = [wish.name for wish in wishes if not wish.answer.cancelled()]
        if names and not self._closed:
            self.crashes += 1
            log.warning("child process died", tasks=names, end=end, tried_again=tried_again)
        return end

    def _outcome(self, answer: dict[str, Any], name: str) -> Any:
        if "result" in answer:
            return answer["result"]
        told = answer["error"]
        for kind in _kinds(KaleidoscopeError):
            if kind.code == told["code"]:
                raise kind(told["message"], hint=told["hint"], **told["fields"])
        raise WorkFailed(f"{name}: {told['message']}", path=name)


def photo_pool(work: str) -> Pool:
    """Children that look at photos, by the settings of `[ml]`."""
    settings = load(MlSettings)
    return Pool(
        work,
        size=settings.processes,
        memory=settings.process_memory,
        seconds=settings.photo_seconds,
        idle_seconds=settings.idle_seconds,
        together=settings.batch,
    )


@dataclass(frozen=True)
class _Wish:
    """A task, and whoever waits for its answer; nobody may wait any more."""

    task: Any
    name: str
    answer: asyncio.Future[dict[str, Any]]

    def fulfil(self, answer: dict[str, Any]) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    def refuse(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class _Child:
    """One process, started when it is first needed and again after its death."""

    def __init__(self, arguments: list[str]) -> None:
        self.busy = False
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None
        self._dying: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()

    async def started(self) -> None:
        async with self._starting:
            if self._process is None or self._process.returncode is not None:
                self._process = await self._start()

    async def ask(self, tasks: Sequence[Any]) -> list[dict[str, Any]]:
        """An answer to each. EOFError or ConnectionError when the process dies over them."""
        assert self._process is not None and self._process.stdin is not None
        self.busy = True
        request = json.dumps(tasks).encode()
        self._process.stdin.write(LENGTH.pack(len(request)) + request)
        await self._process.stdin.drain()
        answers = await _frame(self._process)
        self.busy = False
        return answers

    def kill(self) -> None:
        self._dying, self._process, self.busy = self._process or self._dying, None, False
        if self._dying is not None and self._dying.returncode is None:
            self._dying.kill()

    async def gone(self) -> str:
        """Wait for its end; how it ended, in words."""
        self._dying, self._process, self.busy = self._process or self._dying, None, False
        if self._dying is None:
            return "never started"
        code = await self._dying.wait()
        return f"exit code {code}" if code >= 0 else f"signal {-code}, {signal.Signals(-code).name}"

    async def _start(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "kaleidoscope.ml.child"),
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **_ONE_THREAD},
        )
        try:
            async with asyncio.timeout(START_SECONDS):
                await _frame(process)
        except (EOFError, TimeoutError) as error:
            if process.returncode is None:
                process.kill()
            await process.wait()
            raise Unavailable(
                f"a child process for {self._arguments[0]} does not start",
                hint="the log of this service says why",
            ) from error
        except BaseException:
            process.kill()
            raise
        return process


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def share_of_memory(children: int) -> int:
    """Megabytes for each of so many children: half of this machine's or container's memory for all
    of them, from 2 to 8 GB each.
    """
    total = int(psutil.virtual_memory().total)
    with suppress(OSError, ValueError):  # "max", or no control groups
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return max(2048, min(8192, total // 2**21 // children))


async def _frame(process: asyncio.subprocess.Process) -> list[dict[str, Any]]:
    assert process.stdout is not None
    (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
    answers: list[dict[str, Any]] = json.loads(await process.stdout.readexactly(length))
    return answers


def _kinds(kind: type[KaleidoscopeError]) -> Iterator[type[KaleidoscopeError]]:
    yield kind
    for sub in kind.__subclasses__():
        yield from _kinds(sub)
