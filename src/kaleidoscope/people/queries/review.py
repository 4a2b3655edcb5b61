"""The review queue: what is searched for questions, and the questions."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql
from kaleidoscope.people.rules.review import Party, Question

# A no about a face of the one and the other, whatever ids it was said of.
REFUSED = (
    "EXISTS (SELECT FROM persons n JOIN face_rejections r ON r.person_id = n.id"
    " JOIN faces g ON g.id = r.face_id"
    " WHERE (n.id = {other} OR n.merged_into = {other}) AND {face})"
)
REFUSED_PERSONS = (
    "("
    + REFUSED.format(other="{b}", face="g.person_id = {a}")
    + " OR "
    + REFUSED.format(other="{a}", face="g.person_id = {b}")
    + ")"
)


@dataclass(frozen=True)
class Progress:
    """Persons up to this version and id, and open faces up to this one, have been looked at."""

    version: int = 0
    person_id: int = 0
    face_id: int = 0
    faces_since: datetime | None = None


async def progress(session: AsyncSession, pack: str) -> Progress:
    """How far the search of a pack has come."""
    row = (
        await session.execute(
            sql(
                "SELECT version, person_id, face_id, faces_since FROM review_progress"
                " WHERE pack = :pack"
            ),
            {"pack": pack},
        )
    ).one_or_none()
    return Progress() if row is None else Progress(*row)


async def save_progress(session: AsyncSession, pack: str, reached: Progress) -> None:
    """Remember how far the search has come."""
    await session.execute(
        sql(
            "INSERT INTO review_progress (pack, version, person_id, face_id, faces_since)"
            " VALUES (:pack, :version, :person_id, :face_id, coalesce(:faces_since, now()))"
            " ON CONFLICT (pack) DO UPDATE SET version = excluded.version,"
            "   person_id = excluded.person_id, face_id = excluded.face_id,"
            "   faces_since = excluded.faces_since"
        ),
        {"pack": pack, **asdict(reached)},
    )


async def changed(session: AsyncSession, reached: Progress, limit: int) -> Sequence[Row[Any]]:
    """The next persons in the order of their last change: id, version, and whether they live."""
    rows = await session.execute(
        sql(
            "SELECT id, version, merged_into IS NULL AS lives FROM persons"
            " WHERE version >= :version AND (version > :version OR id > :person)"
            " ORDER BY version, id LIMIT :limit"
        ),
        {"version": reached.version, "person": reached.person_id, "limit": limit},
    )
    return rows.all()


async def open_faces(
    session: AsyncSession, pack: str, after: int, limit: int
) -> Sequence[Row[Any]]:
    """The next open faces, with their photos and vectors."""
    rows = await session.execute(
        sql(
            "SELECT f.id, f.photo_id, e.embedding::text AS vector FROM faces f"
            " JOIN face_vectors e ON e.face_id = f.id AND e.pack = :pack"
            " WHERE f.status = 'open' AND f.id > :after ORDER BY f.id LIMIT :limit"
        ),
        {"pack": pack, "after": after, "limit": limit},
    )
    return rows.all()


async def partners(session: AsyncSession, person_ids: Sequence[int]) -> list[tuple[int, int]]:
    """The open questions about these persons."""
    rows = await session.execute(
        sql(
            "SELECT person_id, other_id FROM review_questions WHERE event_id IS NULL"
            " AND other_id IS NOT NULL AND (person_id = ANY(:ids) OR other_id = ANY(:ids))"
        ),
        {"ids": list(person_ids)},
    )
    return [(row.person_id, row.other_id) for row in rows]


async def open_about(session: AsyncSession, person_id: int) -> Sequence[Row[Any]]:
    """The open questions about a person; of those about a face its photo."""
    rows = await session.execute(
        sql(
            "SELECT q.id, q.person_id, q.other_id, f.photo_id FROM review_questions q"
            " LEFT JOIN faces f ON f.id = q.face_id"
            " WHERE q.event_id IS NULL AND (q.person_id = :person OR q.other_id = :person)"
        ),
        {"person": person_id},
    )
    return rows.all()


async def drop(session: AsyncSession, question_ids: Collection[int]) -> None:
    """Drop these questions."""
    await session.execute(
        sql("DELETE FROM review_questions WHERE id = ANY(:ids)"), {"ids": list(question_ids)}
    )


async def pairs(
    session: AsyncSession, pack: str, wanted: Collection[tuple[int, int]]
) -> list[tuple[Party, Party, float]]:
    """Of these pairs those that live and may be one, with their similarity.

    Left out are those in one photo and those of whom somebody said no.
    """
    rows = await session.execute(
        sql(
            "SELECT u.a, p.display_name AS a_name, v.count AS a_faces, u.b,"
            " q.display_name AS b_name, w.count AS b_faces, -(v.mean <#> w.mean) AS similarity"
            " FROM unnest(CAST(:a AS bigint[]), CAST(:b AS bigint[])) AS u (a, b)"
            " JOIN persons p ON p.id = u.a AND p.merged_into IS NULL"
            " JOIN persons q ON q.id = u.b AND q.merged_into IS NULL"
            " JOIN person_vectors v ON v.person_id = u.a AND v.pack = :pack AND v.count > 0"
            " JOIN person_vectors w ON w.person_id = u.b AND w.pack = :pack AND w.count > 0"
            f" WHERE NOT {REFUSED_PERSONS.format(a='u.a', b='u.b')}"
            " AND NOT EXISTS (SELECT FROM photo_persons x JOIN photo_persons y USING (photo_id)"
            "   WHERE x.person_id = u.a AND y.person_id = u.b)"
        ),
        {"pack": pack, "a": [a for a, _ in wanted], "b": [b for _, b in wanted]},
    )
    return [
        (Party(r.a, r.a_name, r.a_faces), Party(r.b, r.b_name, r.b_faces), float(r.similarity))
        for r in rows
    ]


async def candidates(
    session: AsyncSession, wanted: Collection[tuple[int, int]]
) -> dict[tuple[int, int], Party]:
    """Of these pairs of face and person those that may be one: not refused, nor in the photo."""
    rows = await session.execute(
        sql(
            "SELECT u.face, p.id, p.display_name, 0 AS faces"
            " FROM unnest(CAST(:faces AS bigint[]), CAST(:persons AS bigint[]))"
            "   AS u (face, person)"
            " JOIN persons p ON p.id = u.person AND p.merged_into IS NULL"
            " JOIN faces f ON f.id = u.face"
            f" WHERE NOT {REFUSED.format(other='u.person', face='g.id = u.face')}"
            " AND NOT EXISTS (SELECT FROM photo_persons x"
            "   WHERE x.photo_id = f.photo_id AND x.person_id = u.person)"
        ),
        {"faces": [f for f, _ in wanted], "persons": [p for _, p in wanted]},
    )
    return {(r.face, r.id): Party(r.id, r.display_name, r.faces) for r in rows}


async def write(session: AsyncSession, pack: str, found: Sequence[Question]) -> None:
    """Write questions; one that stands keeps its number, one that was answered stays so."""
    for about, rows in (
        ("person_id, other_id", [q for q in found if q.face_id is None]),
        ("face_id, person_id", [q for q in found if q.face_id is not None]),
    ):
        if rows:
            await session.execute(
                sql(
                    "INSERT INTO review_questions AS o (pack, person_id, other_id, face_id,"
                    "   similarity, probability, faces, gain, is_named)"
                    " SELECT :pack, person_id, other_id, face_id, similarity, probability, faces,"
                    "   gain, is_named FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS u"
                    "   (person_id bigint, other_id bigint, face_id bigint, similarity real,"
                    "   probability real, faces int, gain real, is_named boolean)"
                    f" ON CONFLICT ({about}) DO UPDATE SET pack = excluded.pack,"
                    "   similarity = excluded.similarity, probability = excluded.probability,"
                    "   faces = excluded.faces, gain = excluded.gain,"
                    "   is_named = excluded.is_named WHERE o.event_id IS NULL"
                ),
                {"pack": pack, "rows": json.dumps([asdict(q) for q in rows])},
            )


async def drop_about_persons(
    session: AsyncSession, person_ids: Sequence[int], but: Sequence[Question]
) -> None:
    """Drop the open questions whether these persons are another one, except those."""
    await session.execute(
        sql(
            "DELETE FROM review_questions q WHERE event_id IS NULL AND other_id IS NOT NULL"
            " AND (person_id = ANY(:ids) OR other_id = ANY(:ids)) AND NOT EXISTS"
            " (SELECT FROM unnest(CAST(:persons AS bigint[]), CAST(:others AS bigint[]))"
            "    AS u (person, other) WHERE u.person = q.person_id AND u.other = q.other_id)"
        ),
        {
            "ids": list(person_ids),
            "persons": [q.person_id for q in but],
            "others": [q.other_id for q in but],
        },
    )


async def drop_about_faces(
    session: AsyncSession, after: int, last: int, but: Sequence[Question]
) -> None:
    """Drop the open questions about faces with ids above `after` up to `last`, except those."""
    await session.execute(
        sql(
            "DELETE FROM review_questions q WHERE event_id IS NULL"
            " AND face_id > :after AND face_id <= :last AND NOT EXISTS"
            " (SELECT FROM unnest(CAST(:faces AS bigint[]), CAST(:persons AS bigint[]))"
            "    AS u (face, person) WHERE u.face = q.face_id AND u.person = q.person_id)"
        ),
        {
            "after": after,
            "last": last,
            "faces": [q.face_id for q in but],
            "persons": [q.person_id for q in but],
        },
    )


async def queue(session: AsyncSession, pack: str, limit: int) -> Sequence[Row[Any]]:
    """The next questions that still stand, with both sides' names, sizes and best faces."""
    refused = REFUSED.format(other="q.person_id", face="g.id = q.face_id")
    rows = await session.execute(
        sql(
            "SELECT q.id AS question_id, q.person_id, q.other_id, q.similarity, q.probability,"
            " q.faces, q.gain, q.skips, p.display_name AS person_name,"
            " coalesce(v.count, 0) AS person_faces, o.display_name AS other_name,"
            " coalesce(w.count, 0) AS other_faces, pf.id AS person_face,"
            " pf.photo_id AS person_photo, pf.bbox AS person_bbox, sf.id AS other_face,"
            " sf.photo_id AS other_photo, sf.bbox AS other_bbox"
            " FROM review_questions q JOIN persons p ON p.id = q.person_id"
            " LEFT JOIN person_vectors v ON v.person_id = p.id AND v.pack = q.pack"
            " LEFT JOIN persons o ON o.id = q.other_id"
            " LEFT JOIN person_vectors w ON w.person_id = o.id AND w.pack = q.pack"
            " LEFT JOIN face_vectors pe ON pe.id = p.primary_embedding_id"
            " LEFT JOIN faces pf ON pf.id = pe.face_id"
            " LEFT JOIN face_vectors oe ON oe.id = o.primary_embedding_id"
            " LEFT JOIN faces sf ON sf.id = coalesce(q.face_id, oe.face_id)"
            " WHERE q.pack = :pack AND q.event_id IS NULL AND p.merged_into IS NULL"
            " AND o.merged_into IS NULL AND (q.face_id IS NULL OR sf.status = 'open')"
            " AND CASE WHEN q.face_id IS NULL"
            f"   THEN NOT {REFUSED_PERSONS.format(a='q.person_id', b='q.other_id')}"
            f"   ELSE NOT {refused} END"
            " ORDER BY q.skips, q.is_named DESC, q.gain DESC, q.id LIMIT :limit"
        ),
        {"pack": pack, "limit": limit},
    )
    return rows.all()


async def question(session: AsyncSession, question_id: int) -> Row[Any] | None:
    """One question, held until the transaction ends."""
    return (
        await session.execute(
            sql(
                "SELECT id, person_id, other_id, face_id, event_id FROM review_questions"
                " WHERE id = :id FOR UPDATE"
            ),
            {"id": question_id},
        )
    ).one_or_none()


async def skip(session: AsyncSession, question_id: int) -> None:
    """Put a question off."""
    await session.execute(
        sql("UPDATE review_questions SET skips = skips + 1 WHERE id = :id"), {"id": question_id}
    )


async def answered(session: AsyncSession, question_id: int, event_id: int) -> None:
    """The answer to a question is this event."""
    await session.execute(
        sql("UPDATE review_questions SET event_id = :event WHERE id = :id"),
        {"id": question_id, "event": event_id},
    )


async def reopen(session: AsyncSession, event_id: int) -> None:
    """The answer was taken back: the question is open again."""
    await session.execute(
        sql("UPDATE review_questions SET event_id = NULL WHERE event_id = :event"),
        {"event": event_id},
    )
