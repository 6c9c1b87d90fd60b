"""Serves one variant of the webhook service, for the benchmark that compares them."""

import asyncio
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import Any

import uvloop
from aiohttp import web
from reelworks.generation.v1 import prediction_event_pb2, prediction_event_pb2_grpc

from services.runtime.callback import read_query
from services.runtime.channel import connect
from services.runtime.database import open_database
from services.runtime.program import collect_rarely
from services.runtime.telemetry import configure_log
from services.webhook.forwarder import DEADLINES_S, MESSAGE_BYTES_MAX, Forwarder
from services.webhook.inbox import Inbox, ReceivedEvent, _command, _write
from services.webhook.ingress import WEBHOOK_PATH, Ingress
from services.webhook.secret_source import SecretSource
from services.webhook.signature import Secret, verify
from tests.integration.webhook.harness import Disposition, FakeGeneration, serving

__all__ = ["CALLBACK_KEY", "GENERATION", "KEY", "VARIANTS", "serve", "serve_and_tell"]

KEY = bytes(range(24))
CALLBACK_KEY = bytes(range(32))
GENERATION = "generation"
VARIANTS = {
    "noop": "(a) reads the body, answers 200",
    "verify": "(b) verification only",
    "sqlite": "(c) whole ingress, SQLite",
    "postgresql": "(d) whole ingress, PostgreSQL",
    "sqlite-single": "(e) a transaction a request, SQLite",
    "postgresql-single": "(e) a transaction a request, PostgreSQL",
    "sqlite-delivering": "(f) as (c), delivering meanwhile",
    "postgresql-delivering": "(f) as (d), delivering meanwhile",
}
_SECRETS = (Secret(0, KEY),)


class _OneByOne(Inbox):
    """The control: each event in a database transaction of its own."""

    async def store(self, event: ReceivedEvent) -> bool:
        (is_new,) = await self._database.transact(
            lambda connection: _write(connection, [_command(event)])
        )
        return bool(is_new)


class _Taking(FakeGeneration):
    """A generation that takes what comes and keeps nothing."""

    async def DeliverPredictionEvent(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answers that the event was applied."""
        del request, context
        return prediction_event_pb2.DeliverPredictionEventResponse(disposition=Disposition.APPLIED)


async def serve(
    tell: Callable[[int], None], variant: str, database_url: str, generation_port: str
) -> None:
    """Serves on a port of which it tells, until it is killed."""
    if variant == GENERATION:
        async with serving(_Taking()) as port:
            tell(port)
            await asyncio.Event().wait()
    elif variant in ("noop", "verify"):
        application = web.Application()
        application.router.add_post(WEBHOOK_PATH, _noop if variant == "noop" else _verify)
        runner = web.AppRunner(application, access_log=None, auto_decompress=False)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        tell(runner.addresses[0][1])
        await asyncio.Event().wait()
    else:
        await _serve_ingress(tell, variant, database_url, generation_port)


async def _serve_ingress(
    tell: Callable[[int], None], variant: str, database_url: str, generation_port: str
) -> None:
    arrived = asyncio.Event()
    kind = _OneByOne if variant.endswith("-single") else Inbox
    inbox = kind(open_database(database_url), arrived)
    ingress = Ingress(inbox, SecretSource(_SECRETS), [CALLBACK_KEY], "local")
    collect_rarely()
    tell(await ingress.start("127.0.0.1", 0))
    async with asyncio.TaskGroup() as parts:
        parts.create_task(inbox.run())
        if variant.endswith("-delivering"):
            channel = connect(f"127.0.0.1:{generation_port}", DEADLINES_S, MESSAGE_BYTES_MAX)
            stub = prediction_event_pb2_grpc.PredictionEventServiceStub(channel)
            parts.create_task(Forwarder(inbox, stub, arrived).run())


async def _noop(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(text="stored\n")


async def _verify(request: web.Request) -> web.Response:
    read_query(request.raw_path.partition("?")[2], [CALLBACK_KEY], "local")
    body = await request.read()
    verify(body, request.headers.items(), _SECRETS, datetime.now(UTC))
    return web.Response(text="stored\n")


def serve_and_tell(tell: Connection, variant: str, database_url: str, generation_port: str) -> None:
    """Serves in this process, and sends the port through `tell`."""
    # Its log is written, since that is part of the work, but nobody reads it.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    configure_log("bench", "json")
    uvloop.run(serve(tell.send, variant, database_url, generation_port))
