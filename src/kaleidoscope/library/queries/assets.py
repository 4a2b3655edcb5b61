"""Assets as they are read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ARRAY, BigInteger, ColumnElement, Row, String, any_, func, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql
from kaleidoscope.library.models import MediaAsset, ProcessingAttempt

ASSETS = MediaAsset.__table__.c
ATTEMPTS = ProcessingAttempt.__table__.c


async def by_ids(session: AsyncSession, photo_ids: Collection[int]) -> Sequence[Row[Any]]:
    """The assets with these ids, in no order."""
    query = select(*ASSETS).where(
        ASSETS.photo_id == any_(literal(list(photo_ids), ARRAY(BigInteger)))
    )
    return (await session.execute(query)).all()


async def taken(session: AsyncSession, photo_ids: Collection[int]) -> Sequence[Row[Any]]:
    """Of these assets those with a date of high or medium confidence: id and day."""
    return (
        await session.execute(
            sql(
                "SELECT photo_id, CAST(captured_at AS date) AS day FROM media_assets"
                " WHERE photo_id = ANY(:ids) AND captured_at IS NOT NULL"
                " AND captured_at_confidence IN ('high', 'medium')"
            ),
            {"ids": list(photo_ids)},
        )
    ).all()


async def by_path(session: AsyncSession, path: str) -> Row[Any] | None:
    """The asset that lies at a path."""
    return (await session.execute(select(*ASSETS).where(ASSETS.final_path == path))).one_or_none()


async def by_contents(session: AsyncSession, hashes: Collection[str]) -> Sequence[Row[Any]]:
    """The first asset of each of these contents (SHA-256, hexadecimal)."""
    query = select(*ASSETS).where(
        ASSETS.file_hash == any_(literal(list(hashes), ARRAY(String))),
        ASSETS.duplicate_of.is_(None),
    )
    return (await session.execute(query)).all()


async def named(session: AsyncSession, filename: str, limit: int) -> Sequence[Row[Any]]:
    """Assets whose file has this name, wherever it lies, the oldest first."""
    query = select(*ASSETS).where(ASSETS.filename == filename)
    return (await session.execute(query.order_by(ASSETS.photo_id).limit(limit))).all()


async def page(
    session: AsyncSession, after: int, limit: int, status: str | None, media_type: str | None
) -> Sequence[Row[Any]]:
    """The next assets in the order of their ids."""
    query = select(*ASSETS).where(ASSETS.photo_id > after, *_filters(status, media_type))
    return (await session.execute(query.order_by(ASSETS.photo_id).limit(limit))).all()


async def photo_ids(
    session: AsyncSession, after: int, limit: int, status: str | None, media_type: str | None
) -> list[int]:
    """The ids of the next assets that are no duplicates, in order."""
    own = ASSETS.duplicate_of.is_(None)
    query = select(ASSETS.photo_id).where(
        own, ASSETS.photo_id > after, *_filters(status, media_type)
    )
    found = await session.execute(query.order_by(ASSETS.photo_id).limit(limit))
    return list(found.scalars())


async def stream(session: AsyncSession, status: str | None) -> AsyncIterator[Row[Any]]:
    """Every asset in the order of the ids, by a cursor of the server."""
    query = select(*ASSETS).where(*_filters(status, None)).order_by(ASSETS.photo_id)
    rows = await session.stream(query.execution_options(yield_per=1000))
    async for row in rows:
        yield row


async def latest_failed(session: AsyncSession, limit: int) -> Sequence[Row[Any]]:
    """FAILED assets, the latest failure first."""
    query = select(*ASSETS).where(ASSETS.has_errors, ASSETS.status == "FAILED")
    return (await session.execute(query.order_by(ASSETS.updated_at.desc()).limit(limit))).all()


async def stuck(session: AsyncSession, age: timedelta, limit: int) -> Sequence[Row[Any]]:
    """Assets that are PROCESSING for longer than `age`, the longest first."""
    query = select(*ASSETS).where(ASSETS.processing_since < func.now() - age)
    return (await session.execute(query.order_by(ASSETS.processing_since).limit(limit))).all()


async def attempts(session: AsyncSession, photo_id: int) -> Sequence[Row[Any]]:
    """The attempts at an asset, the oldest first."""
    query = select(*ATTEMPTS).where(ATTEMPTS.photo_id == photo_id)
    return (await session.execute(query.order_by(ATTEMPTS.created_at))).all()


async def count_known(session: AsyncSession, paths: Sequence[str]) -> int:
    """How many of these paths have a row."""
    found = await session.execute(
        sql("SELECT count(*) FROM media_assets WHERE final_path = ANY(:paths)"),
        {"paths": list(paths)},
    )
    return int(found.scalar_one())


async def counts(session: AsyncSession) -> dict[str, int]:
    """How many assets have each status; one without any is left out."""
    query = select(ASSETS.status, func.count()).group_by(ASSETS.status)
    return dict((await session.execute(query)).all())


async def set_person_ids(session: AsyncSession, person_ids: Mapping[int, Sequence[int]]) -> None:
    """Who is shown in photos and in their duplicates; a duplicate shows its first one's persons."""
    await session.execute(
        sql(
            "UPDATE media_assets m SET person_ids = g.persons"
            " FROM unnest(CAST(:ids AS bigint[]), CAST(:persons AS jsonb[])) AS g (id, persons)"
            " WHERE (m.photo_id = g.id AND m.duplicate_of IS NULL) OR m.duplicate_of = g.id"
        ),
        {
            "ids": list(person_ids),
            "persons": [json.dumps(list(ids)) for ids in person_ids.values()],
        },
    )


def _filters(status: str | None, media_type: str | None) -> list[ColumnElement[bool]]:
    wanted = []
    if status is not None:
        wanted.append(ASSETS.status == status)
    if media_type is not None:
        wanted.append(ASSETS.media_type == media_type)
    return wanted
