"""Pictures get into the studio by mouse, clipboard and button, or are refused with the rule."""

import base64
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.end_to_end.web.window import LIMIT_MS, Window, wait_until
from tests.pictures import make_picture

pytestmark = pytest.mark.timeout(120)

MOST_BYTES = 10 * 1024 * 1024
GIVE = """([event, kind, name, text, place]) => {
  const octets = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([octets], name, { type: kind }));
  const options = { bubbles: true, cancelable: true };
  document.querySelector(place).dispatchEvent(event === "drop"
    ? new DragEvent("drop", { ...options, dataTransfer: transfer })
    : new ClipboardEvent("paste", { ...options, clipboardData: transfer }));
}"""


def give(window: Window, event: str, name: str, content: bytes, place: str = "#prompt") -> None:
    """Drops or pastes a file, as a browser tells a page of it."""
    text = base64.b64encode(content).decode()
    window.page.evaluate(GIVE, [event, "image/png", name, text, place])


def test_a_dropped_picture_becomes_a_video(window: Window) -> None:
    page = window.page
    page.get_by_role("radio", name="A picture").check()
    window.prompt.fill("the picture comes to life")

    give(window, "drop", "sea.png", make_picture("PNG", (640, 384)), ".drop")

    expect(page.locator(".drop")).to_contain_text("640 × 384", timeout=LIMIT_MS)
    shown = page.get_by_alt_text("The picture: sea.png")
    assert shown.evaluate("picture => picture.decode().then(() => picture.naturalWidth)") > 0
    expect(page.locator("#quote")).to_contain_text("price held until")
    window.make_button.click()
    card = window.card("the picture comes to life")
    window.expect_status(card, "Done")
    (made,) = window.generations()
    assert made["kind"] == "IMAGE_TO_VIDEO"
    assert made["image_uri"].startswith("upload:")


def test_a_picture_that_is_dropped_beside_the_field_does_not_leave_the_studio(
    window: Window,
) -> None:
    give(window, "drop", "beside.png", make_picture("PNG", (320, 200)), ".set")

    expect(window.page.get_by_role("radio", name="A picture")).to_be_checked()
    expect(window.page.locator(".drop")).to_contain_text("320 × 200", timeout=LIMIT_MS)


def test_of_two_pictures_the_later_one_is_taken(window: Window) -> None:
    page = window.page
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    page.evaluate(
        "(() => { const real = createImageBitmap; window.createImageBitmap = async (file) => {"
        " if (file.name === 'large.png') await new Promise((done) => { window.release = done; });"
        " return real(file); }; })()"
    )

    give(window, "paste", "large.png", make_picture("PNG", (640, 384)))
    give(window, "paste", "small.png", make_picture("PNG", (320, 200)))

    expect(page.get_by_alt_text("The picture: small.png")).to_be_visible()
    page.evaluate("window.release()")
    expect(page.locator(".drop")).to_contain_text("320 × 200", timeout=LIMIT_MS)
    # Both had been sent when their pictures were not yet drawn.
    assert len([url for url in sent if url.endswith("/api/uploads")]) == 2


def test_a_pasted_picture_is_kept_over_a_reload_and_can_be_removed(window: Window) -> None:
    page = window.page

    give(window, "paste", "clip.png", make_picture("PNG", (320, 200)))

    expect(page.get_by_role("radio", name="A picture")).to_be_checked()
    expect(page.locator(".drop")).to_contain_text("320 × 200", timeout=LIMIT_MS)
    drafts = "JSON.stringify({...localStorage})"
    wait_until(page, lambda: "clip.png" in page.evaluate(drafts))
    page.reload()
    expect(page.get_by_alt_text("The picture: clip.png")).to_be_visible()
    page.get_by_role("button", name="Remove").click()
    expect(page.locator(".drop")).to_contain_text("Choose a picture")
    window.prompt.fill("a picture that is not there")
    window.make_button.click()
    expect(page.locator("#picture-error")).to_have_text("Choose the picture that it starts from.")


def test_one_byte_too_many_is_refused_before_it_is_sent(window: Window, tmp_path: Path) -> None:
    page = window.page
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    page.get_by_role("radio", name="A picture").check()
    file = tmp_path / "large.png"
    file.write_bytes(make_picture("PNG").ljust(MOST_BYTES + 1, b"\0"))

    page.locator("#picture").set_input_files(file)

    error = page.locator("#picture-error")
    expect(error).to_have_text(
        "large.png has 10,485,761 bytes; at most 10,485,760 (10.0 MB) can be used."
    )
    file.write_bytes(b"no picture")
    page.locator("#picture").set_input_files(file.rename(tmp_path / "words.txt"))
    expect(error).to_have_text("words.txt is not a JPEG, PNG or WebP picture.")
    assert not [url for url in sent if "upload" in url]


def test_exactly_ten_mebibytes_are_taken_and_shown_on_their_way(
    window: Window, tmp_path: Path
) -> None:
    page = window.page
    page.get_by_role("radio", name="A picture").check()
    file = tmp_path / "large.png"
    file.write_bytes(make_picture("PNG").ljust(MOST_BYTES, b"\0"))

    page.locator("#picture").set_input_files(file)

    expect(page.locator(".drop")).to_contain_text("160 × 96", timeout=LIMIT_MS)


def test_what_only_looks_like_a_picture_is_refused_by_the_service(window: Window) -> None:
    page = window.page
    page.get_by_role("radio", name="A picture").check()

    give(window, "drop", "false.png", b"\x89PNG\r\n\x1a\nno more than a beginning")

    expect(page.locator("#picture-error")).to_have_text(re.compile("picture|image", re.IGNORECASE))
    expect(page.locator(".drop")).to_contain_text("Choose a picture")
