"""What may be chosen about people."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from pydantic import Field

from kaleidoscope.kernel.settings import Section


class PeopleSettings(Section):
    """Recognition of people: how persons are matched, founded and healed."""

    section: ClassVar[str] = "people"

    join: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        description="Average similarity at which a face joins a person; "
        "empty: what the model pack states for the size of the library.",
    )
    merge: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        description="Average similarity at which two persons are one; empty: the model pack's.",
    )
    found_quality: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Least quality of a face that founds a person; empty: the model pack's.",
    )
    ask_from: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Least probability that two persons, or a face and a person, are the same at "
        "which the review queue asks.",
    )
    ask_every: timedelta = Field(
        default=timedelta(seconds=30),
        gt=timedelta(0),
        description="How often, in seconds, persons that changed and open faces are searched for "
        "questions, some thousands at most; done once no photo is waiting or being processed.",
    )
    exact_up_to: int = Field(
        default=10_000,
        ge=0,
        description="Libraries of up to so many persons are searched exactly, larger ones "
        "through the index.",
    )
    search_effort: int = Field(
        default=400,
        ge=10,
        le=1000,
        description="How many candidates the index looks at (hnsw.ef_search): more finds the "
        "right person more surely and takes longer.",
    )
    photos_in_flight: int = Field(
        default=64,
        ge=1,
        description="Photos that one worker has with the ML service at once: many a core, so that "
        "they are begun, sent and recorded many at a time and it never waits for the next.",
    )
    consolidate_every: timedelta = Field(
        default=timedelta(seconds=5),
        gt=timedelta(0),
        description="How often, in seconds, changed persons are looked for to be compared with "
        "the others; done once no photo is waiting or being processed.",
    )
    consolidate_at_least: timedelta = Field(
        default=timedelta(hours=1),
        gt=timedelta(0),
        description="After so many seconds of a long ingest persons are compared all the same.",
    )
    consolidate_thoroughly: timedelta = Field(
        default=timedelta(days=1),
        gt=timedelta(0),
        description="How often, in seconds, who has changed is taken apart with all faces: in "
        "between, of a person in many photos only the new ones are looked at.",
    )
