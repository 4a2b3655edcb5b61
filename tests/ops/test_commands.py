"""The commands of operation, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from kaleidoscope.apps import cli
from kaleidoscope.kernel import migrate
from kaleidoscope.kernel.settings import load

runner = CliRunner()


@pytest.fixture
def on_database(data_dir: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The commands find this test's database."""
    monkeypatch.setenv("KALEIDOSCOPE_DATABASE_URL", database_url)
    load.cache_clear()
    return database_url


def _json(*words: str) -> object:
    done = runner.invoke(cli.app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def _dead_letter(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO bus_subscriptions (topic, consumer_group, ordered)"
            " VALUES ('photos-to-process', 'people', false)"
        )
        connection.execute(
            "INSERT INTO dead_letters (message_id, topic, key, payload, headers, cause, history)"
            " VALUES (gen_random_uuid(), 'photos-to-process', 'k', '{}', '{}', 'spent', '[]')"
        )


def test_status(on_database: str) -> None:
    found = _json("status")
    assert isinstance(found, dict) and found["services"] == []
    shown = runner.invoke(cli.app, ["status"])
    assert "no service was ever started here" in shown.output
    assert "empty" in shown.output


def test_status_says_when_nothing_runs(on_database: str) -> None:
    with psycopg.connect(on_database) as connection:
        connection.execute(
            "INSERT INTO system_status (service_name, status, current_task)"
            " VALUES ('api', 'OK', 'stopped'), ('librarian', 'OK', 'stopped')"
        )
    assert "kaleidoscope up --detach" in runner.invoke(cli.app, ["status"]).output
    with psycopg.connect(on_database) as connection:
        connection.execute(
            "UPDATE system_status SET current_task = 'serving' WHERE service_name = 'api'"
        )
    assert "kaleidoscope up" not in runner.invoke(cli.app, ["status"]).output


def test_dead_letters_are_listed_and_revived(on_database: str) -> None:
    _dead_letter(on_database)
    found = _json("dead", "list")
    assert isinstance(found, list) and found[0]["cause"] == "spent"
    heads, row = runner.invoke(cli.app, ["dead", "list"]).output.splitlines()
    assert heads.split() == ["id", "died", "topic", "attempts", "cause"]
    assert row.split()[0] == str(found[0]["id"]) and row.endswith("spent")
    assert _json("dead", "retry", str(found[0]["id"])) == {"revived": [found[0]["id"]]}
    assert _json("dead", "list") == []


def test_reviving_what_is_not_there_is_an_error(on_database: str) -> None:
    done = runner.invoke(cli.app, ["dead", "retry", "77"])
    assert done.exit_code == 3
    assert "kaleidoscope dead list" in done.output
    assert runner.invoke(cli.app, ["dead", "retry"]).exit_code == 2


def test_the_database_goes_down_and_up(on_database: str) -> None:
    head = migrate.head()
    assert _json("db", "current") == {"revision": head, "expected": head}
    assert _json("db", "url") == {"url": on_database}
    assert _json("db", "downgrade", "base") == {"revision": None, "expected": head}
    assert runner.invoke(cli.app, ["db", "check"]).exit_code == 9
    assert _json("db", "upgrade") == {"revision": head, "expected": head}
    facts = _json("db", "check")
    assert isinstance(facts, dict) and facts["fsync"] == "on"


def test_packs_are_listed_and_verified(data_dir: Path) -> None:
    found = _json("models", "list")
    assert isinstance(found, list)
    (active,) = [pack for pack in found if pack["active"]]
    assert active["name"] == "builtin" and active["here"]
    files = _json("models", "verify", "builtin")
    assert isinstance(files, list) and {file["state"] for file in files} == {"ok"}
    assert runner.invoke(cli.app, ["models", "verify", "yunet-sface"]).exit_code == 1


def test_a_research_pack_is_not_pulled_before_its_licence_is_accepted(data_dir: Path) -> None:
    done = runner.invoke(cli.app, ["models", "pull", "buffalo_l"])
    assert done.exit_code != 0
    assert "--accept-licence" in str(getattr(done.exception, "hint", done.output))


def _beat(url: str, ago: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO system_status (service_name) VALUES ('librarian') ON CONFLICT DO NOTHING"
        )
        connection.execute(
            "INSERT INTO system_status_history (service_name, status, heartbeat_timestamp)"
            " VALUES ('librarian', 'OK', now() - CAST(%s AS interval))",
            [ago],
        )


def test_uptime_cleanup_and_forget(on_database: str) -> None:
    for ago in ("61 days", "59 days", "10 seconds"):
        _beat(on_database, ago)
    found = _json("ops", "uptime", "--hours", "1")
    assert isinstance(found, dict)
    (librarian,) = found["services"]
    assert librarian["service_name"] == "librarian" and 0 < librarian["uptime"] < 0.01
    assert "librarian" in runner.invoke(cli.app, ["ops", "uptime"]).output
    assert _json("ops", "cleanup") == {"forgotten": 1}
    assert _json("ops", "cleanup") == {"forgotten": 0}
    assert _json("ops", "forget", "librarian") == {"forgotten": "librarian"}
    assert runner.invoke(cli.app, ["ops", "forget", "librarian"]).exit_code == 3
