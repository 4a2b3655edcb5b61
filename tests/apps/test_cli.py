"""The command line's door: errors in one line, and the data folder."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import typer

from kaleidoscope.apps import cli, state, supervisor
from kaleidoscope.apps.scheduler import Rounds
from kaleidoscope.kernel.clock import ClockJob
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import SettingsError

COMMAND = str(Path(sys.executable).with_name("kaleidoscope"))


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *words], capture_output=True, text=True)


def test_an_error_is_one_line_a_hint_and_an_exit_code(data_dir: Path) -> None:
    done = _run("models", "use", "no-such-pack")
    assert done.returncode == 3
    assert done.stdout == ""
    error, *hint = done.stderr.strip().splitlines()
    assert error.startswith("error: ") and "no-such-pack" in error
    assert all(line.startswith("hint: ") for line in hint)


@pytest.mark.parametrize("name", cli.ROOMS)
def test_the_list_says_of_a_command_what_it_says_of_itself(name: str) -> None:
    front = typer.main.get_command(cli.app)
    assert isinstance(front, cli.Front)
    line = front.commands[name].help
    assert (front.whole(name, front.commands[name]).help or "").splitlines()[0] == line
    assert line == cli.LINES[name]


def test_help_is_told_without_the_weight_of_the_rooms() -> None:
    told = "import sys; from kaleidoscope.apps.cli import app; app(['--help'], standalone_mode=0)"
    weigh = f"{told}; assert not {{'sqlalchemy', 'fastapi', 'numpy'}} & {{*sys.modules}}"
    done = subprocess.run([sys.executable, "-c", weigh], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, line in cli.LINES.items():
        assert name in done.stdout and line in done.stdout


def test_a_setting_that_makes_no_sense_is_named(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_API_PORT", "many")
    done = _run("up")
    assert done.returncode == 8
    assert "api.port" in done.stderr


def test_the_data_folder_may_be_given_as_an_option(data_dir: Path) -> None:
    other = data_dir / "other"
    done = _run("--data-dir", str(other), "version", "--json")
    assert f'"data_dir": "{other}"' in done.stdout


def test_down_where_nothing_runs(data_dir: Path) -> None:
    done = _run("down")
    assert (done.returncode, done.stdout.strip()) == (0, "nothing was running")


def test_up_in_the_background_where_one_runs_already(data_dir: Path) -> None:
    with state.only_one():
        done = _run("up", "--detach")
    assert done.returncode == 4
    assert "already runs" in done.stderr and "kaleidoscope down" in done.stderr
    assert not (data_dir / "logs" / "up.log").exists()


def test_a_taken_default_port_is_passed_over_and_a_chosen_one_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with supervisor._listen("127.0.0.1", port, explicit=False) as other:
            assert other.getsockname()[1] > port
        with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1:{port}"):
            supervisor._listen("127.0.0.1", port, explicit=True)


def test_an_address_beyond_this_machine_is_refused() -> None:
    with pytest.raises(SettingsError, match="refusing to listen"):
        supervisor._listen("0.0.0.0", 8420, explicit=True)


async def test_the_scheduler_says_which_job_fails_until_it_does_not(db: Database) -> None:
    works = asyncio.Event()

    async def sometimes(_: Database) -> str:
        if not works.is_set():
            raise OSError("the mount is gone")
        return "done"

    rounds = Rounds()
    job = rounds.watched(ClockJob("look", timedelta(seconds=1), sometimes))
    with pytest.raises(OSError, match="mount"):
        await job.run(db)
    health = await rounds.health()
    assert (health.status, health.task) == ("WARNING", "look failed: the mount is gone")
    works.set()
    assert await job.run(db) == "done"
    assert (await rounds.health()).status == "OK"
