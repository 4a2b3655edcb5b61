"""Thumbnails and previews: made in the background, and at once when somebody asks for one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

from kaleidoscope.kernel import clock
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import KaleidoscopeError, NotFound, UnreadableMedia
from kaleidoscope.kernel.settings import load
from kaleidoscope.library.outside import derivatives as disk
from kaleidoscope.library.queries import derivatives as rows
from kaleidoscope.library.queries.derivatives import Made, Plain
from kaleidoscope.library.schemas import DerivativeKind as Kind
from kaleidoscope.library.service.hashing import hash_one
from kaleidoscope.library.service.history import Happened, note
from kaleidoscope.library.service.ledger import get
from kaleidoscope.library.settings import LibrarySettings
from kaleidoscope.ml.pool import Crashed, Pool, TookTooLong, WorkFailed

AT_ONCE = 100
LOOK = "kaleidoscope.library.outside.looking:look"
"""What the children of this machine's ML service run, instead of `ml.work.analyse`."""


@dataclass(frozen=True)
class Derivative:
    """A file that can be shown in a photo's place, and the content that it was made of."""

    path: Path
    media_type: str
    file_hash: str


async def thumbnail_pending(db: Database) -> dict[str, int]:
    """Make what is missing, some at a time; answers how many, and how it went.

    What lies there already is only recorded: it was made for a duplicate, or by the ML service of a
    photo that it looked at (`library.outside.looking`). An asset whose turn has not come (a failure
    that waits, a file without a hash) is left for another round. Raises `StorageProblem` where
    nothing can be written: no photo is to blame.
    """
    done = {"thumbnailed": 0, "shared": 0, "failed": 0}
    after = 0
    await asyncio.to_thread(disk.prepare)
    async with db.transaction() as session:
        assets = await rows.pending(session, after, AT_ONCE)
    if not assets:
        return {}
    await asyncio.to_thread(disk.sweep)
    async with _pool(load(LibrarySettings).thumbnail_processes, background=True) as pool:
        while assets:
            for what, number in (await _portion(db, pool, assets)).items():
                done[what] += number
            after = assets[-1].photo_id
            async with db.transaction() as session:
                assets = await rows.pending(session, after, AT_ONCE)
    return {what: number for what, number in done.items() if number}


async def sweep_derivatives(db: Database, shard: int | None = None) -> dict[str, int]:
    """Remove derivatives of contents that no asset has any more; answers how many contents.

    Of one part of the folder, by default that of the present hour.
    """
    if shard is None:
        shard = int(clock.now().timestamp() // 3600) % disk.SHARDS
    found = await asyncio.to_thread(disk.old_ones, shard)
    if not found:
        return {}
    async with db.transaction() as session:
        gone = await rows.unknown(session, list(found))
    for file_hash in gone:
        await asyncio.to_thread(disk.forget, file_hash)
    return {"removed": len(gone)} if gone else {}


async def derivative(db: Database, photo_id: int, kind: Kind) -> Derivative:
    """An asset's thumbnail or preview, made now where it is missing.

    Raises `NotFound` for an unknown asset and, with the cause, for one that has none.
    """
    async with db.transaction() as session:
        photo = await get(session, photo_id)
        asset = await rows.one(session, photo_id)
    try:
        if asset is None:
            await hash_one(db, photo_id)
            async with db.transaction() as session:
                asset = await rows.one(session, photo_id)
            if asset is None:
                raise NotFound("the file has changed since it was scanned")
        path = disk.path_of(asset.file_hash, kind)
        if not await asyncio.to_thread(path.is_file):
            if asset.waits_for is not None:
                raise NotFound(asset.waits_for)
            await _make_now(db, asset)
    except disk.StorageProblem:
        raise
    except KaleidoscopeError as error:
        raise NotFound(
            f"photo {photo_id} has no {kind}: {error.message}",
            hint="its history says more",
            photo_id=photo_id,
            path=photo.path,
            cause=error.code,
        ) from error
    return Derivative(path, disk.TYPES[kind], asset.file_hash)


async def _portion(db: Database, pool: Pool, assets: Sequence[Plain]) -> dict[str, int]:
    """Some assets: each content once, whoever has it."""
    first: dict[str, Plain] = {}
    for asset in assets:
        first.setdefault(asset.file_hash, asset)
    made = await asyncio.gather(*[_outcome(pool, asset) for asset in first.values()])
    outcomes = dict(zip(first, made, strict=True))
    await _write(db, [(asset, outcomes[asset.file_hash]) for asset in assets])
    good = sum(_is_new(outcomes[a.file_hash]) for a in first.values())
    bad = sum(isinstance(outcomes[a.file_hash], KaleidoscopeError) for a in assets)
    return {"thumbnailed": good, "failed": bad, "shared": len(assets) - good - bad}


Told = dict[str, int | str | None]
Outcome = Told | KaleidoscopeError
"""What is to be recorded, with `ms` where `make` has made the derivatives; or why it could not."""


def _is_new(outcome: Outcome) -> bool:
    return isinstance(outcome, dict) and "ms" in outcome


async def _outcome(pool: Pool, asset: Plain) -> Outcome:
    there: Told = {"bytes": await asyncio.to_thread(disk.bytes_of, asset.file_hash)}
    is_made = there["bytes"] is not None
    if is_made and asset.width is not None:
        return there
    task = disk.task_of(
        asset.path,
        asset.size,
        asset.modified_at,
        asset.media_type,
        asset.file_hash,
        only_measure=is_made,
    )
    try:
        answer: Told = await pool.run(task, name=asset.path)
    except disk.StorageProblem:
        raise
    except KaleidoscopeError as error:
        if "path" not in error.fields:  # the pool itself: no photo is to blame
            raise
        return there if is_made else error
    return there | answer


async def _write(db: Database, outcomes: Sequence[tuple[Plain, Outcome]]) -> None:
    """What came of each, in one transaction."""
    made, events = {}, []
    for asset, outcome in outcomes:
        if isinstance(outcome, KaleidoscopeError):
            events.append(_failure(asset, outcome))
            continue
        made[asset.photo_id] = Made(
            asset.photo_id,
            asset.file_hash,
            width=_number(outcome.get("width")),
            height=_number(outcome.get("height")),
        )
        detail = {key: outcome[key] for key in ("bytes", "damage") if outcome.get(key)}
        events.append(
            Happened(
                asset.photo_id,
                "thumbnailed",
                duration_ms=_number(outcome.get("ms")),
                detail=detail or None,
            )
        )
    async with db.transaction() as session:
        new = set(await rows.done(session, list(made.values()))) if made else set()
        await note(session, [e for e in events if e.outcome == "failed" or e.photo_id in new])


async def _make_now(db: Database, asset: Plain) -> None:
    outcome = await _outcome(_at_hand(), asset)
    await _write(db, [(asset, outcome)])
    if isinstance(outcome, KaleidoscopeError):
        raise outcome


def _failure(asset: Plain, error: KaleidoscopeError) -> Happened:
    """Bad content is for good; what kills decoders is tried a few times; a file away, for ever."""
    deadly = isinstance(error, Crashed | TookTooLong | WorkFailed)
    spent = deadly and asset.failures >= load(LibrarySettings).max_retries
    return Happened(
        asset.photo_id,
        "thumbnailed",
        "failed",
        error=error.message,
        code=str(error.fields.get("reason", error.code)),
        permanent=isinstance(error, UnreadableMedia) or spent,
    )


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _pool(size: int, *, background: bool) -> Pool:
    settings = load(LibrarySettings)
    return Pool(
        "kaleidoscope.library.outside.derivatives:make",
        size=size,
        memory=settings.thumbnail_memory,
        seconds=settings.thumbnail_seconds,
        background=background,
    )


_pools: WeakKeyDictionary[asyncio.AbstractEventLoop, Pool] = WeakKeyDictionary()


def _at_hand() -> Pool:
    """One child for what is asked for now; it starts with the first wish and ends with us."""
    loop = asyncio.get_running_loop()
    if loop not in _pools:
        _pools[loop] = _pool(1, background=False)
    return _pools[loop]
