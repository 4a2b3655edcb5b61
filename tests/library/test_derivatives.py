"""Thumbnails and previews: made in child processes, right way up, in the right colours."""

from __future__ import annotations

import csv
import os
from collections.abc import Awaitable, Callable
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from deadly import killed
from manifest import MANIFEST_ERRS
from PIL import Image, ImageCms
from scans import Ledger, Register, Write, scan
from sqlalchemy import text

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import NotFound
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library
from kaleidoscope.library.outside import derivatives as disk

Exif = Callable[[int], bytes]
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""From what an EXIF orientation says of the stored picture."""
# What our decoder shows of a damaged file on purpose.
OURS = {
    "formats/libavif__clap_irot_imir_non_essential.avif": "a crop that the file calls optional",
}
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture(autouse=True)
def _own_folder(data_dir: Path) -> None:
    """What is made here lies in a data folder of its own."""


def quarters(width: int = 2000, height: int = 1200) -> Image.Image:
    """Red and green above, blue and white below."""
    image = Image.new("RGB", (width, height), WHITE)
    for box, colour in (
        ((0, 0, width // 2, height // 2), RED),
        ((width // 2, 0, width, height // 2), GREEN),
        ((0, height // 2, width // 2, height), BLUE),
    ):
        image.paste(colour, box)
    return image


def picture(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def shown(path: Path) -> list[tuple[int, ...]]:
    """The colours in the middle of the quarters, and what they are meant to be."""
    with Image.open(path) as image:
        rgb = image.convert("RGB")
        spots = [(1, 1), (3, 1), (1, 3), (3, 3)]
        found = [rgb.getpixel((rgb.width * x // 4, rgb.height * y // 4)) for x, y in spots]
    near = {RED: "red", GREEN: "green", BLUE: "blue", WHITE: "white"}
    return [
        next((name for c, name in near.items() if np.abs(np.subtract(c, f)).max() < 12), str(f))
        for f in found
    ]  # type: ignore[misc]


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


async def events(db: Database) -> list[Any]:
    async with db.transaction() as session:
        rows = await session.execute(
            text(
                "SELECT what, outcome, error, duration_ms, detail FROM asset_events"
                " WHERE what = 'thumbnailed' ORDER BY event_id"
            )
        )
        return list(rows.all())


async def make(db: Database) -> dict[str, int]:
    await library.hash_pending(db)
    return await library.thumbnail_pending(db)


async def test_both_sizes_are_made_of_one_photo(
    db: Database, write: Write, register: Register, ledger: Ledger
) -> None:
    await register([write("a.jpg", picture(quarters(), quality=95))])
    assert await make(db) == {"thumbnailed": 1}
    photo = (await ledger())["a.jpg"]
    assert photo.is_thumbnailed and photo.thumbnailed_at is not None
    assert (photo.width, photo.height) == (2000, 1200)
    thumbnail, preview = (disk.path_of(photo.file_hash, kind) for kind in disk.KINDS)
    assert (size_of(thumbnail), size_of(preview)) == ((250, 150), (1440, 864))
    for path in (thumbnail, preview):
        assert shown(path) == ["red", "green", "blue", "white"]
    (event,) = await events(db)
    assert event.outcome == "ok" and event.duration_ms > 0
    assert event.detail["bytes"] == thumbnail.stat().st_size + preview.stat().st_size
    assert not list((disk.folder() / "making").iterdir())
    assert await make(db) == {}


@pytest.mark.parametrize("orientation", range(1, 9))
async def test_every_orientation_is_shown_upright(
    db: Database, write: Write, register: Register, ledger: Ledger, orientation: int
) -> None:
    stored = quarters(400, 240)
    if orientation > 1:
        back = {6: 8, 8: 6}.get(orientation, orientation)
        stored = stored.transpose(UPRIGHT[back])
    exif = Image.Exif()
    exif[0x0112] = orientation
    await register([write("a.jpg", picture(stored, quality=95, exif=exif))])
    await make(db)
    photo = (await ledger())["a.jpg"]
    assert (photo.width, photo.height) == (400, 240)
    for kind in disk.KINDS:
        path = disk.path_of(photo.file_hash, kind)
        assert shown(path) == ["red", "green", "blue", "white"]
        with Image.open(path) as image:
            assert image.getexif().get(0x0112, 1) == 1


async def test_a_wide_colour_profile_becomes_srgb(
    db: Database, write: Write, register: Register, ledger: Ledger
) -> None:
    """What is written as (255, 0, 0) in a profile with other primaries is not sRGB's red."""
    swapped = _profile_with_swapped_colours()
    image = Image.new("RGB", (600, 400), (200, 30, 30))
    await register([write("a.jpg", picture(image, quality=95, icc_profile=swapped))])
    await make(db)
    photo = (await ledger())["a.jpg"]
    for kind in disk.KINDS:
        with Image.open(disk.path_of(photo.file_hash, kind)) as made:
            pixel = made.convert("RGB").getpixel((100, 60))
            assert made.info.get("icc_profile") is None
        assert np.abs(np.subtract(pixel, (30, 200, 30))).max() < 8  # type: ignore[arg-type]


def _profile_with_swapped_colours() -> bytes:
    """sRGB whose red is green and whose green is red."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    table = {}
    for n in range(int.from_bytes(data[128:132], "big")):
        at = 132 + 12 * n
        table[bytes(data[at : at + 4])] = at
    red, green = table[b"rXYZ"], table[b"gXYZ"]
    data[red + 4 : red + 12], data[green + 4 : green + 12] = (
        data[green + 4 : green + 12],
        data[red + 4 : red + 12],
    )
    # Its name must not say sRGB: the same profile under that name is taken at its word.
    return bytes(data).replace("sRGB".encode("utf-16-be"), "odd!".encode("utf-16-be"))


async def test_duplicates_share_what_is_made(
    db: Database, write: Write, register: Register, ledger: Ledger
) -> None:
    content = picture(quarters())
    await register([write("a.jpg", content), write("b/a.jpg", content)])
    assert await make(db) == {"thumbnailed": 1, "shared": 1}
    photos = await ledger()
    assert all(photo.is_thumbnailed for photo in photos.values())
    assert len(list(disk.folder().rglob("*.webp"))) == 1


async def test_a_film_is_shown_by_a_picture_that_is_not_black(
    db: Database, register: Register, ledger: Ledger, tmp_path: Path
) -> None:
    _film(tmp_path / "a.mp4")
    await register([scan(tmp_path / "a.mp4", "video")])
    assert await make(db) == {"thumbnailed": 1}
    film = (await ledger())["a.mp4"]
    assert shown(disk.path_of(film.file_hash, "preview")) == ["red", "green", "blue", "white"]
    assert (film.width, film.height) == (320, 240)


def _film(path: Path) -> None:
    """Ten seconds that begin in the dark."""
    dark = np.zeros((240, 320, 3), np.uint8)
    bright = np.asarray(quarters(320, 240))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(10), options={"g": "5"})
        stream.width, stream.height, stream.bit_rate = 320, 240, 4_000_000
        for n in range(100):
            frame = av.VideoFrame.from_ndarray(dark if n < 30 else bright, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


async def test_a_failure_is_noted_once_and_heals(
    db: Database, write: Write, register: Register, ledger: Ledger
) -> None:
    broken, whole = picture(quarters())[:300], picture(quarters())
    (photo, _) = await register([write("a.jpg", broken), write("b.jpg", whole)])
    assert await make(db) == {"thumbnailed": 1, "failed": 1}
    found = (await ledger())["a.jpg"]
    assert found.has_errors and "a.jpg" in found.error_message and not found.is_thumbnailed
    assert await make(db) == {}  # bad content is for good
    async with db.transaction() as session:
        told = await library.history(session, photo.photo_id)
    assert [e.retry for e in told.events if e.what == "thumbnailed"] == ["thumbnailed"]
    await register([write("a.jpg", whole + b"\0", time=1_800_000_000)])
    assert await make(db) == {"thumbnailed": 1}
    found = (await ledger())["a.jpg"]
    assert found.is_thumbnailed and not found.has_errors and found.error_message is None


async def test_a_file_away_is_tried_again_later(
    db: Database, write: Write, register: Register, ledger: Ledger, tmp_path: Path
) -> None:
    await register([write("a.jpg", picture(quarters()))])
    await library.hash_pending(db)
    (tmp_path / "a.jpg").rename(tmp_path / "away")
    assert await make(db) == {"failed": 1}
    assert await make(db) == {}
    (tmp_path / "away").rename(tmp_path / "a.jpg")
    async with db.transaction() as session:
        await session.execute(text("UPDATE asset_problems SET retry_at = now()"))
    assert await make(db) == {"thumbnailed": 1}
    assert not (await ledger())["a.jpg"].has_errors


async def test_a_file_changed_since_its_hash_is_not_shown_as_what_it_was(
    db: Database, write: Write, register: Register, ledger: Ledger
) -> None:
    await register([write("a.jpg", picture(quarters()))])
    await library.hash_pending(db)
    write("a.jpg", picture(Image.new("RGB", (50, 50))), time=1_800_000_000)
    assert await make(db) == {"failed": 1}
    assert "has changed since" in (await ledger())["a.jpg"].error_message
    assert not list(disk.folder().rglob("*.webp"))


async def test_a_child_that_dies_costs_its_file_a_few_tries(
    db: Database, write: Write, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here each child may use so little memory that it dies or refuses."""
    monkeypatch.setenv("KALEIDOSCOPE_LIBRARY_THUMBNAIL_SECONDS", "0.001")
    monkeypatch.setenv("KALEIDOSCOPE_LIBRARY_MAX_RETRIES", "1")
    load.cache_clear()
    await register([write("a.jpg", picture(quarters()))])
    for waits in (True, False):
        assert await make(db) == {"failed": 1}
        async with db.transaction() as session:
            rows = await session.execute(
                text("SELECT retry_at IS NOT NULL, error_code FROM asset_problems")
            )
            assert rows.all() == [(waits, "took-too-long")]
            await session.execute(
                text("UPDATE asset_problems SET retry_at = now() WHERE retry_at IS NOT NULL")
            )
    assert await make(db) == {}


async def test_where_nothing_can_be_written_no_photo_is_to_blame(
    db: Database,
    write: Write,
    register: Register,
    ledger: Ledger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("KALEIDOSCOPE_LIBRARY_DERIVATIVES", str(tmp_path / "file" / "in it"))
    load.cache_clear()
    await register([write("a.jpg", picture(quarters()))])
    with pytest.raises(disk.StorageProblem, match="cannot be written"):
        await make(db)
    assert not (await ledger())["a.jpg"].has_errors


async def test_what_is_asked_for_is_made_at_once(
    db: Database, write: Write, register: Register, ledger: Ledger
) -> None:
    (photo,) = await register([write("a.jpg", picture(quarters()))])
    found = await library.derivative(db, photo.photo_id, "thumbnail")  # not even hashed
    assert (size_of(found.path), found.media_type) == ((250, 150), "image/webp")
    assert (await ledger())["a.jpg"].is_thumbnailed
    disk.forget(found.file_hash)
    again = await library.derivative(db, photo.photo_id, "preview")
    assert again.path.is_file() and found.path.is_file()


async def test_what_cannot_be_made_is_said(
    db: Database, write: Write, register: Register, tmp_path: Path
) -> None:
    broken, gone = await register([write("a.jpg", b"no photo"), write("b.jpg", b"gone")])
    with pytest.raises(NotFound, match=r"has no thumbnail: .*neither a photo"):
        await library.derivative(db, broken.photo_id, "thumbnail")
    (tmp_path / "b.jpg").unlink()
    with pytest.raises(NotFound, match="has no preview: the file is gone"):
        await library.derivative(db, gone.photo_id, "preview")
    with pytest.raises(NotFound, match="there is no photo 5"):
        await library.derivative(db, 5, "preview")


async def test_half_made_files_are_swept(db: Database, write: Write, register: Register) -> None:
    making = disk.folder() / "making"
    making.mkdir(parents=True)
    for name, age in (("old", 7200), ("new", 0)):
        (making / name).write_bytes(b"half")
        os.utime(making / name, (making.stat().st_mtime - age,) * 2)
    await register([write("a.jpg", picture(quarters()))])
    await make(db)
    assert [path.name for path in making.iterdir()] == ["new"]


@pytest.fixture
def of_the_manifest(
    shared: Path, db: Database, register: Register, ledger: Ledger
) -> Callable[[Callable[[dict[str, str]], bool]], Awaitable[list[tuple[dict[str, str], Any]]]]:
    """Register the manifest's files that a rule picks, and make their thumbnails."""

    async def of_the_manifest(
        pick: Callable[[dict[str, str]], bool],
    ) -> list[tuple[dict[str, str], Any]]:
        with (shared / "media" / "manifest.csv").open(encoding="utf-8", newline="") as file:
            wanted = [row for row in csv.DictReader(file) if pick(row)]
        kinds = {"video": "video"}
        paths = {row["path"]: shared / "media" / row["path"] for row in wanted}
        await register(
            [scan(paths[row["path"]], kinds.get(row["kind"], "photo")) for row in wanted]
        )
        await make(db)
        photos = {photo.path: photo for photo in (await ledger()).values()}
        return [(row, photos[str(paths[row["path"]])]) for row in wanted]

    return of_the_manifest


def _decodable(row: dict[str, str]) -> bool:
    """By one of the decoders that we have; others read JPEG XL, too."""
    ours = ("pillow", "rawpy", "ffmpeg")
    return row["readable"] == "yes" and any(decoder in row["decoders"] for decoder in ours)


@pytest.mark.parametrize("part", ["orientation/", "heic/", "raw/", "formats/", "video/"])
async def test_real_files_are_displayed_at_the_oracle_s_size(
    of_the_manifest: Any, part: str
) -> None:
    def pick(row: dict[str, str]) -> bool:
        return row["path"].startswith((part, "synthetic/" + part)) and row["width"] != ""

    rows = await of_the_manifest(pick)
    assert rows
    wrong = []
    for row, photo in rows:
        if not photo.is_thumbnailed:
            continue
        oracle = int(row["width"]), int(row["height"])
        known = row["path"] in MANIFEST_ERRS | OURS or row["readable"] != "yes"
        if (photo.width, photo.height) != oracle and not known:
            wrong.append((row["path"], (photo.width, photo.height), oracle))
        for kind in disk.KINDS:
            made = size_of(disk.path_of(photo.file_hash, kind))
            factor = min(1.0, disk.SIDES[kind] / max(photo.width, photo.height))
            assert abs(made[0] - photo.width * factor) <= 1, row["path"]
            assert abs(made[1] - photo.height * factor) <= 1, row["path"]
    failed = [row["path"] for row, p in rows if not p.is_thumbnailed and _decodable(row)]
    assert not wrong
    assert not failed


async def test_real_files_have_the_colours_that_another_decoder_sees(
    of_the_manifest: Any, shared: Path
) -> None:
    """FFmpeg's pixels, turned as ExifTool says, against our previews, in squares of the picture."""

    def pick(row: dict[str, str]) -> bool:
        folders = ("orientation/", "synthetic/orientation/", "jpeg/", "synthetic/formats/")
        return row["path"].startswith(folders) and row["mime"] in (
            "image/jpeg", "image/png", "image/bmp"
        ) and row["readable"] == "yes"  # fmt: skip

    compared = 0
    for row, photo in await of_the_manifest(pick):
        path = shared / "media" / row["path"]
        with Image.open(path) as image:
            if image.mode != "RGB" or "icc_profile" in image.info or min(image.size) < 6:
                continue  # FFmpeg knows no profiles
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
            other = Image.fromarray(frame.to_ndarray(format="rgb24"))
        turn = int(row["orientation"] or 1)
        other = other.transpose(UPRIGHT[turn]) if turn in UPRIGHT else other
        preview = disk.path_of(photo.file_hash, "preview")
        with Image.open(preview) as made:
            difference = np.abs(squares(other) - squares(made)).max()
        assert difference < 10, (row["path"], difference)
        compared += 1
    assert compared >= 30


def squares(image: Image.Image) -> Any:
    small = image.convert("RGB").resize((6, 6), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32)


async def test_what_failed_is_not_tried_by_whoever_asks(
    db: Database, write: Write, register: Register
) -> None:
    (photo,) = await register([write("a.jpg", b"no photo")])
    await make(db)
    for _ in range(3):
        with pytest.raises(NotFound, match="neither a photo"):
            await library.derivative(db, photo.photo_id, "thumbnail")
    async with db.transaction() as session:
        rows = await session.execute(text("SELECT failures FROM asset_problems"))
        assert rows.scalar_one() == 1


async def test_a_round_killed_before_its_flags_makes_nothing_twice(
    db: Database, write: Write, register: Register, ledger: Ledger
) -> None:
    await register([write("a.jpg", picture(quarters()))])
    await make(db)
    async with db.transaction() as session:
        await session.execute(
            text("UPDATE media_assets SET is_thumbnailed = false, thumbnailed_at = NULL")
        )
    assert await make(db) == {"shared": 1}
    assert (await ledger())["a.jpg"].is_thumbnailed


def test_killed_at_any_moment_no_name_has_half_a_picture(data_dir: Path, tmp_path: Path) -> None:
    """A process that makes one after the other is killed again and again."""
    photo = tmp_path / "a.jpg"
    photo.write_bytes(picture(quarters(800, 480)))
    program = (
        "import itertools, kaleidoscope.ml.decode, kaleidoscope.ml.video\n"
        "from kaleidoscope.library.outside.derivatives import make, task_of\n"
        f"path, size = {str(photo)!r}, {photo.stat().st_size}\n"
        "print('ready', flush=True)\n"
        "for n in itertools.count():\n"
        "    make(task_of(path, size, None, 'photo', format(n % 7, '064x')))\n"
    )
    for n in range(8):
        killed(program, after=0.03 + 0.017 * n)
        for path in [*disk.folder().rglob("*.webp"), *disk.folder().rglob("*.jpg")]:
            assert shown(path) == ["red", "green", "blue", "white"]
    assert list(disk.folder().rglob("*.jpg"))


async def test_what_belongs_to_no_photo_any_more_is_removed(
    db: Database, write: Write, register: Register, ledger: Ledger
) -> None:
    await register([write("a.jpg", picture(quarters())), write("b.jpg", picture(quarters(300)))])
    await make(db)
    before = {name: photo.file_hash for name, photo in (await ledger()).items()}
    await register([write("a.jpg", picture(quarters(500)), time=1_800_000_000)])
    assert not (await ledger())["a.jpg"].is_thumbnailed
    await make(db)
    after = (await ledger())["a.jpg"].file_hash
    assert disk.are_made(before["a.jpg"]) and disk.are_made(after)
    for path in disk.folder().rglob("*-*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    removed = [
        await library.sweep_derivatives(db, shard=int(file_hash[:2], 16))
        for file_hash in sorted({before["a.jpg"], before["b.jpg"], after})
    ]
    assert sum(done.get("removed", 0) for done in removed) == 1
    assert not disk.are_made(before["a.jpg"])
    assert disk.are_made(before["b.jpg"]) and disk.are_made(after)
