"""A local copy of who is known, from `GET /person-dump`, and who the faces of a photo could be.

It only suggests: the callback decides against the current state (seed 001).
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import structlog

from kaleidoscope.ml.catalog import Thresholds
from kaleidoscope.ml.settings import PresetName

log = structlog.get_logger(__name__)

Vectors = npt.NDArray[np.float32]

PAGE = 5000
LONGEST_PAUSE = 30.0


@dataclass(frozen=True)
class Suggestion:
    """Whose a face could be: a person's id, `t-1`, `t-2` … for somebody new, None for unknown."""

    person_id: int | str | None
    similarity: float | None


class Persons:
    """Person ids and the mean of each one's unit vectors for one pack. Similarity of a face to a
    person is the mean cosine to the person's faces: sum·e / count.
    """

    def __init__(self, dimension: int) -> None:
        self.ids: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self.means: Vectors = np.zeros((0, dimension), np.float32)
        self._rows: dict[int, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, person_id: int, mean: Vectors) -> None:
        """Add a person, or replace the person's mean."""
        row = self._rows.get(person_id)
        if row is None:
            if self._count == len(self.ids):
                self._grow()
            row, self._count = self._count, self._count + 1
            self._rows[person_id], self.ids[row] = row, person_id
        self.means[row] = mean

    def remove(self, person_id: int) -> None:
        """Forget a person; the last one takes the free row."""
        row = self._rows.pop(person_id, None)
        if row is None:
            return
        self._count -= 1
        last = int(self.ids[self._count])
        if last != person_id:
            self.ids[row], self.means[row] = last, self.means[self._count]
            self._rows[last] = row

    def nearest(self, faces: Vectors, most: int) -> tuple[npt.NDArray[np.int64], Vectors]:
        """For faces [n, d] the ids [n, k] of the most similar persons and the similarities."""
        similarities = faces @ self.means[: self._count].T
        k = min(most, self._count)
        if k == 0:
            return np.zeros((len(faces), 0), np.int64), similarities
        top = np.argpartition(-similarities, k - 1, axis=1)[:, :k]
        return self.ids[top], np.take_along_axis(similarities, top, axis=1)

    def _grow(self) -> None:
        more = max(1024, len(self.ids))
        self.ids = np.concatenate([self.ids, np.zeros(more, np.int64)])
        self.means = np.concatenate([self.means, np.zeros((more, self.means.shape[1]), np.float32)])


class PersonDump:
    """Keeps `Persons` of one pack up to date from the API at `api_url`.

    `follow` runs in the background; while the API is away, what is known serves on.
    """

    def __init__(self, client: httpx.AsyncClient, api_url: str, pack: str, dimension: int) -> None:
        self.pack = pack
        self.persons = Persons(dimension)
        self._client = client
        self._url = f"{api_url}/person-dump"
        self._dimension = dimension
        self._version: int | None = None
        self._steady = asyncio.Lock()  # held while persons change, and while they are compared

    async def follow(self, seconds: float) -> None:
        """Refresh every `seconds`, more rarely while the API does not answer."""
        pause = seconds
        while True:
            try:
                await self.refresh()
                pause = seconds
            except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
                if pause == seconds:
                    log.warning("person dump not refreshed", url=self._url, error=repr(error))
                pause = min(2 * pause, LONGEST_PAUSE)
            await asyncio.sleep(pause)

    async def refresh(self) -> None:
        """Fetch what has changed since the last time; the first time everything."""
        since_id: int | None = 0
        version: int | None = None
        while since_id is not None:
            page = await self._page(since_id)
            if version is None:
                version = int(page["version"])  # of the first page: later changes come again
                if self._version is not None and version < self._version:
                    log.info("person dump starts anew: another database", url=self._url)
                    self._version, self.persons = None, Persons(self._dimension)
                    await self.refresh()
                    return
            async with self._steady:
                for entry in page["entries"]:
                    self._apply(entry)
            since_id = page.get("next_since_id")
        self._version = version

    async def suggest(
        self, faces: Vectors, may_found: Sequence[bool], thresholds: Thresholds, preset: PresetName
    ) -> list[Suggestion]:
        """Whose the faces [n, d] of one photo could be. A face that may not found a person is
        never `t-…`.
        """
        if not len(faces):
            return []
        async with self._steady:
            join = thresholds.join_at(len(self.persons), preset=preset)
            ids, similarities = await asyncio.to_thread(self.persons.nearest, faces, len(faces) + 1)
        return assign(faces, ids, similarities, join, may_found)

    async def _page(self, since_id: int) -> dict[str, Any]:
        asked: dict[str, str | int] = {"since_id": since_id, "limit": PAGE, "pack": self.pack}
        if self._version is not None:
            asked["changed_since"] = self._version
        answer = await self._client.get(self._url, params=asked)
        answer.raise_for_status()
        page: dict[str, Any] = await asyncio.to_thread(json.loads, answer.content)
        return page

    def _apply(self, entry: dict[str, Any]) -> None:
        person, meta = int(entry["person_id"]), entry.get("meta") or {}
        count, model = meta.get("count") or 0, str(meta.get("model") or self.pack)
        if meta.get("removed") or not count or model.partition("/")[0] != self.pack:
            self.persons.remove(person)
            return
        total = np.frombuffer(base64.b64decode(meta["sum"]), "<f4")
        if len(total) != self._dimension:
            raise ValueError(f"person {person}: {len(total)} numbers, not {self._dimension}")
        self.persons.put(person, (total / count).astype(np.float32))


def assign(
    faces: Vectors,
    ids: npt.NDArray[np.int64],
    similarities: Vectors,
    join: float,
    may_found: Sequence[bool],
) -> list[Suggestion]:
    """The best pairing of the faces [n, d] of one photo with persons `ids` [n, k], `similarities`.

    The most similar pair comes first. A person is suggested for a second face of the photo only
    when the two faces are nearly identical (a mirror, a collage); strangers that are share a `t-…`.
    """
    alike = faces @ faces.T >= (1 + join) / 2
    chosen: list[Suggestion | None] = [None] * len(faces)
    owner: dict[int, int] = {}  # person → the first face that got it
    order = np.dstack(np.unravel_index(np.argsort(-similarities, axis=None), similarities.shape))[0]
    for face, rank in order.tolist():
        similarity, person = float(similarities[face, rank]), int(ids[face, rank])
        if similarity < join:
            break
        if chosen[face] is None and (person not in owner or alike[face, owner[person]]):
            owner.setdefault(person, face)
            chosen[face] = Suggestion(person, round(similarity, 5))
    strangers: list[int] = []  # the first face of each
    for face, found in enumerate(chosen):
        if found is not None:
            continue
        if not may_found[face]:
            chosen[face] = Suggestion(None, None)
            continue
        number = next((n for n, first in enumerate(strangers) if alike[face, first]), None)
        if number is None:
            number = len(strangers)
            strangers.append(face)
        chosen[face] = Suggestion(f"t-{number + 1}", None)
    return [found for found in chosen if found is not None]
