"""A queue in the memory of one process, for tests: the same promises, gone with the process."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID, uuid4

from kaleidoscope.bus.messages import GROUP, HISTORY, Delivery, Depth, Message
from kaleidoscope.kernel.clock import now


@dataclass
class _Queued:
    """One message that one group has still to handle."""

    message: Message
    available_at: datetime
    enqueued_at: datetime
    history: list[dict[str, Any]]
    failures: int = 0
    lost: int = 0
    receipt: UUID | None = None
    claimed_by: str = ""
    claimed_until: datetime | None = None

    def is_free(self, at: datetime) -> bool:
        return self.available_at <= at if self.claimed_until is None else self.claimed_until <= at

    def note(self, error: str) -> None:
        self.history.append(
            {"time": now().isoformat(), "consumer": self.claimed_by, "error": error}
        )


@dataclass
class _Queue:
    """What one group has of one topic, in order of sending."""

    ordered: bool
    messages: dict[UUID, _Queued] = field(default_factory=dict)

    def candidates(self, at: datetime) -> Iterable[_Queued]:
        held: set[str] = set()
        for queued in self.messages.values():
            if queued.is_free(at) and queued.message.key not in held:
                yield queued
            if self.ordered:
                held.add(queued.message.key)


class MemoryTransport:
    """The `Transport` on dictionaries. `dead` holds (delivery's message, group, cause, history)."""

    def __init__(self) -> None:
        self.dead: list[tuple[Message, str, str, list[dict[str, Any]]]] = []
        self._queues: dict[tuple[str, str], _Queue] = {}
        self._news: set[str] = set()
        self._changed = asyncio.Event()

    async def subscribe(self, topic: str, group: str, *, ordered: bool = False) -> None:
        self._queues.setdefault((topic, group), _Queue(ordered)).ordered = ordered

    async def send(self, messages: Sequence[Message]) -> None:
        for message in messages:
            headers = dict(message.headers)
            only, history = headers.pop(GROUP, None), headers.pop(HISTORY, [])
            carried = Message(
                topic=message.topic,
                key=message.key,
                payload=message.payload,
                id=message.id,
                headers=headers,
            )
            for (topic, group), queue in self._queues.items():
                if topic == message.topic and only in (None, group):
                    queued = _Queued(carried, now(), now(), list(history))
                    queue.messages.setdefault(message.id, queued)
            self._ring(message.topic)

    async def claim(
        self,
        topic: str,
        group: str,
        limit: int,
        *,
        consumer: str,
        visibility: timedelta,
        done: Sequence[Delivery] = (),
    ) -> list[Delivery]:
        await self.ack(done)
        queue = self._queues.get((topic, group))
        at = now()
        chosen = list(islice(queue.candidates(at), limit)) if queue else []
        for queued in chosen:
            if queued.claimed_until is not None:
                queued.lost += 1
                queued.note("the consumer fell silent")
            queued.receipt = uuid4()
            queued.claimed_by, queued.claimed_until = consumer, at + visibility
        return [_delivery(queued, group) for queued in chosen]

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if self._held(delivery):
                self._remove(delivery)

    async def retry(
        self, delivery: Delivery, *, delay: timedelta, error: str, count: bool = True
    ) -> None:
        queued = self._held(delivery)
        if queued:
            if count:
                queued.failures += 1
                queued.note(error)
            queued.claimed_until, queued.available_at = None, now() + delay
            self._ring(delivery.topic)

    async def dead_letter(self, delivery: Delivery, cause: str) -> None:
        queued = self._held(delivery)
        if queued:
            queued.note(cause)
            self.dead.append((queued.message, delivery.group, cause, queued.history))
            self._remove(delivery)

    async def extend(self, deliveries: Sequence[Delivery], visibility: timedelta) -> None:
        for delivery in deliveries:
            queued = self._held(delivery)
            if queued:
                queued.claimed_until = now() + visibility

    async def release(self, consumer: str) -> None:
        for (topic, _), queue in self._queues.items():
            for queued in queue.messages.values():
                if queued.claimed_until is not None and queued.claimed_by == consumer:
                    queued.lost += 1
                    queued.note("the consumer was restarted")
                    queued.claimed_until, queued.available_at = None, queued.enqueued_at
                    self._ring(topic)

    async def wait(self, topics: Collection[str], within: timedelta) -> Collection[str]:
        with suppress(TimeoutError):
            async with asyncio.timeout(within.total_seconds()):
                while self._news.isdisjoint(topics):
                    self._changed.clear()
                    await self._changed.wait()
        heard = self._news.intersection(topics)
        self._news -= heard
        return heard

    async def depth(self, topic: str | None = None) -> list[Depth]:
        return [
            _depth(name, group, list(queue.messages.values()))
            for (name, group), queue in sorted(self._queues.items())
            if topic in (None, name)
        ]

    async def close(self) -> None:
        pass

    def _held(self, delivery: Delivery) -> _Queued | None:
        queue = self._queues.get((delivery.topic, delivery.group))
        queued = queue.messages.get(delivery.id) if queue else None
        mine = queued is not None and queued.claimed_until and queued.receipt == delivery.receipt
        return queued if mine else None

    def _remove(self, delivery: Delivery) -> None:
        del self._queues[delivery.topic, delivery.group].messages[delivery.id]
        self._ring(delivery.topic)

    def _ring(self, topic: str) -> None:
        self._news.add(topic)
        self._changed.set()


def _delivery(queued: _Queued, group: str) -> Delivery:
    return Delivery(
        topic=queued.message.topic,
        key=queued.message.key,
        payload=queued.message.payload,
        id=queued.message.id,
        headers=queued.message.headers,
        group=group,
        attempt=queued.failures + 1,
        lost=queued.lost,
        receipt=queued.receipt,
        enqueued_at=queued.enqueued_at,
    )


def _depth(topic: str, group: str, messages: Sequence[_Queued]) -> Depth:
    at = now()
    waiting = sum(queued.is_free(at) for queued in messages)
    in_flight = sum(q.claimed_until is not None and q.claimed_until > at for q in messages)
    return Depth(
        topic=topic,
        group=group,
        waiting=waiting,
        delayed=len(messages) - waiting - in_flight,
        in_flight=in_flight,
        oldest=min((queued.enqueued_at for queued in messages), default=None),
    )
