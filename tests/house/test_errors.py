"""Errors that a person meets say what to do next."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "kaleidoscope"
ROOMS = ["library", "ingest", "people", "upkeep", "ops"]


def _unknown(room: str) -> Iterator[tuple[Path, ast.Call]]:
    """Where a room says that it does not know what was named."""
    for path in (SOURCE / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", None) != "NotFound":
                continue
            if node.args and isinstance(node.args[0], ast.JoinedStr):
                yield path, node


@pytest.mark.parametrize("room", ROOMS)
def test_what_is_not_known_comes_with_a_hint(room: str) -> None:
    bare = [
        f"{path.relative_to(SOURCE)}:{node.lineno}"
        for path, node in _unknown(room)
        if "hint" not in [keyword.arg for keyword in node.keywords]
    ]
    assert bare == []
