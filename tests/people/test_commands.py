"""`kaleidoscope people` at the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from album import Album, detection, face
from PIL import Image
from typer.testing import CliRunner

from kaleidoscope.kernel.settings import load
from kaleidoscope.people.commands import app

Run = Callable[..., str]


@pytest.fixture
def run(album: Album, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command as a user does, from a thread of its own; its output."""
    import asyncio

    monkeypatch.setenv("KALEIDOSCOPE_DATABASE_URL", album.db.url)
    load.cache_clear()

    async def run(*words: object) -> str:
        given = [str(word) for word in words]
        done = await asyncio.to_thread(CliRunner().invoke, app, given)
        assert done.exit_code == 0, done.output
        return done.stdout

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
    await run("montage", person, "--out", sheet)
    with Image.open(sheet) as shown:
        assert shown.size == (320, 160)
        red, green, _ = shown.getpixel((80, 80))
        assert red > 200 and green < 60
