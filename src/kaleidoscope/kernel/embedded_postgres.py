"""PostgreSQL for a machine that has none: the server inside a wheel, run by this launcher.

In the data folder lie

    postgres/cluster/   PostgreSQL's own files and, in `log`, its logs
    postgres/password   of the role `kaleidoscope`, readable by its owner alone
    postgres/port       the TCP port on loopback, chosen once
    postgres/lock       locked while somebody starts or stops the server
    postgres/serving    locked as long as any process of the server lives: they inherit it
    postgres/users      locked, shared, by everybody who uses it: the last to leave stops it

The locks are the kernel's own (flock), so that they go with the processes that held them, however
those ended. The server is a process of its own: it outlives a starter that is killed, and the next
one attaches to it. For root it runs as an unprivileged user, to whom `cluster/` belongs; where that
user cannot reach the data folder (below /root), `cluster/` lies in /var/lib/kaleidoscope, and
`postgres/location` says where.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil
import psycopg
import structlog
from psycopg import sql

from kaleidoscope.kernel.errors import DatabaseError
from kaleidoscope.kernel.postgres_programs import (
    SYSTEM_HOME,
    User,
    closed_folder,
    open_folder,
    postgres_programs,
    refuse_closed,
    server_user,
)

log = structlog.get_logger(__name__)

NAME = "kaleidoscope"  # of the role and of the database

# Below the ports that the system hands out to outgoing connections.
PORTS = range(21000, 32000)

# Written into the postgresql.conf of a new cluster, where the user may tune them.
INITIAL = {
    "shared_buffers": "256MB",
    "effective_cache_size": "4GB",
    "work_mem": "16MB",
    "maintenance_work_mem": "512MB",
    "max_connections": "100",
    "max_wal_size": "2GB",
    "random_page_cost": "1.1",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %d ",
    # One file a weekday, overwritten a week later.
    "log_filename": "postgresql-%a.log",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    "log_truncate_on_rotation": "on",
}

# Given at every start, above whatever the configuration file says.
ALWAYS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "logging_collector": "on",
    "log_directory": "log",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    # What the backup has not fetched is kept up to here; beyond, it begins with a new base backup.
    "max_slot_wal_keep_size": "4GB",
}

READY_WITHIN = 600.0  # seconds; recovery after a crash may have 2 GB of log to replay
STOPPED_WITHIN = 60.0
ORPHANS_LEAVE_WITHIN = 5.0
UNSEEN_FOR = 30.0  # an initdb whose starter was killed ends sooner than this
POLL = 0.01


@dataclass(frozen=True)
class Postmaster:
    """What a running server says of itself in postmaster.pid."""

    pid: int
    port: int
    ready: bool


class EmbeddedPostgres:
    """The server of one data folder; `root` is its folder `postgres`.

    Every method raises `DatabaseError` naming the folder and the cause.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._joined: IO[bytes] | None = None
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Join those who use the server, and answer the URL of its database.

        Creates the cluster at first use, attaches to a server that runs, recovers one that was
        killed.
        """
        with _explained(self.root):
            self._make_root()
            with self._locked():
                try:
                    self._bring_up()
                except psycopg.OperationalError:
                    self._bring_up()  # it was killed just before: now it is seen to be dead
                self._join()
                return self.url_of(NAME)

    def stop(self) -> None:
        """Leave; the last to leave shuts the server down, fast: open transactions roll back."""
        with _explained(self.root):
            if not self.root.exists():
                return
            with self._locked():
                self._leave()

    def running_url(self) -> str | None:
        """The URL of the database if its server is up; None, and nothing is started, if not."""
        server = self._postmaster()
        return self.url_of(NAME) if server is not None and server.ready else None

    def url_of(self, database: str) -> str:
        """The URL of one database of this server."""
        password, port = self._read("password"), self._read("port")
        return f"postgresql://{NAME}:{password}@127.0.0.1:{port}/{database}"

    def restore(self, fill: Callable[[Path, User, str], None]) -> None:
        """Make the cluster of what `fill` puts into an empty folder, whole or not at all.

        `fill` is given the folder, whom the server will run as, and the password of the role.
        """
        with _explained(self.root):
            self._make_root()
            with self._locked():
                cluster, user = self._place()
                if (cluster / "PG_VERSION").exists():
                    raise DatabaseError(
                        f"there is a database in {cluster} already",
                        hint="restore into an empty data folder (KALEIDOSCOPE_DATA_DIR)",
                    )
                draft = _new_draft(cluster, user)
                made = draft / "cluster"
                made.mkdir(mode=0o700)
                fill(made, user, self._password())
                made.rename(cluster)
                shutil.rmtree(draft)
                _sync_folder(cluster.parent)

    def destroy(self) -> None:
        """Stop the server, and delete it with everything in it."""
        self.stop()
        with _explained(self.root):
            cluster = self._cluster_folder()
            shutil.rmtree(cluster if cluster.parent == self.root else cluster.parent, True)
            shutil.rmtree(self.root, ignore_errors=True)

    # -- the server

    def _bring_up(self) -> None:
        """Attach to the server that runs, or start one."""
        with self._open_lock("serving") as serving:
            if not self._is_served(serving):
                if not (self._cluster_folder() / "PG_VERSION").exists():
                    self._create_cluster(serving)
                self._launch(self._cluster_folder(), serving)
        _create_database(self.url_of("postgres"), self.url_of(NAME))

    def _is_served(self, serving: IO[bytes]) -> bool:
        """Wait until a server is ready, or none is alive: then `serving` is ours to pass on."""
        began = time.monotonic()
        while (waited := time.monotonic() - began) < READY_WITHIN:
            if _try_lock(serving):
                return False
            server = self._postmaster()
            if server is not None and server.ready:
                return True
            if server is None and waited > ORPHANS_LEAVE_WITHIN:
                # The postmaster was killed, and a backend amid a long query has not noticed.
                self._kill_processes()
            if server is None and waited > UNSEEN_FOR:
                break
            time.sleep(POLL)
        raise DatabaseError(
            f"a PostgreSQL that this process cannot see or that is not ready serves {self.root}",
            hint="is another container or machine using this data folder?",
        )

    def _launch(self, cluster: Path, serving: IO[bytes]) -> None:
        user = server_user(cluster)
        programs = postgres_programs(_major(cluster), user)
        refuse_closed(cluster, user)
        # Nothing serves this cluster (we hold the lock), so that the file is stale; its process id
        # may belong to somebody else by now, which PostgreSQL could not tell from a live server.
        (cluster / "postmaster.pid").unlink(missing_ok=True)
        mine = {"port": str(self._settled_port()), "cluster_name": self._mark()}
        settings = {**ALWAYS, **mine, **_shared_memory()}
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        logs = _Logs(self.root / "startup.log", cluster / "log")
        with logs.startup.open("wb") as output:
            self._child = subprocess.Popen(
                [programs / "postgres", "-D", cluster, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[serving.fileno()],
                **user.popen_options(),
            )
        began = time.monotonic()
        while self._child.poll() is None:
            server = self._postmaster()
            if server is not None and server.ready:
                return
            if time.monotonic() - began > READY_WITHIN:
                raise DatabaseError(f"PostgreSQL in {cluster} does not become ready: {logs.last()}")
            time.sleep(POLL)
        raise _failure(f"PostgreSQL in {cluster} does not start", logs.written())

    def _shut_down(self, server: Postmaster) -> None:
        os.kill(server.pid, signal.SIGINT)
        if not self._ends_within(STOPPED_WITHIN):
            log.warning("PostgreSQL does not stop: killed, it will recover at its next start")
            self._kill_processes()
            self._ends_within(STOPPED_WITHIN)

    def _ends_within(self, seconds: float) -> bool:
        """Wait until no process of the server is left; says whether that came to pass."""
        began = time.monotonic()
        with self._open_lock("serving") as serving:
            while time.monotonic() - began < seconds:
                if self._child is not None:
                    self._child.poll()  # reaps it
                if _try_lock(serving):
                    return True
                time.sleep(POLL)
        return False

    def _postmaster(self) -> Postmaster | None:
        """The live server of this cluster, from its postmaster.pid."""
        cluster = self._cluster_folder()
        try:
            lines = (cluster / "postmaster.pid").read_text().split("\n")
            found = Postmaster(int(lines[0]), int(lines[3]), lines[7].strip() == "ready")
            return found if self._is_ours(psutil.Process(found.pid)) else None
        except (OSError, ValueError, IndexError, psutil.Error):
            return None

    def _kill_processes(self) -> None:
        """Kill every process of this server."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if self._is_ours(process):
                    process.kill()

    def _is_ours(self, process: psutil.Process) -> bool:
        """Whether a process belongs to this server: a process id is used again.

        By its command line, which even a root without CAP_SYS_PTRACE (in a container) may read.
        """
        mark = self._mark()
        return process.name() == "postgres" and any(mark in part for part in process.cmdline())

    def _mark(self) -> str:
        """The server's `cluster_name`, which PostgreSQL shows in every process title."""
        place = os.fsencode(self._cluster_folder().resolve())
        return f"{NAME}-{hashlib.sha256(place).hexdigest()[:16]}"

    # -- the folder

    def _make_root(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        owner = self.root.stat().st_uid
        if os.geteuid() not in (owner, 0):
            raise DatabaseError(
                f"{self.root} belongs to another user (uid {owner})",
                hint="run as that user, or choose another KALEIDOSCOPE_DATA_DIR",
            )
        if os.geteuid() == 0 and not (self.root / "cluster").exists():
            self.root.chmod(0o711)  # the server's user passes through to its cluster

    def _cluster_folder(self) -> Path:
        """Where the cluster lies or will lie."""
        location = self.root / "location"
        return Path(location.read_text().strip()) if location.exists() else self.root / "cluster"

    def _create_cluster(self, serving: IO[bytes]) -> None:
        """A new cluster, whole or not at all: made beside its place and renamed into it."""
        cluster, user = self._place()
        programs = postgres_programs(None, user)
        draft = _new_draft(cluster, user)
        password = draft / "password"
        _write(password, self._password())
        if not user.is_me:
            os.chown(password, user.uid, user.gid)
        log.info("creating the database", folder=str(cluster), user=user.name)
        locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        settings = [f"--set={name}={value}" for name, value in INITIAL.items()]
        done = subprocess.run(
            [
                *(f"{programs}/initdb", f"--pgdata={draft}/cluster", f"--username={NAME}"),
                *(f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8", *locale),
                *("--no-instructions", *settings),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=[serving.fileno()],
            **user.popen_options(),
        )
        if done.returncode != 0:
            raise _failure(f"cannot create a PostgreSQL cluster in {cluster}", done.stdout)
        (draft / "cluster").rename(cluster)
        shutil.rmtree(draft)
        _sync_folder(cluster.parent)

    def _place(self) -> tuple[Path, User]:
        """Where a new cluster is to lie, and whom its server will run as."""
        cluster = self._cluster_folder()
        user = server_user(cluster)
        if cluster.parent == self.root and closed_folder(self.root, user) is not None:
            cluster = self._settle_elsewhere()
        refuse_closed(cluster.parent, user)
        return cluster, user

    def _settle_elsewhere(self) -> Path:
        """A place for the cluster that everybody can reach, noted in the data folder."""
        mark = hashlib.sha256(os.fsencode(self.root.resolve())).hexdigest()[:16]
        home = SYSTEM_HOME / mark
        if (home / "cluster").exists():
            # Of a data folder that was here before and was deleted; its password went with it.
            kept = home.rename(f"{home}.abandoned-{int(time.time())}")
            log.warning("kept the database of an earlier data folder", folder=str(kept))
        open_folder(home)
        _write(self.root / "location", str(home / "cluster"))
        return home / "cluster"

    def _password(self) -> str:
        if not (self.root / "password").exists():
            _write(self.root / "password", secrets.token_urlsafe(24))
        return self._read("password")

    def _settled_port(self) -> int:
        """The port of this server. A taken one is exchanged while nobody was told of it."""
        noted = self.root / "port"
        port = int(self._read("port")) if noted.exists() else None
        if port is not None and _is_free(port):
            return port
        if port is not None and (self._joined or self._others()):
            raise DatabaseError(
                f"port {port} of the embedded PostgreSQL is taken by another program",
                hint="stop that program, or stop all of Kaleidoscope and start it again",
            )
        port = next(p for p in random.sample(PORTS, len(PORTS)) if _is_free(p))
        _write(noted, str(port))
        return port

    def _read(self, name: str) -> str:
        try:
            return (self.root / name).read_text().strip()
        except FileNotFoundError:
            raise DatabaseError(
                f"{self.root / name} is missing",
                hint="restore it from a copy of the data folder, or use another one",
            ) from None

    # -- who uses it

    def _join(self) -> None:
        if self._joined is None:
            self._joined = self._open_lock("users")
            fcntl.flock(self._joined, fcntl.LOCK_SH)

    def _leave(self) -> None:
        if self._joined is not None:
            self._joined.close()
            self._joined = None
        server = self._postmaster()
        if server is not None and not self._others():
            self._shut_down(server)

    def _others(self) -> bool:
        """Whether a process uses the server (asked when we ourselves do not)."""
        with self._open_lock("users") as users:
            return not _try_lock(users)

    def _open_lock(self, name: str) -> IO[bytes]:
        # Ours alone: who may open a file may lock it.
        return os.fdopen(os.open(self.root / name, os.O_RDWR | os.O_CREAT, 0o600), "r+b")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Be the only one who starts or stops the server; waits for whoever does."""
        with self._open_lock("lock") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class _Logs:
    """What a server that starts writes: first to its output, then by its logging collector."""

    def __init__(self, startup: Path, folder: Path) -> None:
        self.startup = startup
        self.folder = folder
        self._sizes = {path: path.stat().st_size for path in self._files()}

    def written(self) -> str:
        """All that was written since."""
        return "".join(self._news(path) for path in [*self._files(), self.startup])

    def last(self) -> str:
        return (self.written().splitlines() or [""])[-1]

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.log"))

    def _news(self, path: Path) -> str:
        content, before = path.read_bytes(), self._sizes.get(path, 0)
        return content[before if before <= len(content) else 0 :].decode(errors="replace")


def _new_draft(cluster: Path, user: User) -> Path:
    """An empty folder beside the cluster, for the server's user."""
    draft = cluster.with_name("cluster.draft")
    shutil.rmtree(draft, ignore_errors=True)  # of a start that was killed
    draft.mkdir(mode=0o700)
    if not user.is_me:
        os.chown(draft, user.uid, user.gid)
    return draft


def _failure(what: str, output: str) -> DatabaseError:
    """The error for a program of PostgreSQL that failed, and the line that says why."""
    if "No space left on device" in output:
        return DatabaseError(f"{what}: the disk is full", hint="make room and start again")
    if "Address already in use" in output:
        return DatabaseError(f"{what}: its port is taken", hint="stop the other program")
    causes = re.findall(r"(?:FATAL|PANIC|initdb: error|postgres): +(.+)", output)
    return DatabaseError(f"{what}: {causes[-1] if causes else output.strip()[-300:]}")


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Failures of the disk and of the connection, as `DatabaseError`s."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _failure(f"cannot write in {folder}", os.strerror(errno.ENOSPC)) from error
        raise DatabaseError(f"the embedded PostgreSQL in {folder}: {error}") from error
    except psycopg.Error as error:
        raise DatabaseError(f"the embedded PostgreSQL in {folder}: {error}") from error


def _create_database(maintenance_url: str, url: str) -> None:
    """Create our database unless it is there."""
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        create = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(NAME))
        # A starter that was killed may have left its own CREATE DATABASE running.
        made_meanwhile = suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation)
        with psycopg.connect(maintenance_url, autocommit=True) as connection, made_meanwhile:
            connection.execute(create)
        psycopg.connect(url).close()


def _shared_memory() -> dict[str, str]:
    """Parallel work shares memory through /dev/shm, which containers keep too small for it."""
    try:
        room = shutil.disk_usage("/dev/shm").free
    except OSError:
        return {}
    return {} if room >= 1 << 30 else {"dynamic_shared_memory_type": "mmap"}


def _major(cluster: Path) -> int:
    return int((cluster / "PG_VERSION").read_text())


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _try_lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(path: Path, text: str) -> None:
    """Write a small file for its owner alone, whole or not at all."""
    draft = path.with_name(path.name + ".draft")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
