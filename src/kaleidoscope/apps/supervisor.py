"""One `kaleidoscope up`: the database and the services, started, watched, stopped in order."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from kaleidoscope.apps import state
from kaleidoscope.apps.child import Child
from kaleidoscope.apps.process import bind, check_listen_address, command
from kaleidoscope.apps.settings import ApiSettings
from kaleidoscope.ingest.settings import IngestSettings
from kaleidoscope.kernel import migrate
from kaleidoscope.kernel.clock import now
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.embedded_postgres import EmbeddedPostgres
from kaleidoscope.kernel.errors import SettingsError, Unavailable
from kaleidoscope.kernel.settings import KernelSettings, config_file, data_dir, load
from kaleidoscope.ml.settings import MlSettings
from kaleidoscope.ops.service import Health, Heartbeat, services

LOOK = 0.5  # seconds between looks at what is watched
DATABASE_PAUSE = 5.0  # seconds between two tries to start a database that does not
GRACE = {
    "librarian": 15.0,
    "scheduler": 10.0,
    "worker": 15.0,
    "mlserver": 10.0,
    "api": 10.0,
}  # in stopping order
ANY_PORT = 200  # how many ports after the default are tried

console = Console(stderr=True)


@dataclass(frozen=True)
class Wishes:
    """What the command line asks of `up`."""

    port: int | None = None
    ingest: Path | None = None
    once: bool = False


class Supervisor:
    """The database and the services of one `kaleidoscope up`."""

    def __init__(self, wishes: Wishes) -> None:
        api, ml = load(ApiSettings), load(MlSettings)
        explicit = wishes.port is not None or "port" in api.model_fields_set
        self._wishes = wishes
        self._listeners = {
            "api": _listen(api.host, wishes.port or api.port, explicit),
            "mlserver": _listen(ml.host, ml.port, "port" in ml.model_fields_set),
        }
        self._up = state.Up(
            pid=os.getpid(),
            born=psutil.Process().create_time(),
            started_at=now(),
            api_url=_url(self._listeners["api"]),
            ml_url=_url(self._listeners["mlserver"]),
        )
        self._children: dict[str, Child] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._embedded: EmbeddedPostgres | None = None
        self._database_trouble: str | None = None

    async def run(self) -> int:
        """Start everything, then watch, or end when `once` is done."""
        state.write(self._up)
        url = await self._start_database()
        db = Database(url, pool_size=2)
        try:
            async with Heartbeat(db, "supervisor", check=self._health):
                self._start_services(url)
                await self._until_ready(db)
                self._welcome()
                return await self._serve()
        finally:
            await db.close()

    async def stop(self) -> None:
        """Stop the services in order, then the database."""
        for name, grace in GRACE.items():
            if name in self._children:
                await self._children[name].stop(grace)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._embedded is not None:
            await asyncio.to_thread(self._embedded.stop)
        say("stopped")

    def kill(self) -> None:
        """End the services at once; `stop` still ends the database cleanly."""
        for child in self._children.values():
            child.kill()

    # -- the database

    async def _start_database(self) -> str:
        began = time.monotonic()
        url: str = load(KernelSettings).database_url
        if not url:
            folder = data_dir() / "postgres"
            if not folder.exists():
                say(f"the first start: making a database in {data_dir()}")
            self._embedded = EmbeddedPostgres(folder)
            url = await asyncio.to_thread(self._embedded.start)
            self._tasks.append(asyncio.create_task(self._keep_database(self._embedded)))
        await asyncio.to_thread(migrate.upgrade, url)
        where = f"in {data_dir()}" if self._embedded else "at the configured address"
        say(f"database {where}: ready in {time.monotonic() - began:.1f} s")
        return url

    async def _keep_database(self, embedded: EmbeddedPostgres) -> None:
        while True:
            await asyncio.sleep(LOOK)
            try:
                if await asyncio.to_thread(embedded.running_url) is None:
                    say("the database has died; starting it again")
                    await asyncio.to_thread(embedded.start)
                self._database_trouble = None
            except Exception as error:  # whatever it is: it is tried again
                self._database_trouble = str(error)
                say(f"the database does not start: {error}", style="red")
                await asyncio.sleep(DATABASE_PAUSE)

    # -- the services

    def _start_services(self, database_url: str) -> None:
        metrics = state.run_dir() / "metrics"
        shutil.rmtree(metrics, ignore_errors=True)
        metrics.mkdir()
        env = {
            "KALEIDOSCOPE_DATA_DIR": str(data_dir()),
            "KALEIDOSCOPE_CONFIG": str(config_file()),
            "KALEIDOSCOPE_DATABASE_URL": database_url,
            "KALEIDOSCOPE_API_URL": self._up.api_url,
            "KALEIDOSCOPE_ML_URL": self._up.ml_url,
            "KALEIDOSCOPE_ML_ROOTS": os.pathsep.join(map(str, load(IngestSettings).roots)),
            "PROMETHEUS_MULTIPROC_DIR": str(metrics),
        }
        for name in ("api", "mlserver", "worker", "scheduler", "librarian"):
            listener = self._listeners.get(name)
            child = Child(name, [name], env, say=say, changed=self._note, listener=listener)
            self._children[name] = child
            self._up.services[name] = child.status
            self._tasks.append(asyncio.create_task(child.keep(), name=f"keep {name}"))

    def _note(self) -> None:
        try:
            state.write(self._up)
        except OSError as error:  # the disk is full, perhaps: the services matter more
            say(f"cannot note what is running: {error}", style="red")

    async def _health(self) -> Health:
        trouble = {n: c.status.trouble for n, c in self._children.items() if c.status.trouble}
        if self._database_trouble:
            trouble["database"] = self._database_trouble
        if trouble:
            return Health("ERROR", "; ".join(f"{name} {what}" for name, what in trouble.items()))
        away = [name for name, c in self._children.items() if c.status.state != "running"]
        if away:
            return Health("WARNING", f"starting {', '.join(away)}")
        return Health("OK", f"watching {', '.join(self._children)}")

    async def _until_ready(self, db: Database) -> None:
        """Wait until every service works, not merely runs. Raises `Unavailable`."""
        async with httpx.AsyncClient(timeout=60) as client:
            probes = [self._probe(name, client, db) for name in self._children]
            ready = asyncio.gather(*probes)
            began = time.monotonic()
            try:
                while not ready.done():
                    self._give_up_where_hopeless(time.monotonic() - began)
                    await asyncio.wait([ready], timeout=LOOK)
            finally:
                ready.cancel()
                with suppress(asyncio.CancelledError):
                    await ready
        self._up.ready = True
        self._note()

    def _give_up_where_hopeless(self, waited: float) -> None:
        for child in self._children.values():
            if child.status.trouble:
                raise Unavailable(f"{child.name} {child.status.trouble}", hint=f"see {child.log}")
        if waited > state.READY_WITHIN:
            raise Unavailable(
                f"the services are not ready after {state.READY_WITHIN:.0f} s",
                hint=f"their logs are in {state.log_dir()}",
            )

    async def _probe(self, name: str, client: httpx.AsyncClient, db: Database) -> None:
        """Ask a service until it answers well; those without HTTP, until their heart beats."""
        urls = {
            "api": f"{self._up.api_url}/health/ready",
            "mlserver": f"{self._up.ml_url}/health",
        }
        while True:
            with suppress(httpx.HTTPError, OSError, SQLAlchemyError):
                if name not in urls:
                    answers = await self._beats(name, db)
                else:
                    answers = (await client.get(urls[name])).is_success
                if answers:
                    return
            await asyncio.sleep(0.1)

    async def _beats(self, name: str, db: Database) -> bool:
        async with db.transaction() as session:
            return any(
                service.service_name.startswith(name)
                and service.last_heartbeat > self._up.started_at
                for service in await services(session)
            )

    def _welcome(self) -> None:
        took = (now() - self._up.started_at).total_seconds()
        say(f"ready in {took:.1f} s at {self._up.api_url}", style="bold green")
        say(f"ML service {self._up.ml_url} · logs {state.log_dir()}")

    async def _serve(self) -> int:
        code = 0
        if self._wishes.ingest is not None:
            code = await self._ingest(self._wishes.ingest)
        if self._wishes.once:
            return code
        say("serving; Ctrl-C stops")
        await asyncio.Event().wait()
        return code

    async def _ingest(self, folder: Path) -> int:
        """The same command that a user types, in this terminal."""
        process = await asyncio.create_subprocess_exec(
            *command("ingest", str(folder.expanduser().absolute()), "--wait"),
            env={**os.environ, "KALEIDOSCOPE_API_URL": self._up.api_url},
        )
        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()


def say(line: str, *, style: str = "") -> None:
    """A line for whoever looks at the console."""
    told = Text.assemble((f"{now().astimezone():%H:%M:%S} ", "dim"), (line, style))
    console.print(told, soft_wrap=True)


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listen(host: str, wanted: int, explicit: bool) -> socket.socket:
    """A socket at the wanted port or, unless it was asked for, at the next free one.

    Raises `SettingsError`.
    """
    check_listen_address(host)
    for port in range(wanted, wanted + ANY_PORT):
        try:
            return bind(host, port)
        except SettingsError:
            if explicit:
                raise
    raise SettingsError(f"no port is free from {wanted} to {wanted + ANY_PORT}")
