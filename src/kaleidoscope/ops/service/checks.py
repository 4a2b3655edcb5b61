"""What is asked of things that cannot speak for themselves: the database, Syncthing."""

from __future__ import annotations

import time

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import KaleidoscopeError
from kaleidoscope.kernel.settings import load
from kaleidoscope.ops import queries
from kaleidoscope.ops.outside import syncthing
from kaleidoscope.ops.service.heartbeats import Health
from kaleidoscope.ops.service.overview import check_ready
from kaleidoscope.ops.settings import SyncthingSettings

CROWDED = 0.8  # of the connections
SLOW = 1.0  # seconds for a few small questions
OLD = 1_500_000_000  # transaction numbers; at 2^31 the server stops


async def database_health(db: Database) -> Health:
    """Whether the database is of this version, answers in time, and has room for more.

    That it takes writes shows in the heartbeat that tells of it. What this raises is an ERROR.
    """
    began = time.monotonic()
    async with db.transaction() as session:
        revision = await check_ready(session)
        found = await queries.connections(session)
    took = time.monotonic() - began
    if found["oldest_transaction"] > OLD:
        return Health("ERROR", "transaction numbers run out: VACUUM the database")
    if found["used"] > CROWDED * found["at_most"]:
        used = f"{found['used']} of {found['at_most']} connections are in use"
        return Health("WARNING", used)
    if took > SLOW:
        return Health("WARNING", f"a few small questions take {took:.1f} s")
    return Health("OK", f"revision {revision}, {found['used']} connections")


def watches_syncthing() -> bool:
    """Whether the settings name a Syncthing."""
    return bool(load(SyncthingSettings).url)


async def syncthing_health() -> Health:
    """What Syncthing says of itself and its folders; ERROR where it does not answer."""
    settings = load(SyncthingSettings)
    try:
        report = await syncthing.ask(
            settings.url.rstrip("/"), settings.api_key.get_secret_value(), settings.seconds
        )
    except KaleidoscopeError as error:
        return Health("ERROR", error.message)
    broken = [folder for folder in report.folders if folder.error or folder.state == "error"]
    if broken:
        folder = broken[0]
        return Health("ERROR", f"folder {folder.name}: {folder.error or 'stopped by an error'}")
    if report.errors:
        return Health("WARNING", report.errors[-1])
    failing = [folder for folder in report.folders if folder.errors]
    if failing:
        folder = failing[0]
        return Health("WARNING", f"folder {folder.name}: {folder.errors} items cannot be synced")
    if report.folders and all(folder.paused for folder in report.folders):
        return Health("WARNING", "every folder is paused")
    busy = [folder for folder in report.folders if folder.missing]
    peers = f"{report.connected} of {report.devices} devices connected"
    if busy:
        missing = sum(folder.missing for folder in busy)
        return Health("OK", f"{missing} items on their way, {peers}")
    return Health("OK", f"in sync, {peers}")
