"""What may be chosen about the database's maintenance."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from kaleidoscope.kernel.settings import Section


class UpkeepSettings(Section):
    """Maintenance of the database (seed 003): weekly VACUUM ANALYZE, monthly REINDEX."""

    section: ClassVar[str] = "upkeep"

    vacuum_days: float = Field(
        default=7.0, gt=0, description="How often every table is vacuumed and analysed."
    )
    reindex_days: float = Field(
        default=30.0, gt=0, description="How often every index is built anew, without locking."
    )
