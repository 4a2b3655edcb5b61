"""How it is going: services, their history, queues, dead letters, failures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.bus import service as bus
from kaleidoscope.bus.messages import DeadLetter
from kaleidoscope.kernel import migrate
from kaleidoscope.kernel.errors import DatabaseError, NotFound
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library
from kaleidoscope.ops import queries, rules
from kaleidoscope.ops.rules import Spell
from kaleidoscope.ops.schemas import (
    Failure,
    Overview,
    Queue,
    Segment,
    ServiceHistory,
    ServicesHistory,
    ServiceStatus,
    Uptime,
    Uptimes,
)
from kaleidoscope.ops.settings import OpsSettings

SHOWN = 20  # failures in an overview


async def services(session: AsyncSession) -> list[ServiceStatus]:
    """Every service with its colour by its word and the age of its last heartbeat."""
    settings = load(OpsSettings)
    return [
        ServiceStatus(
            **{name: value for name, value in row.items() if name != "age"},
            age_seconds=round(row["age"].total_seconds(), 1),
            colour=rules.colour(
                row["age"],
                row["status"],
                interval=timedelta(seconds=row["interval_seconds"]),
                green_for=timedelta(seconds=settings.green_seconds),
                yellow_for=timedelta(seconds=settings.yellow_seconds),
            ),
        )
        for row in await queries.services(session)
    ]


async def overview(session: AsyncSession) -> Overview:
    """How the whole is going: services, photos, queues, dead letters, failures."""
    return Overview(
        services=await services(session),
        photos=await library.counts(session),
        queue=[Queue.model_validate(vars(depth)) for depth in await bus.topic_depths(session)],
        outbox=await bus.outbox_size(session),
        dead_letters=sum((await bus.count_dead(session)).values()),
        failed=[Failure.model_validate(photo) for photo in await library.failed(session, SHOWN)],
        stuck=[Failure.model_validate(photo) for photo in await library.stuck(session, SHOWN)],
    )


async def history(
    session: AsyncSession, hours: float, service: str | None = None
) -> ServicesHistory:
    """What each service, or one, was like in the last hours. Raises `NotFound` for an unknown."""
    end = await queries.moment(session)
    start = end - timedelta(hours=hours)
    known = await queries.first_heard_of(session, service)
    if service is not None and service not in known:
        raise NotFound(
            f"no service {service!r} was ever heard of",
            hint="`kaleidoscope status` has all",
            service=service,
        )
    spells = defaultdict(list)
    for row in await queries.spells(session, start, end, service):
        values = dict(row)
        spells[values.pop("service_name")].append(Spell(**values))
    return ServicesHistory(
        since=start,
        until=end,
        services=[_history(name, known[name], spells[name], start, end) for name in sorted(known)],
    )


def _history(
    name: str, first: datetime, spells: Sequence[Spell], start: datetime, end: datetime
) -> ServiceHistory:
    if first < start and (not spells or spells[0].first > start):
        # It was heard of before this window's reach: it is silent until it is heard again.
        long_ago = Spell("OK", first, first, timedelta(0))
        spells = [long_ago, *spells]
    segments = rules.timeline(spells, start, end)
    return ServiceHistory(
        service_name=name,
        uptime=rules.uptime(segments) or 0.0,
        uptime_observed=rules.uptime(segments, observed_only=True),
        first_heard_of=first,
        segments=[Segment.model_validate(segment) for segment in segments],
    )


async def uptimes(session: AsyncSession, hours: float) -> Uptimes:
    """How much of the last hours each service was up."""
    found = await history(session, hours)
    return Uptimes(
        since=found.since,
        until=found.until,
        services=[Uptime(**service.model_dump(exclude={"segments"})) for service in found.services],
    )


async def list_dead(
    session: AsyncSession, *, topic: str | None = None, limit: int = 100
) -> list[DeadLetter]:
    """Messages that were given up, the youngest first."""
    return await bus.list_dead(session, topic=topic, limit=limit)


async def revive(
    session: AsyncSession, *, ids: Sequence[int] | None = None, topic: str | None = None
) -> list[int]:
    """Send dead letters again, with fresh attempts; the ids of those that there were."""
    return await bus.revive(session, ids=ids, topic=topic)


async def check_ready(session: AsyncSession) -> str:
    """The revision of the database. Raises `DatabaseError` unless it is the one expected."""
    found, expected = await queries.revision(session), _head()
    if found is None or found != expected:
        raise DatabaseError(
            f"the database is at revision {found}, expected is {expected}",
            hint="`kaleidoscope db upgrade`, or start the newer Kaleidoscope",
        )
    return found


def database_facts(url: str) -> dict[str, str]:
    """What decides whether a database is fit: versions, revision, what keeps it from losing."""
    return {**queries.facts(url), "revision": migrate.current(url) or "none"}


@cache
def _head() -> str | None:
    return migrate.head()


async def trim(session: AsyncSession) -> int:
    """Forget heartbeats, and services not heard of, for longer than `ops.history_days`."""
    return await queries.trim(session, timedelta(days=load(OpsSettings).history_days))


async def forget(session: AsyncSession, service: str) -> None:
    """Forget a service that is gone for good, with its history. Raises `NotFound`."""
    if not await queries.forget(session, service):
        raise NotFound(
            f"no service {service!r} was ever heard of",
            hint="`kaleidoscope status` has all",
            service=service,
        )
