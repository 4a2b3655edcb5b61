"""Photos dropped into the inbox of a running product: filed and recognised, whatever is killed."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from product import Product


def photo(number: int) -> bytes:
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0132] = f"2020:0{1 + number % 9}:02 03:04:05"
    colour = (number % 256, number // 256, 100)
    Image.new("RGB", (32, 24), colour).save(out, "JPEG", exif=exif)
    return out.getvalue() + b"%d" % number


def test_an_inbox_through_everything(make_product: Callable[..., Product]) -> None:
    product = make_product(
        "data",
        KALEIDOSCOPE_INBOX_SETTLE_SECONDS="0.5",
        KALEIDOSCOPE_INBOX_PORTION="10",
        KALEIDOSCOPE_LIBRARY_RETRY_AFTER="1",
    )
    product.up()
    inbox = product.folder / "Photos_Inbox"
    assert inbox.is_dir()
    services = {s["service_name"]: s for s in product.json("status")["services"]}
    assert services["librarian"]["status"] == "OK"
    contents = [photo(number) for number in range(90)]
    for number, content in enumerate(contents):
        (inbox / str(number // 30)).mkdir(exist_ok=True)
        (inbox / str(number // 30) / f"IMG_{number % 30}.jpg").write_bytes(content)
        if number in (40, 70):
            product.kill("librarian")
        if number == 55:
            product.kill("postmaster")
    (inbox / "notes.txt").write_text("no photo")
    wait_until(lambda: not [p for p in inbox.rglob("*") if p.is_file()], product)
    originals = product.folder / "Storage" / "Originals"
    lying = sorted(
        hashlib.sha256(p.read_bytes()).hexdigest() for p in originals.rglob("*.jpg") if p.is_file()
    )
    assert lying == sorted(hashlib.sha256(c).hexdigest() for c in contents)
    wait_until(lambda: not (inbox / "0").exists(), product)
    rows = product.sql("SELECT file_hash FROM media_assets WHERE duplicate_of IS NULL")
    assert sorted(row[0] for row in rows) == lying
    wait_until(lambda: all_processed(product), product)
    (state,) = product.call("GET", "/api/inbox")["inboxes"]
    assert (state["waiting"], state["filed_last_hour"]) == (0, 90)
    assert [Path(a["path"]).name for a in state["set_aside"]] == ["notes.txt"]
    assert product.json("inbox", "status")["inboxes"][0]["path"] == str(inbox)
    (first,) = product.sql("SELECT min(photo_id) FROM media_assets")
    history = product.call("GET", f"/api/photos/{first[0]}/history")
    told = [event["what"] for event in history["events"]]
    assert {"received", "hashed", "filed", "recognised"} <= set(told)
    assert told.count("received") == 1
    done = product.json("library", "rebuild", "--dry-run")
    assert (done["files"], done["known"], done["added"], done["problems"]) == (90, 90, 0, [])


def all_processed(product: Product) -> bool:
    counted = dict(product.sql("SELECT status::text, count(*) FROM media_assets GROUP BY 1"))
    return counted == {"PROCESSED": 90}


def wait_until(true: Callable[[], bool], product: Product, timeout: float = 200) -> None:
    began = time.monotonic()
    while time.monotonic() - began < timeout:
        try:
            if true():
                return
        except Exception:  # the database is being started again
            pass
        time.sleep(0.2)
    pytest.fail(product.run("status"))
