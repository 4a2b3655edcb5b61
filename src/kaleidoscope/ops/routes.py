"""How it is going, over HTTP: for people, and for whoever watches the processes."""

from __future__ import annotations

from fastapi import APIRouter

from kaleidoscope.kernel.web import Session
from kaleidoscope.ops import service
from kaleidoscope.ops.schemas import Overview

router = APIRouter(tags=["operation"])


@router.get("/api/ops/status")
async def status(session: Session) -> Overview:
    """Services with their colour, photos by status, queues, dead letters, failures."""
    return await service.overview(session)


@router.get("/health/live")
async def live() -> dict[str, str]:
    """This process answers. Says nothing about what it needs."""
    return {"status": "alive"}


@router.get("/health/ready")
async def ready(session: Session) -> dict[str, str]:
    """The database answers and is at the revision that this version expects; else 503."""
    revision = await service.check_ready(session)
    return {"status": "ready", "revision": revision}
