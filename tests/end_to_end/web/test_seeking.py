"""A browser plays a stored video from any place in it, without all that comes before."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import async_playwright

from services.runtime.media import sign_media
from services.runtime.settings import split_address
from services.web.server import ConnectionLimits, WebServer, listen
from tests.integration.web.backend import MEDIA_KEY, MEDIA_URL
from tests.integration.web.studio import running_studio, web_settings
from tests.pictures import make_video
from tests.serving import free_address

KEY = "outputs/ada/video.mp4"
SEEK = """
async ([address, place]) => {
    const video = document.createElement("video");
    video.muted = true;
    video.preload = "metadata";
    const once = name => new Promise((resolve, reject) => {
        video.addEventListener(name, resolve, {once: true});
        video.addEventListener("error", () => reject(video.error.message), {once: true});
    });
    const known = once("loadedmetadata");
    video.src = address;
    document.body.append(video);
    await known;
    const sought = once("seeked");
    video.currentTime = place;
    await sought;
    const range = video.seekable;
    return [video.duration, video.currentTime, range.length && range.end(0), video.videoWidth];
}
"""


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    """Where the app is served as in production, with one video."""
    file = tmp_path / "media" / KEY
    file.parent.mkdir(parents=True)
    make_video(file, frames=160, size=(320, 192))
    storage_url = (tmp_path / "media").as_uri()
    host_and_port = free_address()
    settings = web_settings(tmp_path, storage_url=storage_url, media_url=MEDIA_URL)
    async with running_studio(settings) as studio:
        server = WebServer(studio.app, ConnectionLimits(), grace_s=2)
        serving = asyncio.create_task(server.serve([listen(*split_address(host_and_port))]))
        yield f"http://{host_and_port}"
        server.should_exit = True
        await serving


async def test_chromium_seeks_in_a_video(address: str) -> None:
    signed = urlsplit(sign_media(MEDIA_URL, KEY, MEDIA_KEY, datetime.now(UTC)))
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    answers: list[tuple[int, str | None]] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=arguments)
        page = await browser.new_page()
        page.on(
            "response",
            lambda answer: answers.append((answer.status, answer.headers.get("content-range"))),
        )
        await page.goto(f"{address}/healthz/live")

        found: Any = await page.evaluate(SEEK, [f"{signed.path}?{signed.query}", 8.0])
        await browser.close()

    duration_s, place_s, seekable_s, width = found
    assert duration_s == pytest.approx(10, abs=0.2)
    assert place_s == pytest.approx(8, abs=0.1)
    assert seekable_s == pytest.approx(duration_s)
    assert width == 320
    assert 206 in {status for status, _ in answers}
