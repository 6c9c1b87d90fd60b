"""The studio says what things cost, what is missing, and proves its sums."""

import csv
import io
import re

import pytest
from playwright.sync_api import Route, expect

from tests.end_to_end.running import Running
from tests.end_to_end.web.conftest import NewWindow
from tests.end_to_end.web.window import WRITES, Window, wait_until

pytestmark = pytest.mark.timeout(120)


def test_without_credits_the_button_names_the_shortfall(
    window: Window, stack: Running, user: str
) -> None:
    assert stack.run("credits", "adjust", user, "-85", "--reason", "a test").returncode == 0
    after = window.page.locator("#money-after")
    window.expect_credits(15)
    expect(after).to_have_text("Running low: 15 credits now, 5 after it")
    expect(window.page.locator(".counter")).to_have_class(re.compile("low"))

    window.page.get_by_label(re.compile("14B")).check()
    window.page.get_by_label(re.compile("720p")).check()

    expect(after).to_contain_text("5 credits short: it costs 20, and you have 15.")
    expect(window.make_button).to_have_attribute("aria-disabled", "true")
    window.prompt.fill("a video that nobody can pay for")
    window.make_button.click(force=True)
    notice = window.page.locator(".composer .error:visible")
    expect(notice).to_contain_text("5 credits short")
    assert window.generations() == []


def test_a_refusal_by_the_service_names_the_shortfall_too(
    window: Window, stack: Running, user: str
) -> None:
    page = window.page
    rich = {"available_credits": 100, "reserved_credits": 0, "version": 10**9, "update_time": None}
    page.route("**/api/credits", lambda route: route.fulfill(json=rich))
    page.route("**/api/events", lambda route: route.abort())
    page.reload()
    window.expect_credits(100)
    assert stack.run("credits", "adjust", user, "-100", "--reason", "a test").returncode == 0

    window.prompt.fill("a video that cannot be paid")
    window.make_button.click()

    notice = page.locator(".composer .error:visible")
    expect(notice).to_have_text(
        "10 credits short: it costs 10, and you have 0. Nothing was charged."
    )
    expect(window.prompt).to_have_value("a video that cannot be paid")


def test_the_balance_falls_with_the_click_and_rises_with_a_refusal(window: Window) -> None:
    page = window.page
    held: list[Route] = []
    page.route("**/api/generation/text-to-video", lambda route: held.append(route))  # noqa: PLW0108
    window.prompt.fill("a video whose answer takes its time")

    window.make_button.click()

    window.expect_credits(90)
    expect(page.locator(".counter")).to_contain_text("10 reserved")
    expect(window.make_button).to_have_text("Ordering…")
    problem = {"status": 429, "code": "BACKLOG_FULL", "title": "", "detail": "", "trace_id": ""}
    held[0].fulfill(status=429, json=problem, headers={"Retry-After": "12"})
    window.expect_credits(100)
    toast = page.locator(".toast.bad")
    expect(toast).to_contain_text("Nothing was charged. Try again in 12 s.")
    page.unroute("**/api/generation/text-to-video")
    toast.get_by_role("button", name="Try again").click()
    window.expect_status(window.card("a video whose answer takes its time"), "Done")
    window.expect_credits(90)


def test_the_statement_adds_up_on_the_page_and_in_the_export(new_window: NewWindow) -> None:
    window = new_window()
    page = window.page
    for prompt in ("a video that is made", "a video that breaks [fail]"):
        made = window.order(prompt)
        window.expect_end(made["generation_id"], "FAILED" if "fail" in prompt else "COMPLETED")
    window.expect_credits(90)

    page.get_by_role("link", name="Statement").click()

    proof = "It adds up: nothing at the start, changes of +90 in 5 rows, 90 credits now."
    expect(page.locator(".proof")).to_have_text(proof)
    expect(page.locator(".outcome")).to_have_text(
        ["reserved 10 → refunded 10", "reserved 10 → charged 10"]
    )
    rows = page.locator("tbody.group").nth(1).locator("tr")
    expect(rows.nth(0)).to_contain_text("a video that is made")
    expect(rows.nth(1)).to_contain_text(re.compile("Reserved.*−10.*90"))
    expect(rows.nth(2)).to_contain_text(re.compile("Charged.*0.*90"))
    with page.expect_download() as download:
        page.get_by_role("link", name="Export as CSV").click()
    content = download.value.path().read_text()
    changes = [int(row["credits"]) for row in csv.DictReader(io.StringIO(content))]
    assert (len(changes), sum(changes)) == (5, 90)


def test_the_statement_follows_while_it_is_open(window: Window) -> None:
    window.page.get_by_role("link", name="Statement").click()
    expect(window.page.locator(".proof")).to_contain_text("in 1 rows")

    window.order("a video that is made meanwhile")

    expect(window.page.locator(".outcome")).to_have_text("reserved 10 → charged 10")
    expect(window.page.locator(".proof")).to_contain_text("in 3 rows, 90 credits now")


def test_the_statement_adds_up_while_two_readings_of_it_cross(window: Window) -> None:
    page = window.page
    window.expect_end(window.order("a video that is counted once")["generation_id"])
    expect(page.locator(".counter")).to_have_text(re.compile("^90 ?credits$"))
    held: list[Route] = []

    def hold_two(route: Route) -> None:
        # The balance may still change, when the video is charged; that reading is the newest.
        held.append(route) if len(held) < 2 else route.continue_()

    page.route("**/api/credits/transactions?*", hold_two)
    for _ in range(2):
        page.get_by_role("link", name="Statement").click()
    wait_until(page, lambda: len(held) == 2)

    for route in held:
        with page.expect_event("requestfinished"):
            route.continue_()
    page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")

    expect(page.locator(".proof")).to_contain_text("in 3 rows, 90 credits now.")
    expect(page.locator("tbody.group tr")).to_have_count(3)


def test_signing_out_leaves_nothing_behind(window: Window) -> None:
    page = window.page
    other = window.new_tab()
    other.goto("/")
    for tab in (page, other):
        tab.get_by_label("What happens in it?").fill("what the next person shall not read")
    page.get_by_role("link", name="Settings").click()

    page.get_by_role("button", name="Sign out").click()

    for tab in (page, other):
        expect(tab.get_by_label("Your name")).to_be_visible()
    assert "the next person" not in page.evaluate("JSON.stringify({...localStorage})")
    assert window.context.request.get("/api/me", headers=WRITES).status == 401
