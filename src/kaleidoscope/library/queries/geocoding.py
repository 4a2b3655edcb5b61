"""Positions without a place name, and the names found for them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql


@dataclass(frozen=True)
class Somewhere:
    """An asset with a position. `exact`: as the ledger has it, with more digits than a float."""

    photo_id: int
    location: dict[str, float]
    exact: str


async def pending(session: AsyncSession, limit: int) -> list[Somewhere]:
    """Some assets whose position has not been looked up."""
    rows = await session.execute(
        sql(
            "SELECT photo_id, location, location::text AS exact FROM media_assets"
            " WHERE NOT is_geocoded AND location IS NOT NULL LIMIT :limit"
        ),
        {"limit": limit},
    )
    return [Somewhere(**row._mapping) for row in rows]


async def write(
    session: AsyncSession,
    found: Sequence[tuple[Somewhere, Mapping[str, Any] | None]],
    source: str,
) -> list[int]:
    """The place of each, None: there is none, and the flag with it; answers whose were written.

    One whose position is another one by now is left alone.
    """
    rows = await session.execute(
        sql(
            "WITH given AS (SELECT m.photo_id, g.place FROM media_assets m"
            "   JOIN unnest(CAST(:ids AS bigint[]), CAST(:locations AS jsonb[]),"
            "    CAST(:places AS jsonb[])) AS g (id, location, place) ON m.photo_id = g.id"
            "   WHERE m.location = g.location ORDER BY m.photo_id FOR NO KEY UPDATE OF m),"
            " named AS (INSERT INTO asset_places (photo_id, city, district, region, country,"
            "   country_code, distance_km, source)"
            "  SELECT photo_id, p.*, :source FROM given, jsonb_to_record(coalesce(place, '{}'))"
            "   AS p (city text, district text, region text, country text, country_code text,"
            "    distance_km numeric)"
            "  ON CONFLICT (photo_id) DO UPDATE SET city = excluded.city,"
            "   district = excluded.district, region = excluded.region,"
            "   country = excluded.country, country_code = excluded.country_code,"
            "   distance_km = excluded.distance_km, source = excluded.source)"
            " UPDATE media_assets m SET is_geocoded = true, geocoded_at = now() FROM given"
            " WHERE m.photo_id = given.photo_id RETURNING m.photo_id"
        ),
        {
            "ids": [asset.photo_id for asset, _ in found],
            "locations": [asset.exact for asset, _ in found],
            "places": [None if place is None else json.dumps(place) for _, place in found],
            "source": source,
        },
    )
    return list(rows.scalars())


async def one(session: AsyncSession, photo_id: int) -> Row[Any] | None:
    """The place of an asset; None: none has been looked for."""
    rows = await session.execute(
        sql(
            "SELECT city, district, region, country, country_code, distance_km, source"
            " FROM asset_places WHERE photo_id = :photo"
        ),
        {"photo": photo_id},
    )
    return rows.one_or_none()


async def undo(session: AsyncSession, photo_id: int) -> None:
    """This asset's position has not been looked up."""
    await session.execute(
        sql(
            "WITH unnamed AS (DELETE FROM asset_places WHERE photo_id = :photo)"
            " UPDATE media_assets SET is_geocoded = false, geocoded_at = NULL"
            " WHERE photo_id = :photo"
        ),
        {"photo": photo_id},
    )
