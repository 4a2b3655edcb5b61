"""Place names for positions, from an offline gazetteer, in the background."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import Database
from kaleidoscope.library.outside import gazetteer
from kaleidoscope.library.queries import geocoding as rows
from kaleidoscope.library.schemas import PlaceName
from kaleidoscope.library.service.history import Happened, note
from kaleidoscope.library.service.ledger import get
from kaleidoscope.ml.pool import Pool

AT_ONCE = 1000
MEMORY, SECONDS = 1024, 120.0


async def geocode_pending(db: Database) -> dict[str, int]:
    """Name every position that has no name yet; answers how many, and how many are nowhere."""
    done = {"geocoded": 0, "nowhere": 0}
    async with db.transaction() as session:
        assets = await rows.pending(session, AT_ONCE)
    if not assets:
        return {}
    work = "kaleidoscope.library.outside.gazetteer:find"
    async with Pool(work, size=1, memory=MEMORY, seconds=SECONDS) as pool:
        while assets:
            points = [[a.location["lat"], a.location["lon"]] for a in assets]
            places = await pool.run(points, name="the gazetteer")
            async with db.transaction() as session:
                found = list(zip(assets, places, strict=True))
                written = set(await rows.write(session, found, gazetteer.source()))
                named = {a.photo_id: place for a, place in found if a.photo_id in written}
                await note(session, [_event(photo_id, place) for photo_id, place in named.items()])
                assets = await rows.pending(session, AT_ONCE)
            done["geocoded"] += sum(place is not None for place in named.values())
            done["nowhere"] += sum(place is None for place in named.values())
    return {what: number for what, number in done.items() if number}


async def place_of(session: AsyncSession, photo_id: int) -> PlaceName:
    """Where an asset was taken, by name, with who is to be thanked for the name."""
    photo = await get(session, photo_id)
    found = await rows.one(session, photo_id)
    return PlaceName(
        photo_id=photo.photo_id,
        location=photo.location,
        geocoded_at=photo.geocoded_at,
        attribution=gazetteer.ATTRIBUTION,
        **(found._asdict() if found else {}),
    )


def _event(photo_id: int, place: dict[str, object] | None) -> Happened:
    detail = {key: (place or {}).get(key) for key in ("city", "region", "country")}
    return Happened(photo_id, "geocoded", detail=detail)
