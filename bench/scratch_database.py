"""A migrated database on an embedded server of its own, for one benchmark."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kaleidoscope.kernel import migrate
from kaleidoscope.kernel.embedded_postgres import EmbeddedPostgres


@contextmanager
def scratch_database() -> Iterator[str]:
    """The URL of an empty database with every table; data folder and server end with it."""
    with tempfile.TemporaryDirectory(prefix="kaleidoscope-bench-") as folder:
        Path(folder).chmod(0o711)
        os.environ["KALEIDOSCOPE_DATA_DIR"] = folder
        server = EmbeddedPostgres(Path(folder) / "postgres")
        url = server.start()
        try:
            migrate.upgrade(url)
            yield url
        finally:
            server.stop()
