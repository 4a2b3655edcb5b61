"""Who runs in a data folder is known, and there is only one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from kaleidoscope.apps import state
from kaleidoscope.kernel.clock import now
from kaleidoscope.kernel.errors import Conflict


def _up(**services: state.Service) -> state.Up:
    return state.Up(
        pid=os.getpid(),
        born=psutil.Process().create_time(),
        started_at=now(),
        api_url="http://127.0.0.1:8420",
        ml_url="http://127.0.0.1:8421",
        services=services,
    )


def test_a_second_supervisor_is_refused_and_told_of_the_first(data_dir: Path) -> None:
    with state.only_one():
        state.write(_up())
        with (
            pytest.raises(Conflict, match=r"already runs in .*127\.0\.0\.1:8420"),
            state.only_one(),
        ):
            pass
    assert not state.is_held()


def test_the_file_is_believed_only_while_its_writer_lives(data_dir: Path) -> None:
    assert state.running() is None
    with state.only_one():
        state.write(_up())
        found = state.running()
        assert found is not None and found.pid == os.getpid()
    assert state.running() is None
    assert state.last() is not None


def test_the_file_of_the_one_before_is_not_believed(data_dir: Path) -> None:
    """A new supervisor holds the lock and has written nothing; the old one's id may be anybody."""
    state.write(_up().model_copy(update={"born": 1.0}))
    with state.only_one():
        assert state.is_held()
        assert state.running() is None


def test_the_file_is_for_its_owner_alone(data_dir: Path) -> None:
    state.write(_up())
    assert (data_dir / "run" / "up.json").stat().st_mode & 0o777 == 0o600


def test_leftovers_of_a_killed_supervisor_are_ended(data_dir: Path) -> None:
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    born = psutil.Process(left.pid).create_time()
    state.write(_up(worker=state.Service(pid=left.pid, born=born)))
    assert state.end_leftovers() == 1
    assert not psutil.pid_exists(left.pid)


def test_a_process_id_that_came_again_is_left_alone(data_dir: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    state.write(_up(worker=state.Service(pid=stranger.pid, born=1.0)))
    assert state.end_leftovers() == 0
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
