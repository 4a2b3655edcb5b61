"""What people do by message and by the clock: have photos recognised, and heal identities."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache
from typing import Any

import httpx
import structlog

from kaleidoscope.bus.handlers import Context, Handler, Retry
from kaleidoscope.kernel import clock, http
from kaleidoscope.kernel.batches import batched
from kaleidoscope.kernel.clock import ClockJob
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import KaleidoscopeError, NotFound, TooBusy, Unavailable
from kaleidoscope.kernel.gather import Gathering
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library
from kaleidoscope.library.events import PhotoToProcess
from kaleidoscope.library.service import LookedAt
from kaleidoscope.ml.catalog import Pack
from kaleidoscope.ml.client import MlClient
from kaleidoscope.ml.schemas import AttemptState, ProcessPhoto
from kaleidoscope.people.service import healing, matching, migrating, review
from kaleidoscope.people.service.healing import Consolidated
from kaleidoscope.people.service.indexing import build_index
from kaleidoscope.people.service.migrating import Migration
from kaleidoscope.people.settings import PeopleSettings

log = structlog.get_logger(__name__)

LONG_POLL = 20.0  # seconds that the ML service may hold the question how an attempt stands
LONGEST_PAUSE = 15.0  # seconds between two tries to reach a service that is away
GROUPS_A_TRANSACTION = 100
SETTLED_SOON = 0.1  # seconds between two tries to consolidate while the scheduler does
LOOK_EVERY = 2.0  # seconds between two looks at how far a migration is
PORTIONS = 20  # of persons and open faces that one search for questions looks at


# ---- recognition -------------------------------------------------------------------------------


class Services:
    """The two services that recognition talks to, over connections that are kept.

    What is asked about several photos at about the same time is asked in one request.
    """

    def __init__(self, api_url: str | None = None, ml: MlClient | None = None) -> None:
        self.api_url = api_url or os.environ.get("KALEIDOSCOPE_API_URL", "http://127.0.0.1:8420")
        self.api = http.client(base_url=self.api_url, timeout=30)
        self.ml = ml or MlClient()
        self.begin = Gathering(self._begin)
        self.process = Gathering(self._process)
        self.state = Gathering(self._states)

    async def _begin(self, events: Sequence[PhotoToProcess]) -> list[str | None]:
        """Mark photos PROCESSING; where each lies now, which is elsewhere if it was filed again.

        None: the attempt has ended or another has taken its place.
        """
        body = {
            "attempts": [
                {"photo_id": event.photo_id, "attempt_id": str(event.attempt_id)}
                for event in events
            ]
        }
        answer = await put(self, "/photos/update-status", body)
        answer.raise_for_status()
        paths = {
            changed["photo_id"]: changed["path"]
            for changed in answer.json()
            if changed["state"] == "started"
        }
        return [paths.get(event.photo_id) for event in events]

    async def _process(
        self, events: Sequence[PhotoToProcess]
    ) -> list[AttemptState | KaleidoscopeError]:
        """Have the ML service look at photos."""
        asked = [
            ProcessPhoto(
                photo_id=event.photo_id,
                path=event.path,
                callback_url=f"{self.api_url}/callback/photo-processed",
                callbacks_url=f"{self.api_url}/callback/photos-processed",
                attempt_id=event.attempt_id,
            )
            for event in events
        ]
        return await self.ml.process_photos(asked)

    async def _states(
        self, events: Sequence[PhotoToProcess]
    ) -> list[AttemptState | KaleidoscopeError]:
        """How attempts stand, once one of them has ended, or after a while."""
        return await self.ml.attempt_states([event.attempt_id for event in events], LONG_POLL)


_services = cache(Services)  # one a process


async def on_photo_to_process(context: Context, event: PhotoToProcess) -> None:
    """The handler of `photos-to-process`."""
    await recognise(_services(), event)


async def recognise(services: Services, event: PhotoToProcess) -> None:
    """See one attempt at a photo through to its end; only then is its message acknowledged.

    The ML service forgets what it had accepted when it dies: then the photo is sent again under
    the same attempt, so that nothing is recorded twice.
    """
    path = await services.begin(event)
    if path is None:
        return
    event = event.model_copy(update={"path": path})
    pause = Pause()
    while True:
        try:
            state = await services.process(event)
            while state.state in ("queued", "running"):
                state = await services.state(event)
        except TooBusy as busy:
            await pause(busy.fields.get("retry_after"))
        except NotFound:
            pause = Pause()  # the service is new and knows nothing of it: at once again
        except Unavailable as away:
            log.warning("the ML service is away", photo_id=event.photo_id, error=str(away))
            await pause()
        except KaleidoscopeError as refusal:
            await _fail(services, event, refusal.code, refusal.message, permanent=True)
            return
        else:
            break
    if state.state == "undelivered":
        await _fail(services, event, "undelivered", state.error or "no cause given")


class Pause:
    """Waits that grow, up to `LONGEST_PAUSE`."""

    def __init__(self) -> None:
        self._next = 0.25

    async def __call__(self, seconds: float | None = None) -> None:
        await asyncio.sleep(min(self._next if seconds is None else seconds, LONGEST_PAUSE))
        self._next *= 2


async def _fail(
    services: Services, event: PhotoToProcess, code: str, message: str, permanent: bool = False
) -> None:
    error = {"code": code, "message": message, "permanent": permanent}
    await _update_status(services, event, {"status": "FAILED", "error": error})


async def _update_status(
    services: Services, event: PhotoToProcess, change: dict[str, Any]
) -> httpx.Response:
    body = {"photo_id": event.photo_id, "attempt_id": str(event.attempt_id), **change}
    answer = await put(services, "/photo/update-status", body)
    if answer.status_code not in (404, 409):  # those: the photo is gone, the attempt void
        answer.raise_for_status()
    return answer


async def put(services: Services, path: str, body: dict[str, Any]) -> httpx.Response:
    """What the API answers. Raises `Retry` while it is away."""
    try:
        answer = await services.api.put(path, json=body)
    except httpx.TransportError as error:
        raise _api_is_away(repr(error)) from error
    if answer.status_code >= 500:
        raise _api_is_away(f"it answered {answer.status_code}")
    return answer


def _api_is_away(why: str) -> Retry:
    return Retry(timedelta(seconds=2), f"the API is away: {why}", count=False)


# ---- consolidation -----------------------------------------------------------------------------


async def consolidate(
    db: Database, *, everybody: bool = False, thorough: bool = False, dry_run: bool = False
) -> Consolidated | None:
    """Merge what arrival order split, split what it merged, and place faces that were open.

    None: nothing had changed. Reads, then thinks outside of any transaction, then settles some
    groups at a time, each time in a transaction of its own. A dry run only tells what would be.
    """
    pack = matching.find_pack(None)
    async with db.transaction() as session:
        await migrating.refuse_half_way(session, pack)
        round_ = await healing.look(session, pack, everybody=everybody, thorough=thorough)
    done = None if round_ is None else await _heal(db, pack, round_, dry_run=dry_run)
    if not dry_run:  # last: else every person settled is entered into the index one by one
        await _index_what_has_grown(db, pack)
    return done


async def _heal(db: Database, pack: Pack, round_: healing.Round, *, dry_run: bool) -> Consolidated:
    """Think about what a round looks at, and settle it."""
    regroupings = await asyncio.to_thread(healing.plan, round_)
    if dry_run:
        return healing.foreseen(round_, regroupings)
    done = Consolidated(changed=len(round_.changed))
    for groups in batched(regroupings, GROUPS_A_TRANSACTION):
        async with db.transaction() as session:
            done += await healing.settle(session, round_, groups, done.round)
    async with db.transaction() as session:
        await healing.finish(session, pack, round_)
    return done


async def _index_what_has_grown(db: Database, pack: Pack) -> None:
    async with db.transaction() as session:
        wanted = await healing.wants_index(session, pack)
    if wanted:
        await build_index(db, pack)


async def consolidate_when_quiet(db: Database) -> Consolidated | None:
    """Consolidate once no photo is on its way; in a long ingest, every so often all the same.

    Persons are told apart best when all their faces are there. On the way from one pack to another
    they are not told apart at all before the last photo has been looked at.
    """
    if not await arrived(db):
        return None
    pack = matching.find_pack(None)
    async with db.transaction() as session:
        overdue = await healing.overdue_since(session, pack)
        if overdue is None:
            return None
        busy = await library.on_their_way(session)
    if busy and clock.now() - overdue < load(PeopleSettings).consolidate_at_least:
        await _index_what_has_grown(db, pack)  # amid a long ingest it is needed most
        return None
    return await consolidate(db)


async def consolidate_thoroughly(db: Database) -> Consolidated | None:
    """Consolidate all who have changed since the last time with all their faces, if nothing else
    is going on.
    """
    if not await arrived(db):
        return None
    async with db.transaction() as session:
        busy = await library.on_their_way(session)
    return None if busy else await consolidate(db, thorough=True)


async def settle(db: Database) -> None:
    """Have consolidated what is to be, as the clock would soon: at once, or in the round that the
    scheduler is in the middle of.
    """
    while not await clock.run_once(db, CONSOLIDATION):  # noqa: ASYNC110 - the scheduler is at it
        await asyncio.sleep(SETTLED_SOON)


# ---- from one pack to another --------------------------------------------------------------------


async def arrived(db: Database) -> bool:
    """Whether all photos have been looked at with the pack in use; then that of packs before it
    goes.
    """
    pack = matching.find_pack(None)
    async with db.transaction() as session:
        if not await migrating.packs_before(session, pack.name):
            return True
        if await migrating.half_way(session, pack):
            return False
    await migrating.finish(db, pack)
    log.info("all photos have been looked at with the pack", pack=pack.name)
    return True


async def migrate(
    db: Database, name: str, tell: Callable[[LookedAt], None] = lambda _: None
) -> Migration:
    """Have all photos looked at with this pack from now on, and see it through to the end.

    The services do the work; `tell` hears how far it is. Whoever is interrupted calls it again:
    what is done is not done again. Raises a `ModelError` or `Invalid` before anything is changed,
    and `Conflict` when the services look with another pack all the same.
    """
    from kaleidoscope.ml import packs  # networks: slow to import

    pack = await asyncio.to_thread(packs.find_whole, name)
    migrating.check(pack)
    await migrating.begin(db, pack)
    await asyncio.to_thread(packs.use, name)
    while True:
        first = await _ask(db, pack)
        if not await _when_quiet(db, pack, first, tell):
            break
    await settle(db)
    async with db.transaction() as session:
        return await migrating.migration(session, pack)


async def _ask(db: Database, pack: Pack) -> list[int]:
    """Have all photos looked at that other packs have looked at; the first of them."""
    first: list[int] = []
    after = 0
    while True:
        async with db.transaction() as session:
            ids = await migrating.ask(session, pack, after)
        if not ids:
            return first
        first, after = first or ids, ids[-1]


async def _when_quiet(
    db: Database, pack: Pack, asked: Sequence[int], tell: Callable[[LookedAt], None]
) -> int:
    """Wait until no photo is on its way; how many are left, which were on their way before.

    Raises `Conflict` when photos that were asked for come back from another pack.
    """
    while True:
        async with db.transaction() as session:
            looked = await library.looked_at_with(session, migrating.models_of(pack))
            await migrating.refuse_others(session, pack, asked)
        tell(looked)
        if not looked.waiting:
            return looked.left
        await asyncio.sleep(LOOK_EVERY)


# ---- questions ---------------------------------------------------------------------------------


async def find_questions(db: Database, portions: int = PORTIONS) -> int:
    """Search for what a person should be asked, some at a time; how many were looked at."""
    pack, looked = matching.find_pack(None), 0
    for _ in range(portions):
        async with db.transaction() as session:
            here = await review.look(session, pack)
        if not here:
            break
        looked += here
    return looked


async def find_questions_when_quiet(db: Database) -> int:
    """Search once no photo is on its way and persons are consolidated: all else would change."""
    pack = matching.find_pack(None)
    async with db.transaction() as session:
        if await migrating.half_way(session, pack):
            return 0
        overdue = await healing.overdue_since(session, pack)
        busy = await library.on_their_way(session)
    if overdue is not None or busy:
        return 0
    return await find_questions(db)


HANDLERS = [
    Handler(
        topic=PhotoToProcess.topic,
        event=PhotoToProcess,
        group="people",
        run=on_photo_to_process,
        concurrency=load(PeopleSettings).photos_in_flight,
    )
]

CONSOLIDATION = ClockJob(
    "consolidate", load(PeopleSettings).consolidate_every, consolidate_when_quiet
)
QUESTIONS = ClockJob("review", load(PeopleSettings).ask_every, find_questions_when_quiet)
THOROUGHLY = ClockJob(
    "consolidate-thoroughly", load(PeopleSettings).consolidate_thoroughly, consolidate_thoroughly
)
CLOCK = [CONSOLIDATION, THOROUGHLY, QUESTIONS]
