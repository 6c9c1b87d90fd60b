"""Refund."""

import asyncio
import time
from datetime import UTC
from typing import Any

from google.protobuf import duration_pb2
from reelworks.credits.v1 import credits_pb2

from services.runtime.errors import NotFound, PreconditionFailed
from tests.contract.credits.conftest import Credits, bad_fields, refusal

REFUNDED = credits_pb2.Reservation.REFUNDED


async def reserve(credits_service: Credits, credits: int = 30) -> None:  # noqa: A002  The field's.
    await credits_service.open()
    await credits_service.call("Reserve", user_id="ada", reservation_id="r", credits=credits)


async def refund(credits_service: Credits, **fields: Any) -> Any:
    return await credits_service.call("Refund", user_id="ada", reservation_id="r", **fields)


async def test_a_reservation_is_given_back_once(credits_service: Credits) -> None:
    await reserve(credits_service)

    first = await refund(credits_service, reason="no video")
    second = await refund(credits_service)
    statement = await credits_service.call("ListTransactions", user_id="ada")

    assert not first.replayed
    assert (first.reservation.state, first.reservation.committed_credits) == (REFUNDED, 0)
    assert second.replayed
    assert second.reservation == first.reservation
    assert await credits_service.balance() == (100, 0, 3)
    assert statement.transactions[0].description == "no video"
    assert statement.transactions[0].credits == 30


async def test_what_is_due_is_refunded_until_it_is_swept(credits_service: Credits) -> None:
    await credits_service.open()
    ttl = duration_pb2.Duration(seconds=1)
    made = await credits_service.call(
        "Reserve", user_id="ada", reservation_id="r", credits=30, ttl=ttl
    )
    due = made.reservation.expire_time.ToDatetime(UTC).timestamp()
    await asyncio.sleep(max(0, due - time.time()) + 0.01)

    answer = await refund(credits_service)

    assert (answer.reservation.state, answer.replayed) == (REFUNDED, False)
    assert await credits_service.balance() == (100, 0, 3)


async def test_what_is_committed_is_not_given_back(credits_service: Credits) -> None:
    await reserve(credits_service)
    await credits_service.call("Commit", user_id="ada", reservation_id="r", credits=12)

    assert await refusal(PreconditionFailed, refund(credits_service)) == (
        "ALREADY_COMMITTED",
        {"committed": "12"},
    )
    assert await credits_service.balance() == (88, 0, 3)


async def test_a_rejected_reservation_cannot_be_refunded(credits_service: Credits) -> None:
    await refusal(PreconditionFailed, reserve(credits_service, credits=101))

    assert await refusal(PreconditionFailed, refund(credits_service)) == (
        "RESERVATION_REJECTED",
        {},
    )


async def test_a_refund_before_its_reserve_leaves_nothing_in_its_way(
    credits_service: Credits,
) -> None:
    nobody = await refusal(NotFound, refund(credits_service))
    await credits_service.open()
    nothing = await refusal(NotFound, refund(credits_service))
    await reserve(credits_service)
    answer = await refund(credits_service)

    assert nobody == ("ACCOUNT_NOT_FOUND", {"user_id": "ada"})
    assert nothing == ("RESERVATION_NOT_FOUND", {"reservation_id": "r"})
    assert answer.reservation.state == REFUNDED


async def test_malformed_fields_are_all_named(credits_service: Credits) -> None:
    assert await bad_fields(
        credits_service.call("Refund", user_id="", reservation_id="x" * 65, reason="x" * 201)
    ) == {"user_id", "reservation_id", "reason"}
