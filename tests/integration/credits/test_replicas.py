"""Two server processes on one PostgreSQL are one ledger."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from reelworks.credits.v1 import credits_pb2, credits_pb2_grpc

from services.runtime.channel import connect, invoke
from services.runtime.database import open_database
from services.runtime.errors import AlreadyExists, NotFound, PreconditionFailed
from tests.conftest import NewDatabase
from tests.ledger_verification import problems
from tests.postgresql import PostgresqlServer
from tests.serving import free_address

pytestmark = pytest.mark.parametrize("backend", ["postgresql"])

LIMIT_S = 20.0
CLIENTS = 16
CALLS_PER_CLIENT = 60
Type = credits_pb2.Transaction.Type
REFUSALS = (AlreadyExists, NotFound, PreconditionFailed)


@dataclass(frozen=True)
class Replica:
    """A server process, and a caller of it."""

    process: "subprocess.Popen[str]"
    channel: grpc.aio.Channel

    @property
    def stub(self) -> Any:
        return credits_pb2_grpc.CreditsServiceStub(self.channel)

    async def call(self, method: str, **fields: Any) -> Any:
        request = getattr(credits_pb2, f"{method}Request")(**fields)
        return await invoke(getattr(self.stub, method), request)


@pytest.fixture
async def replicas(
    new_database: NewDatabase, postgresql: PostgresqlServer
) -> AsyncIterator[list[Replica]]:
    url = new_database("credits")
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(started(url)) for _ in range(2)]
    database = open_database(url)
    try:
        assert await problems(database) == []
    finally:
        await database.close()
    name = url.rpartition("/")[2]
    deadlocks = f"SELECT deadlocks FROM pg_stat_database WHERE datname = '{name}'"
    assert postgresql.execute(deadlocks) == "0"


def launched(address: str, url: str) -> "subprocess.Popen[str]":
    given = {"ADDRESS": address, "DATABASE_URL": url, "DRAIN_S": "0", "GRACE_S": "5"}
    return subprocess.Popen(
        [sys.executable, "-m", "services.credits"],
        env=os.environ | {f"REELWORKS_{name}": value for name, value in given.items()},
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.asynccontextmanager
async def started(url: str) -> AsyncIterator[Replica]:
    address = free_address()
    process = launched(address, url)
    channel = connect(address)
    try:
        async with asyncio.timeout(LIMIT_S):
            await channel.channel_ready()
        yield Replica(process, channel)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.to_thread(process.communicate, timeout=LIMIT_S)
        assert process.returncode == 0, errors
    finally:
        await channel.close()
        process.kill()
        process.wait()


def random_call(source: random.Random) -> tuple[str, dict[str, Any]]:
    """A call that often meets others: few users, few ids, amounts that fit and that do not."""
    user: dict[str, Any] = {"user_id": f"user{source.randrange(3)}"}
    reservation = user | {"reservation_id": f"r{source.randrange(40)}"}
    request = {"request_id": f"q{source.randrange(20)}"}
    match source.randrange(12):
        case 0:
            return "OpenAccount", user
        case 1 | 2:
            amount = source.choice([50, 51])
            return "AddCredits", user | request | {"credits": amount, "type": Type.PURCHASE}
        case 3:
            return "AddCredits", user | request | {"credits": -30, "type": Type.ADJUSTMENT}
        case 4 | 5 | 6 | 7:
            ttl = duration_pb2.Duration(seconds=source.choice([1, 3600]))
            return "Reserve", reservation | {"credits": source.choice([5, 5, 900]), "ttl": ttl}
        case 8 | 9:
            amounts = [{}, {"credits": 3}, {"credits": 5}, {"credits": 6}]
            return "Commit", reservation | source.choice(amounts)
        case 10:
            return "Refund", reservation
        case _:
            amount = source.choice([1, 2])
            return "Reimburse", reservation | request | {"credits": amount, "reason": "late"}


def moved(method: str, fields: dict[str, Any], answer: Any) -> tuple[str, ...] | None:
    """Returns the key that a call moved; None if it moved nothing."""
    user: str = fields["user_id"]
    match method:
        case "OpenAccount":
            return (user, "open") if answer.created else None
        case _ if answer.replayed:
            return None
        case "Commit" | "Refund":
            return user, "resolve", fields["reservation_id"]
        case "Reserve":
            return user, "reserve", fields["reservation_id"]
        case _:
            return user, method, fields["request_id"]


async def test_sixteen_clients_with_shared_ids_move_nothing_twice(
    replicas: list[Replica],
) -> None:
    won: Counter[tuple[str, ...]] = Counter()
    refused: Counter[str] = Counter()

    async def work(client: int) -> None:
        source = random.Random(client)  # noqa: S311  Repeatable.
        for number in range(CALLS_PER_CLIENT):
            method, fields = random_call(source)
            try:
                # A client speaks to both processes in turn, as behind a balancer.
                answer = await replicas[(client + number) % 2].call(method, **fields)
            except REFUSALS as error:
                refused[error.reason] += 1
            else:
                if key := moved(method, fields, answer):
                    won[key] += 1

    await asyncio.gather(*map(work, range(CLIENTS)))

    assert set(won.values()) == {1}
    assert len(won) > 100
    assert len(refused) > 4, refused


async def test_of_every_call_sent_to_both_at_once_one_has_an_effect(
    replicas: list[Replica],
) -> None:
    ada = {"user_id": "ada"}
    r1, r2 = ({**ada, "reservation_id": name} for name in ("r1", "r2"))
    calls: list[tuple[str, dict[str, Any]]] = [
        ("OpenAccount", ada),
        ("AddCredits", ada | {"credits": 50, "type": Type.PURCHASE, "request_id": "q"}),
        ("AddCredits", ada | {"credits": -5, "type": Type.ADJUSTMENT, "request_id": "q2"}),
        ("Reserve", r1 | {"credits": 20}),
        ("Reserve", r2 | {"credits": 20}),
        ("Commit", r1 | {"credits": 15}),
        ("Refund", r2),
        ("Reimburse", r1 | {"credits": 5, "request_id": "q", "reason": "late"}),
    ]
    for version, (method, fields) in enumerate(calls, start=1):
        answers = await asyncio.gather(*(replica.call(method, **fields) for replica in replicas))

        effects = [moved(method, fields, answer) is not None for answer in answers]
        assert sorted(effects) == [False, True], method
        assert answers[0].balance == answers[1].balance
        assert answers[0].balance.version == version


async def test_a_stream_sees_what_the_other_process_wrote(replicas: list[Replica]) -> None:
    here, there = replicas
    await there.call("OpenAccount", user_id="ada")
    stream = here.stub.WatchBalance(credits_pb2.WatchBalanceRequest(user_id="ada"), timeout=LIMIT_S)
    first = await stream.read()
    versions = [first.balance.version]
    for number in range(40):
        writer = replicas[number % 2]
        await writer.call(
            "AddCredits", user_id="ada", credits=1, type=Type.BONUS, request_id=f"q{number}"
        )
    wrote_at = time.monotonic()
    while versions[-1] < 41:
        versions.append((await stream.read()).balance.version)
    stream.cancel()

    # Once a second the table is looked at; the rest is for a machine that is busy.
    assert time.monotonic() - wrote_at < 4
    assert versions == sorted(set(versions))


async def test_a_stream_may_be_opened_anew_elsewhere_when_its_server_leaves(
    replicas: list[Replica],
) -> None:
    here, there = replicas
    await here.call("OpenAccount", user_id="ada")
    request = credits_pb2.WatchBalanceRequest(user_id="ada")
    stream = here.stub.WatchBalance(request, timeout=LIMIT_S)
    await stream.read()

    here.process.send_signal(signal.SIGTERM)
    code = await stream.code()
    # A second signal would find the process on its way out, and end it without its exit code.
    await asyncio.to_thread(here.process.wait, LIMIT_S)
    await there.call("AddCredits", user_id="ada", credits=1, type=Type.BONUS, request_id="q")
    again = await there.stub.WatchBalance(request, timeout=LIMIT_S).read()

    assert code is grpc.StatusCode.UNAVAILABLE
    assert again.balance.available_credits == 101
