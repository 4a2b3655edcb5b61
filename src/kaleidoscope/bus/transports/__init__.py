"""Transports: how messages get from their senders to their consumers, at least once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Protocol

from kaleidoscope.bus.messages import Delivery, Depth, Message
from kaleidoscope.kernel.errors import Unavailable


class TransportError(Unavailable):
    """The transport cannot be reached now; what was asked may or may not have been done."""

    code = "transport"


class Transport(Protocol):
    """What every transport promises; `tests/contracts/test_transport.py` holds each to it.

    A message goes to every group subscribed to its topic. A consumer claims it and has to settle
    it (`ack`, `retry` or `dead_letter`) within `visibility`, or to `extend` it; else it is
    delivered again. Settling or extending a delivery that was lost to another consumer does
    nothing. Every method raises `TransportError` while the transport is away.
    """

    async def subscribe(self, topic: str, group: str, *, ordered: bool = False) -> None:
        """Let a group receive what is sent to a topic from now on. Any number of times.

        `ordered`: no message of a key is claimed while an earlier one of that key is unfinished.
        """

    async def send(self, messages: Sequence[Message]) -> None:
        """Accept messages: when it returns they are safe. All of them or, on an error, none.

        One that is sent again, with the same id, may arrive twice.
        """

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
        """Take up to `limit` messages, the oldest first, out of the sight of other consumers.

        `done` is acknowledged first, by some transports in the same step: it costs them less.
        """

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """They are done."""

    async def retry(
        self, delivery: Delivery, *, delay: timedelta, error: str, count: bool = True
    ) -> None:
        """Deliver it again after `delay`; `count`: as a failure, kept in its history."""

    async def dead_letter(self, delivery: Delivery, cause: str) -> None:
        """Give it up: out of the queue, and into the dead letters with its history."""

    async def extend(self, deliveries: Sequence[Delivery], visibility: timedelta) -> None:
        """Keep them out of sight for `visibility` from now."""

    async def release(self, consumer: str) -> None:
        """Deliver again at once what a consumer of this name claimed in an earlier life."""

    async def wait(self, topics: Collection[str], within: timedelta) -> Collection[str]:
        """Return when something was sent to one of the topics since the last wait: to which.

        All of them, where that is not known; none, after `within`. One caller at a time.
        """

    async def depth(self, topic: str | None = None) -> list[Depth]:
        """How much waits, by topic and group."""

    async def close(self) -> None:
        """Give connections back."""
