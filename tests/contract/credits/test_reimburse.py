"""Reimburse."""

from typing import Any

import pytest
from reelworks.credits.v1 import credits_pb2

from services.runtime.errors import AlreadyExists, NotFound, PreconditionFailed
from tests.contract.credits.conftest import Credits, bad_fields, refusal

Type = credits_pb2.Transaction.Type
ROOM = 10**15 - 70


async def commit(credits_service: Credits, reservation_id: str = "r", **fields: Any) -> None:
    await credits_service.open()
    r = {"user_id": "ada", "reservation_id": reservation_id}
    await credits_service.call("Reserve", credits=30, **r)
    await credits_service.call("Commit", **r, **fields)


async def reimburse(credits_service: Credits, amount: int, **changes: Any) -> Any:
    fields = {
        "user_id": "ada",
        "reservation_id": "r",
        "credits": amount,
        "request_id": "q",
        "reason": "blurred",
    }
    return await credits_service.call("Reimburse", **(fields | changes))


async def test_committed_credits_come_back_once(credits_service: Credits) -> None:
    await commit(credits_service)

    first = await reimburse(credits_service, 10)
    second = await reimburse(credits_service, 10, reason="another word changes nothing")

    assert not first.replayed
    assert first.reservation.state == credits_pb2.Reservation.COMMITTED
    assert (first.reservation.committed_credits, first.reservation.reimbursed_credits) == (30, 10)
    moved = first.transaction
    assert (moved.type, moved.credits, moved.reserved_change) == (Type.REIMBURSEMENT, 10, 0)
    assert (moved.reservation_id, moved.request_id, moved.description) == ("r", "q", "blurred")
    assert second.replayed
    assert (second.reservation, second.balance, second.transaction) == (
        first.reservation,
        first.balance,
        first.transaction,
    )
    assert await credits_service.balance() == (80, 0, 4)


async def test_a_replay_shows_what_came_after_it(credits_service: Credits) -> None:
    await commit(credits_service)
    first = await reimburse(credits_service, 10)
    await reimburse(credits_service, 20, request_id="q2")

    again = await reimburse(credits_service, 10)

    assert again.replayed
    assert again.reservation.reimbursed_credits == 30
    assert again.balance.available_credits == 100
    assert again.transaction == first.transaction


async def test_never_more_than_was_committed_comes_back(credits_service: Credits) -> None:
    await commit(credits_service, credits=12)
    await reimburse(credits_service, 10)

    assert await refusal(PreconditionFailed, reimburse(credits_service, 3, request_id="q2")) == (
        "REIMBURSE_EXCEEDS_COMMITTED",
        {"committed": "12", "reimbursed": "10", "required": "3"},
    )
    assert (await reimburse(credits_service, 2, request_id="q3")).balance.available_credits == 100


@pytest.mark.parametrize(
    ("changes", "field", "was"),
    [({"amount": 9}, "credits", "10"), ({"reservation_id": "r2"}, "reservation_id", "r")],
)
async def test_a_request_id_with_other_fields_is_refused(
    credits_service: Credits, changes: dict[str, Any], field: str, was: str
) -> None:
    await commit(credits_service)
    await commit(credits_service, "r2")
    await reimburse(credits_service, 10)

    call = reimburse(credits_service, **({"amount": 10} | changes))

    assert await refusal(AlreadyExists, call) == (
        "REQUEST_ID_REUSED",
        {"field": field, "was": was},
    )
    assert await credits_service.balance() == (50, 0, 6)


async def test_the_key_of_added_credits_is_another_one(credits_service: Credits) -> None:
    await commit(credits_service)
    await credits_service.call(
        "AddCredits", user_id="ada", credits=5, type=Type.BONUS, request_id="q"
    )

    assert not (await reimburse(credits_service, 10)).replayed


@pytest.mark.parametrize("state", ["RESERVED", "REFUNDED", "REJECTED"])
async def test_what_is_not_committed_cannot_come_back(credits_service: Credits, state: str) -> None:
    await credits_service.open()
    r = {"user_id": "ada", "reservation_id": "r"}
    if state == "REJECTED":
        await refusal(PreconditionFailed, credits_service.call("Reserve", credits=101, **r))
    else:
        await credits_service.call("Reserve", credits=30, **r)
    if state == "REFUNDED":
        await credits_service.call("Refund", **r)

    assert await refusal(PreconditionFailed, reimburse(credits_service, 1)) == (
        "NOT_COMMITTED",
        {"state": state},
    )


async def test_what_is_unknown_is_not_found(credits_service: Credits) -> None:
    assert await refusal(NotFound, reimburse(credits_service, 1)) == (
        "ACCOUNT_NOT_FOUND",
        {"user_id": "ada"},
    )
    await credits_service.open()
    assert await refusal(NotFound, reimburse(credits_service, 1)) == (
        "RESERVATION_NOT_FOUND",
        {"reservation_id": "r"},
    )


async def test_an_account_that_is_full_takes_nothing_back(credits_service: Credits) -> None:
    await commit(credits_service)
    await credits_service.call(
        "AddCredits", user_id="ada", credits=ROOM, type=Type.PURCHASE, request_id="q"
    )

    assert await refusal(PreconditionFailed, reimburse(credits_service, 1)) == (
        "BALANCE_LIMIT_EXCEEDED",
        {"limit": str(10**15)},
    )


@pytest.mark.parametrize("amount", [-1, 10**15 + 1])
async def test_malformed_fields_are_all_named(credits_service: Credits, amount: int) -> None:
    call = reimburse(
        credits_service,
        amount,
        user_id="a b",
        reservation_id="x" * 65,
        request_id="ü",
        reason="x" * 201,
    )

    assert await bad_fields(call) == {
        "user_id",
        "reservation_id",
        "credits",
        "request_id",
        "reason",
    }
    nothing = credits_service.call("Reimburse", user_id="ada")
    assert await bad_fields(nothing) == {"reservation_id", "credits", "request_id", "reason"}
