"""A folder of odd and broken files, through the whole product: each ends with the truth."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from manifest import MANIFEST_ERRS
from product import Product

from kaleidoscope.ingest.settings import IngestSettings


def test_odd_and_broken_files(make_product: Callable[..., Product], shared: Path) -> None:
    media = (shared / "media").resolve()
    product = make_product("data", KALEIDOSCOPE_INGEST_ROOTS=str(media))
    product.up()
    job = product.ingest(media)
    status = product.completed(job, timeout=280)
    ledger = {
        os.path.relpath(photo["final_path"], media): photo
        for photo in map(json.loads, product.run("photos", "list", "--jsonl").splitlines())
    }
    passed_over = product.json("jobs", "errors", job)
    judged, wrong = 0, []
    for row in expected(media):
        verdict = judge(row, ledger.get(row["path"]))
        judged += 1
        if verdict:
            wrong.append(f"{row['path']}: {verdict}")
    unexplained = [line for line in wrong if line.partition(":")[0] not in MANIFEST_ERRS]
    print(*wrong, sep="\n")
    print(
        f"{judged} files, {len(wrong)} disagree, {len(wrong) - len(unexplained)} of them explained"
    )
    print(f"{status['scanned']} scanned, {len(passed_over)} passed over")
    assert judged > 400
    assert len(unexplained) <= 0.01 * judged
    overview = product.json("status")
    assert {s["status"] for s in overview["services"]} == {"OK"}
    assert {s["restarts"] for s in product.state["services"].values()} == {0}


def expected(media: Path) -> list[dict[str, str]]:
    """The manifest's rows on files of the kinds that are taken in, where it knows an answer."""
    kinds = set(IngestSettings().extensions)
    with (media / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return [
            row
            for row in csv.DictReader(file)
            if row["readable"] in ("yes", "no")
            and row["kind"] not in ("sidecar", "clutter", "audio")
            and row["path"].rpartition(".")[2].lower() in kinds
            and not row["path"].rpartition("/")[2].startswith(".")
        ]


def judge(row: dict[str, str], photo: dict[str, Any] | None) -> str | None:
    """None where the ledger says what the manifest says; else what it says instead."""
    if photo is None:
        return "not in the ledger"
    if row["readable"] == "no":
        if photo["status"] != "FAILED" or not photo["error_message"]:
            return f"is not readable, and is {photo['status']}"
        return None
    if photo["status"] != "PROCESSED":
        return f"is readable, and is {photo['status']}: {photo['error_message']}"
    size = (photo["width"], photo["height"])
    if row["width"] and size != (int(row["width"]), int(row["height"])):
        return f"is {row['width']} × {row['height']}, was taken for {size[0]} × {size[1]}"
    return None
