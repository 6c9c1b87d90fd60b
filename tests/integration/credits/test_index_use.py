"""Lists are found by an index, however many rows there are."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from services.credits.reads import LedgerReads, ReservationPlace
from services.credits.records import ReservationState
from services.credits.tables import accounts, reservations, transactions
from services.runtime.database import Database, open_database
from tests.conftest import NewDatabase
from tests.query_plans import explained, sorts

BEGAN = datetime(2026, 5, 4, 12, tzinfo=UTC)
PLACE = ReservationPlace(BEGAN + timedelta(seconds=1500), "r1500", "u0")


def state_of(number: int) -> ReservationState:
    if number % 1000 == 999:
        return ReservationState.EXPIRED
    return ReservationState.COMMITTED if number % 3 else ReservationState.RESERVED


@pytest.fixture
async def database(new_database: NewDatabase) -> AsyncIterator[Database]:
    """Three thousand reservations of 300 users: one in three is open, three in all are expired.

    One of the users has two thousand transactions.
    """
    opened = open_database(new_database("credits"))
    users = [f"u{number}" for number in range(300)]
    account = {"available": 0, "reserved": 0, "version": 0}
    times = {"created_at": BEGAN, "updated_at": BEGAN}
    moved = [
        {
            "user_id": "u7",
            "version": version,
            "key": f"add:{version}",
            "type": "BONUS",
            "available_delta": 1,
            "reserved_delta": 0,
            "available_after": version,
            "reserved_after": 0,
            "description": "",
            "created_at": BEGAN,
        }
        for version in range(1, 2001)
    ]
    rows = [
        {
            "user_id": users[number % 300],
            "reservation_id": f"r{number}",
            "credits": 1,
            "state": state_of(number),
            "committed": int(state_of(number) is ReservationState.COMMITTED),
            "reimbursed": 0,
            "created_at": BEGAN + timedelta(seconds=number),
            "expires_at": BEGAN + timedelta(days=7),
            "resolved_at": None if state_of(number) == "RESERVED" else BEGAN + timedelta(days=1),
            "description": "",
        }
        for number in range(3000)
    ]
    async with opened.write() as connection:
        await connection.execute(
            accounts.insert(), [{"user_id": user} | account | times for user in users]
        )
        await connection.execute(reservations.insert(), rows)
        await connection.execute(transactions.insert(), moved)
    yield opened
    await opened.close()


async def test_lists_of_reservations_are_found_by_their_index(database: Database) -> None:
    reads = LedgerReads(database)
    open_, before = ReservationState.RESERVED, BEGAN + timedelta(seconds=2000)

    async with explained(database) as plans:
        everything = await reads.list_reservations(50, after=PLACE)
        await reads.list_reservations(50, created_before=before)
        of_user = await reads.list_reservations(50, user_id="u7", after=PLACE)
        all_open = await reads.list_reservations(50, state=open_, created_before=before)
        await reads.list_reservations(5, state=open_, created_before=before, after=PLACE)
        due = await reads.due_reservations(10)
        await reads.due_reservations(10, PLACE)

    assert [len(found) for found in (everything, of_user, all_open)] == [50, 5, 50]
    assert len(due) == 10
    indexes = [
        *["ix_reservations_created_at"] * 2,
        "ix_reservations_user_id_created_at",
        *["ix_reservations_open"] * 2,
        *["ix_reservations_expires_at"] * 2,
    ]
    for plan, index in zip(plans, indexes, strict=True):
        assert index in plan
    # The longest lists are not even put in order.
    assert not any(sorts(plan) for plan in plans[:2])


async def test_rare_reservations_are_found_without_reading_the_others(database: Database) -> None:
    reads = LedgerReads(database)
    state = ReservationState.EXPIRED

    async with explained(database) as plans:
        found = await reads.list_reservations(50, state=state)
        await reads.list_reservations(50, state=state, after=PLACE)
        await reads.list_reservations(50, state=state, created_before=PLACE.moment)

    assert len(found) == 3
    assert len(plans) == 3
    for plan in plans:
        assert "ix_reservations_unspent" in plan


async def test_a_page_of_a_statement_costs_what_is_on_it(database: Database) -> None:
    reads = LedgerReads(database)

    async with explained(database) as plans:
        newest = await reads.list_transactions("u7", 50)
        await reads.list_transactions("u7", 50, below_version=1000)
        await reads.list_transactions("u7", 50, below_version=1900, after_version=100)

    assert newest is not None
    assert [transaction.version for transaction in newest] == list(range(2000, 1950, -1))
    assert len(plans) == 3
    # Read in order, from where it begins: neither all rows of a table nor all of a user's.
    assert not any(sorts(plan) or "Seq Scan" in plan for plan in plans)
