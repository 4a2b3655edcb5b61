"""The states that changes of identity go from and to, and the ledger of them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.db import sql
from kaleidoscope.people.queries.persons import CHANGED
from kaleidoscope.people.rules.changes import Change, FaceState, PersonState, State


async def load_state(
    session: AsyncSession, person_ids: Collection[int], face_ids: Collection[int] = ()
) -> State:
    """The persons, those merged into them, all their faces and these, and the noes about those."""
    persons = await session.execute(
        sql(
            "SELECT id, display_name, merged_into FROM persons"
            " WHERE id = ANY(:persons) OR merged_into = ANY(:persons)"
        ),
        {"persons": list(person_ids)},
    )
    theirs = await session.execute(
        sql("SELECT id FROM faces WHERE person_id = ANY(:persons)"), {"persons": list(person_ids)}
    )
    faces = await load_faces(session, {*theirs.scalars(), *face_ids})
    known = {r.id: PersonState(r.display_name, r.merged_into) for r in persons}
    return State(faces.faces, known, faces.noes)


async def load_persons(session: AsyncSession, person_ids: Collection[int]) -> State:
    """The persons alone."""
    rows = await session.execute(
        sql("SELECT id, display_name, merged_into FROM persons WHERE id = ANY(:ids)"),
        {"ids": list(person_ids)},
    )
    return State({}, {r.id: PersonState(r.display_name, r.merged_into) for r in rows})


async def load_faces(session: AsyncSession, face_ids: Collection[int]) -> State:
    """The faces alone, with the noes about them."""
    ids = {"ids": list(face_ids)}
    faces = await session.execute(
        sql("SELECT id, person_id, confirmed_by, similarity FROM faces WHERE id = ANY(:ids)"), ids
    )
    noes = await session.execute(
        sql("SELECT face_id, person_id FROM face_rejections WHERE face_id = ANY(:ids)"), ids
    )
    return State(
        {r.id: FaceState(r.person_id, r.confirmed_by, r.similarity) for r in faces},
        {},
        frozenset((r.face_id, r.person_id) for r in noes),
    )


async def write_difference(session: AsyncSession, change: Change) -> None:
    """Write the faces, persons and noes after a change, and take away its noes from before."""
    before, after = change.before, change.after
    if after.faces:
        faces = after.faces
        await session.execute(
            sql(
                "UPDATE faces f SET person_id = u.person, confirmed_by = u.by,"
                "   similarity = u.similarity,"
                "   status = CASE WHEN u.person IS NULL THEN 'open' ELSE 'assigned' END"
                " FROM unnest(CAST(:ids AS bigint[]), CAST(:persons AS bigint[]),"
                "   CAST(:by AS text[]), CAST(:similarities AS real[]))"
                "   AS u (id, person, by, similarity)"
                " WHERE f.id = u.id"
            ),
            {
                "ids": list(faces),
                "persons": [s.person_id for s in faces.values()],
                "by": [s.confirmed_by for s in faces.values()],
                "similarities": [s.similarity for s in faces.values()],
            },
        )
    if after.persons:
        await session.execute(
            sql(
                f"UPDATE persons p SET display_name = u.name, merged_into = u.into_id, {CHANGED}"
                " FROM unnest(CAST(:ids AS bigint[]), CAST(:names AS text[]),"
                "   CAST(:into AS bigint[])) AS u (id, name, into_id)"
                " WHERE p.id = u.id"
            ),
            {
                "ids": list(after.persons),
                "names": [s.name for s in after.persons.values()],
                "into": [s.merged_into for s in after.persons.values()],
            },
        )
    if before.noes:
        await session.execute(
            sql(
                "DELETE FROM face_rejections r"
                " USING unnest(CAST(:faces AS bigint[]), CAST(:persons AS bigint[]))"
                "   AS u (face, person)"
                " WHERE r.face_id = u.face AND r.person_id = u.person"
            ),
            _noes(before.noes),
        )
    if after.noes:
        await session.execute(
            sql(
                "INSERT INTO face_rejections (face_id, person_id)"
                " SELECT face, person"
                " FROM unnest(CAST(:faces AS bigint[]), CAST(:persons AS bigint[]))"
                "   AS u (face, person)"
                " ON CONFLICT DO NOTHING"
            ),
            _noes(after.noes),
        )


def _noes(noes: Collection[tuple[int, int]]) -> dict[str, list[int]]:
    return {"faces": [f for f, _ in noes], "persons": [p for _, p in noes]}


@dataclass(frozen=True)
class Entry:
    """What an event tells of its change: who and what it touched, and both its sides."""

    person_ids: Collection[int]
    face_ids: Collection[int]
    before: Mapping[str, Any]
    after: Mapping[str, Any]


async def add_events(
    session: AsyncSession,
    kind: str,
    made_by: str,
    entries: Sequence[Entry],
    undoes: int | None = None,
    round_number: int | None = None,
    *,
    in_round: bool = False,
) -> list[int]:
    """Write changes into the ledger; their numbers, in order. A round without a number begins
    with the first of them and is called by it.
    """
    if not entries:
        return []
    numbers = await session.execute(
        sql(
            "SELECT nextval(pg_get_serial_sequence('identity_events', 'id'))"
            " FROM generate_series(1, :count)"
        ),
        {"count": len(entries)},
    )
    ids = sorted(numbers.scalars())
    await session.execute(
        sql(
            "INSERT INTO identity_events (id, kind, made_by, person_ids, face_ids, before, after,"
            "   undoes, round)"
            " SELECT id, :kind, :made_by, person_ids, face_ids, before, after, :undoes, :round"
            " FROM jsonb_to_recordset(CAST(:entries AS jsonb)) AS u (id bigint,"
            "   person_ids bigint[], face_ids bigint[], before jsonb, after jsonb) ORDER BY id"
        ),
        {
            "kind": kind,
            "made_by": made_by,
            "undoes": undoes,
            "round": ids[0] if in_round and round_number is None else round_number,
            "entries": json.dumps(
                [
                    {
                        "id": number,
                        "person_ids": sorted(entry.person_ids),
                        "face_ids": sorted(entry.face_ids),
                        "before": entry.before,
                        "after": entry.after,
                    }
                    for number, entry in zip(ids, entries, strict=True)
                ]
            ),
        },
    )
    if undoes is not None:
        await session.execute(
            sql("UPDATE identity_events SET undone_by = :by WHERE id = :id"),
            {"by": ids[0], "id": undoes},
        )
    return ids


async def events_of_round(session: AsyncSession, number: int) -> list[int]:
    """The events of a round, which any of them names, that nobody has undone; the last first."""
    rows = await session.execute(
        sql(
            "SELECT id FROM identity_events WHERE undone_by IS NULL AND undoes IS NULL"
            " AND round = (SELECT round FROM identity_events WHERE id = :number) ORDER BY id DESC"
        ),
        {"number": number},
    )
    return list(rows.scalars())


EVENT = (
    "SELECT id, kind, made_by, created_at, person_ids, face_ids, before, after, undoes, undone_by,"
    " round FROM identity_events"
)


async def event(session: AsyncSession, event_id: int) -> Row[Any] | None:
    """One change with both its sides."""
    return (await session.execute(sql(EVENT + " WHERE id = :id"), {"id": event_id})).one_or_none()


async def last_event(session: AsyncSession) -> Row[Any] | None:
    """The last change that a person made and nobody undid."""
    return (
        await session.execute(
            sql(
                EVENT + " WHERE made_by = 'person' AND undoes IS NULL AND undone_by IS NULL"
                " ORDER BY id DESC LIMIT 1"
            )
        )
    ).one_or_none()


async def later_events(session: AsyncSession, row: Row[Any]) -> Sequence[Row[Any]]:
    """Changes in force that came after this one and touch a face or person of it."""
    rows = await session.execute(
        sql(
            EVENT + " WHERE id > :id AND undoes IS NULL AND undone_by IS NULL"
            " AND (person_ids && CAST(:persons AS bigint[])"
            "   OR face_ids && CAST(:faces AS bigint[]))"
        ),
        {"id": row.id, "persons": row.person_ids, "faces": row.face_ids},
    )
    return rows.all()


async def events(
    session: AsyncSession, person_id: int | None, before: int | None, limit: int
) -> Sequence[Row[Any]]:
    """The latest changes, of one person or of all, newest first."""
    rows = await session.execute(
        sql(
            EVENT + " WHERE (CAST(:person AS bigint) IS NULL"
            "   OR person_ids && ARRAY[CAST(:person AS bigint)])"
            " AND (CAST(:before AS bigint) IS NULL OR id < :before)"
            " ORDER BY id DESC LIMIT :limit"
        ),
        {"person": person_id, "before": before, "limit": limit},
    )
    return rows.all()
