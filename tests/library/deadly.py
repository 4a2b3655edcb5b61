"""Processes that die: of one kind of file (another deceives them), or killed amid their work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

from kaleidoscope.library.outside import metadata


def killed(program: str, *, after: float) -> None:
    """Run a program that says when it is ready, and kill it so many seconds later."""
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline()
    time.sleep(after)
    child.kill()
    child.communicate()


def read_files(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if any("deadly" in task["path"] for task in tasks):
        os.kill(os.getpid(), signal.SIGKILL)
    answers = metadata.read_files(tasks)
    for task, answer in zip(tasks, answers, strict=True):
        if "lying" in task["path"]:
            answer["location"] = {"lat": 91, "lon": 0}
    return answers
