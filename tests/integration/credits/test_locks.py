"""What a writer knows of an account it knows from after it got the lock."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import func, select, text

from services.credits.commands import Commit, OpenAccount, Reserve
from services.credits.ledger import Refusal, Refused
from services.credits.store import CreditsStore, Done
from services.credits.tables import accounts
from services.runtime.database import Database, open_database
from services.runtime.errors import Conflict
from tests.conftest import NewDatabase
from tests.integration.credits.stores import DAY

LIMIT_S = 10.0
TTL = timedelta(milliseconds=300)


@pytest.fixture
def backend() -> str:
    """A SQLite file has one writer, which waits for nobody."""
    return "postgresql"


@pytest.fixture
async def database(new_database: NewDatabase) -> AsyncIterator[Database]:
    opened = open_database(new_database("credits"))
    yield opened
    await opened.close()


async def wait_for_a_waiting_writer(database: Database) -> None:
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(LIMIT_S):
        while True:
            async with database.read() as connection:
                if (await connection.execute(waiting)).scalar_one():
                    return
            await asyncio.sleep(0.005)


async def test_a_commit_that_waits_for_the_lock_beyond_the_expiry_is_refused(
    database: Database,
) -> None:
    store = CreditsStore(database)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(store.run())
        await store.submit(OpenAccount("u", 100))
        reserved = await store.submit(Reserve("u", "r", 10, TTL))
        assert isinstance(reserved, Done)
        async with database.writer.begin() as rival:
            await rival.execute(select(accounts).with_for_update())
            late = tasks.create_task(store.submit(Commit("u", "r")))
            await wait_for_a_waiting_writer(database)
            # The database's own time passes, by which expiry is judged.
            await rival.execute(select(func.pg_sleep(TTL.total_seconds())))
        answer = await late
        store.close()

    assert isinstance(answer, Refused)
    assert answer.refusal is Refusal.RESERVATION_EXPIRED


async def test_an_account_that_stays_locked_stops_nobody_else(database: Database) -> None:
    store = CreditsStore(database)
    users = ["before", "locked", "other"]
    async with asyncio.TaskGroup() as tasks:
        # They queue before the writer begins, so that one batch has all of them.
        opening = [tasks.create_task(store.submit(OpenAccount(user, 100))) for user in users]
        tasks.create_task(store.run())
        await asyncio.gather(*opening)
        async with database.writer.begin() as rival:
            await rival.execute(
                select(accounts).where(accounts.c.user_id == "locked").with_for_update()
            )
            answers = await asyncio.gather(
                *(store.submit(Reserve(user, "r", 10, DAY)) for user in users),
                return_exceptions=True,
            )
        later = await store.submit(Reserve("locked", "r", 10, DAY))
        store.close()

    first, refused, last = answers
    assert isinstance(first, Done)
    assert isinstance(refused, Conflict)
    assert isinstance(last, Done)
    assert isinstance(later, Done)
    assert not later.replayed
