"""A library in which nothing but ingest is at work."""

from __future__ import annotations

from pathlib import Path

import pytest
from workbench import SUBSCRIBED, Workbench

from kaleidoscope.bus.transports.memory import MemoryTransport
from kaleidoscope.kernel.db import Database


@pytest.fixture
async def bench(db: Database, data_dir: Path) -> Workbench:
    """The room, empty, on the transport in memory."""
    transport = MemoryTransport()
    for topic, group in SUBSCRIBED:
        await transport.subscribe(topic, group)
    return Workbench(db, transport)
