"""The studio can be used by everybody: axe finds nothing, a keyboard is enough, a phone too."""

import itertools
import re
from collections.abc import Callable
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Locator, Page, expect

from tests.end_to_end.running import Running
from tests.end_to_end.web.conftest import NewWindow
from tests.end_to_end.web.window import LIMIT_MS, Window, wait_until

pytestmark = pytest.mark.timeout(180)

OPTIONS = {
    "resultTypes": ["violations"],
    # Only pictures of things in frames need it, of which there are none.
    "iframes": False,
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
}
PHONE = {"width": 390, "height": 844}


def violations(page: Page) -> list[str]:
    """What axe finds on what is shown now."""
    if page.evaluate("typeof axe") == "undefined":
        # Half a megabyte, which Axe.run would hand over each time.
        page.evaluate(Axe().axe_script)
    found: list[Any] = page.evaluate("given => axe.run(document, given)", OPTIONS)["violations"]
    return [f"{one['id']}: {node['html'][:150]}" for one in found for node in one["nodes"]]


def check(window: Window, what: str) -> None:
    """Lets axe judge a view in both schemes; colours are the same on a phone, so in one there."""
    is_phone = window.page.viewport_size == PHONE
    schemes: tuple[Literal["dark", "light"], ...] = ("dark",) if is_phone else ("dark", "light")
    for scheme in schemes:
        window.prefer(scheme)
        found = violations(window.page)
        assert found == [], f"{what}, {scheme}"


def fill_history(window: Window) -> None:
    """One of each: made, failed, and under way."""
    made = window.order("a heron stands in the reeds")
    failed = window.order("a kite without a string [fail]")
    window.expect_end(made["generation_id"])
    window.expect_end(failed["generation_id"], "FAILED")
    window.order("a river that does not end [stuck]")
    window.expect_status(window.card("a river"), "Running")


@pytest.mark.parametrize("size", [{"width": 1280, "height": 900}, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_on_any_view(new_window: NewWindow, size: dict[str, int]) -> None:
    # Reduced motion, or colours are judged while they change.
    window = new_window(viewport=size, reduced_motion="reduce")
    page = window.page
    check(window, "the empty studio")
    fill_history(window)
    page.get_by_role("radio", name="A picture").check()
    page.locator(".more summary").click()
    window.make_button.click()
    expect(page.locator("#prompt-error")).to_be_visible()
    check(window, "the studio with everything on it")
    window.card("a river").get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    check(window, "a question")
    page.keyboard.press("Escape")
    page.get_by_role("link", name="History").click()
    expect(page.locator("article.card")).to_have_count(3)
    page.get_by_role("button", name="Select").click()
    check(window, "the history")
    page.get_by_role("button", name="Play").click()
    check(window, "the player")
    page.keyboard.press("Escape")
    page.goto("/history?q=nothing+has+these+words")
    expect(page.get_by_role("heading", name="Nothing fits")).to_be_visible()
    check(window, "an empty history")
    page.get_by_role("link", name="Statement").click()
    expect(page.locator(".proof")).to_be_visible()
    check(window, "the statement")
    page.get_by_role("link", name="Settings").click()
    check(window, "the settings")
    window.context.clear_cookies()
    page.goto("/")
    expect(page.get_by_label("Your name")).to_be_visible()
    check(window, "the sign-in")
    assert window.errors == []


def test_on_a_phone_nothing_is_wider_than_the_screen(new_window: NewWindow) -> None:
    window = new_window(viewport=PHONE, has_touch=True)
    page = window.page
    fill_history(window)
    window.order("a" * 500)

    for path in ("/", "/history", "/statement", "/settings"):
        page.goto(path)
        page.locator("h1").wait_for(state="attached")
        page.locator(".card:not(.skeleton), .proof, .panel").first.wait_for()
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width == PHONE["width"], path
        # The counter and the places to go are there, wherever the page was scrolled to.
        page.mouse.wheel(0, 3000)
        expect(page.locator(".counter")).to_be_in_viewport()
        for link in page.locator(".top nav a").all():
            expect(link).to_be_in_viewport()
            box = link.bounding_box()
            assert box is not None
            assert min(box["width"], box["height"]) >= 44


def is_on_top(element: Locator) -> bool:
    """Whether all of an element's height can be seen, from near its left edge."""
    seen: bool = element.evaluate(
        "one => { const { x, top, bottom } = one.getBoundingClientRect();"
        " return [top + 5, bottom - 5].every((y) => document.elementFromPoint(x + 9, y) === one); }"
    )
    return seen


@pytest.mark.parametrize("size", [(844, 390), (960, 600)])
def test_in_a_low_window_the_form_is_not_under_its_button(
    new_window: NewWindow, stack: Running, user: str, size: tuple[int, int]
) -> None:
    window = new_window(viewport={"width": size[0], "height": size[1]})
    assert stack.run("credits", "adjust", user, "-100", "--reason", "a test").returncode == 0
    window.expect_credits(0)

    window.prompt.scroll_into_view_if_needed()
    assert is_on_top(window.prompt)
    # Nothing lies over these either, or they could not be clicked.
    window.page.locator(".choices label", has_text="14B").click(timeout=LIMIT_MS)
    window.page.locator(".choices label", has_text="720p").click(timeout=LIMIT_MS)
    expect(window.make_button).to_contain_text("20 credits")


def test_a_field_that_is_wrong_is_not_under_the_button(new_window: NewWindow) -> None:
    window = new_window(viewport={"width": 1440, "height": 900})
    page = window.page
    page.get_by_label(re.compile("14B")).check()
    page.locator(".more summary").click()
    page.get_by_label("Seed").fill("12a")
    window.prompt.fill("a seed that is none")

    window.make_button.click()

    assert is_on_top(page.locator("#seed"))
    assert is_on_top(page.locator("#seed-error"))


def focused(page: Page) -> str:
    """What has the focus, by the words that a screen reader would say."""
    words: str = page.evaluate(
        "(() => { const one = document.activeElement; return one.getAttribute('aria-label') "
        "|| one.labels?.[0]?.textContent || one.textContent || one.tagName; })()"
    )
    return words


def tab_to(page: Page, words: str, key: str = "Tab") -> None:
    """Goes on by the keyboard until something is reached, seeing each time where it is."""
    for _ in range(60):
        page.keyboard.press(key)
        if words in focused(page):
            outline = "getComputedStyle(document.activeElement).outlineStyle"
            around = "document.activeElement.matches('input[type=radio], input[type=file]')"
            assert page.evaluate(around) or page.evaluate(outline) != "none"
            return
    raise AssertionError(f"the keyboard does not reach {words!r}")


def test_a_keyboard_is_enough(new_window: NewWindow, user: str) -> None:
    window = new_window()
    page = window.page
    window.context.clear_cookies()
    page.goto("/")
    expect(page.get_by_label("Your name")).to_be_focused()
    page.keyboard.type(user)
    page.keyboard.press("Enter")
    window.expect_credits(100)

    tab_to(page, "What happens in it?")
    page.keyboard.type("a keyboard writes its own story")
    tab_to(page, "1.3B")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("radio", name=re.compile("14B"))).to_be_checked()
    tab_to(page, "480p")
    page.keyboard.press("ArrowDown")
    expect(window.make_button).to_contain_text("20 credits")
    tab_to(page, "Make the video")
    page.keyboard.press("Enter")
    card = window.card("a keyboard writes")
    window.expect_status(card, "Done")
    tab_to(page, "Play: a keyboard writes")
    page.keyboard.press("Enter")
    watch_by_keyboard(page)
    tab_to(page, "Delete")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Keep")).to_be_focused()
    tab_to(page, "Delete for good")
    page.keyboard.press("Space")
    expect(card).to_have_count(0)
    tab_to(page, "Statement", "Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Statement")).to_be_focused()
    expect(page.locator(".outcome")).to_have_text("reserved 20 → charged 20")


def watch_by_keyboard(page: Page) -> None:
    """Plays, pauses, seeks, mutes and leaves."""
    video = page.locator("dialog video")
    expect(video).to_be_focused()

    def is_so(expression: str) -> Callable[[], bool]:
        return lambda: bool(video.evaluate(f"video => {expression}"))

    wait_until(page, is_so("!video.paused && video.currentTime > 0"))
    page.keyboard.press("Space")
    wait_until(page, is_so("video.paused"))
    page.keyboard.press("Home")
    wait_until(page, is_so("video.currentTime === 0"))
    page.keyboard.press("ArrowRight")
    wait_until(page, is_so("video.currentTime === 1"))
    page.keyboard.press("m")
    wait_until(page, is_so("video.muted"))
    page.keyboard.press("f")
    wait_until(page, lambda: bool(page.evaluate("document.fullscreenElement !== null")))
    page.keyboard.press("f")
    wait_until(page, lambda: bool(page.evaluate("document.fullscreenElement === null")))
    page.keyboard.press("Escape")
    expect(video).to_have_count(0)


def test_one_voice_speaks_at_most_once_in_five_seconds(window: Window) -> None:
    page = window.page
    page.evaluate(
        "(() => { window.said = []; new MutationObserver(() => window.said.push(Date.now()))"
        ".observe(document.getElementById('announcer'), { childList: true }); })()"
    )
    assert page.locator("[aria-live], [role=status], [role=alert]").count() == 1

    for number in range(3):
        window.make(f"video number {number} of a busy day")
        expect(window.prompt).to_have_value("")
    wait_until(page, lambda: page.evaluate("window.said.length") >= 2)

    said = page.evaluate("window.said")
    assert all(later - earlier >= 4_990 for earlier, later in itertools.pairwise(said))


def test_an_appearance_that_was_chosen_is_there_before_the_first_paint(
    new_window: NewWindow,
) -> None:
    window = new_window(path="/settings", color_scheme="light")
    page = window.page
    room = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(room)

    page.get_by_role("radio", name="Dark").check()

    dark = page.evaluate(room)
    assert dark != light
    page.route("**/js/main.js", lambda route: route.abort())
    page.reload(wait_until="domcontentloaded")
    assert page.evaluate(room) == dark


def test_motion_is_left_out_where_it_is_not_wanted(new_window: NewWindow) -> None:
    window = new_window(reduced_motion="reduce")
    window.make("a mill that turns and turns [stuck]")
    window.page.locator(".leader").first.wait_for(timeout=LIMIT_MS)

    moving = window.page.evaluate("document.getAnimations().length")

    assert moving == 0


def test_axe_does_find_what_is_wrong(window: Window) -> None:
    window.page.evaluate("document.querySelector('main').append(document.createElement('button'))")

    assert [one.split(":")[0] for one in violations(window.page)] == ["button-name"]
