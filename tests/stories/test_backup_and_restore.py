"""A disk dies, and everything is there again; a disk is away, and nothing is taken for lost."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from product import Product

COUNT = 12


def _manifest(product: Product) -> dict[str, Any]:
    """Every original (path, hash, name), every person with their name, every face."""
    ledger = [json.loads(line) for line in product.run("photos", "list", "--jsonl").splitlines()]
    for photo in ledger:
        body = Path(photo["final_path"]).read_bytes()
        assert hashlib.sha256(body).hexdigest() == photo["file_hash"]
    return {
        "originals": [(p["photo_id"], p["final_path"], p["file_hash"]) for p in ledger],
        "names": [(p["original_name"], p["original_path"], p["filename"]) for p in ledger],
        "persons": [(p["person_id"], p["display_name"]) for p in product.json("people", "list")],
        "faces": product.run("people", "export", "--jsonl").splitlines(),
    }


def _flip(path: Path) -> None:
    """One byte; size and time stay."""
    status = path.stat()
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.timeout(600)
def test_library_and_database_are_lost_and_come_back(
    make_product: Callable[..., Product], photos: Callable[[int], Path], folder: Path
) -> None:
    disk = folder / "second disk"
    product = make_product("data", KALEIDOSCOPE_BACKUP_TARGET=str(disk))
    product.up()
    library = photos(COUNT)
    product.complete(library)
    people = product.json("people", "list")
    for person in people[:2]:
        name = f"Aunt {person['person_id']}"
        product.run("people", "rename", str(person["person_id"]), name)
    _until(lambda: _all_hashed(product))
    product.run("backup", "run")
    assert {p["is_backed_up"] for p in _ledger(product)} == {True}
    before = _manifest(product)
    product.down()

    shutil.rmtree(library)
    shutil.rmtree(product.folder)
    again = make_product("data", KALEIDOSCOPE_BACKUP_TARGET=str(disk))
    restored = json.loads(again.run("backup", "restore", str(disk), "--json"))
    assert (restored["restored"], restored["failed"]) == (COUNT, {})
    again.up()
    assert _manifest(again) == before
    assert again.complete(library)["inserted"] == 0

    # A flipped byte in an original and one in the backup: both are found, and the original healed.
    rotten, copied = (Path(path) for _, path, _ in before["originals"][:2])
    _flip(rotten)
    assert "1 damaged" in again.run("library", "scrub", code=1)
    damaged = again.json("library", "damaged")
    assert [photo["final_path"] for photo in damaged] == [str(rotten)]
    digest = hashlib.sha256(copied.read_bytes()).hexdigest()
    (copy,) = (disk / "originals").rglob(f"*.{digest[:16]}.*")
    _flip(copy)
    told = json.loads(again.run("backup", "verify", "--json", code=1))
    assert told["damaged"] == [copy.relative_to(disk).as_posix()]
    again.run("library", "heal", str(rotten))
    assert _manifest(again) == before


def test_an_unmounted_folder_is_frozen_and_the_scheduler_is_red(
    make_product: Callable[..., Product], photos: Callable[[int], Path], folder: Path
) -> None:
    if os.geteuid():
        pytest.skip("only root can mount")
    point = folder / "nas"
    point.mkdir()
    library = photos(COUNT)
    done = subprocess.run(["mount", "--bind", library, point], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    try:
        product = make_product("data", KALEIDOSCOPE_OPS_HEARTBEAT_SECONDS="1")
        product.up()
        product.complete(point)
        product.kill("scheduler")  # its first round comes at once
        _until(lambda: _place(product)["last_seen_at"] is not None)
    finally:
        subprocess.run(["umount", point], check=True)
    product.kill("scheduler")
    _until(lambda: _place(product)["frozen_at"] is not None)
    place = _place(product)
    assert "is empty" in place["frozen_because"] and place["missing"] == 0
    _until(lambda: _scheduler(product)["status"] == "ERROR")
    assert str(point) in _scheduler(product)["current_task"]
    # A scan of it is refused, and changes nothing.
    job = product.finish(product.ingest(point))
    assert job["status"] == "FAILED" and "is frozen" in job["failure"]
    assert {p["missing_since"] for p in _ledger(product)} == {None}
    # Back, it is well by itself.
    subprocess.run(["mount", "--bind", library, point], check=True)
    try:
        product.kill("scheduler")
        _until(lambda: _place(product)["frozen_at"] is None)
        assert {p["missing_since"] for p in _ledger(product)} == {None}
    finally:
        product.down()
        subprocess.run(["umount", point], check=True)


def _ledger(product: Product) -> list[dict[str, Any]]:
    return [json.loads(line) for line in product.run("photos", "list", "--jsonl").splitlines()]


def _all_hashed(product: Product) -> bool:
    return product.sql("SELECT count(*) FROM media_assets WHERE file_hash IS NULL") == [(0,)]


def _place(product: Product) -> dict[str, Any]:
    (place,) = product.call("GET", "/api/places")["places"]
    found: dict[str, Any] = place
    return found


def _scheduler(product: Product) -> dict[str, Any]:
    services = product.call("GET", "/api/ops/status")["services"]
    (found,) = [one for one in services if one["service_name"] == "scheduler"]
    return dict(found)


def _until(true: Callable[[], bool], timeout: float = 240) -> None:
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < timeout, "it does not come to pass"
        time.sleep(0.5)
