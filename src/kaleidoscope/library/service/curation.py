"""A person's word that a photo has been looked through."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.library.queries import curation as rows
from kaleidoscope.library.service.history import Happened, note


async def curate(session: AsyncSession, photo_ids: Sequence[int], curated: bool = True) -> int:
    """Mark photos as looked through, or take that back; answers how many were not so before."""
    changed = await rows.curate(session, photo_ids, curated)
    detail = {"curated": curated}
    await note(session, [Happened(photo_id, "curated", detail=detail) for photo_id in changed])
    return len(changed)
