"""Services for a command that needs them: those that run, or some that end with it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from kaleidoscope.apps import state
from kaleidoscope.kernel.errors import Unavailable
from kaleidoscope.kernel.terminal import console


@contextmanager
def ensure_running() -> Iterator[str]:
    """The URL of an API that runs; what had to be started for it is stopped at the end."""
    given = os.environ.get("KALEIDOSCOPE_API_URL")
    if given:
        yield given
    elif state.is_held():
        yield _wait_for_other().api_url
    else:
        from kaleidoscope.apps import up as supervision  # the whole product: slow to import
        from kaleidoscope.apps.supervisor import Wishes

        console.print("[dim]starting the services[/]")
        started = supervision.start_detached(Wishes(), end_with_us=True)
        try:
            yield started.api_url
        finally:
            supervision.down()


def _wait_for_other() -> state.Up:
    """The supervisor that somebody else is starting, when it is ready."""
    began = time.monotonic()
    while state.is_held() and time.monotonic() - began < state.READY_WITHIN:
        running = state.running()
        if running is not None and running.ready:
            return running
        time.sleep(0.1)
    raise Unavailable("Kaleidoscope is starting and does not become ready", hint="see its logs")
