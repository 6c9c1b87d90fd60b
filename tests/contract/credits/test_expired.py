"""Every command on a reservation that was swept: EXPIRED."""

import asyncio
from typing import Any

import pytest
from reelworks.credits.v1 import credits_pb2

from services.credits.commands import OpenAccount, Reserve
from services.runtime.database import open_database
from services.runtime.errors import AlreadyExists, PreconditionFailed
from tests.conftest import NewDatabase
from tests.contract.credits.conftest import Credits, refusal
from tests.integration.credits.stores import AT_ONCE, running_store

State = credits_pb2.Reservation.State
LIMIT_S = 10.0


@pytest.fixture
async def database_url(new_database: NewDatabase) -> str:
    """A ledger with a reservation that was due before the service, and its sweeper, began."""
    url = new_database("credits")
    database = open_database(url)
    async with running_store(database) as store:
        await store.submit(OpenAccount("ada", 100))
        await store.submit(Reserve("ada", "r", 30, AT_ONCE))
    await database.close()
    return url


@pytest.fixture
async def expired(credits_service: Credits) -> Any:
    """The reservation, once it was swept."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            found = await credits_service.call("GetReservation", user_id="ada", reservation_id="r")
            if found.state == State.EXPIRED:
                return found
            await asyncio.sleep(0.02)


async def test_a_refund_finds_the_credits_given_back_already(
    credits_service: Credits, expired: Any
) -> None:
    answer = await credits_service.call("Refund", user_id="ada", reservation_id="r")

    assert answer.replayed
    assert answer.reservation == expired
    assert await credits_service.balance() == (100, 0, 3)


async def test_what_was_never_spent_is_not_reimbursed_nor_spent_any_more(
    credits_service: Credits, expired: Any
) -> None:
    names = {"user_id": "ada", "reservation_id": "r"}
    reimburse = credits_service.call("Reimburse", **names, credits=1, request_id="q", reason="x")
    commit = credits_service.call("Commit", **names)
    expire_time = expired.expire_time.ToJsonString()

    assert await refusal(PreconditionFailed, reimburse) == ("NOT_COMMITTED", {"state": "EXPIRED"})
    assert await refusal(PreconditionFailed, commit) == (
        "RESERVATION_EXPIRED",
        {"expire_time": expire_time},
    )
    assert await credits_service.balance() == (100, 0, 3)


async def test_the_same_reserve_is_a_replay_and_another_is_refused(
    credits_service: Credits, expired: Any
) -> None:
    names = {"user_id": "ada", "reservation_id": "r"}

    answer = await credits_service.call("Reserve", **names, credits=30)
    other = credits_service.call("Reserve", **names, credits=31)

    assert answer.replayed
    assert answer.reservation == expired
    assert (await refusal(AlreadyExists, other))[0] == "RESERVATION_ID_REUSED"
