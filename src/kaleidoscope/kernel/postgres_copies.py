"""Copies of a PostgreSQL database, and databases made of them.

A server of our own is copied by a base backup and its write-ahead log, segment by segment; from
both its cluster can be made anew as it was at any moment. A server that is not ours is dumped.
Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from kaleidoscope.kernel.errors import DatabaseError
from kaleidoscope.kernel.postgres_programs import User, client_program, postgres_programs

SLOT = "kaleidoscope_backup"
SEGMENT = 16 << 20  # bytes; what initdb chooses, and our clusters have
SEGMENT_NAME = 24  # characters: timeline, log, segment, 8 hexadecimal digits each
LOG = "restored_log"  # in the cluster, while it is recovered
RECEIVED_WITHIN = 600.0
RECOVERED_WITHIN = 6 * 3600.0
STOPPED_WITHIN = 120.0
POLL = 0.02

VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
}


# -- copies of our own server


def base_backup(url: str, folder: Path) -> None:
    """A base backup of the whole cluster into an empty folder: base.tar.gz, backup_manifest.

    It holds all the log that it needs to become consistent.
    """
    _run(
        url,
        [
            "pg_basebackup",
            f"--pgdata={folder}",
            "--format=tar",
            "--gzip",
            "--compress=client-gzip:6",
        ],
        ["--wal-method=fetch", "--checkpoint=fast", "--no-password", "--no-sync"],
        ["--label=kaleidoscope"],
    )


def keep_log(url: str) -> bool:
    """Have the server keep its log until it has been received; False: some of it is lost.

    Then only a new base backup, taken after this, begins a chain without a gap.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(
            "SELECT wal_status FROM pg_replication_slots WHERE slot_name = %s", [SLOT]
        ).fetchone()
        if found is not None and found[0] not in ("lost", "unreserved"):
            return True
        if found is not None:
            connection.execute("SELECT pg_drop_replication_slot(%s)", [SLOT])
        connection.execute("SELECT pg_create_physical_replication_slot(%s, true)", [SLOT])
        return False


def receive_log(url: str, folder: Path) -> list[Path]:
    """End the segment that is being written, and receive all that is finished into `folder`.

    Answers the segments there in their order, with those of rounds before that nobody took away.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT (pg_switch_wal() - '0/0')::numeric").fetchone()
    assert row is not None
    end = (
        -(-int(row[0]) // SEGMENT) * SEGMENT - 1
    )  # it stops when it is beyond that: at the segment's end
    _run(
        url,
        ["pg_receivewal", f"--directory={folder}", f"--slot={SLOT}", "--no-loop", "--no-password"],
        [f"--endpos={end >> 32:X}/{end & 0xFFFFFFFF:X}"],
        seconds=RECEIVED_WITHIN,
    )
    return sorted(path for path in folder.iterdir() if is_log_file(path.name))


def release_log(url: str, segment: str) -> None:
    """Let the server throw its log away up to the end of a segment: it is where it should be."""
    after = next_segment(segment)
    high, low = int(after[8:16], 16), int(after[16:24], 16) * SEGMENT
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_replication_slot_advance(slot_name, %s::pg_lsn) FROM pg_replication_slots"
            " WHERE slot_name = %s AND NOT active AND restart_lsn < %s::pg_lsn",
            [f"{high:X}/{low:X}", SLOT, f"{high:X}/{low:X}"],
        )


def is_log_file(name: str) -> bool:
    """Whether a file of that name is a finished segment, or tells of a timeline."""
    stem = name.removesuffix(".history")
    length = SEGMENT_NAME if stem == name else 8
    return len(stem) == length and set(stem) <= set("0123456789ABCDEF")


def next_segment(name: str) -> str:
    """The segment that follows on the same timeline."""
    timeline, log, segment = (int(name[i : i + 8], 16) for i in (0, 8, 16))
    per_log = (1 << 32) // SEGMENT
    log, segment = (log, segment + 1) if segment + 1 < per_log else (log + 1, 0)
    return f"{timeline:08X}{log:08X}{segment:08X}"


def first_segment(manifest: str) -> str:
    """The segment at which a base backup begins, from its backup_manifest."""
    told = json.loads(manifest)["WAL-Ranges"][0]
    high, low = (int(part, 16) for part in told["Start-LSN"].split("/"))
    return f"{int(told['Timeline']):08X}{high:08X}{low // SEGMENT:08X}"


# -- copies of any server


def dump(url: str, file: Path) -> None:
    """Dump one database in PostgreSQL's own format, compressed."""
    _run(
        url,
        ["pg_dump", "--format=custom", "--no-owner", "--no-privileges", "--no-password"],
        [f"--file={file}"],
    )


def read_everything(url: str) -> None:
    """Read every row of a database once, as a dump does; raises `DatabaseError` where one cannot
    be."""
    _run(url, ["pg_dump", "--format=plain", "--no-password", f"--file={os.devnull}"])


def load_dump(url: str, file: Path) -> None:
    """Fill an empty database from a dump, in one transaction."""
    _run(
        url,
        ["pg_restore", "--no-owner", "--no-privileges", "--no-password", "--single-transaction"],
        [f"--dbname={conninfo_to_dict(url)['dbname']}", str(file)],
    )


# -- a cluster from its copies


def unpack_base(base: Path, cluster: Path) -> None:
    """A base backup into an empty folder."""
    with tarfile.open(base) as archive:
        archive.extractall(cluster, filter="data")
    cluster.chmod(0o700)


def recover(
    cluster: Path,
    log: Sequence[Path],
    user: User,
    *,
    role: str,
    password: str,
    until: datetime | None = None,
) -> None:
    """Bring an unpacked base backup up to the end of its log, or to a moment; set a password.

    The server runs for that as `user`, and only on a socket in a folder of its own.
    """
    kept = cluster / LOG
    kept.mkdir(mode=0o700)
    for file in log:
        shutil.copyfile(file, kept / file.name)
    (cluster / "recovery.signal").touch(mode=0o600)
    settings = {"restore_command": f'cp "{LOG}/%f" "%p"', "recovery_target_timeline": "latest"}
    if until is not None:
        settings |= {"recovery_target_time": until.isoformat(), "recovery_target_action": "promote"}
    if not user.is_me:
        for path in [cluster, *cluster.rglob("*")]:
            os.chown(path, user.uid, user.gid, follow_symlinks=False)
    with _private_server(cluster, user, role, settings) as address:
        statement = sql.SQL("ALTER ROLE {} PASSWORD {}")
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(statement.format(sql.Identifier(role), sql.Literal(password)))
    shutil.rmtree(kept)


@contextmanager
def _private_server(
    cluster: Path, user: User, role: str, settings: dict[str, str]
) -> Iterator[str]:
    """A server whom nobody else can reach, when it has recovered; its address."""
    major = int((cluster / "PG_VERSION").read_text())
    program = postgres_programs(major, user) / "postgres"
    with tempfile.TemporaryDirectory(prefix="kaleidoscope-") as name:
        room = Path(name)
        room.chmod(0o700)
        (room / "hba").write_text("local all all trust\n")
        if not user.is_me:
            for path in (room, room / "hba"):
                os.chown(path, user.uid, user.gid)
        told = {
            **settings,
            "listen_addresses": "",
            "unix_socket_directories": name,
            "hba_file": str(room / "hba"),
            "port": "5432",
            "logging_collector": "off",
            "archive_mode": "off",
        }
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                [program, "-D", cluster, *(f"--{key}={value}" for key, value in told.items())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **user.popen_options(),
            )
            try:
                address = f"host={name} port=5432 dbname=postgres user={role}"
                _wait_recovered(process, address, output.fileno())
                yield address
            finally:
                _stop(process)


def _wait_recovered(process: subprocess.Popen[bytes], address: str, output: int) -> None:
    began = time.monotonic()
    while time.monotonic() - began < RECOVERED_WITHIN:
        if process.poll() is not None:
            written = os.pread(output, 1 << 20, 0).decode(errors="replace")
            causes = [line for line in written.splitlines() if "FATAL" in line or "PANIC" in line]
            raise DatabaseError(f"the copy cannot be recovered: {(causes or [written])[-1]}")
        try:
            with psycopg.connect(address) as connection:
                row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
                if row == (False,):
                    return
        except psycopg.OperationalError:
            pass
        time.sleep(POLL)
    raise DatabaseError("the copy does not come to the end of its recovery")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOPPED_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# -- PostgreSQL's own programs


def _run(url: str, *words: Sequence[str], seconds: float | None = None) -> None:
    """Run one of PostgreSQL's programs on a database; its password is in no command line."""
    name, *arguments = [word for part in words for word in part]
    given = conninfo_to_dict(url)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PG")},
        **{VARIABLES[key]: str(value) for key, value in given.items() if key in VARIABLES},
    }
    try:
        done = subprocess.run(
            [client_program(name), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise DatabaseError(f"{name} has not ended after {seconds:.0f} s") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        raise DatabaseError(f"{name}: {(lines or [done.stderr.strip() or 'no reason given'])[-1]}")
