"""Logs: on stderr, for machines as JSON, and without secrets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from kaleidoscope.kernel import log


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    yield
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


def test_a_line_of_json_has_service_level_and_time_but_no_secret(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_LOG_FORMAT", "json")
    log.configure("worker")
    structlog.get_logger("x").info("möglich", photo_id=7, service_secret="hush", embedding=[1.0])
    told = capsys.readouterr()
    line = json.loads(told.err)
    assert told.out == ""
    assert line["event"] == "möglich"
    assert (line["service"], line["level"], line["photo_id"]) == ("worker", "info", 7)
    assert line["timestamp"].endswith("Z")
    assert (line["service_secret"], line["embedding"]) == ("…", "…")


def test_a_traceback_shows_no_variables(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("api")
    password = "hush"
    try:
        raise ZeroDivisionError(len(password))
    except ZeroDivisionError:
        structlog.get_logger("x").exception("it fails")
    told = capsys.readouterr().err
    assert "ZeroDivisionError" in told
    assert "hush" not in told.replace('password = "hush"', "")


def test_the_level_is_a_setting(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_LOG_LEVEL", "warning")
    log.configure("api")
    structlog.get_logger("x").info("unheard")
    structlog.get_logger("x").warning("heard")
    told = capsys.readouterr().err
    assert "heard" in told
    assert "unheard" not in told
