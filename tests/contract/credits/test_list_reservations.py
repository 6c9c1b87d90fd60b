"""ListReservations."""

from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf import timestamp_pb2
from reelworks.credits.v1 import credits_pb2

from services.credits.pages import reservation_page_token
from services.credits.reads import ReservationPlace
from services.runtime.errors import PreconditionFailed
from tests.contract.credits.conftest import Credits, bad_fields, refusal

State = credits_pb2.Reservation.State


async def reserve(credits_service: Credits, name: str, user_id: str = "ada") -> Any:
    answer = await credits_service.call(
        "Reserve", user_id=user_id, reservation_id=name, credits=5, description="a fox"
    )
    return answer.reservation


async def listed(credits_service: Credits, **fields: Any) -> list[tuple[str, str]]:
    answer = await credits_service.call("ListReservations", **fields)
    assert answer.next_page_token == ""
    return [(r.user_id, r.reservation_id) for r in answer.reservations]


async def test_each_reservation_is_shown_as_it_is_now(credits_service: Credits) -> None:
    await credits_service.open()
    open_ = await reserve(credits_service, "r1")
    await reserve(credits_service, "r2")
    await credits_service.call("Commit", user_id="ada", reservation_id="r2", credits=3)
    await credits_service.call(
        "Reimburse", user_id="ada", reservation_id="r2", credits=1, request_id="q", reason="late"
    )
    await refusal(
        PreconditionFailed,
        credits_service.call("Reserve", user_id="ada", reservation_id="r3", credits=500),
    )

    answer = await credits_service.call("ListReservations", user_id="ada")

    third, second, first = answer.reservations
    assert first == open_
    assert second == await credits_service.call(
        "GetReservation", user_id="ada", reservation_id="r2"
    )
    assert (second.state, second.committed_credits, second.reimbursed_credits) == (
        State.COMMITTED,
        3,
        1,
    )
    assert (third.reservation_id, third.state) == ("r3", State.REJECTED)


async def test_user_state_and_age_narrow_the_list(credits_service: Credits) -> None:
    await credits_service.open("ada")
    await credits_service.open("bob")
    await reserve(credits_service, "r1")
    await reserve(credits_service, "r1", "bob")
    youngest = await reserve(credits_service, "r2")
    await credits_service.call("Refund", user_id="ada", reservation_id="r1")
    before = youngest.create_time

    assert await listed(credits_service) == [("ada", "r2"), ("bob", "r1"), ("ada", "r1")]
    assert await listed(credits_service, user_id="bob") == [("bob", "r1")]
    assert await listed(credits_service, user_id="nobody") == []
    assert await listed(credits_service, state=State.RESERVED) == [("ada", "r2"), ("bob", "r1")]
    assert await listed(credits_service, state=State.REFUNDED, user_id="ada") == [("ada", "r1")]
    assert await listed(credits_service, state=State.RESERVED, created_before=before) == [
        ("bob", "r1")
    ]


@pytest.mark.parametrize("fields", [{}, {"user_id": "ada"}, {"state": State.RESERVED}])
async def test_pages_are_stable_while_others_write(
    credits_service: Credits, fields: dict[str, Any]
) -> None:
    await credits_service.open()
    for number in range(5):
        await reserve(credits_service, f"r{number}")

    pages, token = [], ""
    for number in range(3):
        page = await credits_service.call(
            "ListReservations", page_size=2, page_token=token, **fields
        )
        pages.append([reservation.reservation_id for reservation in page.reservations])
        token = page.next_page_token
        await reserve(credits_service, f"later{number}")

    assert pages == [["r4", "r3"], ["r2", "r1"], ["r0"]]
    assert token == ""


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_a_token_is_good_for_its_own_list_only(credits_service: Credits) -> None:
    await credits_service.open()
    for name in ("r1", "r2"):
        await reserve(credits_service, name)
    page = await credits_service.call("ListReservations", user_id="ada", page_size=1)
    token = page.next_page_token
    statement = await credits_service.call("ListTransactions", user_id="ada", page_size=1)

    for fields in (
        {"user_id": "bob", "page_token": token},
        {"page_token": token},
        {"user_id": "ada", "state": State.RESERVED, "page_token": token},
        {
            "user_id": "ada",
            "created_before": timestamp_pb2.Timestamp(seconds=1),
            "page_token": token,
        },
        {"user_id": "ada", "page_token": token[:-4]},
        {"user_id": "ada", "page_token": token + "===="},
        {"user_id": "ada", "page_token": "ü"},
        {"user_id": "ada", "page_token": statement.next_page_token},
    ):
        call = credits_service.call("ListReservations", **fields)
        assert await bad_fields(call) == {"page_token"}, fields
    assert await listed(credits_service, user_id="ada", page_token=token) == [("ada", "r1")]


@pytest.mark.parametrize(
    ("reservation_id", "user_id"), [("r\0", "ada"), ("", "ada"), ("r", "ada\0"), ("r", "a" * 65)]
)
async def test_a_forged_token_names_only_what_can_be(
    credits_service: Credits, reservation_id: str, user_id: str
) -> None:
    place = ReservationPlace(datetime(2026, 1, 1, tzinfo=UTC), reservation_id, user_id)
    token = reservation_page_token(credits_pb2.ListReservationsRequest(), place)

    call = credits_service.call("ListReservations", page_token=token)

    assert await bad_fields(call) == {"page_token"}


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_malformed_fields_are_all_named(credits_service: Credits) -> None:
    for seconds in (2**60, -(2**60)):
        call = credits_service.call(
            "ListReservations",
            user_id="a b",
            state=99,
            created_before=timestamp_pb2.Timestamp(seconds=seconds),
            page_size=1001,
            page_token="x",
        )
        assert await bad_fields(call) == {
            "user_id",
            "state",
            "created_before",
            "page_size",
            "page_token",
        }
