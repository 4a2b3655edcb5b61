"""The web application's files: those that were built, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from kaleidoscope.apps import page
from kaleidoscope.kernel.web import create_app


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A page, and a file beside it that is none of it."""
    folder = tmp_path / "page_files"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>Kaleidoscope</title>")
    (folder / "favicon.svg").write_text("<svg/>")
    (folder / "assets" / "index-abc.js").write_text("let a")
    (tmp_path / "secret.txt").write_text("secret")
    monkeypatch.setattr(page, "FOLDER", folder)
    page.files.cache_clear()
    yield folder
    page.files.cache_clear()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=create_app("test", [page.router]))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as opened:
        yield opened


async def test_the_page_is_asked_for_anew_and_its_parts_are_kept(
    built: Path, client: httpx.AsyncClient
) -> None:
    index, script = await client.get("/"), await client.get("/assets/index-abc.js")
    assert index.headers["content-type"].startswith("text/html")
    assert index.headers["cache-control"] == "no-cache"
    assert script.headers["content-type"].startswith("text/javascript")
    assert "immutable" in script.headers["cache-control"]
    again = await client.get("/", headers={"If-None-Match": index.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_every_answer_forbids_what_the_page_does_not_need(
    built: Path, client: httpx.AsyncClient
) -> None:
    for path in ("/", "/favicon.svg", "/assets/index-abc.js"):
        headers = (await client.get(path)).raise_for_status().headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy and "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../index.html",
        "/assets/..%2findex.html",
        "/assets/..%2f..%2fsecret.txt",
        "/assets/%2e%2e%2f%2e%2e%2fsecret.txt",
        "/assets/..%5c..%5csecret.txt",
        "/assets//etc/passwd",
        "/assets/%2fetc%2fpasswd",
        "/assets/index-abc.js%00.png",
        "/assets/",
        "/page.py",
    ],
)
async def test_no_other_file_is_served(built: Path, client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.status_code == 404
    assert "secret" not in answer.text


async def test_without_a_page_the_reason_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: httpx.AsyncClient
) -> None:
    monkeypatch.setattr(page, "FOLDER", tmp_path / "nothing")
    page.files.cache_clear()
    answer = await client.get("/")
    page.files.cache_clear()
    assert answer.status_code == 503
    assert "Node.js" in answer.text
