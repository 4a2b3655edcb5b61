"""Who hears what: a room's `jobs` lists its handlers, the worker runs them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from kaleidoscope.bus.messages import Delivery, Event
from kaleidoscope.bus.transports import Transport
from kaleidoscope.kernel.db import Database


@dataclass(frozen=True)
class Context:
    """What a handler is given beside its event. It opens its own short transactions."""

    db: Database
    transport: Transport
    delivery: Delivery


@dataclass(frozen=True)
class Handler:
    """`run(context, event)` for every message of `topic`, once in each `group`.

    At least once: the same message may come again, after a crash even while its first run still
    goes on elsewhere, so `run` must be idempotent. It is acknowledged when `run` returns. An
    exception means another try, later and later, until `max_attempts`: then a dead letter. The
    claim is extended while `run` goes on; `visibility` is how long a message of a dead worker
    stays out of sight. `ordered`: one message of a key at a time, in the order they were sent,
    so that one that fails holds back those behind it.
    """

    topic: str
    event: type[Event]
    group: str
    run: Callable[[Context, Any], Awaitable[None]]
    concurrency: int = 1
    visibility: timedelta = timedelta(seconds=60)
    max_attempts: int = 5
    ordered: bool = False


async def subscribe(transport: Transport, handlers: Sequence[Handler]) -> None:
    """Let the groups of these handlers receive what is sent from now on."""
    for handler in handlers:
        await transport.subscribe(handler.topic, handler.group, ordered=handler.ordered)


class Retry(Exception):
    """Raised by a handler: not now. Try again after `delay` (None: the usual back-off).

    With `count=False` it is no failure of the message (a service it needs is away), may happen
    any number of times and leaves nothing in its history.
    """

    def __init__(self, delay: timedelta | None, reason: str, *, count: bool = True) -> None:
        super().__init__(reason)
        self.delay = delay
        self.count = count


class Discard(Exception):
    """Raised by a handler: no further try can help. A dead letter now, with this cause."""
