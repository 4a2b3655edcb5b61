"""What operation answers, over HTTP and with `--json`."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from kaleidoscope.ops.rules import Colour


class ServiceStatus(BaseModel):
    """One service: what it last said of itself, and how long ago."""

    service_name: str
    status: Literal["OK", "WARNING", "ERROR"]
    current_task: str | None
    last_heartbeat: datetime
    updated_at: datetime
    age_seconds: float = Field(description="Since the last heartbeat, by the database's clock.")
    colour: Colour = Field(description="green up to 60 s after a heartbeat, yellow to 180 s, red.")


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


class PackStatus(BaseModel):
    """A model pack, and whether it is on this machine and in use."""

    name: str
    summary: str
    licence: str
    dimension: int
    megabytes: float
    here: bool
    active: bool
