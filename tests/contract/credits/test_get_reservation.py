"""GetReservation."""

from services.runtime.errors import NotFound
from tests.contract.credits.conftest import Credits, bad_fields, refusal


async def test_a_reservation_is_answered_as_it_is_now(credits_service: Credits) -> None:
    await credits_service.open()
    fields = {"user_id": "ada", "reservation_id": "r"}

    reserved = await credits_service.call("Reserve", credits=30, **fields)
    before = await credits_service.call("GetReservation", **fields)
    committed = await credits_service.call("Commit", credits=12, **fields)
    after = await credits_service.call("GetReservation", **fields)

    assert before == reserved.reservation
    assert after == committed.reservation
    assert after.committed_credits == 12


async def test_what_is_unknown_or_another_users_is_not_found(credits_service: Credits) -> None:
    fields = {"user_id": "bob", "reservation_id": "r"}
    nobody = await refusal(NotFound, credits_service.call("GetReservation", **fields))
    await credits_service.open("ada")
    await credits_service.open("bob")
    await credits_service.call("Reserve", user_id="ada", reservation_id="r", credits=30)

    foreign = await refusal(NotFound, credits_service.call("GetReservation", **fields))

    assert nobody == ("ACCOUNT_NOT_FOUND", {"user_id": "bob"})
    assert foreign == ("RESERVATION_NOT_FOUND", {"reservation_id": "r"})


async def test_malformed_fields_are_all_named(credits_service: Credits) -> None:
    assert await bad_fields(credits_service.call("GetReservation", user_id="ü")) == {
        "user_id",
        "reservation_id",
    }
