"""Colours tell of real processes that are stopped, killed and resumed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, expect
from product import Product

PATIENCE = 90_000  # ms


@pytest.fixture(scope="module")
def product(make_product: Callable[..., Product], browser: Browser) -> Product:
    """One whose colours follow within seconds."""
    made = make_product(
        "quick",
        KALEIDOSCOPE_OPS_HEARTBEAT_SECONDS="1",
        KALEIDOSCOPE_OPS_GREEN_SECONDS="5",
        KALEIDOSCOPE_OPS_YELLOW_SECONDS="15",
    )
    made.up()
    return made


@pytest.fixture
def page(product: Product, open_page: Callable[..., Page]) -> Page:
    opened = open_page()
    opened.goto(product.state["api_url"])
    opened.wait_for_selector("[data-service]")
    return opened


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    """A process that does nothing for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _pid(product: Product, service: str) -> int:
    state = product.state
    pid = state["pid"] if service == "supervisor" else state["services"][service]["pid"]
    return int(pid or 0)  # none while it is started again


def _expect(page: Page, service: str, colour: str) -> None:
    row = page.locator(f"[data-service^={service}]")
    expect(row).to_have_attribute("data-colour", colour, timeout=PATIENCE)


@pytest.mark.parametrize("service", ["worker", "scheduler", "mlserver", "supervisor"])
def test_a_service_that_stops_turns_yellow_then_red_and_green_when_it_goes_on(
    product: Product, page: Page, service: str
) -> None:
    _expect(page, service, "green")
    with _stopped(_pid(product, service)):
        _expect(page, service, "yellow")
        _expect(page, service, "red")
        expect(page.locator("[data-state]")).to_have_attribute("data-state", "red")
        status = product.call("GET", "/api/ops/status")["services"]
        told = {one["service_name"].split("-")[0]: one["colour"] for one in status}
        assert told[service] == "red"
        assert told["api"] == "green"
    _expect(page, service, "green")


def test_a_service_that_is_killed_turns_red_while_nobody_starts_it_again(
    product: Product, page: Page
) -> None:
    _expect(page, "worker", "green")
    with _stopped(_pid(product, "supervisor")):
        assert product.kill("worker")
        _expect(page, "worker", "red")
    _expect(page, "worker", "green")
    _expect(page, "supervisor", "green")


def test_a_killed_service_is_back_before_it_is_red(product: Product, page: Page) -> None:
    _expect(page, "scheduler", "green")
    before = _pid(product, "scheduler")
    assert product.kill("scheduler")
    _expect(page, "scheduler", "green")
    until = time.monotonic() + 60
    while _pid(product, "scheduler") in (before, 0) and time.monotonic() < until:
        time.sleep(0.1)
    assert _pid(product, "scheduler") != before


def test_an_api_that_stops_is_told_of_and_found_again(product: Product, page: Page) -> None:
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    with _stopped(_pid(product, "api")):
        banner = page.get_by_text("Kaleidoscope does not answer.").first
        expect(banner).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text("Live", exact=True)).to_be_visible(timeout=PATIENCE)
    _expect(page, "api", "green")


def test_the_outage_stays_in_the_history(product: Product) -> None:
    found = product.call("GET", "/api/ops/history?hours=1")["services"]
    worker = next(one for one in found if one["service_name"].startswith("worker"))
    assert "silent" in [segment["state"] for segment in worker["segments"]]
    assert worker["uptime_observed"] < 1
