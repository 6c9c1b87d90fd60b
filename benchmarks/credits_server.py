"""Serves the credits service, and what it is measured against, in the process of a benchmark."""

import asyncio
import itertools
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import grpc
from reelworks.credits.v1 import credits_pb2, credits_pb2_grpc

from services.credits.commands import Command
from services.credits.reads import LedgerReads
from services.credits.requests import CHECKS
from services.credits.servicer import DOMAIN, SERVICE_NAME, CreditsServicer
from services.credits.store import Answer, CreditsStore
from services.credits.verification import Verifier
from services.credits.watchers import BalanceWatchers
from services.runtime.database import Database, open_database
from services.runtime.program import leave_on_signals
from services.runtime.server import ServedService, Server, ServerSettings

__all__ = ["SERVERS", "serve"]

SERVERS = ("nothing", "bare", "grouped", "single")
"""Does nothing; does nothing without interceptors; the service; a transaction for each command."""
SINGLE_WRITERS = 8
"""Database transactions at once of the last, where the database takes more than one."""
CALLS_MAX = 10_000
WELCOME_CREDITS = 100


class NothingServicer(CreditsServicer):
    """Answers as the service would, without doing anything."""

    async def Reserve(self, request: Any, context: Any) -> credits_pb2.ReserveResponse:  # noqa: N802
        """Answers a reservation."""
        del context
        response = credits_pb2.ReserveResponse()
        response.reservation.user_id = request.user_id
        response.reservation.reservation_id = request.reservation_id
        response.balance.version = 1
        return response

    async def GetBalance(self, request: Any, context: Any) -> credits_pb2.Balance:  # noqa: N802
        """Answers a balance."""
        del context
        return credits_pb2.Balance(user_id=request.user_id)


class SingleStore(CreditsStore):
    """Writes each command in a database transaction of its own, several at once."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, batch_max=1)
        count = 1 if database.is_exclusive else SINGLE_WRITERS
        self._stores: Sequence[CreditsStore] = [
            CreditsStore(database, batch_max=1) for _ in range(count)
        ]
        self._turns = itertools.cycle(self._stores)

    async def submit(self, command: Command) -> Answer:
        """Returns what became of `command`."""
        return await next(self._turns).submit(command)

    async def run(self) -> None:
        """Writes until `close` was called and nothing waits any more."""
        await asyncio.gather(*(store.run() for store in self._stores))

    def close(self) -> None:
        """Refuses new commands."""
        for store in self._stores:
            store.close()


async def serve(kind: str, address: str, url: str) -> None:
    """Serves one of SERVERS until SIGTERM."""
    leave, stopping = asyncio.Event(), asyncio.Event()
    leave_on_signals(leave)
    database = open_database(url)
    reads = LedgerReads(database)
    watchers = BalanceWatchers(reads, stopping)
    store = (
        SingleStore(database)
        if kind == "single"
        else CreditsStore(database, moved=watchers.publish)
    )
    servicer_type = NothingServicer if kind in ("nothing", "bare") else CreditsServicer
    servicer = servicer_type(
        store, reads, watchers, Verifier(database, stopping, timedelta(hours=1)), WELCOME_CREDITS
    )

    def register(server: grpc.aio.Server) -> None:
        credits_pb2_grpc.add_CreditsServiceServicer_to_server(servicer, server)

    if kind == "bare":
        await _serve_bare(register, address, leave)
        await database.close()
        return
    server = Server(
        settings=ServerSettings(address=address, drain_s=0, grace_s=2, calls_max=CALLS_MAX),
        domain=DOMAIN,
        services=[ServedService(SERVICE_NAME, register)],
        leave=leave,
        stopping=stopping,
        checks=CHECKS,
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(store.run())
        await server.serve()
        store.close()
    await database.close()


async def _serve_bare(register: Any, address: str, leave: asyncio.Event) -> None:
    """Serves without interceptors."""
    server = grpc.aio.server()
    register(server)
    server.add_insecure_port(address)
    await server.start()
    await leave.wait()
    await server.stop(grace=1)
