"""The web service inside a test, and browsers that talk to it without a network between."""

import base64
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from services.web.app import create_app
from services.web.development import development_key, development_token, person_named
from services.web.parts import Parts
from services.web.settings import WebSettings
from services.web.wiring import wired
from tests.integration.generation.harness import eventually
from tests.integration.web.backend import MEDIA_URL, Backend
from tests.serving import free_address

ORIGIN = "http://studio.example"
SESSION_KEY = b"s" * 32
MEDIA_KEY = b"m" * 32
RATE_MAX = 1_000_000


async def until(holds: Callable[[], bool]) -> None:
    """Returns when something is so; fails when it is not so in time."""

    async def ask() -> bool:
        return holds()

    await eventually(ask)


@dataclass
class Studio:
    """A web service, wired as in production."""

    app: FastAPI
    parts: Parts
    _clients: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def client(self, address: str = "127.0.0.1", **headers: str) -> httpx.AsyncClient:
        """Returns somebody who is not signed in."""
        transport = httpx.ASGITransport(
            self.app, client=(address, 4711), raise_app_exceptions=False
        )
        return await self._clients.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers=headers)
        )

    async def browser(self, name: str = "ada") -> httpx.AsyncClient:
        """Returns the page of somebody who signed in."""
        client = await self.client(**{"X-Reelworks": "1"})
        answer = await client.post("/api/sign-in", json={"name": name})
        assert answer.status_code == 200, answer.text
        return client

    async def program(self, name: str = "ada") -> httpx.AsyncClient:
        """Returns a program of somebody, with an access token."""
        return await self.client(Authorization=f"Bearer {self.token(name)}")

    def token(self, name: str = "ada") -> str:
        return token_of(self.parts.settings, name)

    async def close(self) -> None:
        await self._clients.aclose()


def token_of(settings: WebSettings, name: str) -> str:
    """Returns an access token of somebody, as development gives it."""
    person = person_named(name)
    assert person is not None
    return development_token(development_key(settings.development_key_file), person)


def web_settings(folder: Path, **changes: Any) -> WebSettings:
    """Returns settings with keys in `folder`, and services that nobody runs."""
    for name, key in (("session_keys", SESSION_KEY), ("callback_keys", MEDIA_KEY)):
        (folder / name).write_bytes(base64.b64encode(key) + b"\n")
    given: dict[str, Any] = {
        "address": "127.0.0.1:0",
        "credits_address": free_address(),
        "generation_address": free_address(),
        "callback_keys_file": folder / "callback_keys",
        "session_keys_file": folder / "session_keys",
        "development_key_file": folder / "development_key",
        "public_url": ORIGIN,
        "sign_in": "development",
        "drain_s": 0,
        "grace_s": 2,
    }
    return WebSettings(**(given | changes))


def settings_before(folder: Path, services: Backend, **changes: Any) -> WebSettings:
    """Returns settings of a web service before `services`, whose rates are in nobody's way."""
    given: dict[str, Any] = {
        "credits_address": services.credits.address,
        "generation_address": services.generation_address,
        "callback_keys_file": services.keys_file,
        "storage_url": services.files.as_uri(),
        "media_url": MEDIA_URL,
        "creates_per_minute": RATE_MAX,
        "uploads_per_minute": RATE_MAX,
        "calls_per_minute": RATE_MAX,
    }
    return web_settings(folder, **(given | changes))


@contextlib.asynccontextmanager
async def running_studio(settings: WebSettings) -> AsyncIterator[Studio]:
    async with wired(settings) as parts:
        studio = Studio(create_app(parts), parts)
        try:
            yield studio
        finally:
            await studio.close()
