"""Every process is killed at any moment, and in the end all is as if nothing had happened.

`kill -9` of worker, ML service, API, scheduler, supervisor and PostgreSQL's postmaster, with
messages in flight. The short form runs with the tests, the long one by `make soak`.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from product import Product

VICTIMS = ("worker", "mlserver", "api", "scheduler", "postmaster", "supervisor")
QUICK = {"KALEIDOSCOPE_LIBRARY_RETRY_AFTER": "1", "KALEIDOSCOPE_LIBRARY_RETRY_INTERVAL": "1"}

Make = Callable[..., Product]
Photos = Callable[[int], Path]
Faces = dict[str, list[tuple[int, ...]]]


@pytest.mark.timeout(900)
def test_nothing_is_lost_and_nothing_done_twice(
    make_product: Make, photos: Photos, dice: random.Random
) -> None:
    _survives(make_product, photos(60), dice, kills=8)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_nothing_is_lost_and_nothing_done_twice_for_long(
    make_product: Make, photos: Photos, dice: random.Random
) -> None:
    _survives(make_product, photos(220), dice, kills=60)


def _survives(make: Make, folder: Path, dice: random.Random, kills: int) -> None:
    undisturbed = make("undisturbed", **QUICK)
    undisturbed.up()
    undisturbed.complete(folder)
    expected = _faces(undisturbed)
    undisturbed.down()

    victims: list[str] = []
    rounds = 0
    while len(victims) < kills:
        rounds += 1
        product = make(f"disturbed-{rounds}", **QUICK)
        product.up()
        job = product.ingest(folder)
        victims += _kill_at_random(product, job, dice, kills - len(victims))
        product.completed(job, timeout=300)
        _check(product, expected)
        product.down()
    print(f"{kills} kills in {rounds} ingests: {dict(Counter(victims))}")


def _kill_at_random(product: Product, job: str, dice: random.Random, kills: int) -> list[str]:
    """Kill while the job goes on; whom. Victims take turns, so that each has its share of few."""
    killed: list[str] = []
    turns: list[str] = []
    while len(killed) < kills:
        time.sleep(dice.uniform(0.05, 0.8))
        if _has_ended(product, job):
            break
        turns = turns or dice.sample(VICTIMS, len(VICTIMS))
        victim = turns.pop()
        if product.kill(victim):
            killed.append(victim)
        if victim == "supervisor":
            product.up()
    return killed


def _has_ended(product: Product, job: str) -> bool:
    try:
        rows = product.sql(f"SELECT status::text FROM ingest_jobs WHERE job_id = '{job}'")
    except psycopg.OperationalError:
        return False  # the postmaster was the last victim
    return rows[0][0] in ("COMPLETED", "FAILED")


def _check(product: Product, expected: Faces) -> None:
    failed = product.sql(
        "SELECT final_path, status::text, error_message FROM media_assets"
        " WHERE status <> 'PROCESSED'"
    )
    assert not failed
    assert _faces(product) == expected
    assert not product.sql(
        "SELECT photo_id, bbox, count(*) FROM faces GROUP BY 1, 2 HAVING count(*) > 1"
    )
    orphans = product.sql(
        "SELECT id FROM persons p WHERE merged_into IS NULL"
        " AND NOT EXISTS (SELECT FROM faces WHERE person_id = p.id)"
    )
    assert not orphans
    stale = product.sql(
        "SELECT path FROM photos p WHERE person_ids <> (SELECT coalesce(jsonb_agg(DISTINCT"
        " f.person_id ORDER BY f.person_id), '[]') FROM faces f"
        " WHERE f.photo_id = p.id AND f.person_id IS NOT NULL)"
    )
    assert not stale
    assert not product.sql("SELECT topic, cause FROM dead_letters")
    left = product.sql(
        "SELECT topic, consumer_group FROM bus_messages UNION ALL"
        " SELECT topic, 'outbox' FROM bus_outbox"
    )
    assert not left


def _faces(product: Product) -> Faces:
    """The boxes of every photo, in whole pixels."""
    found: Faces = {path: [] for (path,) in product.sql("SELECT path FROM photos")}
    query = "SELECT p.path, f.bbox FROM faces f JOIN photos p ON p.id = f.photo_id"
    for path, box in product.sql(query):
        found[path].append(tuple(round(side) for side in box))
    return {path: sorted(boxes) for path, boxes in found.items()}
