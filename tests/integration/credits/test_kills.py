"""A server killed under load loses nothing that it has acknowledged, and its sums stay right.

REELWORKS_TEST_KILLS says how often a server is killed: `make kills` takes twenty.
"""

import asyncio
import contextlib
import itertools
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from reelworks.credits.v1 import credits_pb2, credits_pb2_grpc

from services.credits.records import ReservationState
from services.runtime.channel import connect, invoke
from services.runtime.database import open_database
from services.runtime.errors import DeadlineExceeded, Unavailable
from tests.conftest import NewDatabase
from tests.ledger_verification import Records, read_records, violations
from tests.serving import free_address

KILLS = int(os.environ.get("REELWORKS_TEST_KILLS", "4"))
CALLERS = 24
USERS = 3
START_LIMIT_S = 20.0
ACKNOWLEDGED_BEFORE_A_KILL = 40
CREDITS = 5


@dataclass
class Acknowledged:
    """What the callers were told, by user and reservation."""

    states: dict[tuple[str, str], str] = field(default_factory=dict)
    count: int = 0

    def note(self, user: str, reservation: str, state: str) -> None:
        self.states[user, reservation] = state
        self.count += 1


def start(address: str, url: str) -> "subprocess.Popen[bytes]":
    settings = {"ADDRESS": address, "DATABASE_URL": url, "WELCOME_BONUS_CREDITS": "1000000"}
    return subprocess.Popen(
        [sys.executable, "-m", "services.credits"],
        env=os.environ | {f"REELWORKS_{name}": value for name, value in settings.items()},
        stderr=subprocess.DEVNULL,
    )


async def work(stub: Any, numbers: Iterator[int], heard: Acknowledged, over: asyncio.Event) -> None:
    """Reserves, and then commits or refunds, until told; what failed may have happened or not."""
    while not over.is_set():
        number = next(numbers)
        user, name = f"user{number % USERS}", f"r{number}"
        names: dict[str, Any] = {"user_id": user, "reservation_id": name}
        # Of a server that is away nothing else may be heard.
        with contextlib.suppress(Unavailable, DeadlineExceeded):
            await invoke(stub.Reserve, credits_pb2.ReserveRequest(credits=CREDITS, **names))
            heard.note(user, name, "RESERVED")
            if number % 3 == 0:
                await invoke(stub.Commit, credits_pb2.CommitRequest(**names))
                heard.note(user, name, "COMMITTED")
            elif number % 3 == 1:
                await invoke(stub.Refund, credits_pb2.RefundRequest(**names))
                heard.note(user, name, "REFUNDED")


async def wait_for_more(heard: Acknowledged, tasks: list["asyncio.Task[None]"]) -> None:
    """Returns when so much was acknowledged that the server is in the middle of it."""
    enough = heard.count + ACKNOWLEDGED_BEFORE_A_KILL
    async with asyncio.timeout(START_LIMIT_S):
        while heard.count < enough:
            for task in tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.002)


@pytest.mark.timeout(60 + 10 * KILLS)
async def test_no_acknowledged_operation_is_lost_when_the_server_is_killed(
    new_database: NewDatabase,
) -> None:
    url, address = new_database("credits"), free_address()
    heard, over, numbers = Acknowledged(), asyncio.Event(), itertools.count()
    process = start(address, url)
    channel = connect(address)
    try:
        stub: Any = credits_pb2_grpc.CreditsServiceStub(channel)
        await open_accounts(stub)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work(stub, numbers, heard, over)) for _ in range(CALLERS)]
            for kill in range(KILLS):
                await wait_for_more(heard, tasks)
                # Anywhere in a batch: its reading, its writing, its SQL commit, its answers.
                await asyncio.sleep(random.Random(kill).uniform(0, 0.02))  # noqa: S311
                process.kill()
                process.wait()
                process = start(address, url)
            await wait_for_more(heard, tasks)
            over.set()
        proof = await stub.VerifyLedger(
            credits_pb2.VerifyLedgerRequest(), timeout=START_LIMIT_S, wait_for_ready=True
        )
    finally:
        await channel.close()
        process.kill()
        process.wait()

    database = open_database(url)
    try:
        records = await read_records(database)
    finally:
        await database.close()
    assert (list(proof.violations), violations(records)) == ([], [])
    assert (proof.accounts_checked, proof.transactions_checked) == (
        USERS,
        len(records.transactions),
    )
    assert lost(records, heard) == []
    assert heard.count > KILLS * ACKNOWLEDGED_BEFORE_A_KILL


async def open_accounts(stub: Any) -> None:
    """Opens the accounts as soon as the server is there."""
    for number in range(USERS):
        request = credits_pb2.OpenAccountRequest(user_id=f"user{number}")
        await stub.OpenAccount(request, timeout=START_LIMIT_S, wait_for_ready=True)


def lost(records: Records, heard: Acknowledged) -> list[str]:
    """Returns what was acknowledged and is not so."""
    written = {(r.user_id, r.reservation_id): r.state for r in records.reservations}
    # Behind a reservation that was acknowledged, what resolves it may have been done unheard.
    later = set(ReservationState) - {ReservationState.REJECTED, ReservationState.EXPIRED}
    return [
        f"{key} was {state} and is {written.get(key)}"
        for key, state in heard.states.items()
        if written.get(key) not in (later if state == "RESERVED" else {state})
    ]
