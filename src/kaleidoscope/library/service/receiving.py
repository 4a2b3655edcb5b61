"""Received files before anything is decided about them: which belong together, what each one is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from kaleidoscope.kernel.clock import now
from kaleidoscope.kernel.errors import KaleidoscopeError, Unavailable
from kaleidoscope.kernel.paths import to_bytes
from kaleidoscope.kernel.settings import load
from kaleidoscope.library.outside.custody import Identity
from kaleidoscope.library.outside.examine import names, read_content
from kaleidoscope.library.rules import companions, dates
from kaleidoscope.library.rules.companions import Named
from kaleidoscope.library.rules.names import outer_candidates
from kaleidoscope.library.schemas import MediaType
from kaleidoscope.library.settings import LibrarySettings
from kaleidoscope.ml.pool import Pool

FILES_AT_ONCE = 32  # in one hand-over to a child
BYTES_AT_ONCE = 64 << 20  # a larger file is hashed by a thread of ours: that takes what it takes
SECONDS = 120.0
MEGABYTES = 3072


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file in an inbox that has come to rest. `path` is spelled by `kernel.paths.to_text`.

    `mime_type` and `media_type`: what its name lets expect; None: nothing.
    """

    path: str
    identity: Identity
    mime_type: str | None = None
    media_type: MediaType | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """A candidate that has been read, and what its name says. `trouble`: (kind, cause)."""

    path: str
    identity: Identity
    named: Named
    file_hash: str = ""
    sample_hash: str | None = None
    mime_type: str | None = None
    media_type: MediaType | None = None
    modified_at: datetime = datetime.min
    links: int = 1
    metadata: Mapping[str, Any] | None = None
    trouble: tuple[str, str] | None = None

    @property
    def size(self) -> int:
        """In bytes."""
        return self.identity.size


@dataclass(frozen=True, slots=True)
class Parcel:
    """Files of one folder that travel together."""

    files: tuple[Received, ...]

    @property
    def size(self) -> int:
        """In bytes, of all its files."""
        return sum(f.size for f in self.files)


class Work(Protocol):
    """What runs `outside.examine.examine`: child processes, mostly."""

    async def run(self, task: Any, *, name: str) -> Any: ...


def children(size: int = 0) -> Pool:
    """Child processes that read received files (0: one a core)."""
    work = "kaleidoscope.library.outside.examine:examine"
    return Pool(work, size=size, memory=MEGABYTES, seconds=SECONDS)


def parcels(candidates: Sequence[Candidate]) -> list[Parcel]:
    """The candidates, those that belong together in one parcel, in the order of their times."""
    folders: dict[bytes, dict[bytes, Candidate]] = {}
    for one in candidates:
        folder, _, name = to_bytes(one.path).rpartition(b"/")
        folders.setdefault(folder, {})[name] = one
    found = [
        Parcel(tuple(_unread(by_name[named.name], named) for named in group))
        for by_name in folders.values()
        for group in companions.groups(list(by_name))
    ]
    return sorted(found, key=lambda p: p.files[0].identity.mtime_ns)


def _unread(one: Candidate, named: Named) -> Received:
    return Received(
        one.path, one.identity, named, mime_type=one.mime_type, media_type=one.media_type
    )


async def read(work: Work, parcels: Sequence[Parcel]) -> list[Parcel]:
    """The parcels with what their files are; one that cannot be read has its trouble instead."""
    tasks = [_task(file, parcel) for parcel in parcels for file in parcel.files]
    answers = await asyncio.gather(*[_hand_over(work, chunk) for chunk in _chunks(tasks)])
    found = iter([answer for chunk in answers for answer in chunk])
    return [Parcel(tuple(_with(file, next(found)) for file in parcel.files)) for parcel in parcels]


def _task(file: Received, parcel: Parcel) -> dict[str, Any]:
    told_by = [
        f.path for f in parcel.files if f.named.is_sidecar and f.named.of in (None, file.named.name)
    ]
    return {
        "path": file.path,
        "name": os.fsdecode(file.named.name).encode(errors="replace").decode(),
        "identity": str(file.identity),
        "mime_type": file.mime_type,
        "media_type": file.media_type,
        "sidecars": told_by,
        "zone": load(LibrarySettings).home_zone,
        "tells": not file.named.is_sidecar,
        "hash": True,
    }


def _chunks(tasks: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    chunks: list[list[dict[str, Any]]] = []
    room = 0
    for task in tasks:
        size = Identity.parse(task["identity"]).size
        if not chunks or size > room or len(chunks[-1]) >= FILES_AT_ONCE:
            chunks.append([])
            room = BYTES_AT_ONCE
        chunks[-1].append(task)
        room -= size
    return chunks


async def _hand_over(work: Work, tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a child answers; where it dies, each file by itself, the one it dies of last."""
    if Identity.parse(tasks[0]["identity"]).size > BYTES_AT_ONCE:
        return [await _read_large(work, tasks[0])]
    try:
        answers: list[dict[str, Any]] = await work.run({"files": tasks}, name=names(tasks))
    except Unavailable:
        raise
    except KaleidoscopeError as error:
        if len(tasks) > 1:
            return [(await _hand_over(work, [task]))[0] for task in tasks]
        return [await _read_without(tasks[0], error.message)]
    return answers


async def _read_large(work: Work, task: dict[str, Any]) -> dict[str, Any]:
    identity = Identity.parse(task["identity"])
    content = await asyncio.to_thread(read_content, task["path"], identity)
    if "trouble" in content:
        return content
    try:
        (found,) = await work.run({"files": [{**task, "hash": False}]}, name=task["path"])
    except Unavailable:
        raise
    except KaleidoscopeError as error:
        return await _read_without(task, error.message)
    return {**found, **({} if "trouble" in found else {"file_hash": content["file_hash"]})}


async def _read_without(task: dict[str, Any], error: str) -> dict[str, Any]:
    """A file that decoders die of: its content is as dear as any, and its time is known."""
    content = await asyncio.to_thread(read_content, task["path"], Identity.parse(task["identity"]))
    if "trouble" in content:
        return content
    zone = ZoneInfo(task["zone"]) if task["zone"] else None
    outer = outer_candidates(task["name"], content["modified_at"], zone)
    told = [dates.to_plain(c) for c in outer if dates.possible(c.at, now())]
    kinds = {"mime_type": task["mime_type"], "media_type": task["media_type"]}
    return {**content, **kinds, "metadata": {"candidates": told, "error": error}}


def _with(file: Received, found: Mapping[str, Any]) -> Received:
    if "trouble" in found:
        kind, cause = found["trouble"]
        return replace(file, trouble=(kind, cause))
    return replace(
        file,
        file_hash=found["file_hash"],
        sample_hash=found["sample_hash"],
        mime_type=found["mime_type"],
        media_type=None if file.named.is_sidecar else found["media_type"],
        modified_at=datetime.fromisoformat(found["modified_at"]),
        links=found["links"],
        metadata=found["metadata"],
    )
