"""Photos that the ML service has accepted: queued, looked at, delivered.

They live in memory alone. When this process dies, whoever sent them finds their attempts unknown
and sends them again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
import structlog

from kaleidoscope.kernel.errors import NotFound, TooBusy
from kaleidoscope.kernel.gather import Gathering
from kaleidoscope.ml.schemas import AttemptState, ProcessPhoto, State

log = structlog.get_logger(__name__)

KEEP_SECONDS = 600.0
KEEP_MOST = 10_000
RETRY_AFTER = 1
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
GATHER_SECONDS, GATHER_MOST = 0.5, 32  # of results that are delivered together

Body = dict[str, Any]


@dataclass
class Attempt:
    """One photo on its way."""

    request: ProcessPhoto
    state: State = "queued"
    error: str | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    ended_at: float = 0.0

    def told(self) -> AttemptState:
        return AttemptState(attempt_id=self.request.attempt_id, state=self.state, error=self.error)


class Attempts:
    """At most `capacity` attempts that have not ended; `at_once` of them are looked at together.

    `process` makes the callback's body, `deliver` sends it and raises `Undeliverable`.
    """

    def __init__(
        self,
        process: Callable[[ProcessPhoto], Awaitable[Body]],
        deliver: Callable[[ProcessPhoto, Body], Awaitable[None]],
        *,
        capacity: int,
        at_once: int,
    ) -> None:
        self._process, self._deliver = process, deliver
        self._capacity, self._at_once = capacity, at_once
        self._queue: asyncio.Queue[Attempt] = asyncio.Queue()
        self._known: dict[UUID, Attempt] = {}
        self._open = self._looking = 0
        self._some_ended = asyncio.Event()
        self._deliveries: set[asyncio.Task[None]] = set()

    @property
    def open(self) -> int:
        """Attempts that have not ended."""
        return self._open

    @property
    def looking(self) -> int:
        """Those of them that are still to be looked at, or being looked at."""
        return self._looking

    def accept(self, request: ProcessPhoto) -> AttemptState:
        """Queue a photo, once an attempt. `TooBusy` when there are too many already.

        An attempt whose result could not be delivered may be sent again.
        """
        known = self._known.get(request.attempt_id)
        if known is not None and known.state != "undelivered":
            return known.told()
        if self._open >= self._capacity:
            raise TooBusy(
                f"{self._open} photos are waiting already",
                hint="send it again a little later",
                retry_after=RETRY_AFTER,
            )
        self._forget_old()
        attempt = self._known[request.attempt_id] = Attempt(request)
        self._open += 1
        self._looking += 1
        self._queue.put_nowait(attempt)
        return attempt.told()

    async def state(self, attempt_id: UUID, wait: float) -> AttemptState:
        """How an attempt stands, at once when it has ended, at the latest after `wait` seconds.

        `NotFound` for one that was never accepted, or before this process began.
        """
        attempt = self._known.get(attempt_id)
        if attempt is None:
            raise _unknown(attempt_id)
        try:
            async with asyncio.timeout(wait):
                await attempt.ended.wait()
        except TimeoutError:
            pass
        return attempt.told()

    async def states(
        self, attempt_ids: Sequence[UUID], wait: float
    ) -> list[AttemptState | NotFound]:
        """How attempts stand: at once when any of them has ended, or was never accepted."""
        try:
            async with asyncio.timeout(wait):
                while all(self._is_open(attempt_id) for attempt_id in attempt_ids):
                    await self._some_ended.wait()
        except TimeoutError:
            pass
        return [self._told(attempt_id) for attempt_id in attempt_ids]

    def _is_open(self, attempt_id: UUID) -> bool:
        attempt = self._known.get(attempt_id)
        return attempt is not None and not attempt.ended.is_set()

    def _told(self, attempt_id: UUID) -> AttemptState | NotFound:
        attempt = self._known.get(attempt_id)
        return _unknown(attempt_id) if attempt is None else attempt.told()

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._at_once):
                    group.create_task(self._work())
        finally:
            for delivery in self._deliveries:
                delivery.cancel()

    async def _work(self) -> None:
        while True:
            attempt = await self._queue.get()
            attempt.state = "running"
            try:
                body = await self._process(attempt.request)
            except Exception as error:
                self._looking -= 1
                log.exception("photo not processed", photo_id=attempt.request.photo_id)
                self._end(attempt, "undelivered", f"{type(error).__name__}: {error}")
                continue
            self._looking -= 1
            # The next photo need not wait for the API.
            delivery = asyncio.create_task(self._hand_over(attempt, body))
            self._deliveries.add(delivery)
            delivery.add_done_callback(self._deliveries.discard)

    async def _hand_over(self, attempt: Attempt, body: Body) -> None:
        try:
            await self._deliver(attempt.request, body)
        except Undeliverable as error:
            log.warning("callback failed", photo_id=attempt.request.photo_id, error=str(error))
            self._end(attempt, "undelivered", str(error))
        except Exception as error:
            log.exception("callback failed", photo_id=attempt.request.photo_id)
            self._end(attempt, "undelivered", f"{type(error).__name__}: {error}")
        else:
            self._end(attempt, "delivered", (body.get("error") or {}).get("message"))

    def _end(self, attempt: Attempt, state: State, error: str | None) -> None:
        attempt.state, attempt.error, attempt.ended_at = state, error, time.monotonic()
        attempt.ended.set()
        self._some_ended.set()
        self._some_ended.clear()  # who waits has been woken
        self._open -= 1

    def _forget_old(self) -> None:
        """Ended attempts are kept a while, for those who ask late."""
        oldest = time.monotonic() - KEEP_SECONDS
        for attempt_id, attempt in list(self._known.items()):
            too_many = len(self._known) >= KEEP_MOST
            if not (too_many or attempt.ended_at < oldest):
                break  # they lie in the order in which they came
            if attempt.ended.is_set():
                del self._known[attempt_id]


def _unknown(attempt_id: UUID) -> NotFound:
    return NotFound(f"attempt {attempt_id} is unknown here", hint="send the photo again")


class Undeliverable(Exception):
    """A callback that was refused, or not answered for too long."""


async def deliver(client: httpx.AsyncClient, url: str, body: Body, *, patience: float) -> None:
    """POST a callback, again and again for `patience` seconds while nobody answers.

    Raises `Undeliverable` when it is refused, or the time is up.
    """
    end, pause = time.monotonic() + patience, FIRST_PAUSE
    while True:
        try:
            answer = await client.post(url, json=body)
        except httpx.TransportError as error:
            cause = f"{url} does not answer: {error or type(error).__name__}"
        else:
            if answer.is_success:
                return
            cause = f"{url} answered {answer.status_code}: {answer.text[:300]}"
            if answer.status_code != 429 and answer.status_code < 500:
                raise Undeliverable(cause)
        if time.monotonic() + pause > end:
            raise Undeliverable(cause)
        await asyncio.sleep(pause * random.uniform(0.8, 1.2))
        pause = min(2 * pause, LONGEST_PAUSE)


class Deliveries:
    """Sends callbacks: those that come at about the same time in one request, where that is taken.

    What such a request is refused for is told of one of them: then each is sent alone.
    """

    def __init__(
        self, client: httpx.AsyncClient, *, patience: float, none_coming: Callable[[], bool]
    ) -> None:
        """`none_coming` says that there is nothing to wait for."""
        self._client, self._patience, self._none_coming = client, patience, none_coming
        self._gathered: dict[str, Gathering[Body, bool]] = {}

    async def send(self, request: ProcessPhoto, body: Body) -> None:
        """Deliver one callback. Raises `Undeliverable`."""
        if request.callbacks_url is not None:
            together = self._together(request.callbacks_url)
            sent = together(body)
            if self._none_coming():
                asyncio.get_running_loop().call_soon(together.now)
            if await sent:
                return
        await deliver(self._client, request.callback_url, body, patience=self._patience)

    def _together(self, url: str) -> Gathering[Body, bool]:
        if url not in self._gathered:

            async def post(bodies: Sequence[Body]) -> Sequence[bool]:
                return [await self._post(url, bodies)] * len(bodies)

            self._gathered[url] = Gathering(post, seconds=GATHER_SECONDS, most=GATHER_MOST)
        return self._gathered[url]

    async def _post(self, url: str, bodies: Sequence[Body]) -> bool:
        """Whether they have been taken; one alone is sent alone anyway."""
        if len(bodies) == 1:
            return False
        try:
            answer = await self._client.post(url, json={"callbacks": bodies})
        except httpx.TransportError:
            return False
        return answer.is_success
