"""The studio makes videos: once each, whatever is clicked, closed, lost or canceled."""

import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Route, expect

from tests.end_to_end.running import Running
from tests.end_to_end.web.conftest import NewWindow
from tests.end_to_end.web.window import LIMIT_MS, Window, wait_until

pytestmark = pytest.mark.timeout(120)


def playing_at(page: Page) -> float:
    time: float = page.locator("dialog video").evaluate("video => video.currentTime")
    return time


def test_somebody_signs_in_by_name_and_watches_the_video_that_they_asked_for(
    new_window: NewWindow, user: str
) -> None:
    window = new_window()
    page = window.page
    window.context.clear_cookies()
    page.goto("/")
    page.get_by_label("Your name").fill(user)
    page.get_by_role("button", name="Sign in").click()
    window.expect_credits(100)

    window.prompt.fill("A red fox runs through fresh snow")
    expect(page.locator("#quote")).to_contain_text("price held until")
    expect(window.make_button).to_have_text(re.compile("Make the video.*10 credits"))
    expect(page.locator("#money-after")).to_have_text("100 credits now, 90 after it")
    window.make_button.click()

    card = window.card("A red fox runs")
    window.expect_status(card, "Done")
    expect(card.locator(".money")).to_have_text("reserved 10 → charged 10")
    window.expect_credits(90)
    card.get_by_role("button", name="Play").click()
    wait_until(page, lambda: playing_at(page) > 0.3)
    began = playing_at(page)
    page.wait_for_timeout(200)
    assert playing_at(page) != began
    assert window.errors == []


def test_a_double_click_makes_one_video(window: Window, stack: Running) -> None:
    prompt = f"two clicks of {window.user} make one"
    window.prompt.fill(prompt)

    window.make_button.dblclick()

    window.expect_status(window.card(prompt), "Done")
    window.expect_credits(90)
    assert len(window.generations()) == 1
    assert len(stack.predictions(prompt)) == 1


def test_a_reload_before_the_answer_makes_one_video(window: Window, stack: Running) -> None:
    prompt = f"the page of {window.user} is loaded again"
    lost: list[Route] = []
    path = "**/api/generation/text-to-video"

    def lose(route: Route) -> None:
        """Lets the order through, and its answer get lost."""
        route.fetch()
        lost.append(route)

    window.page.route(path, lose, times=1)
    window.prompt.fill(prompt)
    window.make_button.click()
    wait_until(window.page, lambda: lost)
    window.expect_credits(90)
    with window.page.expect_response(path) as answer:
        window.page.reload()

    assert answer.value.headers["idempotency-replayed"] == "true"
    window.expect_status(window.card(prompt), "Done")
    window.expect_credits(90)
    assert len(stack.predictions(prompt)) == 1
    expect(window.page.locator(".toast").first).to_contain_text("Ordered once, for 10 credits.")
    # The next press is not the same video once more.
    expect(window.prompt).to_have_value("")
    # Answered, the click is not sent a third time.
    assert window.page.evaluate("localStorage.getItem('reelworks.orders')") is None


@pytest.mark.parametrize("tab", ["the same tab", "another tab"])
def test_what_nobody_knows_the_end_of_is_paid_once_when_it_is_ordered_again(
    window: Window, tab: str
) -> None:
    prompt = "a heron stands in the shallows"
    path = "**/api/generation/text-to-video"
    problem = {"status": 504, "code": "DEADLINE_EXCEEDED"}

    def lose(route: Route) -> None:
        """Lets the order through, and says that nobody knows."""
        route.fetch()
        route.fulfill(status=504, json=problem)

    window.context.route(path, lose)
    window.make(prompt)
    expect(window.page.locator(".toast.bad")).to_contain_text("nobody knows", timeout=LIMIT_MS)
    window.context.unroute(path)
    first = window.page
    if tab == "another tab":
        window.page = window.new_tab()
        window.open()
    expect(window.prompt).to_have_value(prompt)

    with window.page.expect_response(path) as answer:
        window.make_button.click()

    assert answer.value.headers["idempotency-replayed"] == "true"
    ordered = window.page.locator(".toast").filter(has_text="Ordered once, for 10 credits.")
    expect(ordered).to_be_visible()
    expect(window.prompt).to_have_value("")
    first.reload()
    expect(first.locator("article.card")).to_have_count(1)
    # Answered, the same words are another video.
    with window.page.expect_response(path) as answer:
        window.make(prompt)
    assert "idempotency-replayed" not in answer.value.headers
    assert len(window.generations()) == 2


def test_what_somebody_was_told_of_is_not_ordered_by_a_reload(window: Window) -> None:
    page = window.page
    path = "**/api/generation/text-to-video"
    problem = {"status": 503, "code": "CREDITS_UNAVAILABLE"}
    page.route(path, lambda route: route.fulfill(status=503, json=problem))
    window.make("a heron waits for better times")
    told = page.locator(".toast.bad")
    expect(told).to_contain_text("Nothing was charged", timeout=LIMIT_MS)
    page.unroute(path)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method + urlsplit(request.url).path))

    page.reload()

    expect(window.prompt).to_have_value("a heron waits for better times")
    # It is asked for later than what a reload sends again.
    expect(page.locator("#quote")).to_contain_text("price held until")
    assert "POST/api/quotes" in sent
    assert "POST/api/generation/text-to-video" not in sent
    assert window.generations() == []


def test_another_browser_shows_what_is_under_way(window: Window, new_window: NewWindow) -> None:
    card = window.make("a snail crosses a road [stuck]")
    window.expect_status(card, "Running")
    window.page.close()

    again = new_window()

    there = again.card("a snail crosses a road")
    again.expect_status(there, "Running")
    expect(there.locator(".money")).to_have_text("10 credits reserved")
    there.get_by_role("button", name="Cancel").click()
    again.page.get_by_role("button", name="Cancel it").click()
    again.expect_status(there, "Canceled")


def test_a_cancel_says_what_comes_back_and_gives_it_back(window: Window) -> None:
    page = window.page
    card = window.make("a dog waits for its master [stuck]")
    window.expect_status(card, "Running")
    window.expect_credits(90)

    card.get_by_role("button", name="Cancel").click()

    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("You get all 10 credits back.")
    expect(dialog).to_contain_text("you keep the video and pay for it: 10 credits")
    expect(dialog.get_by_role("button", name="Keep making it")).to_be_focused()
    dialog.get_by_role("button", name="Cancel it, 10 credits back").click()
    window.expect_status(card, "Canceled")
    expect(card.locator(".money")).to_have_text("reserved 10 → refunded 10")
    window.expect_credits(100)
    page.get_by_role("link", name="Statement").click()
    expect(page.locator(".outcome").first).to_have_text("reserved 10 → refunded 10")


def test_a_failure_is_explained_and_can_be_tried_again(window: Window) -> None:
    card = window.make("a bridge that breaks [fail]")
    window.expect_status(card, "Failed")
    expect(card.locator(".failure")).to_contain_text("You were not charged")
    expect(card.locator(".money")).to_have_text("reserved 10 → refunded 10")

    card.get_by_role("button", name="Try again").click()
    dialog = window.page.get_by_role("dialog")
    expect(dialog).to_contain_text("It costs 10 credits; you have 100.")
    dialog.get_by_role("button", name="Try again for 10 credits").click()

    ordered = window.page.locator(".toast").filter(has_text="Ordered once, for 10 credits.")
    expect(ordered).to_be_visible()
    expect(window.card("a bridge that breaks")).to_have_count(2, timeout=LIMIT_MS)
    wait_until(window.page, lambda: {g["status"] for g in window.generations()} == {"FAILED"})
    first, second = sorted(window.generations(), key=lambda one: str(one["create_time"]))
    assert second["retry_of"] == first["generation_id"]
    window.expect_credits(100)


def test_another_try_names_the_price_of_now_and_not_of_when_the_page_was_opened(
    window: Window,
) -> None:
    page = window.page
    card = window.make("a bridge that breaks for more [fail]")
    window.expect_status(card, "Failed")
    expect(page.locator(".toast.bad")).to_be_visible()

    def dearer(route: Route) -> None:
        catalog = route.fetch().json()
        for model in catalog["models"]:
            for resolution in model["resolutions"]:
                resolution["price_credits"] += 2
        route.fulfill(json=catalog)

    page.route("**/api/models", dearer)
    card.get_by_role("button", name="Try again").click()

    expect(page.get_by_role("dialog")).to_contain_text("It costs 12 credits; you have 100.")


def test_a_remix_takes_everything_into_the_form(window: Window) -> None:
    page = window.page
    wish = {"model": "t2v-14B", "seed": 7, "negative_prompt": "rain", "aspect_ratio": "9:16"}
    made = window.order("a lighthouse in a storm", **wish)
    window.expect_end(made["generation_id"])
    page.get_by_role("link", name="History").click()

    window.card("a lighthouse").get_by_role("button", name="Remix").click()

    expect(window.prompt).to_be_focused()
    expect(window.prompt).to_have_value("a lighthouse in a storm")
    expect(page.get_by_label("Seed")).to_have_value("7")
    expect(page.get_by_label("Leave out")).to_have_value("rain")
    expect(page.get_by_label("Tall 9:16")).to_be_checked()
    expect(page.get_by_label(re.compile("14B"))).to_be_checked()
    assert page.url.endswith("/")


def test_what_was_written_outlives_a_reload(window: Window) -> None:
    window.prompt.fill("an unfinished thought")
    window.page.get_by_label(re.compile("14B")).check()
    window.page.get_by_label(re.compile("720p")).check()
    wait_until(
        window.page,
        lambda: "720p" in window.page.evaluate("JSON.stringify({...localStorage})"),
    )

    window.page.reload()

    expect(window.prompt).to_have_value("an unfinished thought")
    expect(window.page.get_by_label(re.compile("720p"))).to_be_checked()
    expect(window.make_button).to_contain_text("20 credits")


def test_a_changed_price_is_shown_before_it_is_charged(window: Window) -> None:
    page = window.page

    def dearer(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "cost_credits": 12})

    page.route("**/api/quotes", dearer)
    window.prompt.fill("a video that got dearer")
    window.make_button.click()

    notice = page.locator(".composer .error:visible")
    expect(notice).to_contain_text("The price has changed from 10 to 12 credits")
    expect(window.make_button).to_contain_text("12 credits")
    assert window.generations() == []


def test_an_expired_quote_is_asked_for_again_in_silence(window: Window) -> None:
    page = window.page
    expired = {"status": 409, "code": "QUOTE_EXPIRED", "title": "", "detail": "", "trace_id": ""}
    path = "**/api/generation/text-to-video"
    page.route(path, lambda route: route.fulfill(status=409, json=expired), times=1)

    card = window.make("a video at the same price")

    window.expect_status(card, "Done")
    expect(page.locator(".composer .error:visible")).to_have_count(0)
    window.expect_credits(90)


def test_those_who_come_back_are_not_told_of_their_first_take(window: Window) -> None:
    page = window.page
    window.expect_end(window.order("a video of yesterday")["generation_id"])
    held: list[Route] = []
    page.route("**/api/generations?*", lambda route: held.append(route))  # noqa: PLW0108
    # The money being away keeps nothing else away.
    page.route("**/api/credits", lambda route: route.fulfill(status=503))

    page.reload()

    wait_until(page, lambda: held)
    expect(page.locator(".skeleton").first).to_be_visible()
    assert page.get_by_role("heading", name="Your first take").count() == 0
    page.unroute("**/api/generations?*")
    for route in held:
        route.continue_()
    expect(window.card("a video of yesterday")).to_be_visible()


def test_a_keyboard_stays_with_a_video_that_ends_under_it(window: Window) -> None:
    card = window.make("a keyboard waits for this to end [slow]")
    window.expect_status(card, "Running")
    card.get_by_role("button", name="Cancel").focus()

    window.expect_status(card, "Done")

    expect(card.get_by_role("button", name="Download")).to_be_focused()


def test_too_short_a_prompt_is_refused_beside_the_field(window: Window) -> None:
    window.prompt.fill("  too few ")
    expect(window.page.locator("#prompt-count")).to_have_text("7 of 500 · 3 more")

    window.make_button.click()

    expect(window.page.locator("#prompt-error")).to_contain_text("At least 10 characters")
    expect(window.prompt).to_be_focused()
    expect(window.prompt).to_have_attribute("aria-invalid", "true")
    # Characters are counted as the service does, not by the bytes that an emoji takes.
    window.prompt.fill("🦊" * 501)
    expect(window.page.locator("#prompt-count")).to_have_text("1 too many · 501 of 500")
    assert window.generations() == []
