"""The documents tell today's truth."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kaleidoscope.apps import reference
from kaleidoscope.apps.registry import import_models
from kaleidoscope.kernel.db import Base

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("name", ["settings.md", "database.md", "command-line.md", "api.json"])
def test_generated_references_are_fresh(name: str) -> None:
    written = (reference.FOLDER / name).read_text(encoding="utf-8")
    assert written == reference.pages()[name], f"docs/reference/{name} is stale: run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_table_and_column_says_its_purpose() -> None:
    import_models()
    silent = [t.name for t in Base.metadata.tables.values() if not t.comment]
    silent += [
        f"{t.name}.{c.name}"
        for t in Base.metadata.tables.values()
        for c in t.columns
        if not c.comment
    ]
    assert not silent


def test_every_setting_says_its_meaning() -> None:
    silent = [
        f"{section.section}.{name}"
        for section in reference._sections()
        for name, field in section.model_fields.items()
        if not field.description
    ]
    assert not silent


def test_commands_in_the_guides_exist() -> None:
    """Every `kaleidoscope a b` in a code block is a command of the generated reference."""
    known = (reference.FOLDER / "command-line.md").read_text(encoding="utf-8")
    commands = set(re.findall(r"^## `(kaleidoscope [^`]+)`$", known, re.M))
    for page in PAGES:
        if page.parent.name == "reference":
            continue
        for block in re.findall(r"```(?:sh|console)\n(.*?)```", page.read_text("utf-8"), re.S):
            for line in block.splitlines():
                words = re.search(r"(?:^|\s|/)kaleidoscope((?: [a-z][a-z-]+)+)", line)
                if words is None or line.lstrip().startswith("#"):
                    continue
                said = "kaleidoscope" + words.group(1)
                assert any(said == c or said.startswith(c + " ") for c in commands), (
                    f"{page.relative_to(ROOT)}: no command `{said}`"
                )
