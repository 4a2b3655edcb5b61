"""A user's first hour: a folder in, people out, mistakes mended, the folder again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from product import Product

COUNT = 24


@pytest.fixture
def product(make_product: Callable[..., Product]) -> Product:
    return make_product("data")


def _export(product: Product) -> dict[str, list[dict[str, Any]]]:
    lines = product.run("people", "export", "--jsonl").splitlines()
    return {line["path"]: line["faces"] for line in map(json.loads, lines)}


def _ids(export: dict[str, list[dict[str, Any]]]) -> dict[str, list[int]]:
    return {path: [face["person_id"] for face in faces] for path, faces in export.items()}


def test_from_a_folder_to_people(product: Product, photos: Callable[[int], Path]) -> None:
    folder = photos(COUNT)
    product.up()

    dry = product.call("POST", "/ingest-folder", {"path": str(folder), "dryRun": True})
    assert product.finish(dry["jobId"])["scanned"] == COUNT
    assert product.call("GET", "/api/ops/status")["photos"].get("PROCESSED", 0) == 0

    status = product.complete(folder)
    assert (status["scanned"], status["inserted"], status["published"]) == (COUNT,) * 3

    first = _export(product)
    assert len(first) == COUNT
    ledger = [json.loads(line) for line in product.run("photos", "list", "--jsonl").splitlines()]
    assert {photo["status"] for photo in ledger} == {"PROCESSED"}
    overview = product.json("status")
    assert {s["colour"] for s in overview["services"]} == {"green"}
    assert {s["status"] for s in overview["services"]} == {"OK"}

    again = product.complete(folder)
    assert (again["scanned"], again["inserted"], again["published"]) == (COUNT, 0, 0)
    assert _ids(_export(product)) == _ids(first)

    people = product.json("people", "list")
    if not people:
        pytest.skip("no labelled photographs here: nobody to merge")
    assert len({i for ids in _ids(first).values() for i in ids if i}) == len(people)
    _merges_and_thinks_better_of_it(product, first, people)

    product.down()
    product.up()
    assert _ids(_export(product)) == _ids(first)


def _merges_and_thinks_better_of_it(
    product: Product, before: dict[str, list[dict[str, Any]]], people: list[dict[str, Any]]
) -> None:
    kept, gone = (person["person_id"] for person in people[:2])
    merged = product.call("POST", "/people/merge", {"kept": kept, "gone": [gone]})
    assert product.call("GET", f"/person/{gone}")["person_id"] == kept
    assert gone not in {i for ids in _ids(_export(product)).values() for i in ids}
    product.call("POST", "/people/undo", {"event_id": merged["event_id"]})
    assert _ids(_export(product)) == _ids(before)


def test_a_large_photo_has_its_pictures_as_soon_as_it_was_looked_at(
    product: Product, folder: Path
) -> None:
    """The ML service has made them; the round waits for the file's hash."""
    photo = folder / "photos" / "large.jpg"
    photo.parent.mkdir()
    Image.radial_gradient("L").resize((3000, 2000)).convert("RGB").save(photo)
    name = hashlib.sha256(photo.read_bytes()).hexdigest()
    product.up()
    derivatives = product.folder / "Storage" / "Derivatives"
    began = time.monotonic()
    while not derivatives.is_dir():
        assert time.monotonic() - began < 60
        time.sleep(0.1)
    product.complete(photo.parent)
    made = sorted(path.name for path in derivatives.rglob(f"{name}-*"))
    assert made == [f"{name}-1440.jpg", f"{name}-250.webp"]
    (seen,) = product.sql("SELECT width, height, is_thumbnailed FROM media_assets")
    assert seen[:2] == (3000, 2000)
