"""How fast originals are copied and read back, against `cp` and `sha256sum` of the same run.

python bench/bench_backup.py [FILES]
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import xxhash
from scratch_database import scratch_database

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.paths import to_text
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library
from kaleidoscope.library.service import ScannedFile


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as name, scratch_database() as url:
        folder = Path(name)
        os.environ["KALEIDOSCOPE_BACKUP_TARGET"] = str(folder / "backup")
        load.cache_clear()
        total = _fill(folder / "photos", count)
        began = time.perf_counter()
        shutil.copytree(folder / "photos", folder / "copied")
        subprocess.run(
            "sync; find copied -type f -exec sha256sum {} + > sums", shell=True, cwd=name
        )
        plain = time.perf_counter() - began
        ours = asyncio.run(_back_up(url, folder / "photos"))
        print(
            f"{count} files, {total / 1e6:.0f} MB, each copied, synced and read back with its hash"
        )
        print(f"cp, sync, sha256sum: {count / plain:8.0f} files/s {total / plain / 1e6:8.0f} MB/s")
        print(f"backup:              {count / ours:8.0f} files/s {total / ours / 1e6:8.0f} MB/s")
        print(f"ratio: {plain / ours:.2f}")


def _fill(folder: Path, count: int) -> int:
    dice = random.Random(5)
    folder.mkdir()
    total = 0
    for number in range(count):
        body = dice.randbytes(dice.randrange(100_000, 2_000_000))
        (folder / f"{number:05}.jpg").write_bytes(body)
        total += len(body)
    return total


async def _back_up(url: str, folder: Path) -> float:
    db = Database(url)
    scanned = []
    for path in sorted(folder.iterdir()):
        status = path.stat()
        scanned.append(
            ScannedFile(
                path=to_text(path),
                size=status.st_size,
                modified_at=library.modified_at(status),
                sample_hash=xxhash.xxh64(path.name.encode()).hexdigest(),
                media_type="photo",
                mime_type="image/jpeg",
            )
        )
    async with db.transaction() as session:
        await library.register(session, scanned)
    await library.hash_pending(db)
    target = await library.use_target(db)
    began = time.perf_counter()
    done = await library.copy_pending(db, target)
    took = time.perf_counter() - began
    assert done["copied"] == len(scanned)
    found = await library.verify_copies(db, target, timedelta(0))
    assert not found["damaged"]
    await db.close()
    return took


if __name__ == "__main__":
    main()
