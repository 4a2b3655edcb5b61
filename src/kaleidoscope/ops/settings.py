"""What may be chosen about operation: the table `[ops]`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from kaleidoscope.kernel.settings import Section


class OpsSettings(Section):
    """Heartbeats and how long their history is kept."""

    section: ClassVar[str] = "ops"

    heartbeat_seconds: float = Field(
        default=20.0,
        gt=0,
        le=60,
        description="How often each service says how it is; it is green for 60 s after that.",
    )
    history_days: int = Field(
        default=60, ge=1, description="How long heartbeats are kept in system_status_history."
    )
