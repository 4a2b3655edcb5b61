"""Types that the library's tables share."""

from __future__ import annotations

from sqlalchemy import DateTime, func, text

NOW = func.now()
NEW_UUID = text("gen_random_uuid()")
FALSE = text("false")
INSTANT = DateTime(timezone=True)
