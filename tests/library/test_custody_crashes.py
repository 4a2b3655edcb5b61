"""Killed at any step or moment, custody loses nothing and files nothing twice."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from custodian import Custodian, files, jpeg

SCRIPT = Path(__file__).with_name("custody_process.py")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["link", "copy"])
async def test_killed_at_every_step(database_url: str, folder: Path, how: str) -> None:
    steps = await asyncio.to_thread(_every, database_url, folder, how)
    assert steps > 60


def _every(url: str, folder: Path, how: str) -> int:
    words = [sys.executable, str(SCRIPT), "every", url, str(folder), how]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return int(done.stdout.split()[-1])


@pytest.mark.parametrize(
    ("kills", "photos"),
    [
        (5, 200),
        pytest.param(200, 1000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
    ],
)
async def test_killed_at_any_moment(
    custodian: Custodian, database_url: str, data_dir: Path, kills: int, photos: int
) -> None:
    """Random moments; a filed inbox gets new files, so that every kill hits a librarian at work."""
    dice = random.Random(kills)
    contents = []
    number = killed = 0
    while killed < kills:
        if len(waiting := files(custodian.inbox)) < photos // 2:
            for _ in range(photos - len(waiting)):
                content = jpeg(number, f"2021:{1 + number % 3:02}:04 05:06:07", number % 5 * 2000)
                custodian.drop(f"{number % 7}/IMG_{number // 7}.jpg", content)
                contents.append(content)
                number += 1
            custodian.drop(f"{number % 7}/again_{number}.jpg", contents[0])
        child = _librarian(database_url, data_dir)
        assert child.stdout is not None and child.stdout.readline() == "go\n"
        time.sleep(dice.uniform(0, 1.0))  # noqa: ASYNC251
        os.kill(child.pid, signal.SIGKILL)
        killed += child.wait() == -signal.SIGKILL
    assert _librarian(database_url, data_dir).wait() == 0
    assert files(custodian.inbox) == []
    await custodian.check(contents)


def _librarian(url: str, data_dir: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), "sweep", url, str(data_dir)],
        stdout=subprocess.PIPE,
        text=True,
    )
