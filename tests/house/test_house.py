"""The house holds: arrows, doors, furniture, words."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "kaleidoscope"
ROOMS = ["library", "ingest", "people", "upkeep", "ops"]
FURNITURE = {
    "__init__", "models", "events", "ids", "rules", "settings", "queries", "outside", "service",
    "schemas", "deps", "routes", "jobs", "commands", "metrics",
}  # fmt: skip


def test_arrows_point_down() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_holds_only_its_furniture(room: str) -> None:
    names = {p.stem for p in (SOURCE / room).iterdir() if not p.name.startswith("__pycache__")}
    assert names <= FURNITURE, f"{room} has {names - FURNITURE}: which file should hold it?"


@pytest.mark.parametrize("room", ROOMS)
def test_a_door_opens_to_all_that_it_names(room: str) -> None:
    door = importlib.import_module(f"kaleidoscope.{room}.service")
    assert [name for name in door.__all__ if not hasattr(door, name)] == []


def test_nothing_is_called_utils() -> None:
    found = [p for p in SOURCE.rglob("*.py") if re.search(r"util|helper|misc|common", p.stem)]
    assert not found


def test_only_the_edges_commit() -> None:
    """A verb takes a session and never ends its transaction."""
    guilty = [
        f"{path.relative_to(ROOT)}:{number}"
        for room in ROOMS
        for path in (SOURCE / room).rglob("*.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"\bsession\.(commit|rollback)\(", line)
    ]
    assert not guilty


def test_the_source_never_reads_the_shared_folder() -> None:
    guilty = [p for p in SOURCE.rglob("*.py") if "../shared" in p.read_text(encoding="utf-8")]
    assert not guilty
