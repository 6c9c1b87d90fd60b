"""What runs beside the server outlives errors that nobody expected, or it would end the service."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import pytest
import structlog
from sqlalchemy import text

from services.credits import watchers as watchers_module
from services.credits.commands import OpenAccount, Reserve
from services.credits.reads import LedgerReads
from services.credits.records import ReservationState
from services.credits.store import CreditsStore
from services.credits.sweeper import Sweeper
from services.credits.watchers import BalanceWatchers
from services.runtime.database import Database, open_database
from tests.conftest import NewDatabase
from tests.integration.credits.stores import AT_ONCE, DAY, running_store

LIMIT_S = 15.0
Log = list[MutableMapping[str, Any]]


@pytest.fixture
async def database(new_database: NewDatabase) -> AsyncIterator[Database]:
    opened = open_database(new_database("credits"))
    yield opened
    await opened.close()


@pytest.fixture
async def store(database: Database) -> AsyncIterator[CreditsStore]:
    """The writer of another process, which tells nobody here what it writes."""
    async with running_store(database) as running:
        await running.submit(OpenAccount("u", 100))
        yield running


@contextlib.asynccontextmanager
async def without(database: Database, table: str) -> AsyncIterator[None]:
    """Takes a table away, as no outage does."""

    async def rename(before: str, after: str) -> None:
        async with database.write() as connection:
            await connection.execute(text(f"ALTER TABLE {before} RENAME TO {after}"))

    await rename(table, "elsewhere")
    try:
        yield
    finally:
        await rename("elsewhere", table)


async def error_in(log: Log) -> str:
    while not (errors := [e for e in log if e["log_level"] == "error"]):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return str(errors[0]["event"])


async def test_the_sweeper_goes_on(database: Database, store: CreditsStore) -> None:
    reads, stopping = LedgerReads(database), asyncio.Event()
    sweeper = Sweeper(reads, store, stopping, interval_s=0.02)
    await store.submit(Reserve("u", "r", 10, AT_ONCE))

    async def has_expired() -> bool:
        reservation = (await reads.find_reservation("u", "r")).reservation
        return reservation is not None and reservation.state is ReservationState.EXPIRED

    with structlog.testing.capture_logs() as log:
        async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
            async with without(database, "reservations"):
                tasks.create_task(sweeper.run())
                told = await error_in(log)
            while not await has_expired():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            stopping.set()

    assert told == "reservations not swept"


async def test_the_watchers_go_on(
    database: Database, store: CreditsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchers_module, "REFRESH_S", 0.02)
    monkeypatch.setattr(watchers_module, "TROUBLE_PAUSE_S", 0.02)
    stopping = asyncio.Event()
    watchers = BalanceWatchers(LedgerReads(database), stopping)
    accounts = watchers.watch("u")

    with structlog.testing.capture_logs() as log:
        async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
            first = await anext(accounts)
            async with without(database, "accounts"):
                tasks.create_task(watchers.run())
                told = await error_in(log)
            await store.submit(Reserve("u", "r", 10, DAY))
            second = await anext(accounts)
            stopping.set()

    assert told == "balances not read"
    assert [account and account.version for account in (first, second)] == [1, 2]
