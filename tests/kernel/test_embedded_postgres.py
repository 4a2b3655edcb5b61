"""The embedded server: its life, its crashes, and what it says when it cannot."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest

from kaleidoscope.kernel import embedded_postgres, postgres_programs
from kaleidoscope.kernel.embedded_postgres import EmbeddedPostgres, Postmaster, _failure
from kaleidoscope.kernel.errors import DatabaseError

START = """
import sys
from pathlib import Path
from kaleidoscope.kernel import log
from kaleidoscope.kernel.embedded_postgres import EmbeddedPostgres
log.configure("test")
server = EmbeddedPostgres(Path(sys.argv[1]))
print("about to start", flush=True)
print(server.start(), flush=True)
sys.stdin.read()
server.stop()
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has another user run PostgreSQL")


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedPostgres]:
    """A server that has never run."""
    made = EmbeddedPostgres(folder / "postgres")
    yield made
    made._leave()
    made._kill_processes()


@pytest.fixture(scope="module")
def stopped(postgres: EmbeddedPostgres) -> Iterator[Path]:
    """A folder of a server that has run and was stopped."""
    with tempfile.TemporaryDirectory(dir=postgres.root.parent) as name:
        Path(name).chmod(0o711)
        made = EmbeddedPostgres(Path(name) / "postgres")
        made.start()
        made.stop()
        yield made.root


@pytest.fixture
def used(server: EmbeddedPostgres, stopped: Path) -> EmbeddedPostgres:
    """A server that has run before."""
    subprocess.run(["cp", "-a", stopped, server.root], check=True)
    return server


@contextmanager
def starter(root: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that starts the server and stays until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", START, root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        while process.stdout.readline() != "about to start\n":
            pass
        yield process
    finally:
        process.kill()
        process.communicate()


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def alive(server: EmbeddedPostgres) -> Postmaster:
    found = server._postmaster()
    assert found is not None
    return found


def ask(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()
        assert row is not None
        return row[0]


def test_it_starts_cold_and_warm_and_keeps_the_data(server: EmbeddedPostgres) -> None:
    assert server.running_url() is None
    url = server.start()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
    server.stop()
    assert server.running_url() is None
    assert server.start() == url
    assert server.running_url() == url
    assert ask(url, "SELECT n FROM kept") == 42


@pytest.mark.parametrize("name", ["fsync", "full_page_writes", "synchronous_commit"])
def test_it_never_trades_safety_for_speed(postgres: EmbeddedPostgres, name: str) -> None:
    assert ask(postgres.url_of("postgres"), f"SHOW {name}") == "on"


def test_it_serves_loopback_and_only_who_knows_the_password(postgres: EmbeddedPostgres) -> None:
    url = postgres.url_of("postgres")
    assert ask(url, "SHOW listen_addresses") == "127.0.0.1"
    assert ask(url, "SHOW server_encoding") == "UTF8"
    assert ask(url, "SELECT lower('ÄÖÜ')") == "äöü"
    assert stat.S_IMODE((postgres.root / "password").stat().st_mode) == 0o600
    password = (postgres.root / "password").read_text().strip()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url.replace(password, "guess"))


def test_it_does_not_run_as_root(postgres: EmbeddedPostgres) -> None:
    assert psutil.Process(alive(postgres).pid).uids().effective != 0


def test_the_last_to_leave_stops_it(used: EmbeddedPostgres) -> None:
    url = used.start()
    second = EmbeddedPostgres(used.root)
    assert second.start() == url
    used.stop()
    assert ask(url, "SELECT 1") == 1
    second.stop()
    assert used.running_url() is None
    second.stop()  # a second time is no harm


def test_two_starters_at_once_get_one_server(server: EmbeddedPostgres) -> None:
    with starter(server.root) as one, starter(server.root) as two:
        assert url_of(one) == url_of(two) == server.running_url()
        one.communicate("")
        assert server.running_url() is not None
        two.communicate("")
    assert server.running_url() is None


def test_it_outlives_a_starter_that_is_killed_and_is_attached_to(used: EmbeddedPostgres) -> None:
    with starter(used.root) as first:
        url = url_of(first)
        before = alive(used)
        first.kill()
    assert used.start() == url
    assert alive(used) == before
    used.stop()
    assert used.running_url() is None


@pytest.mark.parametrize("seconds", [0.05, 0.25, 0.45, 0.7])
def test_a_starter_killed_midway_leaves_nothing_in_the_way(
    server: EmbeddedPostgres, seconds: float
) -> None:
    with starter(server.root) as first:
        time.sleep(seconds)
        first.kill()
    assert ask(server.start(), "SELECT 1") == 1


@pytest.mark.parametrize("what", ["postmaster", "everything"])
def test_it_recovers_from_kill_9(used: EmbeddedPostgres, what: str) -> None:
    url = used.start()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
    if what == "postmaster":
        os.kill(alive(used).pid, signal.SIGKILL)
    else:
        used._kill_processes()
    assert used.start() == url
    assert ask(url, "SELECT n FROM kept") == 42


def test_a_backend_too_busy_to_notice_is_killed(
    used: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_postgres, "ORPHANS_LEAVE_WITHIN", 0.3)
    url = used.start()
    busy = psycopg.connect(url)
    busy.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 1000000000000)")
    backend = psutil.Process(busy.info.backend_pid)
    while backend.cpu_times().user < 0.05:
        time.sleep(0.01)
    os.kill(alive(used).pid, signal.SIGKILL)
    assert used.start() == url
    assert not backend.is_running() or backend.status() == psutil.STATUS_ZOMBIE


def test_a_process_id_used_again_is_not_taken_for_the_server(used: EmbeddedPostgres) -> None:
    used.start()
    pid_file = used._cluster_folder() / "postmaster.pid"
    content = pid_file.read_text().split("\n", 1)[1]
    used.stop()
    pid_file.write_text(f"{os.getpid()}\n{content}")
    assert used.running_url() is None
    assert ask(used.start(), "SELECT 1") == 1


def test_a_taken_port_is_exchanged_while_nobody_knows_it(used: EmbeddedPostgres) -> None:
    url = used.start()
    used.stop()
    with listening_on(int((used.root / "port").read_text())):
        other = used.start()
    assert other != url
    assert ask(other, "SELECT 1") == 1


def test_a_taken_port_that_others_know_is_an_error(used: EmbeddedPostgres) -> None:
    used.start()
    port = alive(used).port
    used._kill_processes()
    wait_until_free(port)
    with listening_on(port), pytest.raises(DatabaseError, match=f"port {port} .* is taken"):
        used.start()


def test_a_cluster_of_a_newer_postgresql_is_refused(used: EmbeddedPostgres) -> None:
    used.start()
    used.stop()
    (used.root / "cluster" / "PG_VERSION").write_text("99\n")
    with pytest.raises(DatabaseError, match="made by PostgreSQL 99, this installation has 16 and"):
        used.start()


def test_a_folder_of_somebody_else_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(DatabaseError, match="belongs to another user"):
        EmbeddedPostgres(folder).start()


def test_a_cluster_of_somebody_else_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() == 0:
        os.chown(folder, 12345, 12345)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(DatabaseError, match=r"belongs to .*, not to user 54321"):
        postgres_programs.server_user(folder)


@as_root
def test_a_cluster_copied_by_root_is_refused_with_the_remedy(used: EmbeddedPostgres) -> None:
    used.start()
    used.stop()
    os.chown(used.root / "cluster", 0, 0)
    with pytest.raises(DatabaseError, match="belongs to root") as caught:
        used.start()
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("chown -R ")


def test_a_missing_password_is_named(used: EmbeddedPostgres) -> None:
    used.start()
    used.stop()
    (used.root / "password").unlink()
    with pytest.raises(DatabaseError, match="password is missing"):
        used.start()


def test_a_damaged_cluster_says_what_postgresql_said(used: EmbeddedPostgres) -> None:
    used.start()
    used.stop()
    shutil.rmtree(used.root / "cluster" / "global")
    with pytest.raises(DatabaseError, match="does not start: could not find the database"):
        used.start()


def test_a_platform_without_the_programs_is_told_what_to_do(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_programs, "WHEEL", "no-such-wheel")
    with pytest.raises(DatabaseError, match="no embedded PostgreSQL for this") as caught:
        server.start()
    assert "KALEIDOSCOPE_DATABASE_URL" in (caught.value.hint or "")


def test_psql_is_the_wheels_or_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    version = subprocess.run(
        [postgres_programs.client_program("psql"), "--version"], capture_output=True
    )
    assert version.stdout.startswith(b"psql (PostgreSQL) 18")
    monkeypatch.setattr(postgres_programs, "WHEEL", "no-such-wheel")
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    assert postgres_programs.client_program("psql") == Path("/bin/psql")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(DatabaseError, match="no psql"):
        postgres_programs.client_program("psql")


def test_a_folder_that_cannot_be_written_is_named(folder: Path) -> None:
    (folder / "file").write_text("in the way")
    with pytest.raises(DatabaseError, match="file/postgres"):
        EmbeddedPostgres(folder / "file" / "postgres").start()


def test_a_full_disk_is_called_so(folder: Path) -> None:
    small = folder / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=711", "tmpfs", small]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("may not mount a small disk")
    try:
        with pytest.raises(DatabaseError, match="the disk is full"):
            EmbeddedPostgres(small / "postgres").start()
    finally:
        subprocess.run(["umount", small], check=True)


def test_of_several_causes_the_last_is_told() -> None:
    output = "LOG:  starting\nFATAL:  first\n2026-01-01 UTC [1] FATAL:  the last one\nLOG:  down\n"
    assert _failure("it fails", output).message == "it fails: the last one"


@as_root
def test_below_a_closed_folder_the_cluster_lies_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = folder / "var"
    monkeypatch.setattr(embedded_postgres, "SYSTEM_HOME", home)
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    server = EmbeddedPostgres(closed / "postgres")
    url = server.start()
    server.stop()
    cluster = Path((server.root / "location").read_text().strip())
    assert home in cluster.parents
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert server.start() == url
    server.stop()

    shutil.rmtree(server.root)  # a new data folder begins empty, and nothing old is lost
    assert server.start() != url
    server.stop()
    assert len(list(home.glob("*.abandoned-*/cluster"))) == 1


@as_root
def test_programs_that_the_servers_user_cannot_reach_are_copied_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = folder / "closed"
    (closed / "pginstall18" / "bin").mkdir(parents=True)
    (closed / "pginstall18" / "bin" / "postgres").touch(mode=0o755)
    closed.chmod(0o700)
    monkeypatch.setattr(postgres_programs, "_installed", lambda: {18: closed / "pginstall18"})
    monkeypatch.setattr(postgres_programs, "SYSTEM_HOME", folder / "var")
    user = postgres_programs.server_user(folder / "none")
    found = postgres_programs.postgres_programs(18, user)
    assert (folder / "var") in found.parents
    assert postgres_programs.closed_folder(found / "postgres", user) is None
    assert postgres_programs.postgres_programs(None, user) == found
    assert len(list((folder / "var").iterdir())) == 1


@contextmanager
def listening_on(port: int) -> Iterator[None]:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        yield


def wait_until_free(port: int) -> None:
    while not embedded_postgres._is_free(port):
        time.sleep(0.01)
