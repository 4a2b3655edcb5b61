"""The dump of persons that the ML service keeps a copy of, as a stream of JSON."""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from sqlalchemy import Row

from kaleidoscope.kernel.db import Database
from kaleidoscope.people.queries import healing, reading
from kaleidoscope.people.queries.search import from_sql
from kaleidoscope.people.schemas import encode_vector


async def stream(
    db: Database, pack: str, since_id: int, limit: int, changed_since: int | None
) -> AsyncIterator[bytes]:
    """`{"version", "entries", "next_since_id"}` in pieces, read while it is sent.

    Read pages with `since_id = next_since_id` until that is null. Then ask for
    `changed_since = version` of the *first* page: whatever changed meanwhile is told again, and
    nothing is missed, in whatever order transactions commit. A version lower than the one held
    means another database: begin anew.
    """
    last, count = None, 0
    async with db.transaction() as session:
        version = await healing.version(session)
        yield f'{{"version": {version}, "entries": ['.encode()
        async for row in reading.dump(session, pack, since_id, limit, changed_since):
            yield (",\n" if count else "\n").encode() + json.dumps(_entry(row, pack)).encode()
            last, count = row.id, count + 1
    following = last if count == limit else None
    yield f'\n], "next_since_id": {json.dumps(following)}}}\n'.encode()


async def gzipped(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The stream compressed, in pieces as they fill."""
    packer = zlib.compressobj(level=1, wbits=31)
    async for piece in pieces:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()


def _entry(row: Row[Any], pack: str) -> dict[str, Any]:
    if row.count is None:  # merged away, or left without a face: of no use for matching
        return {"person_id": row.id, "meta": {"version": row.version, "removed": True}}
    mean = from_sql(row.mean)
    return {
        "person_id": row.id,
        "representative_embedding": encode_vector(mean / np.linalg.norm(mean)),
        "representative_photo_id": row.photo_id,
        "meta": {
            "count": row.count,
            "sum": encode_vector(from_sql(row.sum)),
            "model": pack,
            "version": row.version,
        },
    }
