"""What about the library a person should know at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.library.queries import kept, places, scrubs


@dataclass(frozen=True)
class Alarm:
    """Something that is wrong. ERROR: a person has to decide; WARNING: a person should look."""

    status: Literal["WARNING", "ERROR"]
    text: str


async def alarms(session: AsyncSession) -> list[Alarm]:
    """Frozen places, damaged originals, and what is damaged beside them."""
    found = [
        Alarm(
            "WARNING" if place.decision == "wait" else "ERROR",
            f"{place.path} is frozen: {place.frozen_because}",
        )
        for place in await places.all_places(session)
        if place.frozen_at is not None
    ]
    damaged = await scrubs.count_damaged(session)
    if damaged:
        hint = "`kaleidoscope library damaged` lists them"
        found.append(Alarm("WARNING", f"damaged originals: {damaged} ({hint})"))
    beside = await kept.count_damaged(session)
    if beside:
        hint = "`kaleidoscope library kept --damaged` lists them"
        found.append(Alarm("WARNING", f"damaged files beside the originals: {beside} ({hint})"))
    return found
