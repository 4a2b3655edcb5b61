"""What operation answers, over HTTP and with `--json`."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

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


class Heartbeats(BaseModel):
    """One heartbeat of the past."""

    service_name: str
    status: Literal["OK", "WARNING", "ERROR"]
    current_task: str | None
    heartbeat_timestamp: datetime
