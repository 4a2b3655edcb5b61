"""Decisions about services, errors and disks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaleidoscope.ops import rules
from kaleidoscope.ops.rules import Measured, Segment, Spell, Status

START = datetime(2026, 3, 1, tzinfo=UTC)
END = START + timedelta(hours=1)
SECOND = timedelta(seconds=1)

Beat = tuple[datetime, Status, timedelta]

statuses: st.SearchStrategy[Status] = st.sampled_from(["OK", "WARNING", "ERROR"])
beats = st.lists(
    st.tuples(
        st.integers(-600, 3600).map(lambda s: START + s * SECOND),
        statuses,
        st.sampled_from([5, 20, 300]).map(lambda s: s * SECOND),
    ),
    max_size=40,
    unique_by=lambda beat: beat[0],
).map(sorted)


def _spells(said: list[Beat]) -> list[Spell]:
    """Heartbeats as the database groups them."""
    found: list[Spell] = []
    for at, status, interval in said:
        last = found[-1] if found else None
        same = last is not None and (last.status, last.interval) == (status, interval)
        if last is not None and same and at <= last.reaches:
            found[-1] = Spell(status, last.first, at, interval, last.beats + 1)
        else:
            found.append(Spell(status, at, at, interval))
    return found


def _is_up(said: list[Beat], moment: datetime) -> bool:
    """The rule, word by word, for one moment."""
    before = [beat for beat in said if beat[0] <= moment]
    if not before:
        return False
    at, status, interval = before[-1]
    after = next((beat[0] for beat in said if beat[0] > moment), END)
    return status != "ERROR" and after - at <= 3 * interval


@given(beats)
def test_a_timeline_has_no_hole_and_no_overlap(said: list[Beat]) -> None:
    line = rules.timeline(_spells(said), START, END)
    assert (line[0].since, line[-1].until) == (START, END)
    assert all(one.until == after.since for one, after in pairwise(line))
    assert all(one.since < one.until for one in line)
    assert "unknown" not in [segment.state for segment in line[1:]]


@given(beats)
def test_uptime_is_the_share_of_moments_that_heartbeats_cover(said: list[Beat]) -> None:
    moments = [START + (second + 0.5) * SECOND for second in range(3600)]
    expected = sum(_is_up(said, moment) for moment in moments) / len(moments)
    assert rules.uptime(rules.timeline(_spells(said), START, END)) == pytest.approx(expected)


@given(beats, st.integers(0, 40))
def test_an_error_never_adds_uptime(said: list[Beat], which: int) -> None:
    worse = [(at, "ERROR" if n == which else status, every) for n, (at, status, every) in
             enumerate(said)]  # fmt: skip
    up, less = (
        rules.uptime(rules.timeline(_spells(s), START, END)) or 0.0
        for s in (said, worse)  # type: ignore[list-item]
    )
    assert 0 <= less <= up <= 1


@given(beats)
def test_what_was_observed_is_no_less_up_than_the_whole_window(said: list[Beat]) -> None:
    line = rules.timeline(_spells(said), START, END)
    observed = rules.uptime(line, observed_only=True)
    assert observed is None or (rules.uptime(line) or 0) <= observed + 1e-9 <= 1 + 1e-8


def test_a_service_first_heard_of_half_way() -> None:
    half = START + timedelta(minutes=30)
    line = rules.timeline([Spell("OK", half, END, 20 * SECOND)], START, END)
    assert line == [Segment("unknown", START, half), Segment("OK", half, END)]
    assert rules.uptime(line) == 0.5
    assert rules.uptime(line, observed_only=True) == 1


def test_an_empty_window_has_no_uptime() -> None:
    assert rules.uptime([]) is None


@pytest.mark.parametrize(
    ("status", "age", "expected"),
    [
        ("OK", 60, "green"),
        ("WARNING", 0, "yellow"),
        ("WARNING", 181, "red"),
        ("ERROR", 0, "red"),
    ],
)
def test_the_worse_of_word_and_age_gives_the_colour(
    status: Status, age: int, expected: str
) -> None:
    assert rules.colour(age * SECOND, status) == expected


@pytest.mark.parametrize(
    ("age", "expected"),
    [(900, "green"), (901, "yellow"), (2700, "yellow"), (2701, "red")],
)
def test_colours_scale_with_a_longer_interval(age: int, expected: str) -> None:
    assert rules.colour(age * SECOND, interval=300 * SECOND) == expected


def test_colours_do_not_shrink_with_a_shorter_interval() -> None:
    assert rules.colour(60 * SECOND, interval=SECOND) == "green"


@given(st.floats(0, 1e6), st.floats(0, 1e6), statuses, st.floats(1, 3600))
def test_a_colour_never_improves_with_age(
    younger: float, older: float, status: Status, interval: float
) -> None:
    ages = sorted([younger, older])
    colours = [rules.colour(age * SECOND, status, interval=interval * SECOND) for age in ages]
    assert rules.ORDER.index(colours[0]) <= rules.ORDER.index(colours[1])


def test_an_interval_is_chosen_by_name_or_by_kind() -> None:
    chosen = {"worker": 60.0, "factory-db": 30.0, "worker-attic": 5.0}
    assert rules.interval_of("worker-cellar-1", 20, chosen) == 60
    assert rules.interval_of("worker-attic-2", 20, chosen) == 5
    assert rules.interval_of("factory-db", 20, chosen) == 30
    assert rules.interval_of("workers", 20, chosen) == 20


@pytest.mark.parametrize(
    ("messages", "cause"),
    [
        (["not a picture: a.jpg", "not a picture: 2019_04.jpeg"], "not a picture: …"),
        (["cannot read /p/2019/a.jpg: no", "cannot read /x.jpg: no"], "cannot read …: no"),
        (["PROCESSING after 600 s", "PROCESSING after 30.5 s"], "PROCESSING after … s"),
        (["'Ä b.jpg' has 16383 × 16383", "'b' has 9 × 8"], "… has … × …"),
        (["/p/a b.jpg: is an empty file", "/p/c: is an empty file"], "is an empty file"),
        (["hash 0123456789abcdef0123 differs"], "hash … differs"),
        ([None, "", "  "], "no cause was given"),
    ],
)
def test_errors_of_one_cause_are_one(messages: list[str | None], cause: str) -> None:
    assert {rules.cause(message) for message in messages} == {cause}


@given(st.text())
def test_a_cause_is_short_and_its_own_cause(message: str) -> None:
    cause = rules.cause(message)
    assert 0 < len(cause) <= 200


def _disk(*used: float) -> list[Measured]:
    return [Measured(START + timedelta(hours=n), round(u)) for n, u in enumerate(used)]


def test_a_disk_that_fills_evenly_is_full_when_the_line_says() -> None:
    history = _disk(*(1000 + 10 * hour for hour in range(48)))
    assert rules.days_until_full(history, 2400) == pytest.approx(10)


@pytest.mark.parametrize("used", [[5, 4, 3, 2, 1, 1, 1, 0], [7] * 12, [1, 2, 3], []])
def test_a_disk_that_does_not_fill_or_is_hardly_known_has_no_end(used: list[float]) -> None:
    assert rules.days_until_full(_disk(*used), 100) is None
