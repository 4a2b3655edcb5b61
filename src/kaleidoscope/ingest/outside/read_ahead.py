"""The scan in a thread of its own, ahead of the database by a bounded queue."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from kaleidoscope.ingest.outside.scan import Item, Trouble
from kaleidoscope.library.service import ScannedFile

CHUNKS_AHEAD = 4
LONGEST = 0.25  # seconds that a chunk is collected: a slow disk's files do not wait for it to fill
PATIENCE = 0.5  # seconds between two looks at whether anybody still wants more


@dataclass
class Chunk:
    """What a scan found next: files, troubles, and how much it passed over by cause."""

    files: list[ScannedFile] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def add(self, item: Item) -> None:
        """Sort one item in."""
        if isinstance(item, ScannedFile):
            self.files.append(item)
        elif isinstance(item, Trouble):
            self.troubles.append(item)
            self.skipped[item.code] += 1
        else:
            self.skipped[item.cause] += 1


@asynccontextmanager
async def read_ahead(items: Iterator[Item], size: int) -> AsyncIterator[AsyncIterator[Chunk]]:
    """Chunks of at most `size` files, collected in a thread that ends with the context.

    While the disk is slow an empty chunk comes now and then, so that the reader can look whether
    it should go on. What `items` raises is raised to the reader.
    """
    reader = _Reader(items, size)
    thread = threading.Thread(target=reader.run, name="scan", daemon=True)
    thread.start()
    try:
        yield reader.chunks()
    finally:
        reader.stop.set()


class _Reader:
    def __init__(self, items: Iterator[Item], size: int) -> None:
        self.stop = threading.Event()
        self._items = items
        self._size = size
        self._queue: queue.Queue[Chunk | BaseException | None] = queue.Queue(CHUNKS_AHEAD)

    def run(self) -> None:
        try:
            self._collect()
        except BaseException as error:
            self._put(error)
        else:
            self._put(None)

    def _collect(self) -> None:
        chunk, began = Chunk(), time.monotonic()
        for item in self._items:
            chunk.add(item)
            if len(chunk.files) >= self._size or time.monotonic() - began > LONGEST:
                self._put(chunk)
                chunk, began = Chunk(), time.monotonic()
            if self.stop.is_set():
                return
        self._put(chunk)

    def _put(self, item: Chunk | BaseException | None) -> None:
        while not self.stop.is_set():
            with suppress(queue.Full):
                self._queue.put(item, timeout=PATIENCE)
                return

    async def chunks(self) -> AsyncIterator[Chunk]:
        while True:
            try:
                found = await asyncio.to_thread(self._queue.get, True, PATIENCE)
            except queue.Empty:
                yield Chunk()
                continue
            if found is None:
                return
            if isinstance(found, BaseException):
                raise found
            yield found
