"""A body that does not come is not waited for."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.integration.web.studio import Studio, running_studio, web_settings


async def call(studio: Studio, *pieces: bytes) -> tuple[int, dict[str, str]]:
    """Sends what there is of a body, and then nothing; returns status and headers."""
    started: dict[str, Any] = {}
    waiting = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]

    async def receive() -> dict[str, Any]:
        if waiting:
            return waiting.pop(0)
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            started.update(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/sign-in",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"host", b"localhost")],
        "client": ("127.0.0.1", 4711),
    }
    async with asyncio.timeout(10):
        await studio.app(scope, receive, send)  # type: ignore[arg-type]  # It is ASGI.
    return started["status"], {k.decode(): v.decode() for k, v in started["headers"]}


@pytest.mark.parametrize("pieces", [(), (b'{"name":',), (b"{", b'"name"')])
async def test_a_body_that_stays_away_is_refused(tmp_path: Path, pieces: tuple[bytes, ...]) -> None:
    async with running_studio(web_settings(tmp_path, body_limit_s=0.2)) as studio:
        status, headers = await call(studio, *pieces)

    assert status == 408
    assert headers["content-type"] == "application/problem+json"
    assert headers["connection"] == "close"
    assert headers["x-request-id"]
