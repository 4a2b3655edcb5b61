"""Files of a scan into the ledger: new, known, changed, duplicate.

First `plan`, which may read files and holds no transaction; then `register`, in the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.paths import is_utf8, to_bytes
from kaleidoscope.library.ids import PhotoId
from kaleidoscope.library.models import MAX_PATH_BYTES
from kaleidoscope.library.outside.files import FileProblem
from kaleidoscope.library.queries import attempts, hashes, kept, places
from kaleidoscope.library.queries import files as rows
from kaleidoscope.library.queries.files import Known
from kaleidoscope.library.queries.hashes import Hashed
from kaleidoscope.library.rules import ledger as rules
from kaleidoscope.library.schemas import MediaType
from kaleidoscope.library.service.attempts import request
from kaleidoscope.library.service.hashing import hash_all, settle
from kaleidoscope.library.service.history import Happened, note

Outcome = Literal["new", "known", "changed", "duplicate"]


@dataclass(frozen=True)
class ScannedFile:
    """A file as a scan found it.

    `path` absolute, spelled by `kernel.paths.to_text`; `size` in bytes; `modified_at` by
    `library.service.modified_at`; `sample_hash` of parts of the content, by
    `library.service.sample_hash`; `file_hash` SHA-256 where `plan` found it needed.
    """

    path: str
    size: int
    modified_at: datetime
    sample_hash: str
    media_type: MediaType
    mime_type: str | None
    file_hash: str | None = None


@dataclass(frozen=True)
class Refused:
    """A file that the ledger cannot take, and why."""

    path: str
    cause: str


@dataclass(frozen=True)
class Plan:
    """What can be registered, hashed where that decides something, and what cannot."""

    files: list[ScannedFile]
    refused: list[Refused]


@dataclass(frozen=True)
class Registered:
    """What became of a scanned file.

    `new` and `changed` wait for their attempt, whose message the caller publishes. `duplicate`:
    the content is in the ledger under another path; nothing is to be published.
    """

    photo_id: PhotoId
    path: str
    media_type: MediaType
    outcome: Outcome
    attempt_id: UUID


async def plan(db: Database, files: Sequence[ScannedFile]) -> Plan:
    """Hash in full what must be: touched files, and files that look like another one.

    Files whose path is too long for the ledger's index, and files that are gone or have changed
    since the scan, are refused. Those that are being filed right now are left out: theirs is
    another row, which comes with the end of their move.
    """
    by_path = {f.path: f for f in files if len(f.path.encode()) <= MAX_PATH_BYTES}
    async with db.transaction() as session:
        for path in await kept.being_filed(session, list(by_path)):
            del by_path[path]  # custody gives it its row, or takes the file away again
    refused = [_too_long(f) for f in files if len(f.path.encode()) > MAX_PATH_BYTES]
    candidates = list(by_path.values())
    async with db.transaction() as session:
        known = {k.path: k for k in await rows.known(session, list(by_path))}
        fresh = [f for f in candidates if f.path not in known]
        elders = await rows.lookalikes(session, fresh) if fresh else []
    await hash_elders(db, [e for e in elders if e.file_hash is None])
    wanted = _to_hash(candidates, fresh, known, elders)
    digests = await hash_all([by_path[path] for path in wanted])
    for path, digest in zip(wanted, digests, strict=True):
        if isinstance(digest, FileProblem):
            refused.append(Refused(path, str(digest)))
            del by_path[path]
        else:
            by_path[path] = replace(by_path[path], file_hash=digest)
    return Plan(list(by_path.values()), refused)


async def register(session: AsyncSession, files: Sequence[ScannedFile]) -> list[Registered]:
    """Give every file its row; answers what became of each, in the order given.

    Known files whose size or time differ are `changed`, unless their hash (from `plan`) says that
    they are not. Racing registrations of the same files each get an answer; one of them `new`.
    """
    by_path = {f.path: f for f in files}
    if any(f.file_hash for f in files):
        await hashes.lock(session)  # before any row, as everybody who settles hashes does
    known = await rows.known(session, list(by_path))
    fresh = by_path.keys() - {k.path for k in known}
    moved = await _found_elsewhere(session, [by_path[path] for path in sorted(fresh)])
    fresh -= moved.keys()
    inserted = await rows.insert(session, [by_path[path] for path in fresh]) if fresh else {}
    if overtaken := fresh - inserted.keys():  # by a scan of the same files
        known += await rows.known(session, list(overtaken))
    changed = await _look_again(session, by_path, known)
    duplicates = await settle(
        session,
        [
            Hashed(photo_id, by_path[path].size, by_path[path].modified_at, digest)
            for path, (photo_id, _) in inserted.items()
            if (digest := by_path[path].file_hash)
        ],
    )
    found: dict[str, tuple[int, UUID, Outcome]] = {
        **{k.path: (k.photo_id, k.attempt_id, "known") for k in known},
        **{r.path: (r.photo_id, r.attempt_id, "changed") for r in changed},
        **moved,
        **{
            path: (photo_id, attempt_id, "duplicate" if photo_id in duplicates else "new")
            for path, (photo_id, attempt_id) in inserted.items()
        },
    }
    return [
        Registered(PhotoId(photo_id), f.path, f.media_type, outcome, attempt_id)
        for f in by_path.values()
        for photo_id, attempt_id, outcome in [found[f.path]]
    ]


async def _found_elsewhere(
    session: AsyncSession, fresh: Sequence[ScannedFile]
) -> dict[str, tuple[int, UUID, Outcome]]:
    """Files with the content of assets whose own file is missing: each is that asset's from now on.

    It keeps its number, its faces and its names; one whose recognition has not ended is `changed`,
    to be begun anew where it lies now.
    """
    contents = {f.file_hash: f for f in reversed(fresh) if f.file_hash}
    found: dict[str, tuple[int, UUID, Outcome]] = {}
    anew: dict[int, str] = {}
    for asset in await places.missing_with_content(session, list(contents)) if contents else []:
        file = contents[asset.file_hash]
        raw = None if is_utf8(file.path) else to_bytes(file.path)
        await places.move(session, asset.photo_id, file.path, raw, file.modified_at)
        where = {"from": asset.path, "to": file.path}
        await note(session, [Happened(asset.photo_id, "found-again", detail=where)])
        found[file.path] = (asset.photo_id, asset.attempt_id, "known")
        if asset.status != "PROCESSED":
            anew[asset.photo_id] = file.path
    for begun in await attempts.request(session, list(anew), anew=True) if anew else []:
        found[begun.path] = (begun.photo_id, begun.attempt_id, "changed")
    return found


async def _look_again(
    session: AsyncSession, found: Mapping[str, ScannedFile], known: Sequence[Known]
) -> list[attempts.Requested]:
    """Write what is new about known files; answers those with other content, each to be begun."""
    unsure = [k.photo_id for k in known if k.missing or rules.is_touched(found[k.path], k)]
    if not unsure:
        return []
    held = await rows.hold(session, unsure)  # another scan may have been quicker
    await note(session, [Happened(k.photo_id, "found-again") for k in held if k.missing])
    verdicts = {k.photo_id: rules.difference(found[k.path], k) for k in held}
    changed = {k.photo_id: found[k.path] for k in held if verdicts[k.photo_id] == "changed"}
    if same := {k.photo_id: found[k.path] for k in held if k.photo_id not in changed}:
        await rows.refresh(session, same)
    if not changed:
        return []
    await rows.replace(session, changed)
    if heirs := await hashes.part_from(session, list(changed)):
        await request(session, heirs, anew=True)
    return await attempts.request(session, list(changed), anew=True)


def _to_hash(
    files: Sequence[ScannedFile],
    fresh: Sequence[ScannedFile],
    known: Mapping[str, Known],
    elders: Sequence[Known],
) -> list[str]:
    """Paths whose full hash decides something."""
    touched = [
        f.path
        for f in files
        if (k := known.get(f.path)) and k.file_hash and k.size == f.size and rules.is_touched(f, k)
    ]
    looks = {rules.looks(elder) for elder in elders}
    alike = {fresh[i].path for i in rules.twins(fresh)}
    return touched + [f.path for f in fresh if f.path in alike or rules.looks(f) in looks]


async def hash_elders(db: Database, elders: Sequence[Known]) -> None:
    """Hash the assets that new files look like; one that cannot be read is no match for now."""
    digests = await hash_all(elders)
    hashed = [
        Hashed(elder.photo_id, elder.size, elder.modified_at, digest)
        for elder, digest in zip(elders, digests, strict=True)
        if isinstance(digest, str)
    ]
    if hashed:
        async with db.transaction() as session:
            await settle(session, hashed)


def _too_long(file: ScannedFile) -> Refused:
    length = len(file.path.encode())
    return Refused(
        file.path, f"the path is too long: {length} bytes, {MAX_PATH_BYTES} are possible"
    )
