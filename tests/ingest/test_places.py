"""A scan of a place that is not itself is refused; a backup is no folder of photos."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from workbench import Workbench, fill

from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library


async def test_a_scan_of_an_empty_mount_point_is_refused(bench: Workbench, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    fill(folder, 3)
    await bench.run(await bench.order(folder))
    shutil.rmtree(folder)
    folder.mkdir()
    job_id = await bench.order(folder)
    await bench.run(job_id)
    job = await bench.status(job_id)
    assert job.status == "FAILED" and "is frozen: the folder is empty" in (job.failure or "")
    async with bench.db.transaction() as session:
        (place,) = await library.places(session)
    assert (place.path, place.missing) == (str(folder), 0) and place.frozen_at is not None
    fill(folder, 3)
    again = await bench.order(folder)
    await bench.run(again)
    assert (await bench.status(again)).inserted == 0


async def test_a_scan_of_a_folder_half_of_which_is_gone_says_so(
    bench: Workbench, tmp_path: Path
) -> None:
    """The job fails with the cause, the place is frozen at once, nothing is marked missing."""
    folder = tmp_path / "photos"
    fill(folder, 20)
    await bench.ingest(folder)
    for number in range(10):
        (folder / f"{number:04}.jpg").unlink()
    fill(folder, 2, start=50)
    job = await bench.ingest(folder)
    assert job.status == "FAILED" and job.inserted == 0
    assert "10 of 20 files are gone at once (50 %)" in (job.failure or "")
    assert "places list" in (job.failure or "")
    async with bench.db.transaction() as session:
        (place,) = await library.places(session)
    assert place.frozen_at is not None and place.missing == 0


async def test_a_folder_that_was_sorted_anew_is_scanned(bench: Workbench, tmp_path: Path) -> None:
    """Its files are known where they lie now; in the bin they are gone."""
    folder = tmp_path / "photos"
    fill(folder, 20)
    await bench.ingest(folder)
    await library.hash_pending(bench.db)
    before = {row.photo_id for row in await bench.rows("SELECT photo_id FROM media_assets")}
    (folder / "2020").mkdir()
    for number in range(10):
        (folder / f"{number:04}.jpg").rename(folder / "2020" / f"{number:04}.jpg")
    job = await bench.ingest(folder)
    assert (job.status, job.inserted, job.known) == ("COMPLETED", 0, 20)
    assert {row.photo_id for row in await bench.rows("SELECT photo_id FROM media_assets")} == before
    (folder / "2020").rename(folder / "#recycle")
    job = await bench.ingest(folder)
    assert job.status == "FAILED" and "10 of 20 files are gone at once" in (job.failure or "")


async def test_a_scan_that_finds_nothing_says_so(bench: Workbench, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    fill(folder, 2)
    (folder / "readme.txt").write_text("not empty")
    await bench.ingest(folder)
    for path in folder.glob("*.jpg"):
        path.unlink()
    job = await bench.ingest(folder)
    assert job.status == "FAILED" and "finds nothing, where 2 files were" in (job.failure or "")
    async with bench.db.transaction() as session:
        (place,) = await library.places(session)
    assert place.frozen_at is not None and place.missing == 0


async def test_a_place_below_that_is_frozen_is_told_among_the_errors(
    bench: Workbench, tmp_path: Path
) -> None:
    """What lies beside it is taken in."""
    fill(tmp_path / "all" / "card", 20)
    await bench.ingest(tmp_path / "all" / "card")
    shutil.rmtree(tmp_path / "all" / "card")
    fill(tmp_path / "all" / "other", 1, start=50)
    job = await bench.ingest(tmp_path / "all")
    assert (job.inserted, job.errors) == (1, {"frozen": 1})


async def test_a_scan_of_the_originals_leaves_what_is_being_filed(
    bench: Workbench, tmp_path: Path
) -> None:
    """Linked, and not in the ledger yet: custody gives it its row, once."""
    folder = tmp_path / "originals"
    fill(folder, 2)
    being_filed = str(folder / "0001.jpg")
    await bench.rows(
        "INSERT INTO custody_moves (kind, source_path, source_identity, size_bytes, file_hash,"
        " target_path) VALUES ('file', '/inbox/1.jpg', '1:2:3:4', 1, repeat('a', 64), :path)"
        " RETURNING 1",
        path=being_filed,
    )
    job = await bench.ingest(folder)
    assert (job.inserted, job.errors) == (1, {})
    paths = [row.final_path for row in await bench.rows("SELECT final_path FROM media_assets")]
    assert paths == [str(folder / "0000.jpg")]


async def test_the_backup_is_passed_over(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, 2)
    fill(tmp_path / "backup", 2, start=50)
    monkeypatch.setenv("KALEIDOSCOPE_BACKUP_TARGET", str(tmp_path / "backup"))
    load.cache_clear()
    job_id = await bench.order(tmp_path)
    await bench.run(job_id)
    load.cache_clear()
    job = await bench.status(job_id)
    assert (job.scanned, job.skipped.get("system-folder")) == (2, 1)
