"""Readers of the event stream over real connections, and the web service as a process."""

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from services.web.server import ConnectionLimits, WebServer, listen
from services.web.settings import WebSettings
from tests.integration.generation.harness import eventually
from tests.integration.web.studio import Studio, running_studio

LIMIT_S = 30.0
GRACE_S = 2.0


@dataclass(frozen=True)
class Event:
    """One event as a browser gets it."""

    name: str
    data: Any
    event_id: str


@dataclass
class EventStream:
    """An open stream, and what the page that reads it knows."""

    headers: httpx.Headers
    events: list[Event] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    generations: dict[str, dict[str, Any]] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    balance: dict[str, Any] | None = None
    retry_ms: int | None = None
    last_event_id: str = ""
    has_ended: bool = False

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.events]

    async def read(self, answer: httpx.Response) -> None:
        lines: list[str] = []
        with contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError):
            async for line in answer.aiter_lines():
                if line:
                    lines.append(line)
                else:
                    self._take(lines)
                    lines = []
        self.has_ended = True

    def _take(self, lines: list[str]) -> None:
        fields: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            if not name:
                self.comments.append(value.strip())
            fields[name] = value.removeprefix(" ")
        if "retry" in fields:
            self.retry_ms = int(fields["retry"])
        self.last_event_id = fields.get("id", self.last_event_id)
        if "event" not in fields:
            return
        event = Event(fields["event"], json.loads(fields["data"]), fields.get("id", ""))
        self.events.append(event)
        match event.name:
            case "generation":
                known = self.generations.get(event.data["generation_id"])
                if known is None or known["version"] <= event.data["version"]:
                    self.generations[event.data["generation_id"]] = event.data
            case "removed":
                self.removed.add(event.data["generation_id"])
                self.generations.pop(event.data["generation_id"], None)
            case "balance":
                self.balance = event.data
            case "reset":
                self.generations.clear()

    async def has(self, holds: Callable[["EventStream"], object], limit_s: float = LIMIT_S) -> None:
        """Waits until something is so."""

        async def does() -> bool:
            return bool(holds(self))

        await eventually(does, limit_s)

    async def knows(self, *generation_ids: str) -> None:
        await self.has(lambda stream: set(generation_ids) <= set(stream.generations))


@contextlib.asynccontextmanager
async def opened_stream(
    client: httpx.AsyncClient, last_event_id: str | None = None, **headers: str
) -> AsyncIterator[EventStream]:
    """Gives a stream that is being read until the body has ended."""
    if last_event_id is not None:
        headers["Last-Event-ID"] = last_event_id
    async with client.stream("GET", "/api/events", headers=headers) as answer:
        assert answer.status_code == 200, (await answer.aread()).decode()
        stream = EventStream(answer.headers)
        reading = asyncio.create_task(stream.read(answer))
        try:
            yield stream
        finally:
            reading.cancel()
            await asyncio.wait([reading])


def client_of(url: str, studio_token: str = "") -> httpx.AsyncClient:
    """Returns a program that calls the web service at `url`."""
    headers = {"Authorization": f"Bearer {studio_token}"} if studio_token else {}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    timeout = httpx.Timeout(LIMIT_S, read=None)
    return httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=timeout)


@contextlib.asynccontextmanager
async def served_studio(settings: WebSettings) -> AsyncIterator[tuple[Studio, str]]:
    """Gives a web service with a port, and its address."""
    async with running_studio(settings) as studio:
        with listen("127.0.0.1", 0) as listener:
            # Small, so that a reader who stands still is noticed soon.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
            server = WebServer(studio.app, ConnectionLimits(), GRACE_S)
            serving = asyncio.create_task(server.serve([listener]))
            try:
                yield studio, f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.should_exit = True
                await serving


@contextlib.asynccontextmanager
async def web_process(
    settings: WebSettings, log: Path
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Gives a process that serves, once it is ready, and its address."""
    given = {
        f"REELWORKS_{name.upper()}": str(value)
        for name, value in settings.model_dump(exclude_none=True, exclude_defaults=True).items()
    }
    environment = {k: v for k, v in os.environ.items() if not k.startswith("REELWORKS_")}
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.web"),
            env=environment | given,
            stdout=output,
            stderr=output,
        )
    url = f"http://{settings.address}"
    try:

        async def ready() -> bool:
            assert process.returncode is None, log.read_text()  # noqa: ASYNC240
            with contextlib.suppress(httpx.TransportError):
                return (await client.get("/healthz/live")).is_success
            return False

        async with client_of(url) as client:
            await eventually(ready, LIMIT_S)
        yield process, url
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
