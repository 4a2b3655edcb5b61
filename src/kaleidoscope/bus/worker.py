"""The worker: runs handlers, each as many at once as it allows, through crashes and outages.

A lane a handler claims messages, runs them side by side and settles each by what its handler did.
What a handler finished is acknowledged together with the others that finished meanwhile. Nothing
that goes wrong in a handler, the transport or the database ends the worker: it waits and goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial

import structlog
from pydantic import ValidationError

from kaleidoscope.bus.handlers import Context, Discard, Handler, Retry, subscribe
from kaleidoscope.bus.listener import Listener
from kaleidoscope.bus.messages import Delivery, Event
from kaleidoscope.bus.publish import relay
from kaleidoscope.bus.queries import OUTBOX_CHANNEL
from kaleidoscope.bus.rules import back_off, describe, is_outage
from kaleidoscope.bus.transports import Transport
from kaleidoscope.kernel.db import Database

log = structlog.get_logger(__name__)

# Notifications wake the worker; it looks by itself as often for what fell due and what it missed.
POLL = timedelta(seconds=1)
# Of a handler's places, the share that is free before more messages are claimed for them.
CLAIM_SHARE = 4
# So long the relay lets messages gather: a transaction for each would cost more than it carries.
GATHER = 0.05  # seconds
RELAYED_AT_ONCE = 500
# A message that took so many consumers with it is to blame itself.
MOST_LOST = 20
HAND_BACK_WITHIN = 5.0  # seconds; later the claims run out by themselves


async def run_worker(
    db: Database,
    transport: Transport,
    handlers: Sequence[Handler],
    *,
    name: str,
    stop: asyncio.Event | None = None,
    grace: timedelta = timedelta(seconds=20),
) -> None:
    """Run handlers, and relay the outbox, until `stop` is set.

    Then nothing new is claimed; what runs has `grace` to end, and is handed back after that.
    `name` must be this worker's alone and the same after a restart: what an earlier life of it
    had claimed is delivered again at once.
    """
    stop = stop or asyncio.Event()
    if not await _surely("start", partial(_begin, transport, handlers, name), stop):
        return
    lanes = [_Lane(db, transport, handler, name) for handler in handlers]
    background = [
        asyncio.create_task(_relay_forever(db, transport), name="relay"),
        asyncio.create_task(_wake_forever(transport, lanes), name="wake"),
    ]
    try:
        async with asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(lane.run(stop, grace), name=f"lane {lane.handler.topic}")
            await stop.wait()
            _wake(lanes)
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)


class _Lane:
    """One handler's messages in this worker."""

    def __init__(self, db: Database, transport: Transport, handler: Handler, name: str) -> None:
        self.handler = handler
        self.wake = asyncio.Event()
        self._db = db
        self._transport = transport
        self._name = name
        self._running: dict[asyncio.Task[None], Delivery] = {}
        self._finished: list[Delivery] = []

    async def run(self, stop: asyncio.Event, grace: timedelta) -> None:
        extender = asyncio.create_task(self._extend_forever())
        try:
            while not stop.is_set():
                self.wake.clear()
                await _surely("claim", self._turn, stop)
                await self.wake.wait()
            if self._running:
                await asyncio.wait(self._running, timeout=grace.total_seconds())
        finally:
            extender.cancel()
            await self._hand_back()

    async def _turn(self) -> None:
        """Acknowledge what is finished, and fill the free places."""
        handler, free = self.handler, self.handler.concurrency - len(self._running)
        if self._running and free < max(1, handler.concurrency // CLAIM_SHARE):
            return  # a claim costs the same for one message and for some
        done = list(self._finished)
        claimed = await self._transport.claim(
            handler.topic,
            handler.group,
            free,
            consumer=self._name,
            visibility=handler.visibility,
            done=done,
        )
        del self._finished[: len(done)]  # those that came meanwhile stand behind them
        for delivery in claimed:
            task = asyncio.create_task(self._attempt(delivery), name=f"message {delivery.id}")
            self._running[task] = delivery
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self.wake.set()

    async def _attempt(self, delivery: Delivery) -> None:
        """Handle one delivery; unless it is done, see to it what becomes of it."""
        settle = await self._handle(delivery)
        if settle is None:
            self._finished.append(delivery)
        else:
            await _surely("settle", settle)

    async def _handle(self, delivery: Delivery) -> Callable[[], Awaitable[None]] | None:
        """Run the handler. Answers how to settle the delivery; None: it is done."""
        try:
            event = self._event(delivery)
            await self.handler.run(Context(self._db, self._transport, delivery), event)
        except Discard as discard:
            return self._give_up(delivery, str(discard))
        except Retry as retry:
            return self._again(delivery, str(retry), retry.delay, retry.count)
        except Exception as error:
            counts = not is_outage(error)
            log.warning("handler failed", exc_info=counts, error=str(error), **_names(delivery))
            return self._again(delivery, describe(error), None, counts)
        return None

    def _event(self, delivery: Delivery) -> Event:
        if delivery.lost >= MOST_LOST:
            raise Discard(f"{delivery.lost} workers died or fell silent while handling it")
        try:
            return self.handler.event.model_validate(delivery.payload)
        except ValidationError as error:
            raise Discard(f"not a message of {delivery.topic}: {error}") from error

    def _again(
        self, delivery: Delivery, error: str, delay: timedelta | None, count: bool
    ) -> Callable[[], Awaitable[None]]:
        if count and delivery.attempt >= self.handler.max_attempts:
            return self._give_up(delivery, error)
        pause = delay if delay is not None else back_off(delivery.attempt)
        return partial(self._transport.retry, delivery, delay=pause, error=error, count=count)

    def _give_up(self, delivery: Delivery, cause: str) -> Callable[[], Awaitable[None]]:
        log.error("message becomes a dead letter", cause=cause, **_names(delivery))
        return partial(self._transport.dead_letter, delivery, cause)

    async def _extend_forever(self) -> None:
        """Keep what is in hand out of the sight of others; twice in a row it may fail to."""
        visibility = self.handler.visibility
        while True:
            await asyncio.sleep(visibility.total_seconds() / 3)
            await _surely("extend", lambda: self._transport.extend(self._in_hand(), visibility))

    def _in_hand(self) -> list[Delivery]:
        return [*self._running.values(), *self._finished]

    async def _hand_back(self) -> None:
        """Break off what still runs, and let others have it at once."""
        broken_off = dict(self._running)
        for task in broken_off:
            task.cancel()
        await asyncio.gather(*broken_off, return_exceptions=True)
        try:
            async with asyncio.timeout(HAND_BACK_WITHIN):
                await self._transport.ack(self._finished)
                for delivery in broken_off.values():
                    await self._transport.retry(
                        delivery, delay=timedelta(0), error="the worker stopped", count=False
                    )
        except Exception as error:
            log.warning("claims are left to run out", error=describe(error))


async def _begin(transport: Transport, handlers: Sequence[Handler], name: str) -> None:
    await subscribe(transport, handlers)
    await transport.release(name)


async def _relay_forever(db: Database, transport: Transport) -> None:
    async def empty() -> None:
        while await relay(db, transport, RELAYED_AT_ONCE) == RELAYED_AT_ONCE:
            pass

    listener = Listener(db.url, OUTBOX_CHANNEL)
    try:
        while True:
            await _surely("relay", empty)
            await asyncio.sleep(GATHER)
            await listener.wait({""}, POLL)
    finally:
        await listener.close()


async def _wake_forever(transport: Transport, lanes: Sequence[_Lane]) -> None:
    """Wake the lanes whose topic is spoken of, and every so often all of them."""
    topics = {lane.handler.topic for lane in lanes}
    heard: Collection[str] = topics

    async def listen() -> None:
        nonlocal heard
        heard = await transport.wait(topics, POLL)

    looked = time.monotonic()
    while True:
        await _surely("wait", listen)
        if time.monotonic() - looked >= POLL.total_seconds():
            heard, looked = topics, time.monotonic()
        _wake([lane for lane in lanes if lane.handler.topic in heard])


def _wake(lanes: Sequence[_Lane]) -> None:
    for lane in lanes:
        lane.wake.set()


async def _surely(
    what: str, do: Callable[[], Awaitable[None]], stop: asyncio.Event | None = None
) -> bool:
    """Do it, again and again until it succeeds. False: `stop` was set and it did not."""
    never = asyncio.Event()
    failures = 0
    while True:
        try:
            await do()
        except Exception as error:
            failures += 1
            pause = back_off(min(failures, 4)).total_seconds()
            log.warning("worker waits", to=what, error=describe(error), seconds=round(pause, 1))
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await (stop or never).wait()
                return False
        else:
            return True


def _names(delivery: Delivery) -> dict[str, object]:
    return {
        "topic": delivery.topic,
        "group": delivery.group,
        "message": str(delivery.id),
        "attempt": delivery.attempt,
    }
