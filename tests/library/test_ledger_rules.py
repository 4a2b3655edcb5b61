"""Decisions without database or disk."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from kaleidoscope.library.rules import ledger as rules
from kaleidoscope.library.settings import LibrarySettings

THEN = datetime(2020, 1, 1, tzinfo=UTC)
LATER = THEN + timedelta(microseconds=1)


@dataclass(frozen=True)
class Seen:
    size: int = 1
    modified_at: datetime | None = THEN
    file_hash: str | None = "a"
    sample_hash: str | None = "s"


def test_untouched_is_the_same_whatever_was_hashed() -> None:
    assert rules.difference(Seen(file_hash=None), Seen(file_hash="a")) == "same"


def test_the_hash_decides_about_a_touched_file() -> None:
    assert rules.difference(Seen(modified_at=LATER), Seen()) == "touched"
    assert rules.difference(Seen(modified_at=LATER, file_hash="b"), Seen()) == "changed"


def test_what_cannot_be_compared_has_changed() -> None:
    assert rules.difference(Seen(modified_at=LATER, file_hash=None), Seen()) == "changed"
    assert rules.difference(Seen(modified_at=LATER), Seen(file_hash=None)) == "changed"
    never = Seen(modified_at=LATER, file_hash=None)
    assert rules.difference(never, Seen(file_hash=None)) == "changed"


def test_another_size_is_other_content() -> None:
    assert rules.difference(Seen(size=2), Seen()) == "changed"


def test_twins_have_sample_and_size_in_common() -> None:
    files = [Seen(), Seen(size=2), Seen(), Seen(sample_hash="t"), Seen(sample_hash=None)]
    assert rules.twins(files) == [0, 2]
    assert rules.twins([Seen(sample_hash=None), Seen(sample_hash=None)]) == []


@given(count=st.integers(0, 100), retries=st.integers(0, 50))
def test_waits_double_up_to_a_limit_and_end(count: int, retries: int) -> None:
    settings = LibrarySettings(max_retries=retries)
    failure = rules.failure(count, False, settings)
    assert failure.count == count + 1
    if count >= retries:
        assert failure.retry_in is None
    else:
        assert failure.retry_in is not None
        expected = min(settings.retry_after * 2 ** min(count, 30), settings.retry_at_most)
        assert expected * 0.89 < failure.retry_in < expected * 1.11


def test_permanent_means_never_again() -> None:
    assert rules.failure(0, True, LibrarySettings()).retry_in is None
