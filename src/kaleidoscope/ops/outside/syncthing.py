"""Syncthing's REST API: whether it runs, what it says is wrong, how far its folders are.

https://docs.syncthing.net/dev/rest.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from kaleidoscope.kernel.errors import Forbidden, Unavailable


@dataclass(frozen=True)
class Folder:
    """A folder that Syncthing keeps. `state`: idle, scanning, syncing, error …"""

    name: str
    paused: bool
    state: str
    errors: int
    missing: int
    error: str | None


@dataclass(frozen=True)
class Report:
    """What Syncthing says of itself."""

    errors: list[str]
    folders: list[Folder]
    devices: int
    connected: int


async def ask(url: str, api_key: str, seconds: float) -> Report:
    """The state of a Syncthing. Raises `Unavailable`, and `Forbidden` for a wrong key."""
    headers = {"X-API-Key": api_key}
    try:
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=seconds) as client:
            errors = (await _get(client, "/rest/system/error")).get("errors") or []
            connections = (await _get(client, "/rest/system/connections")).get("connections") or {}
            me = (await _get(client, "/rest/system/status")).get("myID")
            folders = [
                await _folder(client, entry) for entry in await _get(client, "/rest/config/folders")
            ]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise Unavailable(f"Syncthing at {url} does not answer: {error or type(error)}") from error
    others = [device for name, device in connections.items() if name != me]
    return Report(
        errors=[str(one.get("message", one)) for one in errors],
        folders=folders,
        devices=len(others),
        connected=sum(bool(device.get("connected")) for device in others),
    )


async def _folder(client: httpx.AsyncClient, entry: dict[str, Any]) -> Folder:
    name, paused = entry.get("label") or entry["id"], bool(entry.get("paused"))
    if paused:
        return Folder(name, paused, "paused", 0, 0, None)
    said = await _get(client, "/rest/db/status", folder=entry["id"])
    return Folder(
        name=name,
        paused=paused,
        state=str(said.get("state", "")),
        errors=int(said.get("pullErrors") or said.get("errors") or 0),
        missing=int(said.get("needTotalItems") or said.get("needFiles") or 0),
        error=said.get("error") or said.get("invalid") or None,
    )


async def _get(client: httpx.AsyncClient, path: str, **query: str) -> Any:
    answer = await client.get(path, params=query)
    if answer.status_code in (401, 403):
        raise Forbidden(
            f"Syncthing at {client.base_url} refuses the API key",
            hint="set syncthing.api_key to the one that its settings show",
        )
    return answer.raise_for_status().json()
