"""What the pool's child processes are made to do in tests."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from kaleidoscope.kernel.errors import UnreadableMedia


def do(task: dict[str, Any]) -> Any:
    """One of the functions below, by the task's `do`."""
    return globals()[task.pop("do")](**task)


def echo(value: Any) -> Any:
    print("chatter that must not reach the parent")
    os.write(1, b"nor this")
    return value


def pid(seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return os.getpid()


def niceness() -> int:
    return os.nice(0)


def refuse() -> None:
    raise UnreadableMedia("a.jpg: is damaged", path="a.jpg", reason="damaged")


def stumble() -> None:
    raise ZeroDivisionError("by accident")


def crash(once: str = "") -> str:
    if once:
        if Path(once).exists():
            return "fine now"
        Path(once).touch()
    os.kill(os.getpid(), signal.SIGSEGV)
    return "never"


def hog(megabytes: int) -> int:
    return len(bytearray(megabytes << 20))


def double(number: int) -> int:
    return double_all([number])[0]


def double_all(numbers: list[int]) -> list[Any]:
    """Twice each number; 13 is refused, 666 kills, 3600 takes
    long, 77 wants to be alone. Lots are written down."""
    with Path(os.environ["LOTS"]).open("a") as lots:
        lots.write(f"{len(numbers)} ")
    if 666 in numbers:
        os.kill(os.getpid(), signal.SIGSEGV)
    if 3600 in numbers:
        time.sleep(3600)
    if 77 in numbers and len(numbers) > 1:
        raise MemoryError("too many")
    return [ValueError("unlucky") if number == 13 else 2 * number for number in numbers]


def on_idle() -> None:
    marker = os.environ.get("IDLE_MARKER")
    if marker:
        Path(marker).touch()
