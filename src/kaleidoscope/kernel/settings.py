"""Settings from one file, the environment and flags.

A room declares a `Section`. Its values come, strongest first, from the environment
(`KALEIDOSCOPE_<SECTION>_<FIELD>`; flags of the command line set these), from the section's table
in `kaleidoscope.toml` in the data folder, and from the defaults in the code.
"""

from __future__ import annotations

import os
import tomllib
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kaleidoscope.kernel.errors import SettingsError

PREFIX = "KALEIDOSCOPE_"


class Section(BaseModel):
    """One room's settings. `section` names its table in the file; "" is the top level."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    section: ClassVar[str]


class KernelSettings(Section):
    """What every service needs to know before anything else."""

    section: ClassVar[str] = ""

    database_url: str = Field(
        default="",
        description="PostgreSQL ≥ 15 with pgvector, as postgresql://user:password@host/name. "
        "Empty: the embedded PostgreSQL in the data folder.",
    )
    log_format: str = Field(default="console", description="`console` or `json`.")
    log_level: str = Field(default="info", description="debug, info, warning or error.")


S = TypeVar("S", bound=Section)


def data_dir() -> Path:
    """The data folder: `KALEIDOSCOPE_DATA_DIR`, else `kaleidoscope` in the user's data home."""
    chosen = os.environ.get(PREFIX + "DATA_DIR")
    if chosen:
        return Path(chosen).expanduser().absolute()
    home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(home).expanduser() / "kaleidoscope"


def config_file() -> Path:
    """The settings file: `KALEIDOSCOPE_CONFIG`, else `kaleidoscope.toml` in the data folder."""
    chosen = os.environ.get(PREFIX + "CONFIG")
    return Path(chosen).expanduser() if chosen else data_dir() / "kaleidoscope.toml"


@cache
def load(section: type[S]) -> S:
    """The settings of one section, read once a process (`load.cache_clear()` reads them again).

    Raises `SettingsError` that names the file or variable and the field at fault.
    """
    written, environment = _from_file(section), _from_environment(section)
    try:
        return section.model_validate({**written, **environment})
    except ValidationError as error:
        fault = error.errors()[0]
        name = str(fault["loc"][0]) if fault["loc"] else ""
        where = _variable(section, name) if name in environment else str(config_file())
        field = ".".join([section.section, *map(str, fault["loc"])]).strip(".")
        raise SettingsError(f"{where}: {field}: {fault['msg']}", setting=field) from error


def load_all() -> None:
    """Look at every section that any imported module declares: faults show before work begins."""
    for section in Section.__subclasses__():
        load(section)


def _from_file(section: type[Section]) -> dict[str, Any]:
    path = config_file()
    if not path.is_file():
        return {}
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot read the settings file {path}: {error}") from error
    if section.section:
        table = document.get(section.section, {})
        if not isinstance(table, dict):
            raise SettingsError(f"{path}: [{section.section}] is not a table")
        return table
    return {name: value for name, value in document.items() if not isinstance(value, dict)}


def _from_environment(section: type[Section]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        raw = os.environ.get(_variable(section, name))
        if raw is not None:
            is_list = get_origin(field.annotation) in (list, tuple) or any(
                get_origin(arg) in (list, tuple) for arg in get_args(field.annotation)
            )
            found[name] = [p for p in raw.split(os.pathsep) if p] if is_list else raw
            if field.annotation is timedelta:
                found[name] = _seconds(raw)
    return found


def _seconds(raw: str) -> float | str:
    """A number as in the file: seconds; else what pydantic reads (`PT1H30M`)."""
    try:
        return float(raw)
    except ValueError:
        return raw


def _variable(section: type[Section], field: str) -> str:
    return PREFIX + "_".join(filter(None, [section.section, field])).upper()
