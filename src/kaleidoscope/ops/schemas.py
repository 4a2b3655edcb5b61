"""What operation answers, over HTTP and with `--json`."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from kaleidoscope.ops.rules import Colour, State, Status


class ServiceStatus(BaseModel):
    """One service: what it last said of itself, and how long ago."""

    service_name: str
    status: Status
    current_task: str | None
    last_heartbeat: datetime
    updated_at: datetime
    interval_seconds: float = Field(description="How often it gives a sign.")
    age_seconds: float = Field(description="Since the last heartbeat, by the database's clock.")
    colour: Colour = Field(
        description="By age: green up to 60 s after a heartbeat, yellow to 180 s, red; in "
        "proportion longer where its interval is longer than 20 s. WARNING is yellow at least, "
        "ERROR red."
    )


class Queue(BaseModel):
    """How much one group has before it in one topic."""

    topic: str
    group: str
    waiting: int = Field(description="May be handled now.")
    delayed: int = Field(description="Wait for their next try.")
    in_flight: int = Field(description="Are being handled.")
    oldest: datetime | None


class Failure(BaseModel):
    """A photo that failed, or that has been PROCESSING for too long."""

    model_config = ConfigDict(from_attributes=True)

    photo_id: int
    path: str
    error_message: str | None
    retry_count: int
    next_retry_at: datetime | None = Field(description="Null: it is not tried again.")


class Overview(BaseModel):
    """How the whole is going."""

    services: list[ServiceStatus]
    photos: dict[str, int] = Field(description="Photos and videos of the ledger by status.")
    queue: list[Queue]
    outbox: int = Field(description="Messages not yet handed to the transport.")
    dead_letters: int
    failed: list[Failure] = Field(description="The latest failures.")
    stuck: list[Failure] = Field(description="PROCESSING for longer than library.stuck_after.")


class Segment(BaseModel):
    """A part of a window in which a service was in one state."""

    model_config = ConfigDict(from_attributes=True)

    state: State = Field(
        description="What it said; `silent`: nothing for more than three of its intervals; "
        "`unknown`: before it was ever heard of."
    )
    since: datetime
    until: datetime
    task: str | None = Field(description="What it was doing, or what was wrong.")


class Uptime(BaseModel):
    """How much of a window a service was up."""

    service_name: str
    uptime: float = Field(
        ge=0,
        le=1,
        description="Share of the window covered by heartbeats no farther apart than three "
        "intervals, ERROR excluded.",
    )
    uptime_observed: float | None = Field(
        description="The same share of the time since it was first heard of; null: not in this "
        "window."
    )
    first_heard_of: datetime | None = Field(description="The first heartbeat that is kept.")


class ServiceHistory(Uptime):
    """The states of a service over a window, without a hole."""

    segments: list[Segment]


class Uptimes(BaseModel):
    """How much of a window each service was up."""

    since: datetime
    until: datetime
    services: list[Uptime]


class ServicesHistory(BaseModel):
    """What services were like over a window."""

    since: datetime
    until: datetime
    services: list[ServiceHistory]


class Assets(BaseModel):
    """What the ledger holds."""

    total: int = Field(description="Secured: each is a safe file with a row in the ledger.")
    photos: int
    videos: int
    bytes: int
    backed_up: int
    thumbnailed: int
    missing: int = Field(description="Their file was not found where it should be.")
    with_errors: int


class LatestAsset(BaseModel):
    """One of the assets that came last."""

    model_config = ConfigDict(from_attributes=True)

    photo_id: int
    filename: str
    file_hash: str | None = Field(description="As `v` of its thumbnail's address: kept for good.")
    media_type: Literal["photo", "video"]
    width: int | None
    height: int | None
    ingested_at: datetime
    captured_at: datetime | None
    is_thumbnailed: bool
    has_errors: bool


class Disk(BaseModel):
    """A disk that is watched."""

    folder: str
    measured_at: datetime
    total_bytes: int
    used_bytes: int
    free_bytes: int
    days_until_full: float | None = Field(
        description="If it goes on filling as it did; null: it does not, or too little is known."
    )
    history: list[tuple[datetime, int]] = Field(description="Bytes used, hour by hour.")


class Figures(BaseModel):
    """The counters of the dashboard."""

    assets: Assets
    filed_last_hour: int = Field(description="Assets that entered the ledger.")
    processed_last_hour: int = Field(description="Recognitions that ended well.")
    waiting: int = Field(description="Assets that recognition has before it.")
    inbox_remaining: int | None = Field(
        description="Files in the inboxes that are not filed yet; null: there is no inbox."
    )
    latest: list[LatestAsset]
    disks: list[Disk]


class ErrorGroup(BaseModel):
    """Everything that failed of one cause."""

    cause: str = Field(description="What their messages have in common.")
    kind: Literal["asset", "message", "file"] = Field(
        description="Assets, messages that were given up, or files kept beside the assets."
    )
    what: str = Field(
        description="What failed: of assets and files as the history of assets has it (recognised, "
        "thumbnailed …), of messages their topic."
    )
    count: int
    retrying: int = Field(description="Of these are tried again by themselves.")
    latest_at: datetime
    example: str = Field(description="The latest message, in full.")
    photo_ids: list[int] = Field(description="The latest few of the assets.")


class Errors(BaseModel):
    """What failed, by cause, the most frequent first."""

    total: int
    groups: list[ErrorGroup]


class RetryCause(BaseModel):
    """Which errors are to be tried again."""

    cause: str = Field(description="As `GET /api/ops/errors` says it.")
    what: str | None = Field(default=None, description="Only where that failed; null: everything.")


class RetriedCause(BaseModel):
    """How much is tried again."""

    assets: int
    messages: int
    files: int = Field(description="Kept beside the assets.")


class PackStatus(BaseModel):
    """A model pack, and whether it is on this machine and in use."""

    name: str
    summary: str
    licence: str
    dimension: int
    megabytes: float
    here: bool
    active: bool
