"""What the tables themselves promise: defaults, checks, triggers, views that can be written."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from kaleidoscope.kernel.db import Database

ROW = "INSERT INTO photos (path, filename, filesize) VALUES ('/a/b.jpg', 'b.jpg', 3)"


async def execute(db: Database, *statements: str) -> list[Any]:
    rows: Any = None
    async with db.transaction() as session:
        for statement in statements:
            rows = await session.execute(text(statement))
        return list(rows.mappings()) if rows.returns_rows else []


async def test_an_insert_by_the_name_photos(db: Database) -> None:
    (photo,) = await execute(db, ROW + " RETURNING *")
    assert (photo["path"], photo["filename"], photo["filesize"]) == ("/a/b.jpg", "b.jpg", 3)
    assert (photo["status"], photo["person_ids"]) == ("READY", None)
    assert photo["inserted_at"] is not None and photo["id"] >= 10**9
    (asset,) = await execute(db, "SELECT * FROM media_assets")
    assert asset["original_path"] == asset["final_path"] == "/a/b.jpg"
    assert asset["original_name"] == "b.jpg" and asset["media_type"] == "photo"
    assert asset["photo_id"] == photo["id"]


async def test_a_name_is_taken_from_the_path(db: Database) -> None:
    (photo,) = await execute(
        db, "INSERT INTO photos (path, filesize) VALUES ('/a/b/c.jpg', 3) RETURNING filename"
    )
    assert photo["filename"] == "c.jpg"


async def test_an_insert_by_the_name_media_assets(db: Database) -> None:
    (asset,) = await execute(
        db,
        "INSERT INTO media_assets (file_hash, original_name, original_path, final_path, size_bytes)"
        f" VALUES ('{'a' * 64}', 'IMG.jpg', '/inbox/IMG.jpg', '/originals/2023/IMG-1.jpg', 5)"
        " RETURNING *",
    )
    assert (asset["filename"], asset["original_name"]) == ("IMG.jpg", "IMG.jpg")
    assert asset["is_ingested"] and not asset["is_geocoded"] and not asset["has_errors"]


async def test_the_views_can_be_updated_and_deleted_from(db: Database) -> None:
    (item,) = await execute(
        db,
        ROW,
        "UPDATE photos SET status = 'PROCESSING', person_ids = '[1, 2]'",
        "UPDATE media_items SET mime_type = 'image/png' RETURNING *",
    )
    assert item["original_filename"] == "b.jpg"
    (asset,) = await execute(db, "SELECT * FROM media_assets")
    assert asset["processing_since"] is not None and asset["person_ids"] == [1, 2]
    await execute(db, "UPDATE photos SET status = 'PROCESSED'")
    (asset,) = await execute(db, "SELECT * FROM media_assets")
    assert asset["processing_since"] is None
    await execute(db, "DELETE FROM media_items")
    assert await execute(db, "SELECT * FROM photos") == []


async def test_updated_at_is_kept(db: Database) -> None:
    await execute(db, ROW)
    (asset,) = await execute(db, "UPDATE photos SET width = 1", "SELECT * FROM media_assets")
    assert asset["updated_at"] > asset["created_at"]


@pytest.mark.parametrize("flag", ["geocoded", "thumbnailed", "curated", "backed_up"])
async def test_flags_change_with_their_times(db: Database, flag: str) -> None:
    await execute(db, ROW)
    for half in (f"is_{flag} = true", f"{flag}_at = now()"):
        with pytest.raises(DBAPIError, match=f"ck_media_assets_is_{flag}"):
            await execute(db, f"UPDATE media_assets SET {half}")
    await execute(db, f"UPDATE media_assets SET is_{flag} = true, {flag}_at = now()")


@pytest.mark.parametrize(
    "location",
    ['{"lat": 95, "lon": 1}', '{"lat": 1, "lon": -181}', '{"lat": 5}', '{"lat": "a", "lon": 1}',
     '{"lat": [1], "lon": 1}', "[1, 2]", "null", "5"],
)  # fmt: skip
async def test_a_location_is_a_place_on_earth(db: Database, location: str) -> None:
    await execute(db, ROW)
    escaped = location.replace(":", r"\:")
    with pytest.raises(DBAPIError, match="ck_media_assets_location"):
        await execute(db, f"UPDATE media_assets SET location = '{escaped}'")


async def test_the_ends_of_the_earth_are_places(db: Database) -> None:
    await execute(db, ROW, r"""UPDATE media_assets SET location = '{"lat"\: -90, "lon"\: 180.0}'""")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ("file_hash = 'abc'", "file_hash_is_sha256"),
        ("size_bytes = -1", "size_bytes"),
        ("width = 0", "width"),
        ("height = -1", "height"),
        ("duration_seconds = -0.5", "duration_seconds"),
        ("frame_rate = -1", "frame_rate"),
        ("is_ingested = false", "is_ingested"),
        ("error_message = 'x'", "has_errors"),
        ("duplicate_of = photo_id", "not_its_own_duplicate"),
        ("person_ids = '{}'", "person_ids_is_a_list"),
        ("retry_count = -1", "retry_count"),
        ("final_path = repeat('é', 1301)", "final_path_length"),
    ],
)
async def test_nonsense_is_refused(db: Database, change: str, rule: str) -> None:
    await execute(db, ROW)
    with pytest.raises(DBAPIError, match=f"ck_media_assets_{rule}"):
        await execute(db, f"UPDATE media_assets SET {change}")


async def test_the_longest_path_fits_the_index(db: Database) -> None:
    """Of characters that do not compress: the index must take what the check allows."""
    await execute(
        db,
        ROW,
        "UPDATE media_assets SET final_path ="
        " (SELECT left(string_agg(md5(n::text), ''), 2600) FROM generate_series(1, 100) n)",
    )


async def test_one_row_a_path(db: Database) -> None:
    await execute(db, ROW)
    with pytest.raises(DBAPIError, match="uq_media_assets_final_path"):
        await execute(db, ROW)
