"""A worker to be killed: `worker_process.py URL NAME`. Each message takes it a moment."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from typing import ClassVar

from sqlalchemy import text

from kaleidoscope.bus.handlers import Context, Handler
from kaleidoscope.bus.messages import Event
from kaleidoscope.bus.transports.postgres import PostgresTransport
from kaleidoscope.bus.worker import run_worker
from kaleidoscope.kernel.db import Database


class Said(Event):
    topic: ClassVar[str] = "said"
    n: int


async def handle(context: Context, said: Said) -> None:
    await asyncio.sleep(0.05)
    async with context.db.transaction() as session:
        await session.execute(text("INSERT INTO heard (n) VALUES (:n)"), {"n": said.n})


async def main(url: str, name: str) -> None:
    db = Database(url)
    handler = Handler(
        "said", Said, "ears", handle, concurrency=4, visibility=timedelta(seconds=600)
    )
    await run_worker(db, PostgresTransport(db), [handler], name=name)


asyncio.run(main(*sys.argv[1:]))
