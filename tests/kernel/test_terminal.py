"""The terminal edge."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from uuid import UUID

import psycopg
import pytest
import typer
from pydantic import BaseModel
from rich.markup import escape
from sqlalchemy import text
from sqlalchemy.exc import DataError, OperationalError

from kaleidoscope.kernel import migrate, terminal
from kaleidoscope.kernel.embedded_postgres import EmbeddedPostgres
from kaleidoscope.kernel.errors import Invalid, KaleidoscopeError, NotFound, Unavailable
from kaleidoscope.kernel.settings import load
from kaleidoscope.kernel.terminal import Api, Away


class Answer(BaseModel):
    at: datetime
    id: UUID


def outcome(error: BaseException) -> int:
    async def work() -> None:
        raise error

    with pytest.raises(typer.Exit) as ended:
        terminal.run(work())
    return ended.value.exit_code


def test_the_answer_of_the_work_comes_back() -> None:
    async def work() -> int:
        return 42

    assert terminal.run(work()) == 42


def test_an_error_is_a_line_a_hint_and_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    error = NotFound("no person [7]\nin this library", hint="kaleidoscope people list")
    assert outcome(error) == NotFound.exit_code
    told = capsys.readouterr()
    assert told.err == "error: no person [7] in this library\nhint: kaleidoscope people list\n"
    assert told.out == ""


def test_a_database_that_does_not_answer_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    error = OperationalError("SELECT 1", {}, psycopg.OperationalError("connection refused"))
    assert outcome(error) == 9
    assert capsys.readouterr().err == ("error: the database does not answer: connection refused\n")


def test_ctrl_c_is_no_error() -> None:
    assert outcome(KeyboardInterrupt()) == 130


def test_every_error_has_an_exit_code_of_its_own() -> None:
    kinds = KaleidoscopeError.__subclasses__()
    codes = [kind.exit_code for kind in kinds if kind.__module__.startswith("kaleidoscope.kernel")]
    assert len(codes) == len(set(codes))
    assert not {0, 1, 130} & set(codes)


def test_emit_speaks_json_to_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    answer = Answer(at=datetime(2024, 5, 1, tzinfo=UTC), id=UUID(int=7))
    terminal.emit([answer, {"name": "Zoë", "path": Path("/a")}], json=True)
    told = capsys.readouterr().out
    assert "Zoë" in told
    assert json.loads(told) == [
        {"at": "2024-05-01T00:00:00Z", "id": str(UUID(int=7))},
        {"name": "Zoë", "path": "/a"},
    ]


def test_emit_speaks_plainly_to_people(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.emit("three photos [new]")
    terminal.emit({"photos": 3})
    assert " ".join(capsys.readouterr().out.split()) == "three photos [new] { 'photos': 3 }"


async def test_the_database_is_started_migrated_and_stopped_again(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir / "postgres")
    async with terminal.open_database() as db:
        assert server.running_url() == db.url
        assert await asyncio.to_thread(migrate.current, db.url) == migrate.head()
        async with terminal.open_database() as second:
            assert second.url == db.url
        async with db.transaction() as session:
            await session.execute(text("SELECT 1"))
    assert server.running_url() is None


async def test_a_database_of_ones_own_is_used_and_left_running(
    data_dir: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_DATABASE_URL", database_url)
    load.cache_clear()
    async with terminal.open_database() as db:
        assert db.url == database_url
    assert not (data_dir / "postgres").exists()


def test_rows_stand_below_their_heads_and_no_path_is_folded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    path = "/a/folder with a name/" + "long/" * 30 + "picture [1].jpg"
    terminal.show_rows(("id", "path"), [("7", escape(path)), ("1234", "[red]gone:[/] b")])
    assert capsys.readouterr().out == f"id    path\n7     {path.rstrip()}\n1234  gone: b\n"


def test_rows_may_have_no_heads(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show_rows(("", ""), [("photo", "1"), ("path", "/a")])
    assert capsys.readouterr().out == "photo  1\npath   /a\n"


def test_a_number_that_no_id_can_be_is_an_error_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out_of_range = psycopg.errors.NumericValueOutOfRange("bigint out of range\nmore")
    assert outcome(DataError("SELECT 1", {}, out_of_range)) == Invalid.exit_code
    assert capsys.readouterr().err.startswith(
        "error: the database cannot take that: bigint out of range"
    )


def test_a_length_of_time_is_told_roughly() -> None:
    told = {0.4: "0 seconds", 119: "119 seconds", 120: "2 minutes", 7100: "118 minutes"}
    assert {s: terminal.about(s) for s in told} == {
        s: f"about {words}" for s, words in told.items()
    }
    assert terminal.about(200_000) == "about 56 hours"


@pytest.fixture
def answering() -> Iterator[tuple[str, list[int], list[str]]]:
    """An HTTP server: its URL, the statuses that it will answer one after the other, and what it
    was asked.
    """
    statuses: list[int] = []
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.send_response(statuses.pop(0))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """No chatter."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", statuses, asked
        server.shutdown()


def test_a_command_has_no_patience_with_one_who_fails(
    answering: tuple[str, list[int], list[str]],
) -> None:
    url, statuses, asked = answering
    statuses[:] = [500, 204]
    with pytest.raises(Unavailable, match="answers 500"):
        Api(url).ask("POST", "/people/settle", patience=60)
    assert asked == ["/people/settle"]


def test_a_command_waits_for_one_who_is_away() -> None:
    with pytest.raises(Away, match="does not answer"):
        Api("http://127.0.0.1:1").ask("POST", "/people/settle", patience=0.2)
    began = time.monotonic()
    with pytest.raises(Away):
        Api("http://127.0.0.1:1").ask("POST", "/people/settle", patience=0.8)
    assert time.monotonic() - began >= 0.8
