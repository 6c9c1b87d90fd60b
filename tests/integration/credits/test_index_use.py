"""Lists are found by an index, however many reservations there are."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from services.credits.reads import LedgerReads, ReservationPlace
from services.credits.records import ReservationState
from services.credits.tables import accounts, reservations
from services.runtime.database import Database, open_database
from tests.conftest import NewDatabase
from tests.query_plans import explained, sorts

BEGAN = datetime(2026, 5, 4, 12, tzinfo=UTC)
PLACE = ReservationPlace(BEGAN + timedelta(seconds=1500), "r1500", "u0")


@pytest.fixture
async def database(new_database: NewDatabase) -> AsyncIterator[Database]:
    """Three thousand reservations of 300 users, of which one in three is open."""
    opened = open_database(new_database("credits"))
    users = [f"u{number}" for number in range(300)]
    account = {"available": 0, "reserved": 0, "version": 0}
    times = {"created_at": BEGAN, "updated_at": BEGAN}
    rows = [
        {
            "user_id": users[number % 300],
            "reservation_id": f"r{number}",
            "credits": 1,
            "state": "COMMITTED" if number % 3 else "RESERVED",
            "committed": 1 if number % 3 else 0,
            "reimbursed": 0,
            "created_at": BEGAN + timedelta(seconds=number),
            "expires_at": BEGAN + timedelta(days=7),
            "resolved_at": BEGAN + timedelta(days=1) if number % 3 else None,
            "description": "",
        }
        for number in range(3000)
    ]
    async with opened.write() as connection:
        await connection.execute(
            accounts.insert(), [{"user_id": user} | account | times for user in users]
        )
        await connection.execute(reservations.insert(), rows)
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
