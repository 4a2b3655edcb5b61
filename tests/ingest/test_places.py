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
