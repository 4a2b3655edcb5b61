"""A household goes from one pack to another, is killed half-way, and keeps every name."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from product import COMMAND, Product

PEOPLE, PHOTOS = 7, 9
QUICK = {"KALEIDOSCOPE_LIBRARY_RETRY_AFTER": "1", "KALEIDOSCOPE_LIBRARY_RETRY_INTERVAL": "1"}

Export = dict[str, list[dict[str, Any]]]


def _lay(shared: Path, target: Path) -> None:
    """Photographs of a few people, each in a folder of their name."""
    of: dict[str, list[str]] = defaultdict(list)
    with (shared / "faces" / "manifest.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["kind"] == "lfw250" and row["n_faces_detected"] == "1":
                of[row["identity"]].append(row["path"])
    regulars = sorted(name for name, paths in of.items() if len(paths) >= PHOTOS)[:PEOPLE]
    for name in regulars:
        (target / name).mkdir(parents=True)
        for path in sorted(of[name])[:PHOTOS]:
            shutil.copyfile(shared / "faces" / path, target / name / Path(path).name)


def _export(product: Product) -> Export:
    lines = product.run("people", "export", "--jsonl").splitlines()
    return {line["path"]: line["faces"] for line in map(json.loads, lines)}


def _names(product: Product) -> dict[str, str]:
    """Of each photo, the name of who is largest in it."""
    names = {p["person_id"]: p["display_name"] for p in product.json("people", "list")}

    def width(face: dict[str, Any]) -> float:
        return float(face["bbox"][2] - face["bbox"][0])

    return {
        path: names.get(max(faces, key=width)["person_id"]) or ""
        for path, faces in _export(product).items()
        if faces
    }


def _name_everybody(product: Product) -> None:
    """Each person by the folder that most of their photos lie in; all their faces confirmed but
    one.
    """
    of: dict[int, Counter[str]] = defaultdict(Counter)
    for path, faces in _export(product).items():
        for face in faces:
            if face["person_id"]:
                of[face["person_id"]][Path(path).parent.name] += 1
    for person, folders in of.items():
        name = folders.most_common()[0][0]
        product.call("POST", f"/people/{person}/rename", {"display_name": name})
    rows = product.sql(
        "SELECT id, row_number() OVER (PARTITION BY person_id ORDER BY id) FROM faces"
        " WHERE person_id > 0"
    )
    for face, number in rows:
        if number > 1:
            product.call("POST", f"/faces/{face}/confirm", {})


@pytest.mark.timeout(900)
def test_a_household_migrates_and_keeps_its_names(
    make_product: Callable[..., Product], folder: Path, shared: Path
) -> None:
    photos = folder / "photos"
    _lay(shared, photos)
    product = make_product("data", **QUICK)
    models = shared / "models"
    networks = [str(models / "yunet_n_dynamic.onnx"), str(models / "MobileFaceNet_foamliu.onnx")]
    product.run("models", "import", *networks, "--name", "mobile", "--reading", "imagenet")
    product.up()
    product.complete(photos)
    _name_everybody(product)
    before = _names(product)
    assert len(set(before.values())) == PEOPLE and len(before) == PEOPLE * PHOTOS
    persons = product.sql("SELECT id, display_name, merged_into FROM persons ORDER BY id")
    confirmed = product.sql(
        "SELECT id, person_id FROM faces WHERE confirmed_by = 'person' ORDER BY id"
    )
    assert confirmed

    faces = product.sql("SELECT * FROM face_vectors ORDER BY id")
    compared = product.json("people", "quality", "--compare", "mobile", "--wanted", "0.8")
    assert 50 <= compared["faces"] <= len(confirmed), "a copy of a picture tells nothing more"
    assert compared["photos"] == PEOPLE * PHOTOS
    assert compared["this"]["found"]["value"] == 1.0, "it found them in the first place"
    assert compared["other"]["found"]["value"] > 0.9
    assert compared["other"]["precision"]["value"] > 0.9 < compared["other"]["recall"]["value"]
    assert compared["other"]["milliseconds"] > 0 < compared["migrate_seconds"]
    assert faces == product.sql("SELECT * FROM face_vectors ORDER BY id"), "nothing is touched"

    foreseen = product.json("models", "migrate", "mobile", "--dry-run")
    assert foreseen["photos"] == PEOPLE * PHOTOS and foreseen["seconds"] > 0
    _migrate_half(product)
    for victim in ("worker", "mlserver", "scheduler"):
        product.kill(victim)

    done = product.json("models", "migrate", "mobile")
    assert (done["done"], done["left"], done["failed"]) == (PEOPLE * PHOTOS, 0, 0)
    assert _names(product) == before
    assert persons == product.sql(
        "SELECT id, display_name, merged_into FROM persons"
        f" WHERE id <= {persons[-1][0]} ORDER BY id"
    )
    assert confirmed == product.sql(
        "SELECT id, person_id FROM faces WHERE confirmed_by = 'person' ORDER BY id"
    )
    assert [pack for (pack,) in product.sql("SELECT DISTINCT pack FROM face_vectors")] == ["mobile"]
    looks = product.sql(
        "SELECT count(*) FROM processing_attempts WHERE outcome = 'PROCESSED'"
        " AND starts_with(model_version, 'mobile/') GROUP BY photo_id"
    )
    assert looks == [(1,)] * (PEOPLE * PHOTOS), "nothing was looked at twice"
    (active,) = [pack for pack in product.json("models", "list") if pack["active"]]
    assert active["name"] == "mobile"


def _migrate_half(product: Product) -> None:
    """Begin to migrate, and `kill -9` the command when some photos have been looked at."""
    command = [COMMAND, "models", "migrate", "mobile"]
    begun = subprocess.Popen(command, env=product.env, stderr=subprocess.DEVNULL)
    count = "SELECT count(*) FROM face_vectors WHERE pack = 'mobile'"
    until = time.monotonic() + 120
    while product.sql(count)[0][0] < 4 and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(begun.pid, signal.SIGKILL)
    begun.wait()
    assert product.sql(count)[0][0] > 0
