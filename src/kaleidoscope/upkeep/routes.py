"""How the second copy stands, over HTTP."""

from __future__ import annotations

from fastapi import APIRouter, Request

from kaleidoscope.upkeep import service
from kaleidoscope.upkeep.schemas import BackupStatus

router = APIRouter(tags=["upkeep"])


@router.get("/api/backup")
async def status(request: Request) -> BackupStatus:
    """The backup: what is in it, what is not yet, its latest runs and restore drill."""
    return await service.status(request.app.state.db)
