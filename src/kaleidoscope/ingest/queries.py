"""All SQL of ingest.

Rows are locked in one order, so that no two transactions wait for each other: photos of the map,
their batches, the job.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.ingest.rules import JobState
from kaleidoscope.kernel.db import sql

IN_HAND = "status IN ('SCANNED', 'PUBLISHED')"


@dataclass(frozen=True)
class Job:
    """What a scan needs to know of its job."""

    job_id: UUID
    path: str
    recursive: bool
    batch_size: int
    dry_run: bool


@dataclass(frozen=True)
class Entry:
    """A photo on its way into a batch; `outcome` DUPLICATE: it needs no message."""

    photo_id: int
    attempt_id: UUID
    outcome: str | None = None


@dataclass(frozen=True)
class Unpublished:
    """A photo of the map whose message the transport has not acknowledged."""

    photo_id: int
    attempt_id: UUID
    batch_id: int
    last_publish_error: str | None


@dataclass(frozen=True)
class Ended:
    """Where the end of a photo counts."""

    photo_id: int
    job_id: UUID
    batch_id: int


# -- jobs


async def add_job(session: AsyncSession, **columns: Any) -> UUID:
    """A new job: SCANNED, nothing counted yet."""
    names = ", ".join(columns)
    values = ", ".join(f":{name}" for name in columns)
    row = await session.execute(
        sql(f"INSERT INTO ingest_jobs ({names}) VALUES ({values}) RETURNING job_id"), columns
    )
    job_id: UUID = row.scalar_one()
    return job_id


async def begin_scan(session: AsyncSession, job_id: UUID) -> Job | None:
    """The job, what an earlier scan of it had seen forgotten; None: nothing is to be scanned."""
    row = await session.execute(
        sql(
            "UPDATE ingest_jobs SET scanned_count = 0, skipped = '{}'"
            " WHERE job_id = :job AND status = 'SCANNED' AND scanned_at IS NULL"
            " RETURNING job_id, path, recursive, batch_size, dry_run"
        ),
        {"job": job_id},
    )
    found = row.mappings().one_or_none()
    if found is None:
        return None
    await session.execute(
        sql("DELETE FROM ingest_errors WHERE job_id = :job AND photo_id IS NULL"), {"job": job_id}
    )
    return Job(**found)


async def lock_running(session: AsyncSession, job_id: UUID) -> bool:
    """Lock the job's row until the transaction ends; whether its scan shall go on."""
    row = await session.execute(
        sql("SELECT status = 'SCANNED' FROM ingest_jobs WHERE job_id = :job FOR NO KEY UPDATE"),
        {"job": job_id},
    )
    return bool(row.scalar_one_or_none())


async def is_running(session: AsyncSession, job_id: UUID) -> bool:
    """The same without the lock."""
    row = await session.execute(
        sql("SELECT status = 'SCANNED' FROM ingest_jobs WHERE job_id = :job"), {"job": job_id}
    )
    return bool(row.scalar_one_or_none())


async def set_scanned(
    session: AsyncSession, job_id: UUID, scanned: int, skipped: Mapping[str, int]
) -> None:
    """What this scan of the job has seen in all."""
    await session.execute(
        sql(
            "UPDATE ingest_jobs SET scanned_count = :scanned, skipped = CAST(:skipped AS jsonb)"
            " WHERE job_id = :job"
        ),
        {"job": job_id, "scanned": scanned, "skipped": json.dumps(skipped)},
    )


async def count_registered(
    session: AsyncSession, job_id: UUID, *, inserted: int, changed: int, duplicates: int
) -> None:
    """Add to what the job has written into the ledger; an interrupted scan's stays counted."""
    await session.execute(
        sql(
            "UPDATE ingest_jobs SET inserted_count = inserted_count + :inserted,"
            " changed_count = changed_count + :changed,"
            " duplicate_count = duplicate_count + :duplicates WHERE job_id = :job"
        ),
        {"job": job_id, "inserted": inserted, "changed": changed, "duplicates": duplicates},
    )


async def end_scan(
    session: AsyncSession, job_id: UUID, estimate: Mapping[str, Any] | None = None
) -> None:
    """The scan came to its end, a dry run's with what it expects."""
    await session.execute(
        sql(
            "UPDATE ingest_jobs SET scanned_at = now(), estimate = CAST(:estimate AS jsonb)"
            " WHERE job_id = :job AND status = 'SCANNED'"
        ),
        {"job": job_id, "estimate": None if estimate is None else json.dumps(estimate)},
    )


async def state(session: AsyncSession, job_id: UUID) -> JobState | None:
    """What decides how a job stands, its row locked; None: there is no such job."""
    lock = sql("SELECT 1 FROM ingest_jobs WHERE job_id = :job FOR NO KEY UPDATE")
    if (await session.execute(lock, {"job": job_id})).one_or_none() is None:
        return None
    # A statement of its own: it sees what others committed while this one waited for the lock.
    row = await session.execute(
        sql(
            "SELECT j.status::text, j.scanned_at IS NOT NULL AS is_scanned,"
            " EXISTS (SELECT FROM photo_ingest_map m"
            "  WHERE m.job_id = j.job_id AND m.ended_at IS NULL) AS has_open_photos,"
            " EXISTS (SELECT FROM ingest_batches b WHERE b.job_id = j.job_id"
            "  AND b.status <> 'PUBLISHED'"
            "  AND (b.status = 'READY' OR b.next_publish_at IS NOT NULL)) AS has_open_batches,"
            " (SELECT count(*) FROM ingest_batches b WHERE b.job_id = j.job_id"
            "  AND b.status = 'FAILED' AND b.next_publish_at IS NULL) AS given_up"
            " FROM ingest_jobs j WHERE j.job_id = :job"
        ),
        {"job": job_id},
    )
    return JobState(**row.mappings().one())


async def set_status(
    session: AsyncSession, job_id: UUID, status: str, failure: str | None = None
) -> None:
    """The job's new status; COMPLETED and FAILED finish it."""
    await session.execute(
        sql(
            "UPDATE ingest_jobs SET status = CAST(:status AS job_status), failure = :failure,"
            " finished_at = CASE WHEN :over THEN now() END WHERE job_id = :job"
        ),
        {
            "job": job_id,
            "status": status,
            "failure": failure,
            "over": status in ("COMPLETED", "FAILED"),
        },
    )


async def fail_job(
    session: AsyncSession, job_id: UUID, failure: str, *, cancelled: bool = False
) -> bool:
    """FAILED, and what is not published is given up; False: the job was over."""
    done = await session.execute(
        sql(
            "UPDATE ingest_jobs SET status = 'FAILED', failure = :failure, finished_at = now(),"
            " cancelled_at = CASE WHEN :cancelled THEN now() END"
            f" WHERE job_id = :job AND {IN_HAND} RETURNING job_id"
        ),
        {"job": job_id, "failure": failure, "cancelled": cancelled},
    )
    if done.one_or_none() is None:
        return False
    await session.execute(
        sql(
            "UPDATE photo_ingest_map SET ended_at = now()"
            " WHERE job_id = :job AND ended_at IS NULL AND status <> 'PUBLISHED'"
        ),
        {"job": job_id},
    )
    await session.execute(
        sql("UPDATE ingest_batches SET next_publish_at = NULL WHERE job_id = :job"),
        {"job": job_id},
    )
    return True


# -- photos into batches


async def take_over(session: AsyncSession, photo_ids: Sequence[int]) -> set[int]:
    """Of known photos those that an ended job has left unpublished: they are its no more."""
    rows = await session.execute(
        sql(
            "DELETE FROM photo_ingest_map WHERE photo_id = ANY(:ids) AND status <> 'PUBLISHED'"
            " AND outcome IS NULL AND ended_at IS NOT NULL RETURNING photo_id"
        ),
        {"ids": list(photo_ids)},
    )
    return set(rows.scalars())


async def add_batches(session: AsyncSession, job_id: UUID, counts: Sequence[int]) -> list[int]:
    """New batches after the job's last one, by how many photos they hold; the job is locked."""
    rows = await session.execute(
        sql(
            "INSERT INTO ingest_batches (job_id, batch_index, photo_count)"
            " SELECT :job, place + coalesce((SELECT max(batch_index) FROM ingest_batches"
            "  WHERE job_id = :job), -1), size"
            " FROM unnest(CAST(:counts AS int[])) WITH ORDINALITY AS b (size, place)"
            " ORDER BY place RETURNING batch_id"
        ),
        {"job": job_id, "counts": list(counts)},
    )
    return list(rows.scalars())


async def add_photos(
    session: AsyncSession, job_id: UUID, batches: Iterable[tuple[int, Sequence[Entry]]]
) -> None:
    """Photos into the map, by batch id. One that this job had already begins anew."""
    rows = [(batch_id, entry) for batch_id, entries in batches for entry in entries]
    await session.execute(
        sql(
            "INSERT INTO photo_ingest_map (job_id, photo_id, batch_id, attempt_id, outcome)"
            " SELECT :job, * FROM unnest(CAST(:photos AS bigint[]), CAST(:batches AS bigint[]),"
            "  CAST(:attempts AS uuid[]), CAST(:outcomes AS text[]))"
            " ON CONFLICT (photo_id, job_id) DO UPDATE SET batch_id = excluded.batch_id,"
            "  attempt_id = excluded.attempt_id, outcome = excluded.outcome, status = 'PENDING',"
            "  publish_attempts = 0, last_publish_error = NULL, ended_at = NULL"
        ),
        {
            "job": job_id,
            "photos": [entry.photo_id for _, entry in rows],
            "batches": [batch_id for batch_id, _ in rows],
            "attempts": [entry.attempt_id for _, entry in rows],
            "outcomes": [entry.outcome for _, entry in rows],
        },
    )


async def batches_in_flight(session: AsyncSession, job_id: UUID) -> int:
    """How many batches hold photos that nothing has been heard of yet."""
    row = await session.execute(
        sql(
            "SELECT count(DISTINCT batch_id) FROM photo_ingest_map"
            " WHERE job_id = :job AND ended_at IS NULL AND outcome IS NULL"
        ),
        {"job": job_id},
    )
    return int(row.scalar_one())


# -- publishing


async def unpublished_batches(session: AsyncSession, job_id: UUID) -> list[int]:
    """READY batches of a job, in their order."""
    rows = await session.execute(
        sql(
            "SELECT batch_id FROM ingest_batches WHERE job_id = :job AND status = 'READY'"
            " ORDER BY batch_index"
        ),
        {"job": job_id},
    )
    return list(rows.scalars())


async def due_batches(
    session: AsyncSession, older_than: timedelta, limit: int
) -> list[tuple[UUID, int]]:
    """Batches to be published again: FAILED ones whose wait is over, READY ones left lying.

    They are due again after `older_than`.
    """
    rows = await session.execute(
        sql(
            "UPDATE ingest_batches SET next_publish_at = now() + CAST(:age AS interval)"
            " WHERE batch_id IN (SELECT b.batch_id FROM ingest_batches b JOIN ingest_jobs j"
            "   USING (job_id) WHERE b.status <> 'PUBLISHED' AND j.status = 'SCANNED'"
            "  AND (b.next_publish_at <= now() OR (b.status = 'READY'"
            "   AND b.next_publish_at IS NULL AND b.inserted_at < now() - CAST(:age AS interval)))"
            "  ORDER BY b.batch_id LIMIT :limit FOR NO KEY UPDATE OF b SKIP LOCKED)"
            " RETURNING job_id, batch_id"
        ),
        {"age": older_than, "limit": limit},
    )
    return [(row.job_id, row.batch_id) for row in rows]


async def unpublished(session: AsyncSession, batch_ids: Sequence[int]) -> list[Unpublished]:
    """Photos of these batches that are still to be published."""
    rows = await session.execute(
        sql(
            "SELECT photo_id, attempt_id, batch_id, last_publish_error FROM photo_ingest_map"
            " WHERE batch_id = ANY(:ids) AND status <> 'PUBLISHED' AND outcome IS NULL"
            " AND ended_at IS NULL ORDER BY map_id"
        ),
        {"ids": list(batch_ids)},
    )
    return [Unpublished(**row) for row in rows.mappings()]


async def set_published(session: AsyncSession, job_id: UUID, batch_ids: Sequence[int]) -> None:
    """The transport has acknowledged the messages of these batches.

    Some of their photos may have ended meanwhile; those of a job that is over are left alone.
    """
    done = await session.execute(
        sql(
            "WITH published AS (UPDATE photo_ingest_map SET status = 'PUBLISHED',"
            "  publish_attempts = publish_attempts + 1, last_publish_error = NULL"
            "  WHERE batch_id = ANY(:ids) AND status <> 'PUBLISHED' AND CASE"
            "   WHEN outcome IS NULL THEN ended_at IS NULL ELSE outcome <> 'DUPLICATE' END"
            "  RETURNING 1) SELECT count(*) FROM published"
        ),
        {"ids": list(batch_ids)},
    )
    last = await session.execute(
        sql(
            "WITH published AS (UPDATE ingest_batches SET status = 'PUBLISHED',"
            "  published_at = clock_timestamp(), next_publish_at = NULL"
            "  WHERE batch_id = ANY(:ids) AND status <> 'PUBLISHED' RETURNING batch_index)"
            " SELECT max(batch_index) FROM published"
        ),
        {"ids": list(batch_ids)},
    )
    await session.execute(
        sql(
            "UPDATE ingest_jobs SET published_count = published_count + :number,"
            " last_published_batch = greatest(last_published_batch, :last) WHERE job_id = :job"
        ),
        {"job": job_id, "number": done.scalar_one(), "last": last.scalar_one()},
    )


async def set_unpublished(
    session: AsyncSession, batch_ids: Sequence[int], error: str, tries: int
) -> list[tuple[int, int]]:
    """`tries` to publish these batches have failed; answers each with its failures in all."""
    await session.execute(
        sql(
            "UPDATE photo_ingest_map SET status = 'FAILED', last_publish_error = :error,"
            " publish_attempts = publish_attempts + :tries"
            " WHERE batch_id = ANY(:ids) AND status <> 'PUBLISHED' AND outcome IS NULL"
            " AND ended_at IS NULL"
        ),
        {"ids": list(batch_ids), "error": error, "tries": tries},
    )
    rows = await session.execute(
        sql(
            "UPDATE ingest_batches SET status = 'FAILED',"
            " publish_failures = publish_failures + :tries"
            " WHERE batch_id = ANY(:ids) AND status <> 'PUBLISHED'"
            " RETURNING batch_id, publish_failures"
        ),
        {"ids": list(batch_ids), "tries": tries},
    )
    return [(row.batch_id, row.publish_failures) for row in rows]


async def set_next_publish(session: AsyncSession, batch_id: int, wait: timedelta | None) -> None:
    """When a FAILED batch is tried again; None: it is given up, and its photos with it."""
    await session.execute(
        sql(
            "UPDATE ingest_batches SET next_publish_at = now() + CAST(:wait AS interval)"
            " WHERE batch_id = :batch"
        ),
        {"batch": batch_id, "wait": wait},
    )
    if wait is None:
        await session.execute(
            sql(
                "UPDATE photo_ingest_map SET ended_at = now() WHERE batch_id = :batch"
                " AND status <> 'PUBLISHED' AND ended_at IS NULL"
            ),
            {"batch": batch_id},
        )


# -- the ends of photos


async def set_outcomes(
    session: AsyncSession, outcomes: Mapping[int, tuple[str, bool]]
) -> list[Ended]:
    """What came of photos (the outcome, and whether it is final), in every job that waits for them.

    Answers where they have ended by that.
    """
    rows = await session.execute(
        sql(
            "WITH told AS (SELECT * FROM unnest(CAST(:photos AS bigint[]),"
            "   CAST(:outcomes AS text[]), CAST(:final AS boolean[]))"
            "   AS e (photo_id, outcome, final)), held AS (SELECT map_id FROM photo_ingest_map"
            "  WHERE photo_id = ANY(:photos) AND ended_at IS NULL"
            "  ORDER BY map_id FOR NO KEY UPDATE)"
            " UPDATE photo_ingest_map m SET outcome = told.outcome,"
            " ended_at = CASE WHEN told.final THEN now() END FROM told, held"
            " WHERE m.map_id = held.map_id AND m.photo_id = told.photo_id AND m.ended_at IS NULL"
            " RETURNING m.photo_id, m.job_id, m.batch_id, m.ended_at"
        ),
        {
            "photos": list(outcomes),
            "outcomes": [outcome for outcome, _ in outcomes.values()],
            "final": [final for _, final in outcomes.values()],
        },
    )
    return [Ended(row.photo_id, row.job_id, row.batch_id) for row in rows if row.ended_at]


async def count_ended(
    session: AsyncSession, batch_id: int, *, processed: int, failed: int, faces: int
) -> None:
    """Count photos of a batch."""
    await session.execute(
        sql(
            "UPDATE ingest_batches SET failed_count = failed_count + :failed,"
            " processed_count = processed_count + :processed, face_count = face_count + :faces"
            " WHERE batch_id = :batch"
        ),
        {"batch": batch_id, "processed": processed, "failed": failed, "faces": faces},
    )


async def add_persons(session: AsyncSession, job_id: UUID, persons: Mapping[int, bool]) -> None:
    """Persons seen in photos of a job, by id: whether one of the photos founded them."""
    await session.execute(
        sql(
            "INSERT INTO ingest_persons AS p (job_id, person_id, created)"
            " SELECT :job, * FROM unnest(CAST(:ids AS bigint[]), CAST(:created AS boolean[]))"
            "  AS seen (id, created) ORDER BY id"
            " ON CONFLICT (job_id, person_id) DO UPDATE SET created = true"
            "  WHERE excluded.created AND NOT p.created"
        ),
        {"job": job_id, "ids": list(persons), "created": list(persons.values())},
    )


async def overdue(session: AsyncSession, age: timedelta, after: int, limit: int) -> list[Any]:
    """Published or duplicate photos without an end for `age`, in order: map_id, photo_id."""
    rows = await session.execute(
        sql(
            "SELECT map_id, photo_id FROM photo_ingest_map WHERE ended_at IS NULL"
            " AND map_id > :after AND inserted_at < now() - CAST(:age AS interval)"
            " AND (status = 'PUBLISHED' OR outcome IS NOT NULL) ORDER BY map_id LIMIT :limit"
        ),
        {"age": age, "after": after, "limit": limit},
    )
    return list(rows)


async def unsettled_jobs(session: AsyncSession) -> list[UUID]:
    """Jobs that have been scanned and are not over."""
    rows = await session.execute(
        sql(f"SELECT job_id FROM ingest_jobs WHERE {IN_HAND} AND scanned_at IS NOT NULL")
    )
    return list(rows.scalars())


# -- what could not be taken in


@dataclass(frozen=True)
class NewError:
    """Something a job could not take in."""

    path: str
    code: str
    cause: str
    photo_id: int | None = None


async def add_errors(session: AsyncSession, job_id: UUID, errors: Sequence[NewError]) -> None:
    """Note them."""
    if errors:
        await session.execute(
            sql(
                "INSERT INTO ingest_errors (job_id, path, code, cause, photo_id)"
                " VALUES (:job, :path, :code, :cause, :photo_id)"
            ),
            [{"job": job_id, **asdict(error)} for error in errors],
        )


async def errors(
    session: AsyncSession, job_id: UUID, after: int, limit: int
) -> Sequence[RowMapping]:
    """A job's errors in the order they were met."""
    rows = await session.execute(
        sql(
            "SELECT error_id, path, code, cause, photo_id, at FROM ingest_errors"
            " WHERE job_id = :job AND error_id > :after ORDER BY error_id LIMIT :limit"
        ),
        {"job": job_id, "after": after, "limit": limit},
    )
    return rows.mappings().all()


async def errors_by_code(session: AsyncSession, job_id: UUID) -> dict[str, int]:
    """How many errors a job has by their cause."""
    rows = await session.execute(
        sql(
            "SELECT code, count(*) AS number FROM ingest_errors WHERE job_id = :job"
            " GROUP BY code ORDER BY 2 DESC, 1"
        ),
        {"job": job_id},
    )
    return {row.code: row.number for row in rows}


# -- reading

JOB = (
    "SELECT j.job_id, j.job_name, j.path, j.recursive, j.requested_by, j.created_at,"
    " j.status::text, j.failure, j.dry_run, j.batch_size, j.scanned_at, j.cancelled_at,"
    " j.finished_at, j.scanned_count, j.inserted_count, j.published_count, j.changed_count,"
    " j.duplicate_count, j.skipped, j.estimate, j.last_published_batch, b.* FROM ingest_jobs j"
    " CROSS JOIN LATERAL (SELECT"
    "  count(*) FILTER (WHERE status = 'FAILED') AS failed_batches,"
    "  coalesce(sum(photo_count), 0)::int AS photos,"
    "  coalesce(sum(processed_count), 0)::int AS processed,"
    "  coalesce(sum(failed_count), 0)::int AS failed,"
    "  coalesce(sum(face_count), 0)::int AS faces"
    "  FROM ingest_batches WHERE job_id = j.job_id) AS b"
)


async def job(session: AsyncSession, job_id: UUID) -> RowMapping | None:
    """A job with the sums of its batches."""
    row = await session.execute(sql(f"{JOB} WHERE j.job_id = :job"), {"job": job_id})
    return row.mappings().one_or_none()


async def jobs(
    session: AsyncSession, status: str | None, before: datetime | None, limit: int
) -> Sequence[RowMapping]:
    """Jobs, the youngest first."""
    rows = await session.execute(
        sql(
            f"{JOB} WHERE (CAST(:status AS job_status) IS NULL OR j.status = :status)"
            " AND (CAST(:before AS timestamptz) IS NULL OR j.created_at < :before)"
            " ORDER BY j.created_at DESC LIMIT :limit"
        ),
        {"status": status, "before": before, "limit": limit},
    )
    return rows.mappings().all()


async def batches(session: AsyncSession, job_id: UUID, limit: int) -> Sequence[RowMapping]:
    """The last `limit` batches of a job, in their order."""
    rows = await session.execute(
        sql(
            "SELECT * FROM (SELECT batch_id, batch_index, photo_count, status::text, inserted_at,"
            "  published_at, publish_failures, next_publish_at, processed_count, failed_count,"
            "  face_count FROM ingest_batches WHERE job_id = :job"
            "  ORDER BY batch_index DESC LIMIT :limit) AS last ORDER BY batch_index"
        ),
        {"job": job_id, "limit": limit},
    )
    return rows.mappings().all()


async def persons(session: AsyncSession, job_id: UUID) -> tuple[int, int]:
    """How many persons a job's photos founded, and how many known ones they show."""
    row = await session.execute(
        sql(
            "SELECT count(*) FILTER (WHERE created), count(*) FILTER (WHERE NOT created)"
            " FROM ingest_persons WHERE job_id = :job"
        ),
        {"job": job_id},
    )
    created, matched = row.one()
    return created, matched


async def photos_per_second(session: AsyncSession, at_least: int) -> float | None:
    """How fast the last completed job with `at_least` photos was, from order to end."""
    row = await session.execute(
        sql(
            f"SELECT processed / extract(epoch FROM finished_at - created_at) FROM ({JOB}) AS done"
            " WHERE status = 'COMPLETED' AND processed >= :least AND finished_at > created_at"
            " ORDER BY finished_at DESC LIMIT 1"
        ),
        {"least": at_least},
    )
    found = row.scalar_one_or_none()
    return None if found is None else float(found)


async def figures(session: AsyncSession) -> RowMapping:
    """The numbers of the metrics: over all jobs, and the time of the last thousand batches."""
    row = await session.execute(
        sql(
            "SELECT (SELECT coalesce(sum(scanned_count), 0) FROM ingest_jobs) AS files_scanned,"
            " (SELECT coalesce(sum(inserted_count), 0) FROM ingest_jobs) AS files_inserted,"
            " count(*) FILTER (WHERE status = 'PUBLISHED') AS batches_published,"
            " coalesce(sum(publish_failures), 0) AS kafka_publish_failures,"
            " (SELECT avg(extract(epoch FROM published_at - inserted_at)) FROM"
            "  (SELECT published_at, inserted_at FROM ingest_batches"
            "   WHERE published_at IS NOT NULL ORDER BY batch_id DESC LIMIT 1000) AS last)"
            "  AS avg_batch_time FROM ingest_batches"
        )
    )
    return row.mappings().one()


# -- inboxes


@dataclass(frozen=True)
class Problem:
    """Something in an inbox that cannot be filed."""

    path: str
    code: str
    cause: str
    since: datetime


async def set_inbox(
    session: AsyncSession, path: str, waiting: int, settling: int, current: str | None
) -> None:
    """How far the librarian is with an inbox."""
    await session.execute(
        sql(
            "INSERT INTO inboxes AS i (path, waiting, settling, current)"
            " VALUES (:path, :waiting, :settling, :current) ON CONFLICT (path) DO UPDATE SET"
            " waiting = excluded.waiting, settling = excluded.settling,"
            " current = excluded.current, looked_at = now()"
        ),
        {"path": path, "waiting": waiting, "settling": settling, "current": current},
    )


async def keep_inboxes(session: AsyncSession, paths: Sequence[str]) -> None:
    """Forget the inboxes that are none any more."""
    await session.execute(
        sql("DELETE FROM inboxes WHERE NOT path = ANY(:paths)"), {"paths": list(paths)}
    )


async def set_inbox_problems(
    session: AsyncSession, inbox: str, problems: Sequence[Problem]
) -> None:
    """What cannot be filed in an inbox, in place of what could not before."""
    await session.execute(sql("DELETE FROM inbox_problems WHERE inbox = :inbox"), {"inbox": inbox})
    if problems:
        await session.execute(
            sql(
                "INSERT INTO inbox_problems (inbox, path, code, cause, since)"
                " SELECT :inbox, * FROM unnest(CAST(:paths AS text[]), CAST(:codes AS text[]),"
                "  CAST(:causes AS text[]), CAST(:times AS timestamptz[]))"
            ),
            {
                "inbox": inbox,
                "paths": [p.path for p in problems],
                "codes": [p.code for p in problems],
                "causes": [p.cause for p in problems],
                "times": [p.since for p in problems],
            },
        )


async def inboxes(session: AsyncSession) -> Sequence[RowMapping]:
    """Every inbox as it was seen last."""
    return (await session.execute(sql("SELECT * FROM inboxes ORDER BY path"))).mappings().all()


async def inbox_problems(session: AsyncSession, inbox: str, limit: int) -> list[Problem]:
    """What cannot be filed in an inbox, the oldest first."""
    rows = await session.execute(
        sql(
            "SELECT path, code, cause, since FROM inbox_problems WHERE inbox = :inbox"
            " ORDER BY since, problem_id LIMIT :limit"
        ),
        {"inbox": inbox, "limit": limit},
    )
    return [Problem(**row._mapping) for row in rows]


async def relocate(session: AsyncSession, old: str, new: str) -> None:
    """Jobs of folders below `old` are of folders below `new` from now on; the librarian tells of
    its inboxes anew."""
    await session.execute(
        sql(
            "UPDATE ingest_jobs SET path = :new || substr(path, length(:old) + 1)"
            " WHERE path = :old OR starts_with(path, :old || '/')"
        ),
        {"old": old, "new": new},
    )
    await session.execute(
        sql("DELETE FROM inboxes WHERE path = :old OR starts_with(path, :old || '/')"),
        {"old": old},
    )
