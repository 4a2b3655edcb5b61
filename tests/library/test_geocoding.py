"""Place names: offline, right at the edges of the map, and silent in the middle of an ocean."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from scans import Ledger, Register, Write
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from kaleidoscope.kernel.db import Database
from kaleidoscope.library import service as library
from kaleidoscope.library.outside import gazetteer
from kaleidoscope.library.service import Registered

# Landmarks and suburbs with the name that people give to where they are.
WELL_KNOWN = [
    ("Eiffel tower", 48.8584, 2.2945, "Paris"),
    ("Statue of Liberty", 40.6892, -74.0445, "New York City"),
    ("Times Square", 40.758, -73.9855, "New York City"),
    ("Brandenburg Gate", 52.5163, 13.3777, "Berlin"),
    ("Big Ben", 51.5007, -0.1246, "London"),
    ("Shibuya crossing", 35.6595, 139.7005, "Tokyo"),
    ("Sydney opera", -33.8568, 151.2153, "Sydney"),
    ("Taj Mahal", 27.1751, 78.0421, "Agra"),
    ("Copacabana", -22.9711, -43.1822, "Rio de Janeiro"),
    ("Table Mountain", -33.9628, 18.4098, "Cape Town"),
    ("Sagrada Família", 41.4036, 2.1744, "Barcelona"),
    ("Hagia Sophia", 41.0086, 28.9802, "Istanbul"),
    ("Versailles, not Paris", 48.8049, 2.1204, "Versailles"),
    ("Oakland, not San Francisco", 37.8044, -122.2712, "Oakland"),
    ("Delft, not Rotterdam", 52.0116, 4.3571, "Delft"),
    ("Fürth, not Nuremberg", 49.4771, 10.9887, "Fürth"),
    ("Pasadena, not Los Angeles", 34.1478, -118.1445, "Pasadena"),
    ("Yokohama, not Tokyo", 35.4437, 139.638, "Yokohama"),
    ("Weil, not Basel", 47.593, 7.621, "Weil am Rhein"),
    ("Parramatta, not Sydney", -33.815, 151.0011, "Parramatta"),
    ("Schwangau, a village", 47.5576, 10.7498, "Schwangau"),
]


@pytest.mark.parametrize("name, lat, lon, city", WELL_KNOWN, ids=[row[0] for row in WELL_KNOWN])
def test_the_name_that_people_give(name: str, lat: float, lon: float, city: str) -> None:
    (place,) = gazetteer.find([[lat, lon]])
    assert place is not None and place["city"] == city


def test_beside_the_antimeridian() -> None:
    """East and west of it are neighbours: Taveuni in Fiji, and the same sea from the other side."""
    west, east = gazetteer.find([[-16.8, 179.97], [-16.8, -179.97]])
    assert west is not None and east is not None
    assert west["country_code"] == east["country_code"] == "FJ"
    assert west["city"] == east["city"]
    assert abs(west["distance_km"] - east["distance_km"]) < 7


def test_mid_ocean_and_the_poles_have_no_name() -> None:
    nowhere = [[0.0, -30.0], [-48.88, -123.39], [90.0, 0.0], [-90.0, 180.0], [75.0, -170.0]]
    assert gazetteer.find(nowhere) == [None] * 5


def test_a_district_is_named_beside_its_city() -> None:
    (place,) = gazetteer.find([[40.758, -73.9855]])
    assert place == {
        "city": "New York City",
        "district": "Times Square",
        "region": "New York",
        "country": "United States",
        "country_code": "US",
        "distance_km": pytest.approx(5.2, abs=0.2),
    }


async def locate(db: Database, photo: Registered, lat: float, lon: float) -> None:
    async with db.transaction() as session:
        await session.execute(
            text("UPDATE media_assets SET location = CAST(:at AS jsonb) WHERE photo_id = :id"),
            {"at": json.dumps({"lat": lat, "lon": lon}), "id": photo.photo_id},
        )


async def test_the_pass_names_what_has_a_position(
    db: Database, write: Write, register: Register, ledger: Ledger
) -> None:
    paris, ocean, _ = await register([write(f"{n}.jpg", n.encode()) for n in "abc"])
    await locate(db, paris, 48.8584, 2.2945)
    await locate(db, ocean, 0, -30)
    assert await library.geocode_pending(db) == {"geocoded": 1, "nowhere": 1}
    assert await library.geocode_pending(db) == {}
    photos = await ledger()
    assert [photos[f"{n}.jpg"].is_geocoded for n in "abc"] == [True, True, False]
    async with db.transaction() as session:
        found = await library.place_of(session, paris.photo_id)
        nowhere = await library.place_of(session, ocean.photo_id)
        events = (await library.history(session, paris.photo_id)).events
    assert (found.city, found.region, found.country_code) == ("Paris", "Île-de-France", "FR")
    assert "GeoNames" in found.attribution and "CC BY" in found.attribution
    assert found.source is not None and found.source.startswith("GeoNames")
    assert (nowhere.city, nowhere.geocoded_at is not None) == (None, True)
    assert events[-1].what == "geocoded" and (events[-1].detail or {})["city"] == "Paris"


async def test_a_position_given_later_is_named_again(
    db: Database, write: Write, register: Register
) -> None:
    (photo,) = await register([write("a.jpg", b"a")])
    await locate(db, photo, 48.8584, 2.2945)
    await library.geocode_pending(db)
    async with db.transaction() as session:
        await library.retry(session, photo.photo_id, "geocoded")
        assert (await library.place_of(session, photo.photo_id)).city is None
    assert await library.geocode_pending(db) == {"geocoded": 1}


async def test_other_content_has_no_place_yet(
    db: Database, write: Write, register: Register, ledger: Ledger
) -> None:
    (photo,) = await register([write("a.jpg", b"a")])
    await locate(db, photo, 48.8584, 2.2945)
    await library.geocode_pending(db)
    await register([write("a.jpg", b"other", time=1_800_000_000)])
    assert not (await ledger())["a.jpg"].is_geocoded
    async with db.transaction() as session:
        rows: Any = await session.execute(text("SELECT count(*) FROM asset_places"))
        assert rows.scalar_one() == 0


async def test_the_flag_and_its_time_change_together(
    db: Database, write: Write, register: Register
) -> None:
    await register([write("a.jpg", b"a")])
    for flag in ("geocoded", "thumbnailed", "curated"):
        with pytest.raises(DBAPIError, match=f"is_{flag}"):
            async with db.transaction() as session:
                await session.execute(text(f"UPDATE media_assets SET is_{flag} = true"))


async def test_a_position_of_more_digits_than_a_float_has_is_named(
    db: Database, write: Write, register: Register
) -> None:
    """Any program may write the ledger, and the pass comes to its end all the same."""
    await register([write("a.jpg", b"a")])
    exact = '{"lat": 48.858400000000000000001, "lon": 2.29449999999999999999999}'
    async with db.transaction() as session:
        await session.execute(
            text("UPDATE media_assets SET location = CAST(:at AS jsonb)"), {"at": exact}
        )
    async with asyncio.timeout(30):
        assert await library.geocode_pending(db) == {"geocoded": 1}
