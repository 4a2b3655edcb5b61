"""Decisions about the ledger that need neither database nor disk."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

from kaleidoscope.library.settings import LibrarySettings

Difference = Literal["same", "touched", "changed"]


class Content(Protocol):
    """What a scan and the ledger both say of a file."""

    @property
    def size(self) -> int: ...
    @property
    def modified_at(self) -> datetime | None: ...
    @property
    def file_hash(self) -> str | None: ...


class Sampled(Protocol):
    """A file of which a part has been hashed."""

    @property
    def size(self) -> int: ...
    @property
    def sample_hash(self) -> str | None: ...


@dataclass(frozen=True)
class Failure:
    """What a failed attempt means: how many failures there were, and when to try again.

    `retry_in` None: never, only a person revives it.
    """

    count: int
    retry_in: timedelta | None


def is_touched(found: Content, known: Content) -> bool:
    """Whether a file's size or time are not those of the ledger, so that the hash must decide."""
    return (found.size, found.modified_at) != (known.size, known.modified_at)


def difference(found: Content, known: Content) -> Difference:
    """What became of a known file: untouched, touched with the same content, or other content.

    Content that cannot be compared (one of the two was never hashed) counts as changed.
    """
    if not is_touched(found, known):
        return "same"
    same = found.size == known.size and found.file_hash and found.file_hash == known.file_hash
    return "touched" if same else "changed"


def twins(files: Sequence[Sampled]) -> list[int]:
    """Positions of the files that look like another one of them: same sample and size."""
    alike = Counter(looks(f) for f in files)
    return [i for i, f in enumerate(files) if f.sample_hash is not None and alike[looks(f)] > 1]


def looks(file: Sampled) -> tuple[str, int]:
    """By what a possible duplicate is recognised before it is hashed."""
    return file.sample_hash or "", file.size


def failure(count: int, permanent: bool, settings: LibrarySettings) -> Failure:
    """The consequence of one more failure after `count`: doubling waits, up to a number of them."""
    count += 1
    if permanent or count > settings.max_retries:
        return Failure(count, None)
    wait = min(settings.retry_after * 2 ** min(count - 1, 30), settings.retry_at_most)
    return Failure(count, wait * random.uniform(0.9, 1.1))
