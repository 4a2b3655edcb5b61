"""The librarian as a process: files what is put into the inboxes."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from kaleidoscope.apps import process, registry
from kaleidoscope.ingest.service import Librarian
from kaleidoscope.ingest.settings import InboxSettings
from kaleidoscope.kernel.settings import load
from kaleidoscope.library.service import children
from kaleidoscope.ops.service import Health, Heartbeat

GRACE = 10.0  # seconds for what is being filed when the end comes


def main() -> None:
    """Run the librarian until it is told to stop."""
    process.run_until_told("librarian", serve)


async def serve(stop: asyncio.Event) -> None:
    """Keep the inboxes; what is being filed when the end comes is filed first."""
    readers = load(InboxSettings).readers
    async with registry.database() as db, children(readers) as work:
        heart: Heartbeat | None = None

        def told(task: str) -> None:
            if heart is not None:
                heart.current_task = task

        async def health() -> Health:
            trouble = librarian.trouble
            return Health("WARNING", trouble) if trouble else Health("OK")

        librarian = Librarian(db, work, told=told)
        heart = Heartbeat(db, "librarian", check=health)
        async with heart:
            await librarian.open()
            running = asyncio.create_task(librarian.run())
            told_to_stop = asyncio.create_task(stop.wait())
            await asyncio.wait([running, told_to_stop], return_when=asyncio.FIRST_COMPLETED)
            librarian.stopping.set()
            told_to_stop.cancel()
            # A portion that is being filed is filed; one that is being read can be read again.
            await asyncio.wait([running], timeout=GRACE)
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
