"""An album to deliver photos into."""

from __future__ import annotations

from pathlib import Path

import pytest
from album import Album

from kaleidoscope.kernel.db import Database


@pytest.fixture
def album(db: Database, data_dir: Path) -> Album:
    """An empty album, in a fresh database and data folder."""
    return Album(db)
