"""A browser, and the product behind its page."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from product import COMMAND, Product

from kaleidoscope.apps import page as served

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PATIENCE = 90_000  # ms; a test never asserts a time, but it ends
DESK = {"width": 1440, "height": 900}


def _cannot(reason: str) -> NoReturn:
    """Skip with a reason; where everything is meant to be there, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, and a page for it to show.

    Only as long as a file's tests: Playwright keeps an event loop running in this thread, under
    which no asynchronous test can.
    """
    if not CHROMIUM.is_file():
        _cannot(f"no {CHROMIUM}: apt-get install chromium")
    if not served.is_built():
        _cannot(served.NOT_BUILT)
    with sync_playwright() as playwright:
        expect.set_options(timeout=PATIENCE)
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        opened = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=[*ARGUMENTS, *sandbox]
        )
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Pages in contexts of their own; whatever they throw or may not load fails the test."""
    contexts = []
    wrong: list[str] = []

    def open_(**context: object) -> Page:
        chosen = {"viewport": DESK, "locale": "en-US", **context}
        contexts.append(browser.new_context(**chosen))  # type: ignore[arg-type]
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "console",
            lambda said: (
                wrong.append(said.text) if "Content Security Policy" in said.text else None
            ),
        )
        return page

    yield open_
    for context in contexts:
        for page in context.pages:
            page.unroute_all(behavior="ignoreErrors")  # requests that are still on their way
        context.close()
    assert not wrong


@pytest.fixture(scope="module")
def make_product() -> Iterator[Callable[..., Product]]:
    """Products for the tests of one file, stopped at the end."""
    made: list[Product] = []
    with tempfile.TemporaryDirectory(prefix="kaleidoscope-web-") as name:
        folder = Path(name)
        folder.chmod(0o711)

        def make(name: str, **settings: str) -> Product:
            made.append(Product(folder / name, **settings))
            return made[-1]

        yield make
        for product in made:
            subprocess.run([COMMAND, "down"], env=product.env, capture_output=True)
