"""A batch finds its rows by their keys, by plans made long ago, however many rows there are now."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from services.credits.commands import AddCredits, Commit, OpenAccount, Reserve
from services.credits.records import TransactionType
from services.credits.store import CreditsStore
from services.runtime.database import Database, open_database
from tests.conftest import NewDatabase
from tests.integration.credits.stores import DAY, done, running_store

KEEPS_PLANS_AFTER = 6
"""Executions after which PostgreSQL makes no new plan for a prepared statement."""
MANY = 3000


@pytest.fixture
def backend() -> str:
    """SQLite makes no plan by how many rows there are."""
    return "postgresql"


@pytest.fixture
async def two_processes(new_database: NewDatabase) -> AsyncIterator[tuple[Database, Database]]:
    """The same database as two processes have it, each with plans of its own."""
    url = new_database("credits")
    old, new = open_database(url), open_database(url)
    yield old, new
    await old.close()
    await new.close()


async def rows_read(database: Database) -> int:
    """Returns how many rows were ever read, by whatever index or without one."""
    async with database.writer.connect() as connection:
        # What this connection's process has counted and not yet told.
        await connection.execute(text("SELECT pg_stat_force_next_flush()"))
        await connection.commit()
        found = await connection.execute(
            text(
                "SELECT (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes)"
                " + (SELECT sum(seq_tup_read) FROM pg_stat_user_tables)"
            )
        )
        return int(found.scalar_one())


async def work(store: CreditsStore, name: str) -> None:
    """Uses every statement of a batch, and every foreign key, once or twice."""
    done(await store.submit(OpenAccount(name, 100)))
    done(await store.submit(AddCredits("u", name, TransactionType.PURCHASE, 10)))
    done(await store.submit(Reserve("u", name, 1, DAY)))
    done(await store.submit(Commit("u", name)))


async def rows_for_one_more(database: Database, store: CreditsStore, name: str) -> int:
    before = await rows_read(database)
    await work(store, name)
    return await rows_read(database) - before


async def test_a_batch_reads_few_rows_whether_planned_for_an_empty_database_or_for_a_full_one(
    two_processes: tuple[Database, Database],
) -> None:
    old, new = two_processes
    async with running_store(old) as store:
        await store.submit(OpenAccount("u", 10**6))
        for number in range(KEEPS_PLANS_AFTER):
            await work(store, f"early{number}")
        many = [Reserve("u", f"r{number}", 1, DAY) for number in range(MANY)]
        await asyncio.gather(*(store.submit(command) for command in many))
        by_old_plans = await rows_for_one_more(old, store, "late")
    async with running_store(new) as store:
        await work(store, "connects")
        by_new_plans = await rows_for_one_more(new, store, "latest")

    # Thousands, were all reservations of a user read to find one.
    assert max(by_old_plans, by_new_plans) < 100
