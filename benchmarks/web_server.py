"""Runs one variant of the event stream as a process: `python -m benchmarks.web_server VARIANT`."""

import asyncio
import itertools
import json
import os
import sys
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import uvloop
from fastapi import FastAPI
from fastapi.sse import EventSourceResponse, ServerSentEvent

from services.runtime.settings import load_settings, split_address
from services.runtime.telemetry import configure_log
from services.web import hub, wiring
from services.web.__main__ import serve
from services.web.server import ConnectionLimits, WebServer, listen
from services.web.settings import WebSettings

__all__ = ["EVENTS_PER_S", "NAIVE", "NOOP", "WEB"]

WEB, NAIVE, NOOP = "web", "naive", "noop"
EVENTS_PER_S = "BENCH_EVENTS_PER_S"
EVENT_BYTES = 1100
GRACE_S = 1.0
CONNECTIONS_MAX = 100_000


class NaiveHub(hub.Hub):
    """Watches the services once for each connection, not once for each user."""

    def __init__(self, *arguments: Any, users_max: int) -> None:
        super().__init__(*arguments, users_max=users_max, linger_s=0.0)

    def _watch(self, user_id: str) -> Any:
        return self._new_watch(user_id)


def noop_app(draining: asyncio.Event, events_per_s: float) -> FastAPI:
    """Returns an app that streams events of a usual size to one connection after another."""
    app = FastAPI()
    app.state.parts = SimpleNamespace(draining=draining)
    queues: list[asyncio.Queue[str]] = []

    async def publish() -> None:
        for number in itertools.count():
            await asyncio.sleep(1 / events_per_s)
            if queues:
                now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
                event = {"generation_id": str(number), "prompt": "x" * EVENT_BYTES}
                content: dict[str, object] = {**event, "update_time": now, "version": 1}
                data = json.dumps(content, separators=(",", ":"))
                queues[number % len(queues)].put_nowait(data)

    publishing = asyncio.create_task(publish())

    @app.get("/api/events", response_class=EventSourceResponse)
    async def stream() -> AsyncGenerator[ServerSentEvent]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        queues.append(queue)
        yield ServerSentEvent(event="balance", raw_data="{}", id="0.0")
        while not publishing.done():
            yield ServerSentEvent(event="generation", raw_data=await queue.get(), id="0.0")

    @app.get("/healthz/ready")
    async def ready() -> None:
        return None

    return app


async def serve_noop(address: str) -> None:
    """Serves the app that does nothing until the process is killed."""
    app = noop_app(asyncio.Event(), float(os.environ[EVENTS_PER_S]))
    with listen(*split_address(address)) as listener:
        limits = ConnectionLimits(connections_max=CONNECTIONS_MAX)
        await WebServer(app, limits, GRACE_S).serve([listener])


def main() -> None:
    """Serves until the process is killed."""
    variant = sys.argv[1]
    configure_log("web", level="ERROR")
    if variant == NOOP:
        uvloop.run(serve_noop(os.environ["REELWORKS_ADDRESS"]))
        return
    if variant == NAIVE:
        vars(wiring)["Hub"] = NaiveHub
    uvloop.run(serve(load_settings(WebSettings), asyncio.Event()))


if __name__ == "__main__":
    main()
