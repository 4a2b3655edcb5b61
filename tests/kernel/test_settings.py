"""Settings: environment over file over default, and errors that name the culprit."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field

from kaleidoscope.kernel.errors import SettingsError
from kaleidoscope.kernel.settings import (
    KernelSettings,
    Section,
    config_file,
    data_dir,
    load,
    load_all,
)


class Kitchen(Section):
    """Settings of no room of ours."""

    section: ClassVar[str] = "kitchen"
    cooks: int = Field(default=1, ge=1)
    herbs: tuple[str, ...] = ()
    open: bool = True


def write(data_dir: Path, text: str) -> None:
    (data_dir / "kaleidoscope.toml").write_text(text, encoding="utf-8")


def test_defaults_hold_without_a_file(data_dir: Path) -> None:
    assert load(Kitchen) == Kitchen(cooks=1, herbs=(), open=True)
    assert load(KernelSettings).log_level == "info"


def test_the_file_beats_the_default_and_the_environment_beats_both(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(data_dir, 'log_level = "debug"\n[kitchen]\ncooks = 2\nherbs = ["dill"]\n')
    monkeypatch.setenv("KALEIDOSCOPE_KITCHEN_COOKS", "3")
    assert load(Kitchen) == Kitchen(cooks=3, herbs=("dill",))
    assert load(KernelSettings).log_level == "debug"


def test_lists_in_the_environment_are_separated_as_in_path(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_KITCHEN_HERBS", "dill:mint")
    assert load(Kitchen).herbs == ("dill", "mint")


def test_they_are_read_once_a_process(data_dir: Path) -> None:
    assert load(Kitchen) is load(Kitchen)
    write(data_dir, "[kitchen]\ncooks = 2\n")
    assert load(Kitchen).cooks == 1
    load.cache_clear()
    assert load(Kitchen).cooks == 2


def test_a_fault_in_the_file_names_the_file_and_the_field(data_dir: Path) -> None:
    write(data_dir, "[kitchen]\ncooks = 0\n")
    with pytest.raises(SettingsError, match=r"kaleidoscope\.toml: kitchen\.cooks: .*greater"):
        load(Kitchen)


def test_a_fault_in_the_environment_names_the_variable(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_KITCHEN_COOKS", "many")
    with pytest.raises(SettingsError, match=r"^KALEIDOSCOPE_KITCHEN_COOKS: kitchen\.cooks: "):
        load(Kitchen)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[kitchen]\nknives = 4\n", r"kitchen\.knives: Extra inputs"),
        ("[kitchen\n", "cannot read the settings file"),
        ("kitchen = 4\n", r"\[kitchen\] is not a table"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(data_dir: Path, text: str, says: str) -> None:
    write(data_dir, text)
    with pytest.raises(SettingsError, match=says):
        load(Kitchen)


def test_the_data_folder_and_the_file_can_be_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KALEIDOSCOPE_DATA_DIR", raising=False)
    monkeypatch.delenv("KALEIDOSCOPE_CONFIG", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert data_dir() == tmp_path / "kaleidoscope"
    assert config_file() == tmp_path / "kaleidoscope" / "kaleidoscope.toml"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KALEIDOSCOPE_DATA_DIR", "here")
    monkeypatch.setenv("KALEIDOSCOPE_CONFIG", str(tmp_path / "other.toml"))
    assert data_dir() == tmp_path / "here"
    assert config_file() == tmp_path / "other.toml"


@pytest.mark.parametrize("raw", ["90", "90.0", "PT1M30S"])
def test_a_span_of_time_is_seconds_in_the_environment_too(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, raw: str
) -> None:
    class Oven(Section):
        section: ClassVar[str] = "oven"
        hot_after: timedelta = timedelta(0)

    monkeypatch.setenv("KALEIDOSCOPE_OVEN_HOT_AFTER", raw)
    assert load(Oven).hot_after == timedelta(seconds=90)


def test_every_section_can_be_looked_at_beforehand(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(data_dir, "[kitchen]\nknives = 4\n")
    with pytest.raises(SettingsError, match=r"kitchen\.knives"):
        load_all()
