"""Takes the pictures of the studio in docs/images: `make screenshots`."""

import json
import os
import re
import shutil
import tempfile
import urllib.request
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from tests.end_to_end.running import HURRIED, Running, start
from tests.end_to_end.web.window import WRITES, Window, wait_until

IMAGES = Path(__file__).parents[3] / "docs" / "images"
BYTES_MAX = 250_000
DESKTOP = {"width": 1280, "height": 820}
PHONE = {"width": 390, "height": 844}
MADE = (
    ("An old tram climbs a steep street in the rain, neon in the puddles", 11),
    ("Jellyfish drift like lampshades through black water, slow pan upwards", 5),
    ("Steam curls from a cup of tea by a window, first light, macro", 21),
    ("A dancer on a rooftop at golden hour, handheld, 35 mm", 3),
    ("A paper boat drifts down a rain-soaked street at night, low angle", 8),
    ("Slow dolly through a paper city at dusk, lanterns lit one by one", 14),
)
FAILED = "A kite without a string rises over a frozen lake, wide shot"
CANCELED = "Two chess players in a park, time lapse from noon to night"
RUNNING = "A glass whale swims over a sleeping town, blue hour, aerial shot"
WRITTEN = "A red fox runs through fresh snow at dawn, slow tracking shot, breath in the cold air"
FULL_PRICE = {"model": "t2v-14B", "resolution": "720p"}


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    program = shutil.which("chromium")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with (
        tempfile.TemporaryDirectory() as folder,
        # Slow enough to be seen at work, quick enough to wait for.
        start(Path(folder) / "var", "--speed", "8", **HURRIED) as stack,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        take(browser, stack)
        browser.close()


def take(browser: Browser, stack: Running) -> None:
    window = open_window(browser, stack, DESKTOP)
    assert stack.run("credits", "grant", "100", "--user", window.user).returncode == 0
    live_a_day(window, stack)
    window.open()
    window.order(RUNNING, **FULL_PRICE)
    window.page.get_by_label(re.compile("14B")).check()
    window.prompt.fill(WRITTEN)
    window.prompt.blur()
    wait_until(window.page, lambda: is_well_under_way(window), 120_000)
    phone = open_window(browser, stack, PHONE)
    phone.page.locator(".making .card").wait_for()
    phone.page.evaluate("document.querySelector('.set').scrollIntoView()")
    save(phone, "studio-phone")
    window.page.locator("#quote").filter(has_text="price held").wait_for()
    for scheme in ("dark", "light"):
        window.prefer(scheme)
        save(window, f"studio-{scheme}")
    window.prefer("dark")
    for path, ready in (("history", "article.card img"), ("statement", ".proof")):
        window.open(f"/{path}")
        window.page.locator(ready).first.wait_for()
        save(window, path)


def live_a_day(window: Window, stack: Running) -> None:
    """Leaves a history behind: videos, a failure, a change of mind."""
    for prompt, seed in MADE[:3]:
        window.expect_end(window.order(prompt, model="t2v-14B", seed=seed)["generation_id"])
    break_next(stack)
    window.expect_end(window.order(FAILED)["generation_id"], "FAILED")
    for prompt, seed in MADE[3:5]:
        window.expect_end(window.order(prompt, model="t2v-14B", seed=seed)["generation_id"])
    regretted = window.order(CANCELED, **FULL_PRICE)["generation_id"]
    cancel = f"/api/generations/{regretted}/cancel"
    assert window.context.request.post(cancel, headers=WRITES).ok
    window.expect_end(regretted, "CANCELED")
    prompt, seed = MADE[5]
    window.expect_end(window.order(prompt, model="t2v-14B", seed=seed)["generation_id"])


def break_next(stack: Running) -> None:
    fault = {"action": {"kind": "fail", "error": "CUDA out of memory"}}
    request = urllib.request.Request(  # noqa: S310  The simulator's.
        f"{stack.up_file.addresses['control']}/control/faults",
        data=json.dumps(fault).encode(),
        headers={"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=30).close()  # noqa: S310


def is_well_under_way(window: Window) -> bool:
    return any(
        one["status"] == "PROCESSING" and 25 <= one["progress_percent"] < 60
        for one in window.generations()
    )


def open_window(browser: Browser, stack: Running, size: dict[str, int]) -> Window:
    context = browser.new_context(
        base_url=stack.up_file.addresses["web"],
        viewport=size,  # type: ignore[arg-type]
        color_scheme="dark",
        reduced_motion="reduce",
        locale="en-GB",
    )
    window = Window(context, "demo")
    window.sign_in()
    window.open()
    return window


def save(window: Window, name: str) -> None:
    """Writes a picture of what is shown, in fewer colours if it would be too large."""
    file = IMAGES / f"{name}.png"
    window.page.wait_for_timeout(600)  # Posters are decoded after they are there.
    window.page.screenshot(path=file)
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    for bits_left_out in range(1, 5):
        if file.stat().st_size < BYTES_MAX:
            break
        mask = 0xFF << bits_left_out & 0xFF
        coarser = picture.point([value & mask for value in range(256)] * 3)
        coarser.save(file, optimize=True)
    size = file.stat().st_size
    assert size < BYTES_MAX, f"{file} has {size} bytes"


if __name__ == "__main__":
    main()
