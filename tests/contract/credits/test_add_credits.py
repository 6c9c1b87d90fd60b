"""AddCredits."""

from typing import Any

from reelworks.credits.v1 import credits_pb2

from services.runtime.errors import AlreadyExists, NotFound, PreconditionFailed
from tests.contract.credits.conftest import Credits, bad_fields, refusal

PURCHASE = credits_pb2.Transaction.PURCHASE
BONUS = credits_pb2.Transaction.BONUS
ADJUSTMENT = credits_pb2.Transaction.ADJUSTMENT
MAX = 10**15


async def test_credits_are_added_once(credits_service: Credits) -> None:
    await credits_service.open()
    fields = {"user_id": "ada", "request_id": "pay:1/x", "credits": 50}

    first = await credits_service.call("AddCredits", type=PURCHASE, description="Pack", **fields)
    second = await credits_service.call("AddCredits", type=PURCHASE, **fields)

    assert not first.replayed
    assert (first.transaction.version, first.transaction.credits) == (2, 50)
    assert (first.transaction.type, first.transaction.request_id) == (PURCHASE, "pay:1/x")
    assert (first.transaction.available_after, first.transaction.description) == (150, "Pack")
    assert first.transaction.reservation_id == ""
    assert second.replayed
    assert second.transaction == first.transaction
    assert await credits_service.balance() == (150, 0, 2)


async def test_the_same_request_with_other_fields_is_refused(credits_service: Credits) -> None:
    await credits_service.open()
    fields: dict[str, Any] = {"user_id": "ada", "request_id": "q"}
    await credits_service.call("AddCredits", type=BONUS, credits=50, **fields)

    other_credits = await refusal(
        AlreadyExists, credits_service.call("AddCredits", type=BONUS, credits=51, **fields)
    )
    other_type = await refusal(
        AlreadyExists, credits_service.call("AddCredits", type=PURCHASE, credits=50, **fields)
    )

    assert other_credits == ("REQUEST_ID_REUSED", {"field": "credits", "was": "50"})
    assert other_type == ("REQUEST_ID_REUSED", {"field": "type", "was": "BONUS"})
    assert await credits_service.balance() == (150, 0, 2)


async def test_an_adjustment_takes_what_is_available_and_no_more(credits_service: Credits) -> None:
    await credits_service.open()
    await credits_service.call("Reserve", user_id="ada", reservation_id="r", credits=30)
    fields: dict[str, Any] = {"user_id": "ada", "type": ADJUSTMENT}

    too_much = await refusal(
        PreconditionFailed,
        credits_service.call("AddCredits", credits=-71, request_id="q1", **fields),
    )
    taken = await credits_service.call("AddCredits", credits=-70, request_id="q1", **fields)

    assert too_much == ("INSUFFICIENT_CREDITS", {"required": "71", "available": "70"})
    assert taken.transaction.credits == -70
    assert await credits_service.balance() == (0, 30, 3)


async def test_no_account_holds_more_than_the_limit(credits_service: Credits) -> None:
    await credits_service.open()
    fields: dict[str, Any] = {"user_id": "ada", "type": PURCHASE}

    above = await refusal(
        PreconditionFailed,
        credits_service.call("AddCredits", credits=MAX - 99, request_id="q", **fields),
    )
    await credits_service.call("AddCredits", credits=MAX - 100, request_id="q", **fields)

    assert above == ("BALANCE_LIMIT_EXCEEDED", {"limit": str(MAX)})
    assert await credits_service.balance() == (MAX, 0, 2)


async def test_an_account_that_was_never_opened_gets_nothing(credits_service: Credits) -> None:
    assert await refusal(
        NotFound,
        credits_service.call("AddCredits", user_id="nobody", type=BONUS, credits=1, request_id="q"),
    ) == ("ACCOUNT_NOT_FOUND", {"user_id": "nobody"})


async def test_malformed_fields_are_all_named(credits_service: Credits) -> None:
    good: dict[str, Any] = {"user_id": "ada", "type": BONUS, "credits": 1, "request_id": "q"}
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({"credits": 0}, {"credits"}),
        ({"credits": -1}, {"credits"}),
        ({"credits": MAX + 1}, {"credits"}),
        ({"credits": -MAX - 1, "type": ADJUSTMENT}, {"credits"}),
        ({"credits": -(2**63), "type": ADJUSTMENT}, {"credits"}),
        ({"type": 0}, {"type"}),
        ({"type": credits_pb2.Transaction.REFUND}, {"type"}),
        ({"type": 99}, {"type"}),
        ({"request_id": "a b"}, {"request_id"}),
        ({"request_id": "x" * 65}, {"request_id"}),
        ({"description": "x" * 201}, {"description"}),
        ({"description": "\0"}, {"description"}),
        (
            {"user_id": "", "type": 4, "credits": 0, "request_id": "ü", "description": "x" * 201},
            {"user_id", "type", "credits", "request_id", "description"},
        ),
    ]
    await credits_service.open()

    for change, fields in cases:
        assert await bad_fields(credits_service.call("AddCredits", **good | change)) == fields

    await credits_service.call("AddCredits", **good, description="ü" * 200)
    assert await credits_service.balance() == (101, 0, 2)
