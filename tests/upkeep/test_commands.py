"""Backup, places and maintenance as they are typed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from kaleidoscope.apps import cli
from kaleidoscope.kernel.errors import SettingsError
from kaleidoscope.kernel.settings import load
from kaleidoscope.library.service import modified_at

runner = CliRunner()
URL = "KALEIDOSCOPE_DATABASE_URL"
PHOTO = "INSERT INTO media_assets (file_hash, original_name, original_path, final_path, size_bytes)"


@pytest.fixture
def photo(folder: Path, data_dir: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An original in the ledger of this test's database, and a second disk."""
    monkeypatch.setenv(URL, database_url)
    monkeypatch.setenv("KALEIDOSCOPE_DATA_DIR", str(folder / "data"))
    monkeypatch.setenv("KALEIDOSCOPE_BACKUP_TARGET", str(folder / "disk"))
    load.cache_clear()
    path = folder / "photos" / "a.jpg"
    path.parent.mkdir()
    path.write_bytes(b"a photo")
    digest = hashlib.sha256(b"a photo").hexdigest()
    with psycopg.connect(database_url) as connection:
        connection.execute(
            PHOTO + " VALUES (%s, 'a.jpg', %s, %s, 7)", [digest, str(path), str(path)]
        )
        connection.execute(
            "INSERT INTO known_places (path, kind) VALUES (%s, 'folder')", [str(path.parent)]
        )
    return path


def run(*words: str, code: int = 0) -> str:
    done = runner.invoke(cli.app, [*words])
    assert done.exit_code == code, done.output
    return done.stdout


def answer(*words: str, code: int = 0) -> Any:
    return json.loads(run(*words, "--json", code=code))


def test_backup(photo: Path, folder: Path) -> None:
    assert answer("backup", "status")["pending"] == 1
    assert "would copy 1 originals" in run("backup", "run", "--dry-run")
    assert not (folder / "disk").exists()
    assert answer("backup", "run")["originals"]["copied"] == 1
    assert "0 originals copied" in run("backup", "run")
    assert "drill" not in run("backup", "status")
    assert answer("backup", "verify")["damaged"] == []
    (copy,) = folder.glob("disk/originals/*/*.jpg")
    copy.write_bytes(b"a phot0")
    assert "1 damaged" in run("backup", "verify", code=1)
    assert "copies; the next run" in run("backup", "status")
    assert answer("backup", "prune", "--dry-run")["databases"] == []
    assert "removed 0 databases" in run("backup", "prune")


def test_without_a_backup(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KALEIDOSCOPE_BACKUP_TARGET")
    load.cache_clear()
    assert "no backup is set up" in run("backup", "status")
    assert runner.invoke(cli.app, ["backup", "run"]).exit_code == 8
    assert runner.invoke(cli.app, ["backup", "restore"]).exit_code == 2


def test_restore_refuses_a_filled_database(photo: Path, folder: Path) -> None:
    run("backup", "run")
    dry = answer("backup", "restore", str(folder / "disk"), "--dry-run")
    assert dry["originals"] == 1
    assert runner.invoke(cli.app, ["backup", "restore", str(folder / "disk")]).exit_code == 4
    bad = runner.invoke(cli.app, ["backup", "restore", str(folder / "disk"), "--option", "x"])
    assert isinstance(bad.exception, SettingsError)


def test_scrub_and_heal(photo: Path) -> None:
    run("backup", "run")
    assert answer("library", "scrub") == {"read": 1}
    time = photo.stat().st_mtime
    photo.write_bytes(b"a phot0")
    os.utime(photo, (time, time))
    with psycopg.connect(os.environ[URL]) as connection:
        when = modified_at(photo.stat())
        connection.execute("UPDATE media_assets SET modified_at = %s", [when])
    assert "1 damaged" in run("library", "scrub", code=1)
    assert str(photo) in run("library", "damaged")
    assert answer("library", "heal", str(photo))["path"] == str(photo)
    assert photo.read_bytes() == b"a photo"
    assert run("library", "damaged") == "none that is known\n"
    assert runner.invoke(cli.app, ["library", "heal", str(photo)]).exit_code == 4


def test_what_is_gone_beside_the_originals(photo: Path) -> None:
    sidecar = photo.with_name("a.xmp")
    with psycopg.connect(os.environ[URL]) as connection:
        connection.execute(
            "INSERT INTO kept_files (kind, final_path, size_bytes, modified_at, file_hash,"
            " missing_since, error_code, error, failed_at) VALUES ('sidecar', %s, 4, now(),"
            " repeat('a', 64), now(), 'missing', 'a sidecar is gone', now())",
            [str(sidecar)],
        )
    assert run("library", "kept", "--damaged").split(maxsplit=1) == [
        "sidecar",
        f"{sidecar}: a sidecar is gone\n",
    ]
    assert answer("library", "accept-missing", str(photo)) == {"forgotten": []}
    assert answer("library", "accept-missing", str(photo.parent)) == {"forgotten": [str(sidecar)]}
    assert run("library", "kept", "--damaged") == "none\n"


def test_places(photo: Path) -> None:
    (place,) = answer("places", "list")
    heads, row = run("places", "list").splitlines()
    assert heads.split() == ["place", "files", "missing", "folder"]
    assert row.endswith(place["path"])  # in one piece
    number = str(place["place_id"])
    assert runner.invoke(cli.app, ["places", "decide", number, "wait"]).exit_code == 4
    assert runner.invoke(cli.app, ["places", "decide", number, "no"]).exit_code == 2
    photo.unlink()
    with psycopg.connect(os.environ[URL]) as connection:
        connection.execute(
            "UPDATE known_places SET frozen_at = now(), frozen_because = 'the folder is empty'"
        )
    assert "frozen" in run("places", "list")
    decided = answer("places", "decide", number, "accept-missing")
    assert (decided["frozen_at"], decided["missing"]) == (None, 1)
    assert "1 of 1 files missing" not in run("places", "list")


def test_maintenance(photo: Path) -> None:
    assert answer("db", "maintenance", "--reindex").keys() == {"vacuum", "reindex"}
    assert "media_assets" in run("db", "bloat", "--limit", "100")
    assert {one["table"] for one in answer("db", "bloat", "--limit", "100")} >= {"media_assets"}
