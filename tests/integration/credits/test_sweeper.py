"""Sweepers expire what is due, once, whoever else wants to resolve it."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta
from typing import Any, TypeVar

import pytest

from services.credits import sweeper as sweeper_module
from services.credits.commands import Commit, OpenAccount, Refund, Reserve
from services.credits.ledger import Refusal, Refused
from services.credits.reads import LedgerReads
from services.credits.records import ReservationState
from services.credits.store import CreditsStore, Done
from services.credits.sweeper import Sweeper
from services.runtime.database import Database, open_database
from tests.conftest import NewDatabase
from tests.integration.credits.stores import AT_ONCE, DAY, done, running_store
from tests.ledger_verification import problems

LIMIT_S = 15.0
T = TypeVar("T")
Replica = tuple[CreditsStore, LedgerReads, Sweeper]


@pytest.fixture
async def replicas(new_database: NewDatabase, backend: str) -> AsyncIterator[list[Replica]]:
    """Two processes' worth; on SQLite two sweepers of one process."""
    url = new_database("credits")
    databases = [open_database(url) for _ in range(1 if backend == "sqlite" else 2)]
    async with contextlib.AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(running_store(one)) for one in databases]
        yield [
            make(databases[index % len(databases)], stores[index % len(stores)]) for index in (0, 1)
        ]
    try:
        assert await problems(databases[0]) == []
    finally:
        for one in databases:
            await one.close()


def make(database: Database, store: CreditsStore) -> Replica:
    reads = LedgerReads(database)
    return store, reads, Sweeper(reads, store, asyncio.Event(), interval_s=0.05)


async def state_of(reads: LedgerReads, name: str) -> ReservationState:
    reservation = (await reads.find_reservation("u", name)).reservation
    assert reservation is not None
    return reservation.state


async def test_only_what_is_open_and_due_expires(replicas: list[Replica]) -> None:
    store, reads, sweeper = replicas[0]
    await store.submit(OpenAccount("u", 100))
    await store.submit(Reserve("u", "due", 10, AT_ONCE))
    await store.submit(Reserve("u", "later", 20, DAY))
    await store.submit(Reserve("u", "refunded", 30, AT_ONCE))
    await store.submit(Refund("u", "refunded"))

    first, second = await sweeper.sweep(), await sweeper.sweep()

    assert (first, second) == (1, 0)
    assert await state_of(reads, "due") is ReservationState.EXPIRED
    assert await state_of(reads, "later") is ReservationState.RESERVED
    assert await state_of(reads, "refunded") is ReservationState.REFUNDED
    account = await reads.find_account("u")
    assert account is not None
    assert (account.available, account.reserved) == (80, 20)


async def test_two_sweepers_at_once_expire_each_reservation_once(
    replicas: list[Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper_module, "PAGE", 7)
    store = replicas[0][0]
    await store.submit(OpenAccount("u", 100))
    await asyncio.gather(*(store.submit(Reserve("u", f"r{n}", 1, AT_ONCE)) for n in range(50)))

    expired = await asyncio.gather(*(sweeper.sweep() for _, _, sweeper in replicas))

    assert sum(expired) == 50
    account = await replicas[1][1].find_account("u")
    assert account is not None
    assert (account.available, account.reserved, account.version) == (100, 0, 101)


async def test_against_commit_and_refund_one_wins_and_the_others_hear_of_it(
    replicas: list[Replica],
) -> None:
    (store, reads, sweeper), (other, _, rival) = replicas
    await store.submit(OpenAccount("u", 1000))
    ends = Counter[ReservationState]()
    source = random.Random(5)  # noqa: S311  Repeatable.

    async def within(limit_s: float, work: Coroutine[Any, Any, T]) -> T:
        await asyncio.sleep(source.uniform(0, limit_s))
        return await work

    number = 0
    # Who wins depends on the machine too, so it goes on until each has won.
    while number < 40 or (len(ends) < 3 and number < 600):
        number += 1
        name = f"r{number}"
        # It is due before the rivals come, or about then, or not at all.
        ttl = source.choice([timedelta(milliseconds=1), timedelta(milliseconds=15), DAY])
        await store.submit(Reserve("u", name, 10, ttl))

        committed, refunded, first, second = await asyncio.gather(
            within(0.03, store.submit(Commit("u", name))),
            within(0.03, other.submit(Refund("u", name))),
            within(0.01, sweeper.sweep()),
            within(0.01, rival.sweep()),
        )

        end = await state_of(reads, name)
        ends[end] += 1
        match end:
            case ReservationState.COMMITTED:
                assert not done(committed).replayed
                assert refusal(refunded) is Refusal.ALREADY_COMMITTED
                assert first + second == 0
            case ReservationState.REFUNDED:
                assert refusal(committed) in (
                    Refusal.ALREADY_REFUNDED,
                    Refusal.RESERVATION_EXPIRED,
                )
                assert not done(refunded).replayed
                assert first + second == 0
            case ReservationState.EXPIRED:
                assert refusal(committed) is Refusal.RESERVATION_EXPIRED
                assert done(refunded).replayed
                assert first + second == 1
            case _:
                pytest.fail(f"{name} ended {end}")

    assert len(ends) == 3, ends


def refusal(answer: Done | Refused) -> Refusal:
    assert isinstance(answer, Refused)
    return answer.refusal


async def test_it_sweeps_again_and_again_until_the_process_stops(replicas: list[Replica]) -> None:
    store, reads, _ = replicas[0]
    stopping = asyncio.Event()
    sweeper = Sweeper(reads, store, stopping, interval_s=0.02)
    await store.submit(OpenAccount("u", 100))

    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(sweeper.run())
        for name in ("r1", "r2"):
            await store.submit(Reserve("u", name, 10, AT_ONCE))
            while await state_of(reads, name) is not ReservationState.EXPIRED:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        stopping.set()
