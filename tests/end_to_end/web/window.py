"""What a person does and sees in a browser."""

import re
from typing import Any, Literal

from playwright.sync_api import BrowserContext, ConsoleMessage, Locator, Page, expect

__all__ = ["LIMIT_MS", "WRITES", "Window", "wait_until"]

WRITES = {"X-Reelworks": "1"}
"""What a write with the page's cookie carries."""
LIMIT_MS = 30_000
"""For a machine on which much else runs."""
COUNT_STREAMS = """
  const Real = window.EventSource;
  window.streams = 0;
  window.EventSource = class extends Real {
    constructor(...given) { super(...given); window.streams += 1; }
  };
"""


class Window:
    """A browser window at the studio, in which `user` is signed in."""

    def __init__(self, context: BrowserContext, user: str) -> None:
        self.context = context
        self.user = user
        self.errors: list[str] = []
        """What the page's scripts, or the content policy, complained of."""
        context.set_default_timeout(LIMIT_MS)
        context.add_init_script(COUNT_STREAMS)
        self.page = self.new_tab()

    def new_tab(self) -> Page:
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._hear)
        return page

    def _hear(self, message: ConsoleMessage) -> None:
        # That an answer was no 200, and that the network was away, is part of some tests.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.errors.append(message.text)

    def sign_in(self) -> None:
        """Signs in without the page, which has a test of its own."""
        answer = self.context.request.post("/api/sign-in", data={"name": self.user}, headers=WRITES)
        assert answer.ok, answer.text()

    def open(self, path: str = "/") -> None:
        self.page.goto(path)
        expect(self.page.locator(".counter b")).to_have_text(re.compile(r"\d"), timeout=LIMIT_MS)

    @property
    def prompt(self) -> Locator:
        return self.page.get_by_label("What happens in it?")

    @property
    def make_button(self) -> Locator:
        return self.page.locator(".composer .make")

    def make(self, prompt: str) -> Locator:
        """Orders a video by mouse; returns its card."""
        self.prompt.fill(prompt)
        self.make_button.click()
        return self.card(prompt)

    def card(self, prompt: str) -> Locator:
        return self.page.locator("article.card").filter(has_text=prompt)

    def expect_status(self, card: Locator, status: str) -> None:
        expect(card.locator(".status")).to_contain_text(status, timeout=LIMIT_MS)

    def expect_credits(self, available: int) -> None:
        expect(self.page.locator(".counter b")).to_have_text(str(available), timeout=LIMIT_MS)

    def api(self, path: str) -> Any:
        """What the API says to this user."""
        answer = self.context.request.get(path)
        assert answer.ok, answer.text()
        return answer.json()

    def generations(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api("/api/generations?page_size=100")["generations"]
        return found

    def order(self, prompt: str, **fields: object) -> dict[str, Any]:
        """Orders a video without the page."""
        wish = {"prompt": prompt, "model": "t2v-1.3B", "resolution": "480p", **fields}
        path = "/api/generation/text-to-video"
        answer = self.context.request.post(path, data=wish, headers=WRITES)
        assert answer.ok, answer.text()
        made: dict[str, Any] = answer.json()
        return made

    def expect_end(self, generation_id: str, status: str = "COMPLETED") -> dict[str, Any]:
        """Waits, by the API, until a generation has ended."""
        generation: dict[str, Any] = {}

        def ended() -> str:
            generation.update(self.api(f"/api/generations/{generation_id}"))
            return str(generation["status"])

        wait_until(self.page, lambda: ended() in ("COMPLETED", "FAILED", "CANCELED"))
        assert generation["status"] == status
        return generation

    def prefer(self, scheme: Literal["dark", "light"]) -> None:
        self.page.emulate_media(color_scheme=scheme)


def wait_until(page: Page, holds: Any, limit_ms: int = LIMIT_MS) -> None:
    """Waits for something that only Python can see, while the browser goes on."""
    for _ in range(limit_ms // 50):
        if holds():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it did not happen in time")
