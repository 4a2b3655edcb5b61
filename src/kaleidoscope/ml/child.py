"""A child process of `ml.pool`: `python -m kaleidoscope.ml.child WORK MEGABYTES IDLE NICE`.

`WORK` is spelled MODULE:FUNCTION. Where the module has FUNCTION_all as well, that one is given
tasks that come together, and answers with a list of results and errors.

It reads lists of tasks on stdin and writes as many answers on stdout, each list a length (4 bytes,
big-endian) and as much JSON: a decoder that has been taken over by a file can answer nonsense, but
run nothing in its parent. It ends when its parent does.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import queue
import resource
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import IO, Any

from kaleidoscope.kernel.errors import KaleidoscopeError

LENGTH = struct.Struct(">I")
_PR_SET_PDEATHSIG = 1

Many = Callable[[list[Any]], Iterable[Any]]


def main() -> None:
    """Work until stdin ends."""
    work, megabytes, idle = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    _die_with_parent()
    os.nice(int(sys.argv[4]))
    answers = _own_pipes()
    _limit_memory(megabytes)
    name, _, function = work.partition(":")
    module = importlib.import_module(name)
    one: Callable[[Any], Any] = getattr(module, function)
    many: Many | None = getattr(module, f"{function}_all", None)
    on_idle: Callable[[], object] = getattr(module, "on_idle", _nothing)
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=[tasks], daemon=True).start()
    write_frame(answers, b"[]")  # ready
    while True:
        try:
            those = tasks.get(timeout=idle)
        except queue.Empty:
            on_idle()
        else:
            write_frame(answers, json.dumps(_answers(one, many, json.loads(those))).encode())


def write_frame(file: IO[bytes], content: bytes) -> None:
    """One message with its length before it."""
    file.write(LENGTH.pack(len(content)) + content)
    file.flush()


def _answers(
    one: Callable[[Any], Any], many: Many | None, tasks: list[Any]
) -> list[dict[str, Any]]:
    """Together, where that is possible; what goes wrong with all of them, one by one."""
    if many is not None and len(tasks) > 1:
        with suppress(Exception):
            return [_told(answer) for answer in many(tasks)]
    return [_told(_outcome(one, task)) for task in tasks]


def _outcome(function: Callable[[Any], Any], task: Any) -> Any:
    """What a function answers, or the error."""
    try:
        return function(task)
    except Exception as error:
        return error


def _told(answer: Any) -> dict[str, Any]:
    """A result, or an error, as data."""
    if isinstance(answer, KaleidoscopeError):
        fields = {k: v for k, v in answer.fields.items() if isinstance(v, str | int | float)}
        told = {"code": answer.code, "message": answer.message, "hint": answer.hint}
        return {"error": {**told, "fields": fields}}
    if isinstance(answer, Exception):
        traceback.print_exception(answer)
        return {"error": {"code": "", "message": f"{type(answer).__name__}: {answer}"}}
    return {"result": answer}


def _read(tasks: queue.SimpleQueue[bytes]) -> None:
    """Read tasks; the end of stdin is the end of the parent, whatever the main thread is at."""
    stdin = sys.stdin.buffer
    while head := stdin.read(LENGTH.size):
        tasks.put(stdin.read(*LENGTH.unpack(head)))
    os._exit(0)


def _own_pipes() -> IO[bytes]:
    """The pipe to the parent, out of reach of libraries that print; their chatter goes nowhere."""
    answers = os.fdopen(os.dup(1), "wb")
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    return answers


def _die_with_parent() -> None:
    """Where the kernel can: die even in the middle of C code when the parent is killed."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit_memory(megabytes: int) -> None:
    with suppress(ValueError, OSError):  # systems that know no such limit
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _nothing() -> None:
    pass


if __name__ == "__main__":
    main()
