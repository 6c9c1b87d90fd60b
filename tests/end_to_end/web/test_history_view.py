"""The history finds, pages, saves and deletes."""

import io
import re
import zipfile

import pytest
from playwright.sync_api import Route, expect

from tests.end_to_end.web.conftest import NewWindow
from tests.end_to_end.web.window import LIMIT_MS, Window

pytestmark = pytest.mark.timeout(120)

PROMPTS = ("a blue whale dives", "a blue door opens", "a red kite falls [fail]")


@pytest.fixture
def history(new_window: NewWindow) -> Window:
    """The history, with two videos and a failure in it."""
    window = new_window()
    orders = [window.order(prompt) for prompt in PROMPTS]
    for prompt, made in zip(PROMPTS, orders, strict=True):
        window.expect_end(made["generation_id"], "FAILED" if "fail" in prompt else "COMPLETED")
    window.open("/history")
    expect(window.page.locator("article.card")).to_have_count(3)
    return window


def test_it_searches_and_filters_and_keeps_that_in_its_address(history: Window) -> None:
    page = history.page
    cards = page.locator("article.card")

    page.get_by_label("Search").fill("BLUE")
    expect(cards).to_have_count(2)
    page.get_by_label("Search").fill("")
    page.get_by_label("Status").select_option("Failed")
    expect(cards).to_have_count(1)
    expect(cards).to_contain_text("a red kite")
    page.reload()
    expect(cards).to_have_count(1)
    assert page.url.endswith("/history?status=FAILED")
    page.get_by_label("Made from").select_option("From a picture")
    expect(page.get_by_role("heading", name="Nothing fits")).to_be_visible()
    page.get_by_role("button", name="Show everything").click()
    expect(cards).to_have_count(3)


def test_it_loads_page_after_page(history: Window) -> None:
    page = history.page

    def small(route: Route) -> None:
        route.continue_(url=re.sub("page_size=[0-9]+", "page_size=2", route.request.url))

    page.route("**/api/generations?*", small)
    page.reload()
    expect(page.locator("article.card")).to_have_count(2)

    page.get_by_role("button", name="Load more").click()

    expect(page.locator("article.card")).to_have_count(3)
    expect(page.get_by_role("button", name="Load more")).to_be_hidden()
    # A keyboard goes on at the first of those that came.
    expect(page.locator("article.card").nth(2).get_by_role("button").first).to_be_focused()


def test_a_filtered_list_follows_what_happens(history: Window) -> None:
    page = history.page
    page.get_by_label("Status").select_option("In the making")
    expect(page.get_by_role("heading", name="Nothing fits")).to_be_visible()

    history.order("a green tide comes in [slow]")

    history.expect_status(history.card("a green tide"), "Running")
    expect(history.card("a green tide")).to_have_count(0, timeout=LIMIT_MS)
    expect(page.get_by_role("heading", name="Nothing fits")).to_be_visible()


def test_going_back_closes_the_player(history: Window) -> None:
    page = history.page
    page.get_by_role("link", name="Studio").first.click()
    page.get_by_role("link", name="History").click()
    history.card("a blue door").get_by_role("button", name="Play").click()
    expect(page.get_by_role("dialog")).to_be_visible()

    page.go_back()

    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(history.prompt).to_be_visible()


def test_many_are_saved_as_one_archive_and_deleted_at_once(history: Window) -> None:
    page = history.page
    page.get_by_role("button", name="Select").click()
    page.get_by_role("button", name="Select all shown").click()
    expect(page.locator(".chosen")).to_have_text("3 selected")

    with page.expect_download() as download:
        page.locator(".tools").get_by_role("button", name="Download").click()

    content = download.value.path().read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        names = sorted(archive.namelist())
        assert [name[:12] for name in names] == ["a-blue-door-", "a-blue-whale"]
        assert archive.read(names[0])[4:8] == b"ftyp"
    page.locator(".tools").get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_role("heading", name="Nothing here yet")).to_be_visible(timeout=LIMIT_MS)
    assert history.generations() == []


def test_what_is_deleted_elsewhere_goes_here(history: Window, new_window: NewWindow) -> None:
    elsewhere = new_window(path="/history")

    elsewhere.card("a blue door").get_by_role("button", name="Delete").click()
    elsewhere.page.get_by_role("button", name="Delete for good").click()

    expect(history.page.locator("article.card")).to_have_count(2, timeout=LIMIT_MS)


def test_one_video_is_saved_under_a_name_that_says_what_it_is(history: Window) -> None:
    with history.page.expect_download() as download:
        history.card("a blue whale").get_by_role("button", name="Download").click()

    assert download.value.suggested_filename.startswith("a-blue-whale-dives-")
    assert download.value.path().read_bytes()[4:8] == b"ftyp"


def test_markup_in_a_prompt_is_shown_and_not_obeyed(new_window: NewWindow) -> None:
    window = new_window()
    prompt = "<img src=x onerror=alert(1)><b>bold</b> words"

    card = window.make(prompt)

    window.expect_status(card, "Done")
    expect(card.locator(".script")).to_have_text(prompt)
    assert card.locator(".script *").count() == 0
    assert window.errors == []
