"""Reads tell what was written, a page at a time, in a stable order."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.credits.commands import AddCredits, Commit, OpenAccount, Refund, Reserve
from services.credits.ledger import Refused
from services.credits.reads import LedgerReads, ReservationPlace
from services.credits.records import Reservation, ReservationState, TransactionType
from services.credits.store import CreditsStore, Done
from services.runtime.database import Database, open_database
from tests.conftest import NewDatabase
from tests.integration.credits.stores import AT_ONCE, DAY, done, running_store
from tests.ledger_verification import problems


@pytest.fixture
async def database(new_database: NewDatabase) -> AsyncIterator[Database]:
    opened = open_database(new_database("credits"))
    yield opened
    try:
        assert await problems(opened) == []
    finally:
        await opened.close()


@pytest.fixture
async def store(database: Database) -> AsyncIterator[CreditsStore]:
    async with running_store(database) as running:
        yield running


@pytest.fixture
def reads(database: Database) -> LedgerReads:
    return LedgerReads(database)


def names(found: list[Reservation]) -> list[tuple[str, str]]:
    return [(reservation.user_id, reservation.reservation_id) for reservation in found]


async def test_reads_tell_what_was_written(store: CreditsStore, reads: LedgerReads) -> None:
    nobody = await reads.find_account("u")
    nothing = await reads.list_transactions("u", 10)
    opened = await store.submit(OpenAccount("u", 0))
    empty = await reads.list_transactions("u", 10)
    added = [
        done(await store.submit(AddCredits("u", f"q{n}", TransactionType.BONUS, n, f"gift {n}")))
        for n in (1, 2, 3)
    ]
    reserved = done(await store.submit(Reserve("u", "r", 5, DAY, "a fox")))
    rejected = await store.submit(Reserve("u", "r2", 5, DAY, "a hare"))
    newest = await reads.list_transactions("u", 2)
    older = await reads.list_transactions("u", 10, below_version=3)
    later = await reads.list_transactions("u", 10, after_version=2)
    between = await reads.list_transactions("u", 10, below_version=4, after_version=2)
    account = await reads.find_account("u")
    found = await reads.find_reservation("u", "r")
    refused = await reads.find_reservation("u", "r2")

    assert (nobody, nothing, empty) == (None, None, [])
    assert isinstance(opened, Done)
    assert isinstance(rejected, Refused)
    assert newest == later == [reserved.transaction, added[2].transaction]
    assert older == [added[1].transaction, added[0].transaction]
    assert between == [added[2].transaction]
    assert account == reserved.account == found.account
    assert found.reservation == reserved.reservation
    assert refused.reservation == rejected.remembered
    assert refused.reservation is not None
    assert refused.reservation.state is ReservationState.REJECTED


async def test_many_accounts_are_found_at_once(store: CreditsStore, reads: LedgerReads) -> None:
    users = {f"user{number}" for number in range(1100)}
    await asyncio.gather(*(store.submit(OpenAccount(user, 1)) for user in users))

    found = await reads.find_accounts(users | {"nobody"})

    assert {account.user_id for account in found} == users
    assert await reads.find_accounts(set()) == []


async def test_reservations_are_paged_by_time_and_then_by_id(
    store: CreditsStore, reads: LedgerReads
) -> None:
    # What is written in one batch has one time, so the ids decide among them.
    await asyncio.gather(*(store.submit(OpenAccount(user, 100)) for user in "abc"))
    for _ in range(2):
        await asyncio.gather(
            *(store.submit(Reserve(user, f"r{n}", 1, DAY)) for n in range(3) for user in "abc")
        )
        await store.submit(Reserve("a", "later", 1, DAY))

    for user_id in (None, "a"):
        everything = await reads.list_reservations(100, user_id=user_id)
        paged: list[Reservation] = []
        after = None
        while page := await reads.list_reservations(2, user_id=user_id, after=after):
            paged += page
            last = page[-1]
            after = ReservationPlace(last.created_at, last.reservation_id, last.user_id)

        assert paged == everything
        assert names(everything)[0] == ("a", "later")
        order = [(r.created_at, r.reservation_id, r.user_id) for r in everything]
        assert order == sorted(order, reverse=True)
    assert len(await reads.list_reservations(100)) == 10


async def test_reservations_are_found_by_state_and_age(
    store: CreditsStore, reads: LedgerReads
) -> None:
    await store.submit(OpenAccount("a", 100))
    for name in ("r1", "r2", "r3"):
        await store.submit(Reserve("a", name, 1, DAY))
    await store.submit(Commit("a", "r1"))
    await store.submit(Refund("a", "r2"))
    third = (await reads.find_reservation("a", "r3")).reservation
    assert third is not None

    committed = await reads.list_reservations(10, state=ReservationState.COMMITTED)
    open_ = await reads.list_reservations(10, user_id="a", state=ReservationState.RESERVED)
    older = await reads.list_reservations(10, created_before=third.created_at)

    assert names(committed) == [("a", "r1")]
    assert names(open_) == [("a", "r3")]
    assert names(older) == [("a", "r2"), ("a", "r1")]


async def test_what_is_due_is_found_from_the_longest_due_on(
    store: CreditsStore, reads: LedgerReads
) -> None:
    await asyncio.gather(*(store.submit(OpenAccount(user, 100)) for user in "ab"))
    for name in ("r1", "r2", "r3"):
        await store.submit(Reserve("a", name, 1, AT_ONCE))
    await store.submit(Reserve("b", "r1", 1, DAY))
    await store.submit(Refund("a", "r2"))
    await store.submit(Reserve("b", "r2", 1, AT_ONCE))

    found = await reads.due_reservations(10)
    rest = await reads.due_reservations(10, after=found[0])

    due = [(place.user_id, place.reservation_id) for place in found]
    assert due == [("a", "r1"), ("a", "r3"), ("b", "r2")]
    assert rest == found[1:]
