"""The words of the page, and what it keeps in mind, as vectors: its modules called one by one."""

import re
from typing import Any

import pytest
from playwright.sync_api import Page
from reelworks.generation.v1 import generation_pb2

from tests.end_to_end.web.conftest import NewWindow
from tests.end_to_end.web.window import Window, wait_until

pytestmark = pytest.mark.timeout(120)

NEW = {
    "generation_id": "g", "version": 1, "status": "QUEUED", "stage": "READY",
    "progress_percent": 0, "cost_credits": 10, "charged_credits": 0, "queue_position": None,
    "submit_time": None, "start_time": None, "media_remove_time": None, "delete_time": None,
    "create_time": "2026-07-01T12:00:00Z",
}  # fmt: skip
TIME = "2026-07-01T12:00:00Z"
RUNNING = {"status": "PROCESSING", "stage": "RUNNING", "submit_time": TIME}


@pytest.fixture(scope="module")
def page(browser: Any, stack: Any) -> Any:
    """A page of the studio's origin, with nobody signed in."""
    context = browser.new_context(base_url=stack.up_file.addresses["web"])
    page = context.new_page()
    page.goto("/")
    yield page
    context.close()


def call(page: Page, module: str, expression: str, *values: object) -> Any:
    """Evaluates with a module of the page as `m` and values as `v`."""
    script = f"""async ([name, v]) => {{
      const main = document.querySelector('script[type=module]').src;
      const m = await import(new URL(name, main).href);
      return {expression};
    }}"""
    return page.evaluate(script, [f"./{module}.js", list(values)])


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"stage": "RESERVING"}, "Queued · setting the credits aside"),
        ({}, "Queued in our queue"),
        ({"queue_position": 1}, "Queued · next in our queue"),
        ({"queue_position": 7}, "Queued · place 7 in our queue"),
        ({"stage": "SUBMITTING"}, "Queued · being handed to the model"),
        (RUNNING, "Waiting in the provider’s queue"),
        ({**RUNNING, "start_time": TIME}, "Running"),
        ({**RUNNING, "start_time": TIME, "progress_percent": 42}, "Running · 42 %"),
        ({**RUNNING, "stage": "CANCELING"}, "Canceling"),
        ({**RUNNING, "stage": "ARCHIVING"}, "Saving the video"),
        ({**RUNNING, "stage": "COMMITTING"}, "Saving the video"),
        ({**RUNNING, "stage": "REFUNDING"}, "Giving the credits back"),
        ({**RUNNING, "stage": "PARKED"}, "On hold · somebody has to look at it"),
        ({"status": "COMPLETED", "stage": "COMPLETED"}, "Done"),
        ({"status": "FAILED", "stage": "FAILED"}, "Failed"),
        ({"status": "CANCELED", "stage": "CANCELED"}, "Canceled"),
    ],
)
def test_one_line_says_where_it_is_and_whose_queue_it_waits_in(
    page: Page, changes: dict[str, object], line: str
) -> None:
    assert call(page, "words", "m.statusLine(v[0])", {**NEW, **changes}) == line


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"stage": "RESERVING"}, "10 credits are being reserved"),
        ({}, "10 credits reserved"),
        ({"status": "COMPLETED", "charged_credits": 10}, "reserved 10 → charged 10"),
        ({"status": "CANCELED", "charged_credits": 4}, "reserved 10 → charged 4, refunded 6"),
        ({"status": "FAILED"}, "reserved 10 → refunded 10"),
        ({"status": "FAILED", "stage": "REJECTED"}, "nothing was reserved, nothing charged"),
    ],
)
def test_one_line_says_what_became_of_the_credits(
    page: Page, changes: dict[str, object], line: str
) -> None:
    assert call(page, "words", "m.moneyLine(v[0])", {**NEW, **changes}) == line


@pytest.mark.parametrize(
    ("likely_s", "latest_s", "line"),
    [
        (-5, -1, "any moment now"),
        (1, 3, "in less than 3 s"),
        (4, 9, "about 4–9 s"),
        (22, 58, "about 20–60 s"),
        (20, 100, "in less than 2 min"),
        (110, 235, "about 2–4 min"),
        (170, 178, "about 3 min"),
    ],
)
def test_an_estimate_is_a_span_that_people_say(
    page: Page, likely_s: int, latest_s: int, line: str
) -> None:
    script = """m.etaLine({ likely_time: new Date(v[0] * 1000).toISOString(),
                            latest_time: new Date(v[1] * 1000).toISOString() }, 0)"""

    assert call(page, "words", script, likely_s, latest_s) == line


def test_every_problem_of_the_services_has_a_sentence_for_people(page: Page) -> None:
    reasons = generation_pb2.ErrorReason.keys()
    statuses = [401, 403, 404, 409, 413, 415, 422, 429, 500, 502, 503, 504, 0]

    for problem in (
        *({"code": reason, "status": 409, "trace_id": "t"} for reason in reasons),
        *({"code": "", "status": status, "trace_id": "t"} for status in statuses),
        {"code": "OFFLINE", "status": 0},
        {"code": "UNREACHABLE", "status": 0},
    ):
        sentence = call(page, "words", "m.explain(v[0])", problem)
        assert re.fullmatch(r"[A-Z].*\.", sentence), (problem, sentence)
        assert not re.search("undefined|NaN|null", sentence)


def test_no_two_clicks_have_the_same_key(page: Page) -> None:
    keys = call(page, "api", "Array.from({ length: 200 }, () => m.newKey())")

    assert len(set(keys)) == 200
    assert all(re.fullmatch("[0-9]+(-[0-9]+){3}", key) for key in keys)
    assert max(int(part) for key in keys for part in key.split("-")) > 2**31


def test_what_is_said_of_a_call_without_a_network_promises_nothing(page: Page) -> None:
    said = call(page, "words", "m.explain(v[0])", {"status": 0, "code": "OFFLINE"})

    assert said == "You are offline. Nothing was done; try again when you are back."


def test_an_older_version_never_replaces_a_newer_one_nor_brings_back_what_was_deleted(
    page: Page,
) -> None:
    script = """(() => {
      const put = (version, status) => m.takeGeneration({ ...v[0], version, status });
      put(3, "PROCESSING"); put(2, "QUEUED");
      const first = m.generation("g").status;
      put(3, "COMPLETED");
      const second = m.generation("g").status;
      m.takeRemoved("g"); put(9, "COMPLETED");
      return [first, second, m.generation("g")];
    })()"""

    assert call(page, "store", script, NEW) == ["PROCESSING", "COMPLETED", None]


def test_a_silent_stream_is_given_up_and_another_one_opened(new_window: NewWindow) -> None:
    window = new_window()
    page = window.page
    wait_until(page, lambda: page.evaluate("window.streams") == 1)
    page.clock.install()
    page.reload()
    wait_until(page, lambda: page.evaluate("window.streams") == 1)
    window.expect_credits(100)

    page.clock.fast_forward(80_000)

    wait_until(page, lambda: page.evaluate("window.streams") == 2)


def test_a_video_that_ends_unseen_shows_in_title_and_icon(new_window: NewWindow) -> None:
    window: Window = new_window()
    page = window.page
    made = window.order("a cat that nobody looks at [slow]")
    window.expect_status(window.card("a cat"), "Running")
    page.evaluate("Object.defineProperty(document, 'hidden', { configurable: true, value: true })")

    window.expect_end(made["generation_id"])

    wait_until(page, lambda: page.title() == "(1 ended) Studio · Reelworks")
    icon = page.locator('link[rel="icon"]')
    assert str(icon.get_attribute("href")).endswith("icon-done.svg")
    page.evaluate("delete document.hidden")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    assert page.title() == "Studio · Reelworks"
    assert str(icon.get_attribute("href")).endswith("icon.svg")
