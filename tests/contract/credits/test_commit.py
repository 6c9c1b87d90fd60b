"""Commit."""

import time
from datetime import UTC
from typing import Any

from google.protobuf import duration_pb2
from reelworks.credits.v1 import credits_pb2

from services.runtime.errors import NotFound, PreconditionFailed
from tests.contract.credits.conftest import Credits, bad_fields, refusal

COMMITTED = credits_pb2.Reservation.COMMITTED


async def reserve(credits_service: Credits, **changes: Any) -> None:
    await credits_service.open()
    fields = {"user_id": "ada", "reservation_id": "r", "credits": 30} | changes
    await credits_service.call("Reserve", **fields)


async def commit(credits_service: Credits, **fields: Any) -> Any:
    return await credits_service.call("Commit", user_id="ada", reservation_id="r", **fields)


async def test_all_is_spent_when_no_amount_is_named(credits_service: Credits) -> None:
    await reserve(credits_service)

    first = await commit(credits_service)
    second = await commit(credits_service, credits=30)

    assert not first.replayed
    assert (first.reservation.state, first.reservation.committed_credits) == (COMMITTED, 30)
    assert first.reservation.HasField("resolve_time")
    assert second.replayed
    assert (second.reservation, second.balance) == (first.reservation, first.balance)
    assert await credits_service.balance() == (70, 0, 3)


async def test_what_is_not_spent_returns(credits_service: Credits) -> None:
    await reserve(credits_service)

    answer = await commit(credits_service, credits=12)

    assert answer.reservation.committed_credits == 12
    assert await credits_service.balance() == (88, 0, 3)


async def test_nothing_is_spent_when_zero_is_named(credits_service: Credits) -> None:
    await reserve(credits_service)

    answer = await commit(credits_service, credits=0)

    assert (answer.reservation.state, answer.reservation.committed_credits) == (COMMITTED, 0)
    assert await credits_service.balance() == (100, 0, 3)


async def test_another_amount_than_before_is_refused(credits_service: Credits) -> None:
    await reserve(credits_service)
    await commit(credits_service, credits=12)

    assert await refusal(PreconditionFailed, commit(credits_service)) == (
        "COMMIT_MISMATCH",
        {"committed": "12", "required": "30"},
    )
    assert await credits_service.balance() == (88, 0, 3)


async def test_more_than_is_reserved_is_refused(credits_service: Credits) -> None:
    await reserve(credits_service)

    assert await refusal(PreconditionFailed, commit(credits_service, credits=31)) == (
        "COMMIT_EXCEEDS_RESERVATION",
        {"credits": "30", "required": "31"},
    )
    assert await credits_service.balance() == (70, 30, 2)


async def test_a_refunded_reservation_stays_refunded(credits_service: Credits) -> None:
    await reserve(credits_service)
    await credits_service.call("Refund", user_id="ada", reservation_id="r")

    assert await refusal(PreconditionFailed, commit(credits_service)) == ("ALREADY_REFUNDED", {})
    assert await credits_service.balance() == (100, 0, 3)


async def test_a_rejected_reservation_cannot_be_committed(credits_service: Credits) -> None:
    await refusal(PreconditionFailed, reserve(credits_service, credits=101))

    assert await refusal(PreconditionFailed, commit(credits_service)) == (
        "RESERVATION_REJECTED",
        {},
    )


async def test_an_expired_reservation_cannot_be_committed_and_counts_until_it_is_resolved(
    credits_service: Credits,
) -> None:
    await reserve(credits_service, ttl=duration_pb2.Duration(seconds=1))
    answer = await credits_service.call("GetReservation", user_id="ada", reservation_id="r")

    # Asking for too much is refused first, and so changes nothing while time passes.
    while time.time() <= answer.expire_time.ToDatetime(UTC).timestamp():
        too_much = await refusal(PreconditionFailed, commit(credits_service, credits=31))
    refused = await refusal(PreconditionFailed, commit(credits_service))

    assert too_much[0] == "COMMIT_EXCEEDS_RESERVATION"
    assert refused == (
        "RESERVATION_EXPIRED",
        {"expire_time": answer.expire_time.ToJsonString()},
    )
    assert await credits_service.balance() == (70, 30, 2)


async def test_what_is_unknown_is_not_found(credits_service: Credits) -> None:
    nobody = await refusal(NotFound, commit(credits_service))
    await credits_service.open()
    nothing = await refusal(NotFound, commit(credits_service))

    assert nobody == ("ACCOUNT_NOT_FOUND", {"user_id": "ada"})
    assert nothing == ("RESERVATION_NOT_FOUND", {"reservation_id": "r"})


async def test_malformed_fields_are_all_named(credits_service: Credits) -> None:
    assert await bad_fields(commit(credits_service, credits=-1)) == {"credits"}
    assert await bad_fields(commit(credits_service, credits=10**15 + 1)) == {"credits"}
    assert await bad_fields(credits_service.call("Commit", user_id="a b", credits=-1)) == {
        "user_id",
        "reservation_id",
        "credits",
    }
