"""The studio stays true while networks, tabs, servers and sessions come and go."""

import pytest
from playwright.sync_api import Page, expect

from tests.end_to_end.running import Running
from tests.end_to_end.web.conftest import NewWindow
from tests.end_to_end.web.window import LIMIT_MS, Window, wait_until

pytestmark = pytest.mark.timeout(180)


def streams(*pages: Page) -> int:
    """How many event streams were ever opened."""
    return sum(page.evaluate("window.streams") for page in pages)


def test_offline_it_says_so_and_online_it_catches_up(window: Window) -> None:
    page = window.page
    window.context.set_offline(True)
    line = page.locator(".connection")
    expect(line).to_contain_text("You are offline")
    window.prompt.fill("a video ordered on a train")
    window.make_button.click()
    expect(window.make_button).to_have_text("Waiting for the connection…")

    window.context.set_offline(False)

    window.expect_status(window.card("a video ordered on a train"), "Done")
    expect(line).to_be_hidden()
    window.expect_credits(90)


def test_tabs_share_one_stream_and_the_next_takes_it_over(window: Window) -> None:
    first = window.page
    wait_until(first, lambda: streams(first) == 1)
    second = window.new_tab()
    second.goto("/")
    expect(second.locator(".counter b")).to_have_text("100")

    window.order("a video that both tabs see")

    for page in (first, second):
        card = page.locator("article.card").filter(has_text="both tabs see")
        expect(card.locator(".status")).to_contain_text("Done", timeout=LIMIT_MS)
        expect(page.locator(".counter b")).to_have_text("90", timeout=LIMIT_MS)
    assert streams(first, second) == 1
    first.close()
    wait_until(second, lambda: streams(second) == 1)
    window.order("a video that is left to the second")
    card = second.locator("article.card").filter(has_text="left to the second")
    expect(card.locator(".status")).to_contain_text("Done", timeout=LIMIT_MS)


def test_without_a_stream_it_asks_now_and_then(new_window: NewWindow) -> None:
    window = new_window()
    window.page.route("**/api/events", lambda route: route.fulfill(status=503))
    window.page.reload()
    expect(window.page.locator(".connection")).to_contain_text("The live connection is away")

    window.order("a video found by asking [slow]")

    window.expect_status(window.card("a video found by asking"), "Done")
    window.page.unroute("**/api/events")
    expect(window.page.locator(".connection")).to_be_hidden(timeout=LIMIT_MS)


def test_without_a_stream_what_is_ordered_later_is_followed_too(new_window: NewWindow) -> None:
    window = new_window()
    page = window.page
    page.route("**/api/events", lambda route: route.fulfill(status=503))
    page.reload()
    expect(page.locator(".connection")).to_contain_text("The live connection is away")
    # It asks once more, and with nothing under way no more after that.
    with page.expect_response("**/api/generations?*"):
        pass

    card = window.make("a video ordered without a stream")

    window.expect_status(card, "Done")


def test_while_credits_are_away_too_it_shows_what_it_can(new_window: NewWindow) -> None:
    window = new_window()
    page = window.page
    for path in ("**/api/events", "**/api/credits"):
        page.route(path, lambda route: route.fulfill(status=503))
    page.reload()
    expect(page.locator(".connection")).to_contain_text("The live connection is away")

    window.order("a video found without a balance [slow]")

    window.expect_status(window.card("found without a balance"), "Done")
    for path in ("**/api/events", "**/api/credits"):
        page.unroute(path)
    window.expect_credits(90)


def test_a_session_that_ended_asks_to_sign_in_and_keeps_what_was_written(
    window: Window, user: str
) -> None:
    page = window.page
    window.prompt.fill("a thought that took long")
    page.locator("#quote").filter(has_text="price held").wait_for()
    window.context.clear_cookies()

    window.make_button.click()

    expect(page.get_by_text("Your session has ended.")).to_be_visible()
    page.get_by_label("Your name").fill(user)
    page.get_by_label("Your name").press("Enter")
    # The click was kept too, and is answered now.
    window.expect_status(window.card("a thought that took long"), "Done")
    window.expect_credits(90)
    assert len(window.generations()) == 1


def test_signing_out_in_one_tab_signs_out_the_others(window: Window) -> None:
    second = window.new_tab()
    second.goto("/settings")

    second.get_by_role("button", name="Sign out").click()

    expect(window.page.get_by_label("Your name")).to_be_visible(timeout=LIMIT_MS)


def test_a_server_that_is_killed_under_it_comes_back_to_it(
    new_window: NewWindow, stack: Running
) -> None:
    window = new_window()
    made = window.order("a video that the server does not see [slow]")
    window.expect_status(window.card("does not see"), "Running")

    stack.kill("web")

    window.expect_status(window.card("does not see"), "Done")
    window.expect_credits(90)
    assert window.expect_end(made["generation_id"])["charged_credits"] == 10
    expect(window.page.locator(".connection")).to_be_hidden(timeout=LIMIT_MS)
