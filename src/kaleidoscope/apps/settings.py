"""Where the API listens: the table `[api]`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from kaleidoscope.kernel.settings import Section


class ApiSettings(Section):
    """The HTTP API."""

    section: ClassVar[str] = "api"

    host: str = Field(
        default="127.0.0.1",
        description="The loopback address to listen on; any other is refused until there are "
        "accounts.",
    )
    port: int = Field(
        default=8420,
        ge=1,
        le=65535,
        description="The port. `kaleidoscope up` takes another one where the default is taken, "
        "and never where this is set.",
    )
    hosts: tuple[str, ...] = Field(
        default=(),
        description="Names beside the loopback ones that the API answers for: those under which "
        "a reverse proxy forwards.",
    )
