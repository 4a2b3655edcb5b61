"""The two names of an asset."""

from __future__ import annotations

from typing import NewType
from uuid import UUID

PhotoId = NewType("PhotoId", int)
"""The number of an asset in the API and in messages."""

AssetId = NewType("AssetId", UUID)
"""The key of an asset's row."""
