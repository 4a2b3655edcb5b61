"""What upkeep tells, over HTTP and with `--json`, and what lies beside each copied database."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Run(BaseModel):
    """One round of something that comes round."""

    model_config = ConfigDict(from_attributes=True)

    kind: str
    started_at: datetime
    finished_at: datetime | None = Field(description="Null: it runs, or was killed.")
    error: str | None
    figures: dict[str, Any]


class Drill(BaseModel):
    """One restore drill."""

    model_config = ConfigDict(from_attributes=True)

    drill_id: int
    target: str
    database: str | None = Field(description="Which copy was restored.")
    started_at: datetime
    finished_at: datetime | None
    colour: Literal["green", "red"] | None = Field(description="Null: it runs, or was killed.")
    cause: str | None = Field(description="Why it is red.")
    figures: dict[str, Any]


class StoredFile(BaseModel):
    """A file of a copied database."""

    name: str
    size: int
    sha256: str


class Manifest(BaseModel):
    """What a copied database is: manifest.json beside it, written last."""

    name: str = Field(description="When it was made: the name of its folder.")
    kind: Literal["base", "dump"] = Field(
        description="base: a cluster, followed by its log; dump: one database."
    )
    made_at: datetime
    kaleidoscope: str = Field(description="The version that made it.")
    postgresql: int = Field(description="Major version of the server.")
    revision: str = Field(description="The schema's revision.")
    data_dir: str = Field(description="The data folder, as paths in it are spelled.")
    first_segment: str | None = Field(description="Where its log begins.")
    originals: int
    persons: int
    names: int
    faces: int
    files: list[StoredFile]


class BackupStatus(BaseModel):
    """How the second copy stands."""

    target: str | None = Field(description="Null: no backup is set up.")
    trouble: str | None = Field(description="Why the target cannot be used now.")
    pending: int = Field(
        description="Originals, and files kept beside them, that are not in the backup yet."
    )
    pending_bytes: int
    copies: int
    bytes: int
    damaged: int = Field(description="Copies that were something else when they were read back.")
    oldest_verified_at: datetime | None = Field(description="No copy was last read back earlier.")
    databases: list[str] = Field(description="The copies of the database, the newest last.")
    runs: list[Run] = Field(description="The latest run of each kind.")
    drill: Drill | None = Field(description="The latest restore drill.")


class Restored(BaseModel):
    """What came back."""

    database: str
    restored: int = Field(description="Originals put back.")
    there: int = Field(description="Originals that lay there already, the same.")
    without_copy: list[str] = Field(description="Originals that were never copied.")
    failed: dict[str, str] = Field(description="Why others were not put back, by path.")
    beside: int = Field(description="Sidecars and what was set aside, back or there already.")
    originals: int
    persons: int
    names: int
    faces: int


class Bloat(BaseModel):
    """A table and its indexes, and how much of them is air, as the statistics estimate it."""

    table: str
    rows: int
    dead_rows: int
    bytes: int
    index_bytes: int
    wasted_bytes: int = Field(description="Of the table, estimated.")
    wasted_share: float
    last_vacuum: datetime | None
    last_analyze: datetime | None
