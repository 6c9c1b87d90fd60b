"""The web app on real services, as people and programs call it."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI

from services.web.parts import Parts
from tests.integration.web.backend import Backend
from tests.integration.web.studio import Studio

USER = "ada"
OTHER = "eve"
PROMPT = "a red fox running through fresh snow"
WAIT_S = 20.0

T = TypeVar("T")


@dataclass(frozen=True)
class Api:
    """The API of a web service, and what is behind it."""

    studio: Studio
    services: Backend
    http: httpx.AsyncClient
    """Signed in as nobody."""

    @property
    def app(self) -> FastAPI:
        return self.studio.app

    @property
    def parts(self) -> Parts:
        return self.studio.parts

    def token(self, user: str) -> str:
        return self.studio.token(user)

    async def call(
        self,
        method: str,
        path: str,
        *,
        user: str = USER,
        headers: dict[str, str] | None = None,
        **content: Any,
    ) -> httpx.Response:
        """Calls as a program of `user` does."""
        authorization = {"Authorization": f"Bearer {self.token(user)}"}
        return await self.http.request(
            method, path, headers=authorization | (headers or {}), **content
        )

    async def get(self, path: str, **options: Any) -> httpx.Response:
        return await self.call("GET", path, **options)

    async def post(self, path: str, **options: Any) -> httpx.Response:
        return await self.call("POST", path, **options)

    async def create(self, *, key: str | None = None, **changes: Any) -> httpx.Response:
        """Starts a video from a prompt."""
        headers = {} if key is None else {"Idempotency-Key": key}
        user = changes.pop("user", USER)
        return await self.post(
            "/api/generation/text-to-video",
            user=user,
            headers=headers | {"Content-Type": "application/json"},
            # Not httpx's JSON, which has no room for what is no text.
            content=json.dumps(wish(**changes)),
        )

    async def created(self, **changes: Any) -> str:
        """The id of a new generation."""
        answer = await self.create(**changes)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["generation_id"])

    async def reaches(self, generation_id: str, *statuses: str, user: str = USER) -> Any:
        """A generation once it has one of these statuses."""

        async def reached() -> Any:
            answer = await self.get(f"/api/generations/{generation_id}", user=user)
            if answer.status_code in (503, 504):
                return None  # A machine that is busy; nothing is lost by asking again.
            now = answer.json()
            assert now["finish_time"] is None or now["status"] in statuses, now
            return now if now["status"] in statuses else None

        return await eventually(reached)

    async def balance(self, user: str = USER) -> tuple[int, int]:
        answer = (await self.get("/api/credits", user=user)).json()
        return answer["available_credits"], answer["reserved_credits"]


def wish(**changes: Any) -> dict[str, Any]:
    """The body of a good create, without what is None."""
    body = {"prompt": PROMPT, "model": "t2v-1.3B", "resolution": "480p"} | changes
    return {name: value for name, value in body.items() if value is not None}


def refused(answer: httpx.Response, status: int, code: str) -> Any:
    """The problem of an answer that must be one."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (status, code), problem
    assert problem["title"]
    assert problem["detail"]
    assert problem["trace_id"]
    return problem


def pointers(answer: httpx.Response) -> list[str]:
    """The fields that a refusal names."""
    return [error["pointer"] for error in answer.json()["errors"]]


async def eventually(found: Callable[[], Awaitable[T | None]], limit_s: float = WAIT_S) -> T:
    """Returns what `found` finds; fails when it finds nothing in time."""
    end = time.monotonic() + limit_s
    while True:
        result = await found()
        if result is not None:
            return result
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.02)
