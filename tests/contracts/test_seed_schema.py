"""Every table, column, type, null, default, enum, check, index and comment that a seed states."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest
import seed_000
import seed_001
import seed_002
import seed_003
from deviations import DEVIATIONS
from stated import Catalogue, Column, Fact, Index, Row, facts, read_catalogue

from kaleidoscope.kernel.embedded_postgres import EmbeddedPostgres

SEEDS: dict[str, list[Row]] = {
    "000": seed_000.ROWS,
    "001": seed_001.ROWS,
    "002": seed_002.ROWS,
    "003": seed_003.ROWS,
}
FACTS = [fact for seed, rows in SEEDS.items() for fact in facts(seed, rows)]
RECORD = Path(__file__).parents[2] / "docs/decisions/0004-deviations-from-the-seeds.md"


@pytest.fixture(scope="session")
def catalogue(postgres: EmbeddedPostgres, template: str) -> Catalogue:
    with psycopg.connect(postgres.url_of(template)) as connection:
        return read_catalogue(connection)


@pytest.mark.parametrize("fact", FACTS, ids=str)
def test_the_database_is_what_the_seed_states(fact: Fact, catalogue: Catalogue) -> None:
    known = DEVIATIONS.get((fact.subject, fact.aspect))
    assert catalogue.answer(fact) in (fact.stated, known), f"seed {fact.seed}: {fact.stated}"


@pytest.mark.parametrize("seed", SEEDS)
def test_every_stated_column_and_table_is_there(seed: str, catalogue: Catalogue) -> None:
    stated = {(row.table, row.name) for row in SEEDS[seed] if isinstance(row, Column)}
    assert stated <= catalogue.columns.keys()
    assert all(catalogue.tables[table] for table, _ in stated)  # each says its purpose


def test_every_deviation_is_one(catalogue: Catalogue) -> None:
    answers = {
        (f.subject, f.aspect): catalogue.answer(f) for f in FACTS if catalogue.answer(f) != f.stated
    }
    assert answers == DEVIATIONS


def test_every_deviation_stands_in_the_record_with_its_reason() -> None:
    rows = re.findall(
        r"^\| `([^`]+)` \| ([\w ]+) \| [^|]+ \| ([^|]+) \| ([^|]+) \|$", RECORD.read_text(), re.M
    )
    assert {(subject, aspect): found.strip("`") for subject, aspect, found, _ in rows} == DEVIATIONS
    assert all(reason.strip() for *_, reason in rows)


@pytest.mark.parametrize("seed", ["000", "002", "003"])
def test_nothing_that_the_seed_states_is_left_out(seed: str, shared: Path) -> None:
    (path,) = (shared / "seeds").glob(f"{seed}_*")
    written = READERS[seed](path.read_text(encoding="utf-8"))
    rows = SEEDS[seed]
    assert written[0] == {(row.table, row.name) for row in rows if isinstance(row, Column)}
    assert written[1] == {row.name for row in rows if isinstance(row, Index)}


def _read_000(text: str) -> tuple[set[tuple[str, str]], set[str]]:
    """`1) photos`, then `- id BIGINT …`."""
    columns = set()
    for table, body in re.findall(r"^\d\) (\w+).*\n((?:- .*\n)+)", text, re.M):
        columns |= {(table, name) for name in re.findall(r"^- ([a-z_]+) ", body, re.M)}
    return columns, set()


def _read_002(text: str) -> tuple[set[tuple[str, str]], set[str]]:
    """`## Table: `media_assets``, then `- **`id`** (UUID, …)`."""
    columns = set()
    for section in text.split("## Table: ")[1:]:
        table = section.split("`")[1]
        body = section.split("### Indexes")[0]
        columns |= {(table, name) for name in re.findall(r"^- \*\*`(\w+)`\*\*", body, re.M)}
    return columns, set(re.findall(r"`(idx_\w+)`", text))


def _read_003(text: str) -> tuple[set[tuple[str, str]], set[str]]:
    """`### 1. media_items`, then "- `width`, `height`: …" and "- `idx_…`: …"."""
    section = text.split("### 1. media_items")[1].split("### 2.")[0]
    body = section.split("**Columns**")[1].split("**Indexes**")
    names = [
        name
        for line in re.findall(r"^- (`.*?):", body[0], re.M)
        for name in re.findall(r"`(\w+)`", line)
    ]
    return {("media_items", name) for name in names}, set(re.findall(r"`(idx_\w+)`", body[1]))


READERS = {"000": _read_000, "002": _read_002, "003": _read_003}
