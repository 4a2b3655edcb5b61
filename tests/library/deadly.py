"""Work for a child process that dies of one kind of file, as a decoder does."""

from __future__ import annotations

import os
import signal
from typing import Any

from kaleidoscope.library.outside import metadata


def read_files(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if any("deadly" in task["path"] for task in tasks):
        os.kill(os.getpid(), signal.SIGKILL)
    return metadata.read_files(tasks)
