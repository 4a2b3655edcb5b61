"""`kaleidoscope people` at the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from album import DIMENSION, Album, detection, face
from PIL import Image
from typer.testing import CliRunner

from kaleidoscope.kernel.settings import load
from kaleidoscope.ml import catalog
from kaleidoscope.ml.fakes import picture
from kaleidoscope.people import service
from kaleidoscope.people.commands import app

Run = Callable[..., str]


@pytest.fixture
def run(album: Album, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command as a user does, from a thread of its own; its output.

    `refused`: the exit code it ends with instead of 0; then all it said. `typed`: on the keyboard.
    """
    import asyncio

    monkeypatch.setenv("KALEIDOSCOPE_DATABASE_URL", album.db.url)
    load.cache_clear()

    async def run(*words: object, refused: int = 0, typed: str = "") -> str:
        given = [str(word) for word in words]
        done = await asyncio.to_thread(CliRunner().invoke, app, given, typed)
        assert done.exit_code == refused, done.output
        return done.output

    return run


async def test_listing_and_editing(album: Album, run: Run) -> None:
    photo_id, [a, b] = await album.shoot(1, 2)
    [face_id, _] = await album.face_ids(photo_id)
    listed = json.loads(await run("list", "--json"))
    assert [p["person_id"] for p in listed] == [a, b]
    assert "Anna" in await run("rename", a, "Anna")
    assert "Anna" in await run("show", a)
    assert "Anna" in await run("list")
    assert json.loads(await run("show", a, "--json"))["display_name"] == "Anna"
    event = json.loads(await run("merge", a, b, "--json"))
    assert (event["kind"], event["faces_moved"]) == ("merge", 1)
    await run("undo")
    await run("confirm", face_id)
    await run("reject", face_id, "--person", b)
    told = json.loads(await run("history", "--json"))
    assert [e["kind"] for e in told] == ["reject", "confirm", "undo", "merge", "rename"]
    assert "reject" in await run("history")
    assert json.loads(await run("reindex", "--json")) == {"persons": 2}
    await album.check()


async def test_export_has_a_line_for_every_photo(album: Album, run: Run) -> None:
    _, [a] = await album.shoot(1)
    await album.shoot()
    lines = [json.loads(line) for line in (await run("export", "--jsonl")).splitlines()]
    assert [len(line["faces"]) for line in lines] == [1, 0]
    assert lines[0]["faces"] == [
        {
            "bbox": [0.0, 10.0, 80.0, 90.0],
            "person_id": a,
            "similarity": None,
            "confirmed_by": "machine",
        }
    ]


async def test_montage_shows_the_faces(album: Album, run: Run, tmp_path: Path) -> None:
    photo = await album.add()
    picture = np.zeros((100, 200, 3), np.uint8)
    picture[10:90, :80] = (250, 0, 0)
    path = tmp_path / "photo.png"
    Image.fromarray(picture).save(path)
    statement = "UPDATE media_assets SET final_path = :path WHERE photo_id = :id"
    await album.rows(statement, path=str(path), id=photo[0])
    found = (photo[0], str(path), photo[2])
    await album.deliver(album.callback(found, [detection(face(1))]))
    [person] = await album.persons(photo[0])
    await album.shoot(1, view=3)  # its file does not exist: a crossed tile
    sheet = tmp_path / "sheet.jpg"
    told = await run("montage", person, "--out", sheet)
    assert "1 of them" in told and "cannot be read" in told
    assert str(path) not in told and told.splitlines()[-1].strip().startswith("/")
    with Image.open(sheet) as shown:
        assert shown.size == (320, 160)
        red, green, _ = shown.getpixel((80, 80))
        assert red > 200 and green < 60


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Persons are merged at .85."""
    monkeypatch.setenv("KALEIDOSCOPE_PEOPLE_MERGE", "0.85")
    load.cache_clear()


@pytest.mark.usefixtures("lenient")
async def test_consolidating_and_taking_it_back(album: Album, run: Run) -> None:
    photos = []
    for side in (0.35, -0.35, 0.2, -0.2, 0.12, -0.12):  # unlike views first: two persons
        vector = np.zeros(DIMENSION, np.float32)
        vector[:2] = (1, side)
        photo = await album.add()
        await album.deliver(album.callback(photo, [detection(vector)]))
        photos.append(photo[0])
    before = [await album.persons(photo) for photo in photos]
    told = await run("consolidate", "--dry-run")
    assert told.startswith("3 faces move, 1 persons merged, 0 persons split")
    assert [await album.persons(photo) for photo in photos] == before
    assert json.loads(await run("consolidate", "--dry-run", "--json"))["round"] is None

    done = json.loads(await run("consolidate", "--json"))
    assert (done["merged"], done["moved"], done["confirmed_touched"]) == (1, 3, 0)
    assert len({p for photo in photos for p in await album.persons(photo)}) == 1
    back = await run("consolidate", "--undo", done["round"])
    assert back.strip() == f"consolidation {done['round']} undone: 3 faces back"
    assert [await album.persons(photo) for photo in photos] == before
    assert (await run("consolidate", "--all")).startswith("0 faces move")
    assert "no consolidation" in await run("consolidate", "--undo", done["round"], refused=3)
    await album.check()


async def test_calibrating_on_confirmed_faces(album: Album, run: Run, tmp_path: Path) -> None:
    assert "too few to calibrate on" in await run("calibrate", "--dry-run", refused=2)
    views = [(person, view) for person in range(12) for view in range(8)]
    views += [(person, 0) for person in range(12, 36)]  # who is there once matches wrongly
    for person, view in views:
        photo = await album.add()
        await album.deliver(album.callback(photo, [detection(face(person, view, 0.2))]))
    async with album.db.transaction() as session:
        for row in await album.rows("SELECT id FROM faces ORDER BY id"):
            await service.confirm(session, row.id)

    before = catalog.find("builtin").thresholds
    tried = json.loads(await run("calibrate", "--dry-run", "--json"))
    assert (tried["pack"], tried["faces"]) == ("builtin", len(views))
    assert catalog.find("builtin").thresholds == before, "a dry run changes nothing"
    drawn = tmp_path / "reliability.svg"
    assert f"{len(views)} faces of" in await run("calibrate", "--diagram", drawn)
    assert "<svg" in drawn.read_text()
    assert catalog.find("builtin").thresholds.slope == tried["slope"] != before.slope


async def test_calibrating_on_a_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_ML_PACK", "fake")
    load.cache_clear()
    for person in range(40):
        own = tmp_path / "labelled" / f"person{person}"
        own.mkdir(parents=True)
        for number in range(8 if person < 12 else 1):
            (own / f"{number}.jpg").write_bytes(picture([person], seed=100 * person + number))
    (tmp_path / "labelled" / "person0" / "broken.jpg").write_bytes(b"no photo")
    (tmp_path / "labelled" / "person0" / "nobody.jpg").write_bytes(picture([]))
    found = json.loads(await run("calibrate", "--folder", tmp_path / "labelled", "--json"))
    assert (found["pack"], found["faces"], found["persons"]) == ("fake", 124, 40)
    assert catalog.find("fake").thresholds.slope == found["slope"]
    assert "--folder" in await run("calibrate", "--folder", tmp_path / "none", refused=2)


async def shoot_doubtful(album: Album) -> list[int]:
    """One person whom two others may be, the second in two photos; their ids."""
    persons = []
    for side, similarity in ((1, 1.0), (2, 0.915), (3, 0.915), (3, 0.915)):
        vector = np.zeros(DIMENSION, np.float32)
        vector[0], vector[side] = similarity, np.sqrt(1 - similarity**2)
        photo = await album.add()
        await album.deliver(album.callback(photo, [detection(vector)]))
        persons += [p for p in await album.persons(photo[0]) if p is not None]
    return list(dict.fromkeys(persons))


async def test_reviewing_one_by_one(album: Album, run: Run, tmp_path: Path) -> None:
    zero, two, three = await shoot_doubtful(album)
    await run("rename", zero, "Zoe")
    told = await run("review", "--sheet", tmp_path / "sheet.jpg", typed="what\ns\ny\nq\n")
    assert f"Is person {three} (2 faces) the same as Zoe, person {zero} (1 faces)?" in told
    assert "settles 2 faces" in told and "is put off" in told and ": merge, 1 faces moved" in told
    assert told.endswith("1 questions settled, 1 put off\n")
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        assert sheet.width > 0
    assert await living(album) == {zero, three}, two
    assert (await run("review", typed="q\n")).endswith("0 questions settled, 0 put off\n")


async def living(album: Album) -> set[int]:
    return {r.id for r in await album.rows("SELECT id FROM persons WHERE merged_into IS NULL")}


async def test_reviewing_for_scripts(album: Album, run: Run) -> None:
    zero, two, three = await shoot_doubtful(album)
    first, second = json.loads(await run("review", "--json"))
    assert {first["other"]["person_id"], second["other"]["person_id"]} == {two, three}
    said = json.loads(await run("review", "--answer", first["question_id"], "no", "--json"))
    assert (said["answer"], said["event"]["kind"]) == ("no", "reject")
    assert "is put off" in await run("review", "--answer", second["question_id"], "skip")
    [left] = json.loads(await run("review", "--json"))
    assert (left["question_id"], left["skips"]) == (second["question_id"], 1)
    assert "is no answer" in await run("review", "--answer", "x", "yes", refused=2)
    assert "is no answer" in await run("review", "--answer", 1, "perhaps", refused=2)
    assert "answered" in await run("review", "--answer", first["question_id"], "yes", refused=4)
    assert await living(album) == {zero, two, three}


async def test_names_for_others_and_back(album: Album, run: Run, tmp_path: Path) -> None:
    photo_id, [anna] = await album.shoot(1)
    path = tmp_path / "photo.png"
    Image.new("RGB", (200, 100)).save(path)
    await album.rows(
        "UPDATE media_assets SET final_path = :path, width = 200, height = 100,"
        " file_hash = repeat('a', 64) WHERE photo_id = :id", path=str(path), id=photo_id,
    )  # fmt: skip
    await run("rename", anna, "Anna")
    assert "born 2001-02-03" in await run("set-birth-date", anna, "2001-02-03")
    assert "born 2001-02-03" in await run("show", anna)
    assert "is no day" in await run("set-birth-date", anna, "Monday", refused=2)
    assert "1 names of 1 photos would be written" in await run(
        "write-sidecars", "--all", "--dry-run"
    )
    assert json.loads(await run("write-sidecars", "--all", "--json"))["names"] == 1
    assert "1 faces would be confirmed" in await run("read-sidecars", "--dry-run")
    assert json.loads(await run("read-sidecars", "--json"))["confirmed"] == 1
    file = tmp_path / "names.jsonl"
    assert "1 persons in" in await run("export-names", file)
    assert "no birth date" in await run("set-birth-date", anna, "")
    told = await run("import-names", file)
    assert "1 named faces in 1 photos: 0 faces confirmed" in told and "1 birth dates" in told
    assert json.loads(await run("import-names", file, "--dry-run", "--json"))["births"] == 0
    assert "No such file" in await run("import-names", tmp_path / "none", refused=2)
