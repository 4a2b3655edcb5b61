"""Runs the whole product from its command line in a data folder of its own, for benchmarks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COMMAND = str(Path(sys.executable).with_name("kaleidoscope"))


class Product:
    """One running product; `run("people", "list")` is what a user types."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self.env = {**os.environ, "KALEIDOSCOPE_DATA_DIR": str(folder), **env}

    def run(self, *words: str) -> str:
        """The standard output of a command; its failure is ours."""
        done = subprocess.run([COMMAND, *words], env=self.env, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"kaleidoscope {' '.join(words)}: {done.stderr[-2000:]}")
        return done.stdout

    def ingest(self, folder: Path) -> dict[str, Any]:
        """Ingest a folder to the end; its closing summary."""
        summary: dict[str, Any] = json.loads(self.run("ingest", str(folder), "--wait", "--json"))
        return summary


@contextmanager
def started(
    env: dict[str, str] | None = None, import_pack: list[str] | None = None
) -> Iterator[Product]:
    """The product in a fresh data folder, up and ready; stopped and removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="kaleidoscope-bench-"))
    folder.chmod(0o755)
    product = Product(folder, env or {})
    try:
        if import_pack:
            product.run("models", "import", *import_pack)
        product.run("up", "--detach")
        yield product
    finally:
        subprocess.run([COMMAND, "down"], env=product.env, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)
