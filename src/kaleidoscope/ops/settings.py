"""What may be chosen about operation: the tables `[ops]` and `[syncthing]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from kaleidoscope.kernel.settings import Section

LONGEST = 3600.0  # seconds between two heartbeats


def _pairs(given: object) -> object:
    """`librarian=300:worker=60`, as in an environment variable; a table as in the file."""
    if not isinstance(given, str):
        return given
    pairs = [pair.partition("=") for pair in given.split(":") if pair]
    if not all(equals for _, equals, _ in pairs):
        raise ValueError("write it as librarian=300:worker=60")
    return {name: seconds for name, _, seconds in pairs}


Seconds = Annotated[float, Field(gt=0, le=LONGEST)]


class OpsSettings(Section):
    """Heartbeats, their colours, how long their history is kept, and the disks that are watched."""

    section: ClassVar[str] = "ops"

    heartbeat_seconds: Seconds = Field(
        default=20.0, description="How often each service says how it is."
    )
    heartbeat_seconds_of: Annotated[dict[str, Seconds], BeforeValidator(_pairs)] = Field(
        default={},
        description="The same for single services: a table in the file, `librarian=300:worker=60` "
        "in the variable. A name stands for all that begin with it and a dash.",
    )
    green_seconds: float = Field(
        default=60.0,
        gt=0,
        description="A service is green for so long after a heartbeat; longer in proportion where "
        "its own interval is longer than 20 s.",
    )
    yellow_seconds: float = Field(
        default=180.0, gt=0, description="And yellow for so long; after that it is red."
    )
    history_days: int = Field(
        default=60,
        ge=1,
        description="How long heartbeats and measurements of the disks are kept.",
    )
    stream_seconds: float = Field(
        default=1.0,
        gt=0,
        le=60,
        description="How often the dashboard's stream looks for news, while anybody listens.",
    )
    disks: tuple[Path, ...] = Field(
        default=(),
        description="Folders beside the data folder and those of [library] whose disks are watched "
        "for space, such as the backup's.",
    )

    @model_validator(mode="after")
    def _yellow_comes_after_green(self) -> Self:
        if self.yellow_seconds < self.green_seconds:
            raise ValueError("yellow_seconds is less than green_seconds")
        return self


class SyncthingSettings(Section):
    """The Syncthing that brings files from phones, where there is one."""

    section: ClassVar[str] = "syncthing"

    url: str = Field(
        default="",
        description="Its address, as http://127.0.0.1:8384. Empty: there is none to watch.",
    )
    api_key: SecretStr = Field(
        default=SecretStr(""),
        description="The API key that its settings show (GUI, API Key).",
    )
    seconds: float = Field(default=5.0, gt=0, description="How long it may take to answer.")
