"""A large photo is decoded once: for its faces, its thumbnail and its preview."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from deadly import killed
from PIL import Image
from scans import Ledger, Register, scan
from serving import client, served
from sqlalchemy import text

from kaleidoscope.kernel import web
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import UnreadableMedia
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library
from kaleidoscope.library.outside import derivatives as disk
from kaleidoscope.library.outside import looking
from kaleidoscope.library.routes import router as library_routes
from kaleidoscope.library.service import derivatives as thumbnails
from kaleidoscope.ml import fakes, work
from kaleidoscope.ml.decode import decode
from kaleidoscope.ml.pool import Pool
from kaleidoscope.ml.server import create_server
from kaleidoscope.people.routes import router as people_routes

HERE = str(Path(__file__).parent)
Json = dict[str, Any]


@pytest.fixture(autouse=True)
def _own_folder(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's folder is on this machine, and the networks find what was drawn."""
    monkeypatch.setenv("KALEIDOSCOPE_ML_PACK", "fake")
    monkeypatch.setenv("KALEIDOSCOPE_ML_PROCESSES", "1")
    load.cache_clear()
    disk.prepare()


def people(
    *numbers: int, times: int = 20, kind: str = "JPEG", turned: bool = False, **options: Any
) -> bytes:
    """A photo of these people, 96 times so many pixels high; `turned`: by a turned camera."""
    with Image.open(BytesIO(fakes.picture(numbers))) as small:
        large = small.resize((small.width * times, small.height * times), Image.Resampling.NEAREST)
    exif = Image.Exif()
    if turned:
        large, exif[0x0112] = large.transpose(Image.Transpose.ROTATE_90), 6
    file = BytesIO()
    large.save(file, kind, exif=exif, **options)
    return file.getvalue()


def task(path: Path) -> Json:
    return {"path": str(path), "pack": "fake", "photo_id": 1_000_000_001}


def put(path: Path, content: bytes) -> str:
    """Write a photo; its hash."""
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def made() -> list[Path]:
    return [path for path in disk.folder().rglob("*") if path.is_file()]


def seen(answer: Json) -> Json:
    """All but how long it took."""
    return {key: value for key, value in answer.items() if key != "timings"}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "turned": True}),
        ("PNG", {}),
        ("WEBP", {"quality": 95}),
        ("HEIF", {"quality": 95}),
    ],
)
def test_faces_are_those_of_a_decoding_of_their_own(
    tmp_path: Path, kind: str, options: Json
) -> None:
    photo = tmp_path / "a"
    file_hash = put(photo, people(3, 200, kind=kind, **options))
    alone = work.analyse(task(photo))
    both = looking.look(task(photo))
    assert seen(both) == seen(alone)
    assert len(both["faces"]) == 2
    assert (both["width"], both["height"]) == (3840, 1920)
    assert {"decode", "derivatives", "detect"} <= set(both["timings"])
    large = decode(photo, max_side=disk.LARGEST)
    with Image.open(disk.path_of(file_hash, "preview")) as preview:
        assert preview.size == large.image.shape[1::-1]
        assert np.abs(np.asarray(preview, int) - large.image).mean() < 3
    with Image.open(disk.path_of(file_hash, "thumbnail")) as small:
        assert max(small.size) == 250


@pytest.mark.parametrize("side", [1024, 1440, 2000])
def test_faces_lie_where_they_lie_whatever_the_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    """A JPEG of 5184 pixels is quartered for the one and halved for the other."""
    monkeypatch.setenv("KALEIDOSCOPE_ML_DECODE_SIDE", str(side))
    load.cache_clear()
    photo = tmp_path / "a.jpg"
    put(photo, people(3, 200, times=27, quality=95))
    alone, both = work.analyse(task(photo)), looking.look(task(photo))
    assert made()
    assert (both["width"], both["height"]) == (5184, 2592)
    for one, other in zip(alone["faces"], both["faces"], strict=True):
        assert np.abs(np.subtract(one["bbox"], other["bbox"])).max() < 5184 / side
        assert np.abs(np.subtract(one["landmarks"], other["landmarks"])).max() < 5184 / side


def test_what_gains_nothing_is_looked_at_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small ones, other people's, large files, damaged ones, and what is no photo."""
    small, large = tmp_path / "small.jpg", tmp_path / "large.jpg"
    put(small, people(3, times=15))
    put(large, people(3))
    assert len(looking.look(task(small))["faces"]) == 1
    assert len(looking.look({"path": str(large), "pack": "fake"})["faces"]) == 1  # an upload
    assert len(looking.look({"pack": "fake"})["faces"]) == 1  # the drawing
    torn = tmp_path / "torn.jpg"
    put(torn, people(3)[:-2000])
    assert "truncated" in looking.look(task(torn))["damage"]
    text = tmp_path / "text.jpg"
    put(text, b"no photo")
    with pytest.raises(UnreadableMedia, match=r"text\.jpg: is neither"):
        looking.look(task(text))
    with monkeypatch.context() as patch:
        patch.setattr(looking, "MOST", 1000)
        assert len(looking.look(task(large))["faces"]) == 1
    assert not made()
    looking.look(task(large))
    assert len(made()) == 2


def test_one_that_is_too_large_for_both_is_decoded_for_its_faces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a JPEG a quarter fits into 16 MB, where half of it does not."""
    monkeypatch.setenv("KALEIDOSCOPE_ML_PHOTO_MEMORY", "16")
    load.cache_clear()
    photo = tmp_path / "a.jpg"
    put(photo, people(3, times=45, quality=60))
    assert len(looking.look(task(photo))["faces"]) == 1
    assert not made()


def _no_room(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _no_memory(*_: Any) -> None:
    raise MemoryError


@pytest.mark.parametrize("trouble", [_no_room, _no_memory, None])
async def test_where_nothing_can_be_written_faces_are_found(
    tmp_path: Path,
    db: Database,
    register: Register,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    trouble: Callable[..., None] | None,
) -> None:
    """The thumbnails' own round makes them, when it can. None: the folder is not on this machine,
    and is not made either: who would sweep it?
    """
    photo = tmp_path / "a.jpg"
    put(photo, people(3))
    with monkeypatch.context() as patch:
        if trouble is None:
            disk.folder().rmdir()
        else:
            patch.setattr(os, "fsync", trouble)
        assert len(looking.look(task(photo))["faces"]) == 1
    assert disk.folder().is_dir() == (trouble is not None)
    assert not made()
    await register([scan(photo)])
    await library.hash_pending(db)
    assert await library.thumbnail_pending(db) == {"thumbnailed": 1}
    assert (await ledger())["a.jpg"].is_thumbnailed


def test_a_file_that_changes_is_never_shown_as_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is replaced after it was measured, and again after it was read."""
    photo = tmp_path / "a.jpg"
    versions = [people(number, quality=95) for number in (3, 200, 77)]
    hashes = [put(photo, version) for version in versions]
    put(photo, versions[0])

    def then_another(function: Callable[..., Any], content: bytes) -> Callable[..., Any]:
        def called(*given: Any, **named: Any) -> Any:
            answer = function(*given, **named)
            photo.write_bytes(content)
            return answer

        return called

    monkeypatch.setattr(looking, "probe", then_another(looking.probe, versions[1]))
    monkeypatch.setattr(looking, "_content", then_another(looking._content, versions[2]))
    looking.look(task(photo))
    assert [disk.are_made(one) for one in hashes] == [False, True, False]
    large = decode(BytesIO(versions[1]), max_side=disk.LARGEST)
    with Image.open(disk.path_of(hashes[1], "preview")) as preview:
        assert np.abs(np.asarray(preview, int) - large.image).mean() < 3


async def test_decodings_are_counted(
    tmp_path: Path,
    db: Database,
    register: Register,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a large photo one, of a small one two, in the children of both services."""
    monkeypatch.setenv("PYTHONPATH", HERE)
    monkeypatch.setenv("DECODES", str(tmp_path / "decodes"))
    monkeypatch.setattr(thumbnails, "Pool", lambda _, **more: Pool("decodes:make", **more))
    for name, content in (("large.jpg", people(3)), ("small.jpg", people(3, times=15))):
        put(tmp_path / name, content)
    async with Pool("decodes:look", size=1) as pool:
        for name in ("large.jpg", "small.jpg"):
            answer = await pool.run(task(tmp_path / name), name=name)
            assert len(answer["faces"]) == 1
    await register([scan(tmp_path / name) for name in ("large.jpg", "small.jpg")])
    await library.hash_pending(db)
    assert await library.thumbnail_pending(db) == {"thumbnailed": 1, "shared": 1}
    assert all(photo.is_thumbnailed for photo in (await ledger()).values())
    decodings = (tmp_path / "decodes").read_text().splitlines()
    assert sorted(decodings) == ["[1024]", "[1440, 1024]", "[1440]"]
    # Looked at again, with another pack for example, it is decoded for that alone.
    async with Pool("decodes:look", size=1) as pool:
        await pool.run(task(tmp_path / "large.jpg"), name="large.jpg")
    assert (tmp_path / "decodes").read_text().splitlines()[3:] == ["[1024]"]


async def test_the_ledger_learns_the_size_of_what_is_there_already(
    tmp_path: Path, db: Database, register: Register, ledger: Ledger
) -> None:
    """Even where recognition has failed, whose callback would tell it."""
    put(tmp_path / "a.jpg", people(3, 200, turned=True))
    looking.look(task(tmp_path / "a.jpg"))
    await register([scan(tmp_path / "a.jpg")])
    await library.hash_pending(db)
    assert await library.thumbnail_pending(db) == {"shared": 1}
    photo = (await ledger())["a.jpg"]
    assert photo.is_thumbnailed and (photo.width, photo.height) == (3840, 1920)
    ((outcome, detail),) = await events(db)
    assert outcome == "ok" and detail == {"bytes": disk.bytes_of(photo.file_hash)}


async def test_what_lies_there_is_recorded_although_the_file_is_away(
    tmp_path: Path, db: Database, register: Register, ledger: Ledger
) -> None:
    put(tmp_path / "a.jpg", people(3, 200))
    looking.look(task(tmp_path / "a.jpg"))
    await register([scan(tmp_path / "a.jpg")])
    await library.hash_pending(db)
    (tmp_path / "a.jpg").rename(tmp_path / "elsewhere")
    assert await library.thumbnail_pending(db) == {"shared": 1}
    photo = (await ledger())["a.jpg"]
    assert photo.is_thumbnailed and photo.width is None


async def test_damage_is_told_in_the_history(
    tmp_path: Path, db: Database, register: Register, ledger: Ledger
) -> None:
    put(tmp_path / "a.jpg", people(3)[:-2000])
    assert looking.look(task(tmp_path / "a.jpg"))["damage"]
    await register([scan(tmp_path / "a.jpg")])
    await library.hash_pending(db)
    assert await library.thumbnail_pending(db) == {"thumbnailed": 1}
    ((outcome, detail),) = await events(db)
    assert outcome == "ok" and "truncated" in detail["damage"]


async def test_one_whose_header_tells_nothing_is_decoded_again(
    tmp_path: Path, db: Database, register: Register, ledger: Ledger
) -> None:
    """Pillow does not open what FFmpeg shows: only then its size is known."""
    content = bytearray(people(3, kind="PNG"))
    content[29] ^= 1  # the header's checksum
    file_hash = put(tmp_path / "a.png", bytes(content))
    disk.write(np.zeros((99, 99, 3), np.uint8), file_hash, disk.folder())
    await register([scan(tmp_path / "a.png")])
    await library.hash_pending(db)
    assert await library.thumbnail_pending(db) == {"thumbnailed": 1}
    photo = (await ledger())["a.png"]
    assert (photo.width, photo.height) == (1920, 1920)


async def events(db: Database) -> list[Any]:
    async with db.transaction() as session:
        rows = await session.execute(
            text("SELECT outcome, detail FROM asset_events WHERE what = 'thumbnailed'")
        )
        return list(rows.all())


def test_killed_at_any_moment_no_name_has_half_a_picture(tmp_path: Path) -> None:
    """And what is left over is made by whoever comes next."""
    photo = tmp_path / "a.jpg"
    file_hash = put(photo, people(3))
    program = (
        "from kaleidoscope.library.outside import derivatives, looking\n"
        f"task = {task(photo)!r}\n"
        "looking.look(task)\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        f"    derivatives.forget({file_hash!r})\n"
        "    looking.look(task)\n"
    )
    for n in range(6):
        killed(program, after=0.03 + 0.023 * n)
        for path in [*disk.folder().rglob("*.webp"), *disk.folder().rglob("*.jpg")]:
            with Image.open(path) as image:
                image.load()
        looking.look(task(photo))
        assert disk.are_made(file_hash)


async def test_from_the_service_to_the_ledger(
    tmp_path: Path,
    db: Database,
    register: Register,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The ML service in the product's way, a real API that it calls back, and the round after."""
    monkeypatch.setenv("KALEIDOSCOPE_ML_ROOTS", str(tmp_path))
    load.cache_clear()
    put(tmp_path / "a.jpg", people(3, 200))
    (photo,) = await register([scan(tmp_path / "a.jpg")])
    api = web.create_app("test", [people_routes, library_routes])
    api.state.db = db
    async with served(api) as url:
        ml = create_server(api_url=url, function=library.LOOK)
        async with ml.router.lifespan_context(ml), client(ml, timeout=40) as http:
            asked = {
                "photo_id": photo.photo_id,
                "path": str(tmp_path / "a.jpg"),
                "callbackUrl": f"{url}/callback/photo-processed",
                "attempt_id": str((await ledger())["a.jpg"].attempt_id or uuid4()),
            }
            answer = await http.post("/process-photo", json=asked, params={"wait": 30})
            assert answer.json()["state"] == "delivered", answer.text
            uploaded = people(77)
            answer = await http.post(
                "/embeddings/from-image",
                content=uploaded,
                headers={"content-type": "application/octet-stream"},
            )
            assert len(answer.json()["detections"]) == 1
    assert len(made()) == 2  # none of the upload
    await library.hash_pending(db)
    assert await library.thumbnail_pending(db) == {"shared": 1}
    recorded = (await ledger())["a.jpg"]
    assert recorded.status == "PROCESSED" and recorded.is_thumbnailed
    assert (recorded.width, recorded.height) == (3840, 1920)
    found = await library.derivative(db, photo.photo_id, "preview")
    assert found.path in made()
