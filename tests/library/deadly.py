"""Work for a child process that dies of one kind of file, and is deceived by another."""

from __future__ import annotations

import os
import signal
from typing import Any

from kaleidoscope.library.outside import metadata


def read_files(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if any("deadly" in task["path"] for task in tasks):
        os.kill(os.getpid(), signal.SIGKILL)
    answers = metadata.read_files(tasks)
    for task, answer in zip(tasks, answers, strict=True):
        if "lying" in task["path"]:
            answer["location"] = {"lat": 91, "lon": 0}
    return answers
