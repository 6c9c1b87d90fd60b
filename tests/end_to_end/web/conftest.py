"""A browser for the tests of a module, and a window of its own for each of them."""

import itertools
import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from tests.end_to_end.running import Running
from tests.end_to_end.web.window import Window

_numbers = itertools.count(1)

NewWindow = Callable[..., Window]
"""Signs a user in, in a browser of their own; keywords are the context's."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's chromium. Only for a module: no asynchronous test can run while it is there."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    # Its sandbox does not run as root, in a container for example.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def user() -> str:
    """Each test has a user of its own, on whatever stack."""
    return f"web-{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def new_window(browser: Browser, stack: Running, user: str) -> Iterator[NewWindow]:
    contexts: list[BrowserContext] = []

    def open_window(who: str = user, path: str = "/", **options: object) -> Window:
        context = browser.new_context(
            base_url=stack.up_file.addresses["web"],
            **{"viewport": {"width": 1280, "height": 900}, **options},  # type: ignore[arg-type]
        )
        contexts.append(context)
        window = Window(context, who)
        window.sign_in()
        window.open(path)
        return window

    yield open_window
    for context in contexts:
        context.close()


@pytest.fixture
def window(new_window: NewWindow) -> Iterator[Window]:
    """The studio, with the test's user signed in; nothing on it may go wrong unheard."""
    opened = new_window()
    yield opened
    assert opened.errors == []
