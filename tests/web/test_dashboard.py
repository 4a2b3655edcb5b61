"""The dashboard in a browser, against the product that serves it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import scenery
from looks import FAINT, FOCUSED, HEADINGS, NAMELESS, SMALL, SPILLS
from playwright.sync_api import Browser, Locator, Page, Route, expect
from product import Product

PHONE = {"width": 390, "height": 844}
DESK = {"width": 1440, "height": 900}
WALL = {"width": 3840, "height": 2160}

Opener = Callable[..., Page]


@pytest.fixture(scope="module")
def product(make_product: Callable[..., Product], browser: Browser) -> Product:
    """One that has taken in some photographs, and two files that are none."""
    made = make_product("one", KALEIDOSCOPE_OPS_HEARTBEAT_SECONDS="2")
    photos = scenery.lay(made.folder.parent / "photos", 14, size=(400, 300))
    for number in range(2):
        (photos / f"broken {number}.jpg").write_bytes(b"")
    made.up()
    made.complete(photos)
    return made


@pytest.fixture
def visit(product: Product, open_page: Opener) -> Opener:
    """The dashboard, as soon as it shows services."""

    def visit_(query: str = "", prepare: Callable[[Page], None] | None = None, **c: Any) -> Page:
        page = open_page(**c)
        if prepare:
            prepare(page)
        page.goto(product.state["api_url"] + "/" + query)
        page.wait_for_selector("[data-service]")
        return page

    return visit_


def _counted(heading: Locator) -> int:
    """The number in the headline, when it is there."""
    expect(heading).to_contain_text(re.compile(r"\d"))
    return int(re.findall(r"\d+", heading.inner_text())[0])


def test_the_page_shows_how_it_is_going(visit: Opener) -> None:
    page = visit()
    expect(page.get_by_role("heading", level=1)).to_contain_text("16 photos, filed.")
    expect(page.get_by_role("main")).to_contain_text("None has a second copy yet.")
    for name in ("api", "dashboard", "factory-db", "mlserver", "scheduler", "supervisor"):
        expect(page.locator(f"[data-service={name}]")).to_have_attribute("data-colour", "green")
    expect(page.locator("[data-state]")).to_have_text("Everything runs.")
    expect(page.locator("[data-figure=hour]")).to_contain_text("16 filed")
    expect(page.locator("[data-figure=disk]")).to_contain_text("Free on")
    expect(page.get_by_text("Live", exact=True)).to_be_visible()


def test_nothing_comes_from_anywhere_else(product: Product, visit: Opener) -> None:
    asked: list[str] = []
    page = visit(prepare=lambda page: page.on("request", lambda r: asked.append(r.url)))
    page.wait_for_load_state("load")
    assert asked
    assert [url for url in asked if not url.startswith(product.state["api_url"])] == []


def test_a_photo_that_arrives_shows_without_a_reload(product: Product, visit: Opener) -> None:
    page = visit()
    heading = page.get_by_role("heading", level=1)
    before = _counted(heading)
    more = product.folder.parent / "more"
    more.mkdir()
    scenery.landscape(77, (400, 300)).save(more / "late.jpg")
    product.complete(more)
    expect(heading).to_contain_text(f"{before + 1} photos")
    expect(page.get_by_role("link", name="late.jpg")).to_be_visible()


def test_without_a_stream_the_page_asks(product: Product, visit: Opener) -> None:
    page = visit(prepare=lambda page: page.route("**/api/ops/stream", lambda r: r.abort()))
    expect(page.get_by_text("Every few seconds")).to_be_visible()
    heading = page.get_by_role("heading", level=1)
    before = _counted(heading)
    more = product.folder.parent / "polled"
    more.mkdir()
    scenery.landscape(78, (400, 300)).save(more / "polled.jpg")
    product.complete(more)
    expect(heading).to_contain_text(f"{before + 1} photos")


def test_errors_stand_by_cause_and_are_tried_again(visit: Opener) -> None:
    page = visit()
    group = page.locator("[data-cause='is an empty file']")
    expect(group.get_by_role("heading")).to_have_text(re.compile(r"2\s+is an empty file"))
    group.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("status").get_by_text("2 tried again").first).to_be_attached()
    expect(group.get_by_role("heading")).to_have_text(re.compile(r"2\s+is an empty file"))


def test_the_flight_recorder_has_an_address(product: Product, visit: Opener) -> None:
    page = visit()
    tile = page.get_by_role("link", name="IMG_4203.jpg")
    tile.focus()
    page.keyboard.press("Enter")
    panel = page.get_by_role("dialog")
    expect(panel).to_contain_text("Received")
    expect(panel).to_contain_text("Looked at for faces")
    expect(panel.get_by_role("img", name="Preview of IMG_4203.jpg")).to_be_visible()
    assert re.search(r"\?photo=\d+$", page.url)
    address = page.url
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    assert "photo" not in page.url
    expect(tile).to_be_focused()
    page.go_back()
    expect(panel).to_be_visible()
    page.go_back()
    expect(panel).to_be_hidden()
    again = visit(address.rsplit("/", 1)[1])
    expect(again.get_by_role("dialog")).to_be_visible()
    again.get_by_role("button", name="Close").click()
    expect(again.get_by_role("dialog")).to_be_hidden()


def test_photos_are_called_safe_when_each_has_a_second_copy(visit: Opener) -> None:
    def prepare(backed_up: int) -> Callable[[Page], None]:
        def figures(route: Route) -> None:
            told = route.fetch().json()
            told["assets"]["backed_up"] = told["assets"]["total"] - backed_up
            route.fulfill(json=told)

        def without_stream(page: Page) -> None:
            page.route("**/api/ops/stream", lambda route: route.abort())
            page.route("**/api/ops/figures*", figures)

        return without_stream

    page = visit(prepare=prepare(0))
    expect(page.get_by_role("heading", level=1)).to_contain_text("photos, safe.")
    expect(page.get_by_role("main")).not_to_contain_text("second copy")
    page = visit(prepare=prepare(1))
    expect(page.get_by_role("heading", level=1)).to_contain_text("photos, filed.")
    expect(page.get_by_role("main")).to_contain_text("1 has no second copy yet.")


def test_what_a_service_does_can_be_read_whole(product: Product, visit: Opener) -> None:
    task = "looking at " + "a folder with a long name/" * 12

    def status(route: Route) -> None:
        told = route.fetch().json()
        for service in told["services"]:
            service["current_task"] = task
        route.fulfill(json=told)

    def prepare(page: Page) -> None:
        page.route("**/api/ops/stream", lambda route: route.abort())
        page.route("**/api/ops/status*", status)

    page = visit(prepare=prepare)
    row = page.locator("[data-service=api]")
    expect(row.locator(".task")).to_have_attribute("title", task)
    row.get_by_role("button").click()
    expect(row.locator(".whole")).to_have_text(task)
    assert page.evaluate(SPILLS) <= 0


def test_a_foolish_address_opens_nothing(visit: Opener) -> None:
    for query in ("?photo=../../etc/passwd", "?photo=-1", "?photo="):
        expect(visit(query).get_by_role("dialog")).to_be_hidden()


def test_the_keyboard_reaches_everything(visit: Opener) -> None:
    page = visit()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    assert page.evaluate(FOCUSED) == "MAIN"
    tiles = page.locator("#latest + p + ul a")
    expect(tiles.nth(7)).to_be_visible()  # they come one after the other, as they are recognised
    hrefs = [tiles.nth(n).get_attribute("href") for n in range(tiles.count())]
    assert [tiles.nth(n).get_attribute("tabindex") for n in range(3)] == ["0", "-1", "-1"]
    tiles.first.focus()
    for key, expected in (
        ("ArrowRight", 1),
        ("ArrowDown", 7),
        ("ArrowLeft", 6),
        ("ArrowUp", 0),
        ("ArrowUp", 0),
        ("End", len(hrefs) - 1),
        ("Home", 0),
    ):
        page.keyboard.press(key)
        assert page.evaluate(FOCUSED) == hrefs[expected], key
    page.keyboard.press("Tab")
    assert page.evaluate(FOCUSED) not in hrefs


def test_a_service_tells_its_interruptions(visit: Opener) -> None:
    page = visit()
    row = page.locator("[data-service=api]").get_by_role("button")
    row.focus()
    page.keyboard.press("Space")
    expect(row).to_have_attribute("aria-expanded", "true")
    expect(page.locator("[data-service=api]")).to_contain_text("one every 2 s")
    label = page.locator("[data-service=api] svg[role=img]")
    expect(label).to_have_attribute("aria-label", re.compile(r"^Up \d.* of the last"))
    page.get_by_role("radio", name="Week").check(force=True)
    expect(label).to_have_attribute("aria-label", re.compile(r"of the last 7 days"))


PLACE = {
    "place_id": 1,
    "path": "/mnt/nas/photos",
    "kind": "folder",
    "assets": 90,
    "missing": 81,
    "frozen_at": "2026-01-01T00:00:00Z",
    "frozen_because": "81 of 90 files are gone at once (90 %)",
    "device": None,
    "decision": None,
    "last_seen_at": None,
}


def test_a_frozen_place_asks_and_is_answered(visit: Opener) -> None:
    decided: list[Any] = []

    def decision(route: Route) -> None:
        decided.append((route.request.url.rsplit("/api/", 1)[1], route.request.post_data_json))
        route.fulfill(json={})

    def prepare(page: Page) -> None:
        page.route("**/api/places", lambda route: route.fulfill(json={"places": [PLACE]}))
        page.route("**/api/places/*/decision", decision)

    page = visit(prepare=prepare)
    question = page.locator("[data-place]")
    expect(question).to_contain_text("81 could not be found")
    expect(page.locator("[data-state]")).to_have_attribute("data-state", "red")
    question.get_by_role("button", name="They are gone").click()
    expect(question).to_contain_text("Mark 81 files as missing?")
    expect(page.get_by_role("heading", level=1)).not_to_contain_text("safe")
    question.get_by_role("button", name="No", exact=True).click()
    assert decided == []
    question.get_by_role("button", name="It is away: wait").click()
    expect(page.get_by_role("status").get_by_text("Waiting for")).to_be_visible()
    question.get_by_role("button", name="They are gone").click()
    question.get_by_role("button", name="Yes, they are gone").click()
    expect(page.get_by_role("status").get_by_text("being marked as missing")).to_be_visible()
    where = "places/1/decision"
    assert decided == [(where, {"decision": "wait"}), (where, {"decision": "accept-missing"})]


def test_a_real_folder_that_is_emptied_asks_and_comes_back(product: Product, visit: Opener) -> None:
    photos = product.folder.parent / "photos"
    away = photos.with_name("away")
    page = visit()
    question = page.locator("[data-place]")
    expect(question).to_have_count(0)
    photos.rename(away)
    photos.mkdir()
    product.kill("scheduler")  # the watch begins a round when it starts
    try:
        expect(question).to_contain_text("The folder is empty, where 16 files were")
        question.get_by_role("button", name="It is away: wait").click()
        expect(question).to_contain_text("You said: wait.")
        (place,) = [p for p in product.call("GET", "/api/places")["places"] if p["frozen_at"]]
        assert (place["path"], place["decision"], place["missing"]) == (str(photos), "wait", 0)
    finally:
        photos.rmdir()
        away.rename(photos)
        product.kill("scheduler")
    expect(question).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK, WALL], ids=["phone", "desk", "wall"])
def test_it_can_be_read_and_used_by_everybody(
    visit: Opener, size: dict[str, int], scheme: str
) -> None:
    page = visit(
        prepare=lambda page: page.route(
            "**/api/places", lambda route: route.fulfill(json={"places": [PLACE]})
        ),
        viewport=size,
        color_scheme=scheme,
    )
    page.wait_for_selector("[data-place]")
    page.wait_for_selector("[data-cause]")
    page.locator("[data-service=api]").get_by_role("button").click()
    dark = page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor")
    assert (dark == "rgb(18, 19, 23)") == (scheme == "dark")
    assert page.evaluate(FAINT) == []
    assert page.evaluate(NAMELESS) == []
    assert page.evaluate(SMALL) == []
    assert page.evaluate(SPILLS) <= 0
    levels = page.evaluate(HEADINGS)
    assert levels[0] == 1 and levels.count(1) == 1
    assert page.get_by_role("main").count() == 1
    page.locator("#latest + p + ul a").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.evaluate(NAMELESS) == []
    assert page.evaluate(SPILLS) <= 0


def test_a_narrow_phone_needs_no_sideways_scrolling(visit: Opener) -> None:
    assert visit(viewport={"width": 320, "height": 640}).evaluate(SPILLS) <= 0


def test_who_wants_no_motion_sees_none(visit: Opener) -> None:
    moving = (
        "() => document.getAnimations().filter((a) => a.effect.getTiming().duration > 1).length"
    )
    page = visit(reduced_motion="reduce")
    page.locator("#latest + p + ul a").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.evaluate(moving) == 0


def test_an_empty_house_says_what_to_do_next(
    make_product: Callable[..., Product], open_page: Opener
) -> None:
    empty = make_product("empty")
    empty.up()
    page = open_page()
    page.goto(empty.state["api_url"])
    expect(page.get_by_role("heading", level=1)).to_have_text("Ready for your photos.")
    expect(page.get_by_text("kaleidoscope ingest ~/Pictures")).to_be_visible()
    expect(page.get_by_role("heading", name="Nothing went wrong")).to_be_visible()
    empty.down()


def test_listening_browsers_do_not_keep_the_product_from_ending(
    make_product: Callable[..., Product], open_page: Opener, tmp_path: Path
) -> None:
    short = make_product("short")
    short.up()
    page = open_page()
    page.goto(short.state["api_url"])
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    short.down()
    assert "killed" not in (short.folder / "logs" / "up.log").read_text()
    expect(page.get_by_text("Kaleidoscope does not answer.").first).to_be_visible()
