"""What the tests of the webhook service share: signed events, a door to knock at, a generation."""

import asyncio
import base64
import contextlib
import hashlib
import socket
import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import grpc
import standardwebhooks
from aiohttp import web
from reelworks.generation.v1 import prediction_event_pb2, prediction_event_pb2_grpc
from sqlalchemy import select
from sqlalchemy.engine import make_url

from services.runtime.callback import Verdict, sign_query
from services.runtime.channel import connect
from services.runtime.database import Database, open_database
from services.runtime.metrics import PREFIX, Metrics
from services.webhook.forwarder import DEADLINES_S, MESSAGE_BYTES_MAX, Forwarder, Timing
from services.webhook.inbox import Inbox, ReceivedEvent
from services.webhook.ingress import WEBHOOK_PATH, Ingress, Limits
from services.webhook.metrics import WebhookMetrics
from services.webhook.secret_source import SecretSource
from services.webhook.signature import Secret
from services.webhook.tables import inbox

KEY = bytes(range(1, 25))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
CALLBACK_KEY = bytes(range(32))
ENVIRONMENT = "local"
Disposition = prediction_event_pb2.DeliverPredictionEventResponse.Disposition


def headers_of(
    body: bytes, webhook_id: str, *, key: bytes = KEY, age_s: float = 0
) -> dict[str, str]:
    """Returns the headers of an event that somebody else's library signed."""
    signed_at = datetime.fromtimestamp(int(time.time() - age_s), UTC)
    signature = standardwebhooks.Webhook(key).sign(
        webhook_id, signed_at.replace(tzinfo=None), body.decode()
    )
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(signed_at.timestamp())),
        "webhook-signature": signature,
    }


def good_query(attempt: int = 1, environment: str = ENVIRONMENT) -> str:
    return sign_query(CALLBACK_KEY, environment, str(uuid.uuid4()), attempt)


def received(
    webhook_id: str = "", body: bytes = b"{}", generation_id: str = "", attempt: int = 0
) -> ReceivedEvent:
    """Returns an event as the ingress hands it to the inbox."""
    now = datetime.now(UTC)
    return ReceivedEvent(
        webhook_id=webhook_id or f"msg_{uuid.uuid4().hex}",
        body=body,
        headers=[("webhook-id", webhook_id), ("user-agent", "test")],
        query="",
        query_verdict=(Verdict.GOOD if generation_id else Verdict.MISSING).value,
        generation_id=generation_id,
        attempt=attempt,
        secret_number=0,
        signed_at=now,
        received_at=now,
    )


async def eventually(
    condition: Callable[[], Awaitable[Any]] | Callable[[], Any], limit_s: float = 30
) -> Any:
    """Returns what `condition` does as soon as it is true; fails after `limit_s`."""
    ends_at = time.monotonic() + limit_s
    while True:
        found = condition()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        assert time.monotonic() < ends_at, "it did not happen in time"
        await asyncio.sleep(0.02)


async def rows(database: Database) -> list[dict[str, Any]]:
    async with database.read() as connection:
        found = await connection.execute(select(inbox).order_by(inbox.c.sequence))
        return [dict(row) for row in found.mappings()]


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = open_database(url)
    try:
        yield database
    finally:
        await database.close()


@contextlib.contextmanager
def locked(url: str) -> Iterator[None]:
    """Holds the write lock of a SQLite file, so that nothing can be stored."""
    other = sqlite3.connect(str(make_url(url).database), isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        yield
    finally:
        other.close()


@contextlib.asynccontextmanager
async def opened_inbox(database: Database, **options: Any) -> AsyncIterator[Inbox]:
    """An inbox that writes."""
    arrived = asyncio.Event()
    box = Inbox(database, arrived, **options)
    writing = asyncio.create_task(box.run())
    try:
        yield box
    finally:
        box.close()
        await writing


@dataclass
class Door:
    """A running ingress."""

    port: int
    database: Database
    inbox: Inbox
    ingress: Ingress
    secrets: SecretSource

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{WEBHOOK_PATH}"

    async def rows(self) -> list[dict[str, Any]]:
        return await rows(self.database)

    async def knock(self, request: bytes, limit_s: float = 30) -> tuple[int, str, bytes]:
        """Returns status, head and body of the answer to raw bytes; waits until it closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            async with asyncio.timeout(limit_s):
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(
                    next(
                        line.split(":")[1]
                        for line in head.splitlines()
                        if line.lower().startswith("content-length:")
                    )
                )
                return int(head.split()[1]), head, await reader.readexactly(length)
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def opened_door(
    url: str,
    limits: Limits | None = None,
    *,
    secrets: SecretSource | None = None,
    metrics: Metrics | None = None,
    **options: Any,
) -> AsyncIterator[Door]:
    measures = WebhookMetrics(metrics)
    secrets = secrets or SecretSource((Secret(0, KEY),))
    async with opened(url) as database, opened_inbox(database, **options) as box:
        ingress = Ingress(
            box, secrets, [CALLBACK_KEY], ENVIRONMENT, limits=limits, metrics=measures
        )
        port = await ingress.start("127.0.0.1", 0)
        try:
            yield Door(port, database, box, ingress, secrets)
        finally:
            await ingress.stop()


def counted(metrics: Metrics, name: str) -> int:
    """Returns what a counter without labels has counted."""
    return int(metrics.registry.get_sample_value(PREFIX + name) or 0)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


Key = tuple[str, str, str, int]
Reply = Callable[[prediction_event_pb2.DeliverPredictionEventRequest, int], Awaitable[Any]]
"""Gets a request and how often its event was asked about; returns a disposition or a status."""


async def _applies(request: Any, times: int) -> int:
    del request
    return Disposition.APPLIED if times == 1 else Disposition.DUPLICATE


@dataclass
class FakeGeneration(prediction_event_pb2_grpc.PredictionEventServiceServicer):
    """A generation service that records events by the key of the contract."""

    reply: Reply = _applies
    calls: Counter[Key] = field(default_factory=Counter)
    requests: list[Any] = field(default_factory=list)
    in_flight: int = 0
    in_flight_most: int = 0

    async def DeliverPredictionEvent(self, request: Any, context: Any) -> Any:  # noqa: N802
        digest = hashlib.sha256(request.payload).hexdigest()
        key = (request.webhook_id, digest, request.generation_id, request.attempt)
        self.calls[key] += 1
        self.requests.append(request)
        self.in_flight += 1
        self.in_flight_most = max(self.in_flight_most, self.in_flight)
        try:
            answer = await self.reply(request, self.calls[key])
        finally:
            self.in_flight -= 1
        if isinstance(answer, grpc.StatusCode):
            await context.abort(answer, "as the test wants")
        return prediction_event_pb2.DeliverPredictionEventResponse(disposition=answer)


@contextlib.asynccontextmanager
async def serving(generation: FakeGeneration, port: int = 0) -> AsyncIterator[int]:
    """Serves a fake generation and gives its port."""
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ]
    )
    prediction_event_pb2_grpc.add_PredictionEventServiceServicer_to_server(generation, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(0)


@dataclass
class FakeReplicate:
    """The one path of Replicate's API that the webhook service asks."""

    status: int = 200
    text: str = f'{{"key": "{SECRET}"}}'
    location: str = ""
    tokens: list[str] = field(default_factory=list)
    port: int = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.tokens.append(request.headers["Authorization"])
        headers = {"Location": self.location} if self.location else None
        return web.Response(status=self.status, text=self.text, headers=headers)


@contextlib.asynccontextmanager
async def serving_replicate(replicate: FakeReplicate) -> AsyncIterator[FakeReplicate]:
    application = web.Application()
    application.router.add_get("/v1/webhooks/default/secret", replicate.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        replicate.port = runner.addresses[0][1]
        yield replicate
    finally:
        await runner.cleanup()


@dataclass
class Replica:
    """An inbox and its forwarder."""

    inbox: Inbox
    forwarder: Forwarder
    delivering: asyncio.Task[None]


@contextlib.asynccontextmanager
async def forwarding(database: Database, port: int, timing: Timing) -> AsyncIterator[Replica]:
    """An inbox whose events are delivered to a port; ends without waiting for calls in flight."""
    arrived = asyncio.Event()
    box = Inbox(database, arrived)
    async with connect(f"127.0.0.1:{port}", DEADLINES_S, MESSAGE_BYTES_MAX) as channel:
        stub = prediction_event_pb2_grpc.PredictionEventServiceStub(channel)
        forwarder = Forwarder(box, stub, arrived, timing=timing)
        writing = asyncio.create_task(box.run())
        delivering = asyncio.create_task(forwarder.run())
        try:
            yield Replica(box, forwarder, delivering)
        finally:
            delivering.cancel()
            await asyncio.wait([delivering])
            box.close()
            await writing
