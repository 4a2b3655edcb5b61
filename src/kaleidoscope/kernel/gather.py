"""Calls that come at about the same time, done as one: a request or a transaction for many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Gathering(Generic[T, R]):
    """`await gathering(item)` answers what `do` answers for the item.

    `do` takes the items of `seconds`, `most` at a time, and answers one outcome each in their
    order; an outcome that is an exception is raised to its caller, and so is, to every one of
    them, what `do` itself raises.
    """

    def __init__(
        self,
        do: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]],
        *,
        seconds: float = 0.01,
        most: int = 100,
    ) -> None:
        self._do = do
        self._seconds, self._most = seconds, most
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._doing: set[asyncio.Task[None]] = set()

    async def __call__(self, item: T) -> R:
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, outcome))
        if len(self._waiting) >= self._most:
            self.now()
        elif self._timer is None:
            self._timer = loop.call_later(self._seconds, self.now)
        return await outcome

    def now(self) -> None:
        """Wait for no more of them."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lot = [(item, outcome) for item, outcome in self._waiting if not outcome.done()]
        self._waiting = []
        if lot:
            task = asyncio.get_running_loop().create_task(self._settle(lot))
            self._doing.add(task)
            task.add_done_callback(self._doing.discard)

    async def _settle(self, lot: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        outcomes: Sequence[R | Exception]
        try:
            outcomes = await self._do([item for item, _ in lot])
        except Exception as error:
            outcomes = [error] * len(lot)
        for (_, waiting), outcome in zip(lot, outcomes, strict=True):
            if waiting.done():  # its caller has been broken off
                continue
            if isinstance(outcome, Exception):
                waiting.set_exception(outcome)
            else:
                waiting.set_result(outcome)
