"""Small photos, and both ends of ingest in one hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import text

from kaleidoscope.bus.handlers import Context
from kaleidoscope.bus.messages import Delivery
from kaleidoscope.bus.publish import relay
from kaleidoscope.bus.transports import Transport, TransportError
from kaleidoscope.ingest import jobs, service
from kaleidoscope.ingest.events import BatchesToPublish
from kaleidoscope.ingest.schemas import IngestFolder, IngestStatus
from kaleidoscope.kernel.db import Database
from kaleidoscope.library import service as library
from kaleidoscope.library.events import PhotoProcessed, PhotoToProcess, VideoToRead

SUBSCRIBED = [
    *[(handler.topic, handler.group) for handler in jobs.HANDLERS],
    (PhotoToProcess.topic, "people"),
    (VideoToRead.topic, "library"),
]


def photo(number: int, size: int = 300) -> bytes:
    """The beginning of a JPEG file, different for each number."""
    return b"\xff\xd8\xff\xe0" + f"photo {number} ".encode().ljust(size, b".")


def fill(folder: Path, count: int, start: int = 0) -> None:
    """`count` photos in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        (folder / f"{number:04}.jpg").write_bytes(photo(number))


@dataclass
class Workbench:
    """One database, one transport, and both ends of ingest in one hand."""

    db: Database
    transport: Transport
    sent: list[dict[str, Any]] = field(default_factory=list)

    async def order(self, folder: Path, **wishes: Any) -> UUID:
        """A job for a folder."""
        async with self.db.transaction() as session:
            wish = IngestFolder(path=str(folder), **wishes)
            return await service.order(session, wish, anywhere=True)

    async def run(self, job_id: UUID) -> None:
        """Its scan, as its message begins it."""
        await jobs.run_job(self.db, self.transport, job_id)

    async def ingest(self, folder: Path, **wishes: Any) -> IngestStatus:
        """A job and its scan."""
        job_id = await self.order(folder, **wishes)
        await self.run(job_id)
        return await self.status(job_id)

    async def status(self, job_id: UUID) -> IngestStatus:
        """How the job stands."""
        async with self.db.transaction() as session:
            return await service.status(session, job_id)

    async def take(self) -> list[dict[str, Any]]:
        """The messages that ask for photos and videos, taken off the queue."""
        found = []
        for topic, group in ((PhotoToProcess.topic, "people"), (VideoToRead.topic, "library")):
            while deliveries := await self._claim(topic, group):
                found += [delivery.payload for delivery in deliveries]
                await self.transport.ack(deliveries)
        self.sent += found
        return found

    async def recognise(self, **found: Any) -> list[int]:
        """Play the people: every photo asked for is PROCESSED, and ingest is told."""
        messages = await self.take()
        for message in messages:
            async with self.db.transaction() as session:
                await library.finish(
                    session, message["photo_id"], UUID(message["attempt_id"]), **found
                )
        await self.hear()
        return [message["photo_id"] for message in messages]

    async def hear(self) -> list[PhotoProcessed]:
        """Tell ingest what the library has announced."""
        while await relay(self.db, self.transport):
            pass
        heard = []
        while deliveries := await self._claim(PhotoProcessed.topic, jobs.GROUP):
            for delivery in deliveries:
                event = PhotoProcessed.model_validate(delivery.payload)
                async with self.db.transaction() as session:
                    await service.photo_ended(session, event)
                heard.append(event)
            await self.transport.ack(deliveries)
        return heard

    async def hear_again(self) -> int:
        """Have batches published that the clock found; how many messages said so."""
        await self.hear()
        deliveries = await self._claim(BatchesToPublish.topic, jobs.GROUP)
        for delivery in deliveries:
            context = Context(self.db, self.transport, delivery)
            await jobs.publish_again(context, BatchesToPublish.model_validate(delivery.payload))
        await self.transport.ack(deliveries)
        return len(deliveries)

    async def rows(self, query: str, **values: Any) -> list[Any]:
        """What the database says."""
        async with self.db.transaction() as session:
            return list(await session.execute(text(query), values))

    async def value(self, query: str, **values: Any) -> Any:
        """The same, one value."""
        return (await self.rows(query, **values))[0][0]

    async def _claim(self, topic: str, group: str) -> list[Delivery]:
        return await self.transport.claim(
            topic, group, 100, consumer="test", visibility=timedelta(minutes=1)
        )


class Away:
    """A transport that does not answer, for the next `times` sendings."""

    def __init__(self, inner: Transport, times: int = 10**6) -> None:
        self.inner = inner
        self.times = times

    async def send(self, messages: Any) -> None:
        if self.times > 0:
            self.times -= 1
            raise TransportError("the transport is away")
        await self.inner.send(messages)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)
