"""Reserve."""

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from reelworks.credits.v1 import credits_pb2

from services.runtime.errors import AlreadyExists, NotFound, PreconditionFailed
from tests.contract.credits.conftest import Credits, bad_fields, refusal

MAX = 10**15
DAY_S = 86_400
RESERVED = credits_pb2.Reservation.RESERVED
REJECTED = credits_pb2.Reservation.REJECTED


def request(**changes: Any) -> dict[str, Any]:
    return {"user_id": "ada", "reservation_id": "r", "credits": 30} | changes


async def test_credits_are_set_aside_once(credits_service: Credits) -> None:
    await credits_service.open()

    first = await credits_service.call("Reserve", **request(description="a red fox"))
    ttl = duration_pb2.Duration(seconds=60)
    second = await credits_service.call("Reserve", **request(ttl=ttl, description="a blue fox"))

    reservation = first.reservation
    assert not first.replayed
    assert (reservation.state, reservation.credits) == (RESERVED, 30)
    assert (reservation.committed_credits, reservation.description) == (0, "a red fox")
    assert reservation.expire_time.seconds - reservation.create_time.seconds == 7 * DAY_S
    assert not reservation.HasField("resolve_time")
    assert second.replayed
    assert second.reservation == reservation
    assert await credits_service.balance() == (70, 30, 2)


async def test_the_same_reservation_with_other_credits_is_refused(
    credits_service: Credits,
) -> None:
    await credits_service.open()
    await credits_service.call("Reserve", **request())

    assert await refusal(AlreadyExists, credits_service.call("Reserve", **request(credits=31))) == (
        "RESERVATION_ID_REUSED",
        {"field": "credits", "was": "30"},
    )
    assert await credits_service.balance() == (70, 30, 2)


async def test_a_reused_id_is_told_in_a_sentence(credits_service: Credits) -> None:
    await credits_service.open()
    await credits_service.call("Reserve", **request())

    with pytest.raises(AlreadyExists) as raised:
        await credits_service.call("Reserve", **request(credits=31))

    assert raised.value.message == "The reservation id was used before with credits = 30."


async def test_a_refusal_for_want_of_credits_is_remembered(credits_service: Credits) -> None:
    await credits_service.open()

    first = await refusal(
        PreconditionFailed, credits_service.call("Reserve", **request(credits=101))
    )
    bonus = {"type": credits_pb2.Transaction.BONUS, "credits": 100, "request_id": "q"}
    await credits_service.call("AddCredits", user_id="ada", **bonus)
    second = await refusal(
        PreconditionFailed, credits_service.call("Reserve", **request(credits=101))
    )
    kept = await credits_service.call("GetReservation", user_id="ada", reservation_id="r")

    assert first == ("INSUFFICIENT_CREDITS", {"required": "101", "available": "100"})
    assert second == first
    assert (kept.state, kept.credits) == (REJECTED, 101)
    assert await credits_service.balance() == (200, 0, 2)


async def test_of_many_reservations_at_once_only_those_that_fit_succeed(
    credits_service: Credits,
) -> None:
    await credits_service.open()

    answers = await asyncio.gather(
        *(
            credits_service.call("Reserve", **request(reservation_id=f"r{number}"))
            for number in range(8)
        ),
        return_exceptions=True,
    )

    refused = [answer for answer in answers if isinstance(answer, PreconditionFailed)]
    assert len(refused) == 5
    assert await credits_service.balance() == (10, 90, 4)


async def test_an_account_that_was_never_opened_reserves_nothing(
    credits_service: Credits,
) -> None:
    assert await refusal(NotFound, credits_service.call("Reserve", **request())) == (
        "ACCOUNT_NOT_FOUND",
        {"user_id": "ada"},
    )


async def test_malformed_fields_are_all_named(credits_service: Credits) -> None:
    def seconds(number: int, nanos: int = 0) -> dict[str, Any]:
        return {"ttl": duration_pb2.Duration(seconds=number, nanos=nanos)}

    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({"credits": 0}, {"credits"}),
        ({"credits": -1}, {"credits"}),
        ({"credits": MAX + 1}, {"credits"}),
        (seconds(0), {"ttl"}),
        (seconds(0, 999_999_999), {"ttl"}),
        (seconds(30 * DAY_S, 1), {"ttl"}),
        (seconds(-1), {"ttl"}),
        (seconds(2**62), {"ttl"}),
        (seconds(2, -500_000_000), {"ttl"}),
        (seconds(0, 2 * 10**9), {"ttl"}),
        ({"reservation_id": "a:b"}, {"reservation_id"}),
        ({"description": "x" * 201}, {"description"}),
        (
            {"user_id": "!", "reservation_id": "", "credits": 0} | seconds(0),
            {"user_id", "reservation_id", "credits", "ttl"},
        ),
    ]
    await credits_service.open()

    for change, fields in cases:
        assert await bad_fields(credits_service.call("Reserve", **request(**change))) == fields

    assert await credits_service.balance() == (100, 0, 1)
    await credits_service.call("Reserve", **request(**seconds(30 * DAY_S)))
    await credits_service.call("Reserve", **request(reservation_id="s", **seconds(1)))


async def test_a_caller_that_leaves_and_repeats_its_call_reserves_once(
    credits_service: Credits,
) -> None:
    await credits_service.open()
    reserve = credits_service.stub.Reserve
    left = [reserve(credits_pb2.ReserveRequest(**request())) for _ in range(5)]
    await asyncio.sleep(0)
    for call in left:
        call.cancel()

    answer = await credits_service.call("Reserve", **request())

    assert answer.reservation.state == RESERVED
    assert await credits_service.balance() == (70, 30, 2)


async def test_a_deadline_that_has_passed_is_told_and_the_call_can_be_repeated(
    credits_service: Credits,
) -> None:
    await credits_service.open()
    late = credits_service.stub.Reserve(credits_pb2.ReserveRequest(**request()), timeout=0.000_1)

    code = await late.code()
    await credits_service.call("Reserve", **request())

    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await credits_service.balance() == (70, 30, 2)
