"""Jobs from the order to the last photo."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from workbench import Away, Workbench, fill, photo

from kaleidoscope.bus.handlers import Context
from kaleidoscope.bus.messages import Delivery, message_of
from kaleidoscope.ingest import jobs, service
from kaleidoscope.ingest.events import FolderToIngest
from kaleidoscope.ingest.schemas import IngestFolder
from kaleidoscope.kernel.clock import now
from kaleidoscope.kernel.errors import Conflict, Forbidden, Invalid, NotFound
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library


async def test_a_folder_goes_from_scan_to_completed(bench: Workbench, tmp_path: Path) -> None:
    fill(tmp_path, 5)
    fill(tmp_path / "sub" / "deeper", 3, start=5)
    (tmp_path / "notes.txt").write_text("no photo")

    job = await bench.ingest(tmp_path, batchSize=4, jobName="holidays")
    assert (job.status, job.scanned, job.inserted, job.published) == ("PUBLISHED", 8, 8, 8)
    assert job.job_name == "holidays"
    assert job.skipped == {"extension": 1}
    assert [b.photo_count for b in job.batches] == [4, 4]
    assert {b.status for b in job.batches} == {"PUBLISHED"}
    assert job.last_published_batch == 1

    await bench.recognise(person_ids=[7, 8], created_person_ids=[7], faces=2)
    job = await bench.status(job.job_id)
    assert (job.status, job.processed, job.failed) == ("COMPLETED", 8, 0)
    assert (job.faces_detected, job.persons_created, job.persons_matched) == (16, 1, 1)
    assert job.finished_at is not None


async def test_messages_say_what_the_seed_says(bench: Workbench, tmp_path: Path) -> None:
    fill(tmp_path, 1)
    job = await bench.ingest(tmp_path)
    (message,) = await bench.take()
    assert message["path"] == str(tmp_path / "0000.jpg")
    assert message["job_id"] == str(job.job_id)
    assert message["ingest_batch_id"] == job.batches[0].batch_id
    assert message["photo_id"] == await bench.value("SELECT photo_id FROM photo_ingest_map")
    assert set(message) >= {"created_at", "attempt_id"}


async def test_videos_have_a_topic_of_their_own(bench: Workbench, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(12) + b"x" * 100)
    await bench.ingest(tmp_path)
    depths = {d.topic: d.waiting for d in await bench.transport.depth()}
    assert (depths["videos-to-read"], depths["photos-to-process"]) == (1, 0)


async def test_not_recursive(bench: Workbench, tmp_path: Path) -> None:
    fill(tmp_path, 2)
    fill(tmp_path / "sub", 3)
    job = await bench.ingest(tmp_path, recursive=False)
    assert (job.inserted, job.skipped) == (2, {"subfolder": 1})


async def test_an_empty_folder_completes_at_once(bench: Workbench, tmp_path: Path) -> None:
    job = await bench.ingest(tmp_path)
    assert (job.status, job.scanned, job.batches) == ("COMPLETED", 0, [])


async def test_known_photos_are_not_published_again(bench: Workbench, tmp_path: Path) -> None:
    fill(tmp_path, 5)
    await bench.ingest(tmp_path)
    assert len(await bench.recognise(faces=0)) == 5
    fill(tmp_path, 1, start=5)
    job = await bench.ingest(tmp_path)
    assert (job.scanned, job.known, job.inserted, job.published) == (6, 5, 1, 1)
    assert len(await bench.recognise(faces=0)) == 1
    job = await bench.ingest(tmp_path)
    assert (job.status, job.known, job.published) == ("COMPLETED", 6, 0)


async def test_changed_content_is_looked_at_again(bench: Workbench, tmp_path: Path) -> None:
    fill(tmp_path, 3)
    first = await bench.ingest(tmp_path)
    await bench.recognise(faces=0)
    await library.hash_pending(bench.db)
    (tmp_path / "0000.jpg").write_bytes(photo(99))
    os.utime(tmp_path / "0001.jpg", (1, 1))
    job = await bench.ingest(tmp_path)
    assert (job.inserted, job.changed, job.known, job.published) == (0, 1, 2, 1)
    (again,) = await bench.recognise(faces=4)
    paths = await bench.rows("SELECT final_path FROM media_assets WHERE photo_id = :p", p=again)
    assert paths[0][0] == str(tmp_path / "0000.jpg")
    job = await bench.status(job.job_id)
    assert (job.status, job.faces_detected) == ("COMPLETED", 4)
    assert (await bench.status(first.job_id)).faces_detected == 0


async def test_duplicates_are_not_recognised_twice(bench: Workbench, tmp_path: Path) -> None:
    fill(tmp_path / "a", 3)
    fill(tmp_path / "b", 3)
    job = await bench.ingest(tmp_path)
    assert (job.inserted, job.duplicates, job.published, job.photos) == (6, 3, 3, 6)
    assert len(await bench.recognise(person_ids=[7], created_person_ids=[7], faces=1)) == 3
    job = await bench.status(job.job_id)
    assert (job.status, job.processed, job.faces_detected) == ("COMPLETED", 6, 3)
    assert (job.persons_created, job.persons_matched) == (1, 0)

    fill(tmp_path / "c", 3)
    job = await bench.ingest(tmp_path)
    assert job.duplicates == 3
    await bench.hear()
    assert (await bench.status(job.job_id)).status == "COMPLETED"


async def test_failures_are_listed_with_their_cause(bench: Workbench, tmp_path: Path) -> None:
    fill(tmp_path, 2)
    job = await bench.ingest(tmp_path)
    good, bad = sorted(await bench.take(), key=lambda m: m["path"])
    async with bench.db.transaction() as session:
        await library.finish(session, good["photo_id"], None, faces=0)
        await library.fail(
            session, bad["photo_id"], None, code="away", error="no answer", permanent=False
        )
    await bench.hear()
    job = await bench.status(job.job_id)
    assert (job.status, job.processed, job.failed) == ("PUBLISHED", 1, 0)

    async with bench.db.transaction() as session:
        retried = await library.new_attempt(session, bad["photo_id"])
        await library.fail(
            session,
            bad["photo_id"],
            retried,
            code="truncated",
            error="the file ends early",
            permanent=True,
        )
    await bench.hear()
    job = await bench.status(job.job_id)
    assert (job.status, job.processed, job.failed) == ("COMPLETED", 1, 1)
    assert job.errors == {"truncated": 1}
    async with bench.db.transaction() as session:
        (error,) = (await service.errors(session, job.job_id)).errors
    assert (error.path, error.cause) == (bad["path"], "the file ends early")
    assert error.photo_id == bad["photo_id"]


async def test_told_twice_counts_once(bench: Workbench, tmp_path: Path) -> None:
    fill(tmp_path, 2)
    job = await bench.ingest(tmp_path)
    await bench.take()
    photo_ids = [row[0] for row in await bench.rows("SELECT photo_id FROM media_assets")]
    async with bench.db.transaction() as session:
        await library.finish(session, photo_ids[0], None, person_ids=[5], faces=1)
    (event,) = await bench.hear()
    async with bench.db.transaction() as session:
        await service.photo_ended(session, event)
    job = await bench.status(job.job_id)
    assert (job.processed, job.faces_detected, job.persons_matched) == (1, 1, 1)
    assert job.status == "PUBLISHED"


async def test_the_ledger_is_asked_where_no_message_came(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_INGEST_OVERDUE_AFTER", "0.01")
    load.cache_clear()
    fill(tmp_path, 3)
    job = await bench.ingest(tmp_path)
    for message in await bench.take():
        async with bench.db.transaction() as session:
            await library.finish(session, message["photo_id"], None, person_ids=[4], faces=1)
    await bench.rows("DELETE FROM bus_outbox RETURNING 1")
    await asyncio.sleep(0.02)
    assert await jobs.repair(bench.db) == {"photos": 3}
    job = await bench.status(job.job_id)
    assert (job.status, job.processed, job.persons_matched) == ("COMPLETED", 3, 1)


async def test_dry_run_writes_nothing_but_the_job(bench: Workbench, tmp_path: Path) -> None:
    fill(tmp_path, 5)
    (tmp_path / "a.mov").write_bytes(b"\0\0\0\x14ftypqt  " + bytes(100))
    await bench.ingest(tmp_path / "..", dryRun=True)
    job = await bench.ingest(tmp_path, dryRun=True)
    assert (job.status, job.scanned, job.inserted, job.published) == ("COMPLETED", 6, 0, 0)
    assert job.estimate is not None
    assert (job.estimate.photos, job.estimate.videos, job.estimate.known) == (5, 1, 0)
    assert job.estimate.seconds > 0 and not job.estimate.measured
    assert await bench.value("SELECT count(*) FROM media_assets") == 0
    assert await bench.value("SELECT count(*) FROM ingest_batches") == 0
    await bench.ingest(tmp_path)
    job = await bench.ingest(tmp_path, dryRun=True)
    assert job.estimate is not None and job.estimate.known == 6


async def test_a_cancelled_job_publishes_no_more(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_INGEST_BATCHES_IN_FLIGHT", "2")
    load.cache_clear()
    fill(tmp_path, 10)
    job_id = await bench.order(tmp_path, batchSize=2)
    scan = asyncio.create_task(bench.run(job_id))
    async with asyncio.timeout(10):
        while (await bench.status(job_id)).published < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    async with bench.db.transaction() as session:
        await service.cancel(session, job_id)
    await asyncio.wait_for(scan, 5)
    job = await bench.status(job_id)
    assert (job.status, job.failure, job.published) == ("FAILED", "cancelled", 4)
    assert job.cancelled_at is not None
    assert len(await bench.take()) == 4
    with pytest.raises(Conflict, match="FAILED already"):
        async with bench.db.transaction() as session:
            await service.cancel(session, job_id)

    monkeypatch.delenv("KALEIDOSCOPE_INGEST_BATCHES_IN_FLIGHT")
    load.cache_clear()
    again = await bench.ingest(tmp_path)
    assert (again.known, again.inserted) == (4, 6)


async def test_what_a_cancelled_job_left_goes_to_the_next(bench: Workbench, tmp_path: Path) -> None:
    fill(tmp_path, 3)
    bench.transport = Away(bench.transport, times=3)
    first = await bench.ingest(tmp_path)
    assert (first.status, first.failed_batches, first.published) == ("SCANNED", 1, 0)
    async with bench.db.transaction() as session:
        await service.cancel(session, first.job_id)
    second = await bench.ingest(tmp_path)
    assert (second.inserted, second.published) == (0, 3)
    assert len(await bench.recognise(faces=0)) == 3
    assert (await bench.status(second.job_id)).status == "COMPLETED"


async def test_in_flight_batches_are_bounded(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_INGEST_BATCHES_IN_FLIGHT", "2")
    monkeypatch.setattr(jobs, "LOOK_AGAIN", 0.02)
    load.cache_clear()
    fill(tmp_path, 20)
    job_id = await bench.order(tmp_path, batchSize=3)
    scan = asyncio.create_task(bench.run(job_id))
    while not scan.done():
        waiting = await bench.value(
            "SELECT count(DISTINCT batch_id) FROM photo_ingest_map WHERE ended_at IS NULL"
        )
        assert waiting <= 2
        await bench.recognise(faces=0)
        await asyncio.sleep(0.01)
    await bench.recognise(faces=0)
    job = await bench.status(job_id)
    assert (job.status, job.processed) == ("COMPLETED", 20)


async def test_a_transport_that_is_away_costs_nothing(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_INGEST_PUBLISH_AGAIN_AFTER", "0.01")
    monkeypatch.setattr(jobs, "FIRST_PAUSE", 0.001)
    load.cache_clear()
    fill(tmp_path, 4)
    reachable = bench.transport
    bench.transport = Away(reachable)
    job = await bench.ingest(tmp_path)
    assert (job.status, job.failed_batches, job.batches[0].publish_failures) == ("SCANNED", 1, 3)
    rows = await bench.rows(
        "SELECT status::text, publish_attempts, last_publish_error FROM photo_ingest_map"
    )
    assert set(map(tuple, rows)) == {("FAILED", 3, "TransportError: the transport is away")}

    bench.transport = reachable
    await asyncio.sleep(0.02)
    assert await jobs.repair(bench.db) == {"batches": 1}
    assert await bench.hear_again() == 1
    job = await bench.status(job.job_id)
    assert (job.status, job.published, job.failed_batches) == ("PUBLISHED", 4, 0)
    assert len(await bench.recognise(faces=0)) == 4
    assert (await bench.status(job.job_id)).status == "COMPLETED"


async def test_what_can_never_be_published_becomes_dead_letters(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_INGEST_PUBLISH_FAILURES", "3")
    monkeypatch.setattr(jobs, "FIRST_PAUSE", 0.001)
    load.cache_clear()
    fill(tmp_path, 2)
    bench.transport = Away(bench.transport)
    job = await bench.ingest(tmp_path)
    assert job.status == "FAILED"
    assert job.failure == "1 batches could not be published; see the dead letters"
    rows = await bench.rows("SELECT topic, cause, payload ->> 'path' AS path FROM dead_letters")
    assert [row.topic for row in rows] == ["photos-to-process"] * 2
    assert all("the transport is away" in row.cause for row in rows)
    assert {row.path for row in rows} == {str(p) for p in tmp_path.iterdir()}


async def test_only_one_scans_a_job(bench: Workbench, tmp_path: Path) -> None:
    fill(tmp_path, 1)
    job_id = await bench.order(tmp_path)
    async with jobs._alone(bench.db, job_id):
        with pytest.raises(jobs.Retry, match="another worker"):
            await bench.run(job_id)
    await bench.run(job_id)
    assert (await bench.status(job_id)).published == 1


async def test_a_scan_that_fails_again_and_again_fails_the_job(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(jobs, "_take_in", broken)
    job_id = await bench.order(tmp_path)
    event = FolderToIngest(job_id=job_id)
    message = message_of(event)
    for attempt, status in ((1, "SCANNED"), (jobs.MAX_ATTEMPTS, "FAILED")):
        delivery = Delivery(
            **vars(message),
            group=jobs.GROUP,
            attempt=attempt,
            lost=0,
            receipt=None,
            enqueued_at=now(),
        )
        with pytest.raises(RuntimeError):
            await jobs.take_in_folder(Context(bench.db, bench.transport, delivery), event)
        assert (await bench.status(job_id)).status == status
    assert (await bench.status(job_id)).failure == "RuntimeError: a bug"


async def test_a_folder_that_is_gone_fails_the_job(bench: Workbench, tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    fill(folder, 1)
    job_id = await bench.order(folder)
    (folder / "0000.jpg").unlink()
    folder.rmdir()
    await bench.run(job_id)
    job = await bench.status(job_id)
    assert job.status == "FAILED"
    assert job.failure == f"{folder} cannot be read: No such file or directory"


async def test_orders_that_make_no_sense(bench: Workbench, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(photo(1))
    with pytest.raises(NotFound, match="there is no folder"):
        await bench.order(tmp_path / "nowhere")
    with pytest.raises(Invalid, match="is no folder"):
        await bench.order(tmp_path / "a.jpg")
    with pytest.raises(Invalid, match="no absolute path"):
        await bench.order(Path("photos"))


async def test_requests_stay_inside_the_roots(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed, other = tmp_path / "allowed", tmp_path / "other"
    fill(allowed, 1)
    fill(other, 1)
    (allowed / "way out").symlink_to(other)
    monkeypatch.setenv("KALEIDOSCOPE_INGEST_ROOTS", str(allowed))
    load.cache_clear()
    async with bench.db.transaction() as session:
        await service.order(session, IngestFolder(path=str(allowed)))
        for path in (other, allowed / "way out", allowed / ".." / "other"):
            with pytest.raises(Forbidden):
                await service.order(session, IngestFolder(path=str(path)))


async def test_overdue_batches_of_a_dead_worker_are_published(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, 2)
    job = await bench.ingest(tmp_path)
    await bench.take()
    await bench.rows("UPDATE photo_ingest_map SET status = 'PENDING' RETURNING 1")
    await bench.rows(
        "UPDATE ingest_batches SET status = 'READY', inserted_at = now() - interval '1 hour'"
        " RETURNING 1"
    )
    await bench.rows("UPDATE ingest_jobs SET status = 'SCANNED', published_count = 0 RETURNING 1")
    assert await jobs.repair(bench.db) == {"batches": 1}
    assert await jobs.repair(bench.db) == {}
    await bench.hear_again()
    assert (await bench.status(job.job_id)).published == 2
