"""How it is going, over HTTP, and the health checks for whoever watches processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from kaleidoscope.kernel.errors import Unavailable
from kaleidoscope.kernel.web import Session
from kaleidoscope.ops import service
from kaleidoscope.ops.schemas import (
    Errors,
    Figures,
    Overview,
    RetriedCause,
    RetryCause,
    ServicesHistory,
    Uptimes,
)

router = APIRouter(tags=["operation"])

MOST_HOURS = 24 * 366
Hours = Annotated[float, Query(gt=0, le=MOST_HOURS, description="How far back.")]


@router.get("/api/ops/status")
async def status(session: Session) -> Overview:
    """Services with their colour, photos by status, queues, dead letters, failures."""
    return await service.overview(session)


@router.get("/api/ops/history")
async def history(
    session: Session,
    service_name: Annotated[
        str | None, Query(alias="service", description="Only this one; 404: never heard of.")
    ] = None,
    hours: Hours = 24,
) -> ServicesHistory:
    """What each service was like in the last hours, as a line without a hole, and its uptime."""
    return await service.history(session, hours, service_name)


@router.get("/api/ops/uptime")
async def uptime(session: Session, hours: Hours = 24) -> Uptimes:
    """How much of the last hours each service was up."""
    return await service.uptimes(session, hours)


@router.get("/api/ops/figures")
async def figures(session: Session) -> Figures:
    """Assets secured, the last hour, the inbox, the latest assets, disks and when they are full."""
    return await service.figures(session)


@router.get("/api/ops/errors")
async def errors(session: Session) -> Errors:
    """What failed, grouped by cause, the most frequent first."""
    return await service.errors(session)


@router.post("/api/ops/errors/retry")
async def retry(wish: RetryCause, session: Session) -> RetriedCause:
    """Try everything again that failed of a cause, at once and with all its retries."""
    return await service.retry(session, wish.cause, wish.what)


@router.get("/api/ops/stream", response_class=EventSourceResponse)
async def stream(request: Request) -> AsyncIterator[ServerSentEvent]:
    """News as they happen: events `status`, `figures` and `errors`, each as its route answers.

    The first of each comes at once.
    """
    pulse: service.Pulse = request.app.state.pulse
    async for news in pulse.listen():
        yield ServerSentEvent(event=news.name, data=news.data)


@router.get("/health/live")
async def live(request: Request) -> dict[str, str]:
    """This process answers and its heart makes its rounds; else 503.

    It says nothing about what the process needs: that is `/health/ready`.
    """
    heart: service.Heartbeat | None = getattr(request.app.state, "heart", None)
    if heart is not None and not heart.goes_on:
        raise Unavailable(
            f"the heart of {heart.service_name} has stopped", hint="start the service again"
        )
    return {"status": "alive"}


@router.get("/health/ready")
async def ready(session: Session) -> dict[str, str]:
    """The database answers and is at the revision that this version expects; else 503."""
    revision = await service.check_ready(session)
    return {"status": "ready", "revision": revision}
