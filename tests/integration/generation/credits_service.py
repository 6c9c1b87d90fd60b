"""A real credits service for the tests of those who call it; it can be away, and stand still."""

import contextlib
import shutil
import sqlite3
import uuid
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from reelworks.credits.v1 import credits_pb2, credits_pb2_grpc

from services.credits.__main__ import serve
from services.credits.settings import CreditsSettings
from services.generation.state import Generation
from services.runtime.channel import connect, invoke
from services.runtime.migrations import migrate
from tests.serving import free_address, serving


class CreditsService:
    """A credits service on a SQLite file, at one address for as long as the test lasts."""

    def __init__(self, file: Path, channel: grpc.aio.Channel, address: str) -> None:
        self.address = address
        self._file = file
        self._settings = CreditsSettings(
            address=address, database_url=f"sqlite:///{file}", drain_s=0, grace_s=1
        )
        self._stub: Any = credits_pb2_grpc.CreditsServiceStub(channel)
        self._running = contextlib.AsyncExitStack()

    async def start(self) -> None:
        await self._running.enter_async_context(
            serving(lambda leave: serve(self._settings, leave), self.address)
        )

    async def stop(self) -> None:
        await self._running.aclose()

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """Keeps it from writing; it goes on where it was."""
        with contextlib.closing(sqlite3.connect(self._file, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield

    def falsify(self, statement: str) -> None:
        """Changes its rows behind its back."""
        with contextlib.closing(sqlite3.connect(self._file, isolation_level=None)) as connection:
            connection.execute(statement)

    async def open(self, user_id: str) -> None:
        """Opens an account with 100 credits."""
        await invoke(self._stub.OpenAccount, credits_pb2.OpenAccountRequest(user_id=user_id))

    async def add(self, user_id: str, credits_added: int) -> None:
        await invoke(
            self._stub.AddCredits,
            credits_pb2.AddCreditsRequest(
                user_id=user_id,
                credits=credits_added,
                type=credits_pb2.Transaction.ADJUSTMENT,
                request_id=uuid.uuid4().hex,
            ),
        )

    async def reserve(self, generation: Generation) -> None:
        """Sets the price of a generation aside, as its service would have."""
        await invoke(
            self._stub.Reserve,
            credits_pb2.ReserveRequest(
                user_id=generation.user_id,
                reservation_id=generation.generation_id,
                credits=generation.price_credits,
            ),
        )

    async def reimburse(self, generation: Generation, credits_reimbursed: int) -> None:
        """Gives back what was spent on a generation, as an operator does."""
        await invoke(
            self._stub.Reimburse,
            credits_pb2.ReimburseRequest(
                user_id=generation.user_id,
                reservation_id=generation.generation_id,
                credits=credits_reimbursed,
                request_id=uuid.uuid4().hex,
                reason="no video",
            ),
        )

    async def balance(self, user_id: str) -> tuple[int, int]:
        """What is available and what is reserved."""
        answer = await invoke(self._stub.GetBalance, credits_pb2.GetBalanceRequest(user_id=user_id))
        return answer.available_credits, answer.reserved_credits

    async def moves(self, user_id: str, generation_id: str) -> list[tuple[str, int]]:
        """Type and credits of what the statement says about a generation, oldest first."""
        answer = await invoke(
            self._stub.ListTransactions, credits_pb2.ListTransactionsRequest(user_id=user_id)
        )
        return [
            (credits_pb2.Transaction.Type.Name(one.type), one.credits)
            for one in reversed(answer.transactions)
            if one.reservation_id == generation_id
        ]


@contextlib.asynccontextmanager
async def running_credits(
    folder: Path, templates: dict[tuple[str, str], str]
) -> AsyncIterator[CreditsService]:
    """Gives a credits service without accounts; `templates` are those of the whole run."""
    template = templates.get(("sqlite", "credits"))
    if template is None:
        template = templates["sqlite", "credits"] = f"{templates['folder', '']}/credits.sqlite3"
        with ThreadPoolExecutor(1) as threads:
            threads.submit(migrate, "credits", f"sqlite:///{template}").result()
    file = folder / f"credits-{uuid.uuid4().hex}.sqlite3"
    shutil.copy(template, file)
    address = free_address()
    async with connect(address) as channel:
        service = CreditsService(file, channel, address)
        await service.start()
        try:
            yield service
        finally:
            await service.stop()
