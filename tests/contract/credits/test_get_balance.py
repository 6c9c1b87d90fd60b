"""GetBalance."""

from tests.contract.credits.conftest import Credits, bad_fields


async def test_a_user_without_an_account_has_zero_at_version_zero(credits_service: Credits) -> None:
    balance = await credits_service.call("GetBalance", user_id="nobody")

    assert (balance.user_id, balance.available_credits, balance.reserved_credits) == (
        "nobody",
        0,
        0,
    )
    assert balance.version == 0
    assert not balance.HasField("update_time")


async def test_a_balance_is_what_the_last_write_answered(credits_service: Credits) -> None:
    await credits_service.open()

    written = await credits_service.call("Reserve", user_id="ada", reservation_id="r", credits=30)
    read = await credits_service.call("GetBalance", user_id="ada")

    assert read == written.balance
    assert await credits_service.balance() == (70, 30, 2)


async def test_a_malformed_user_id_is_refused(credits_service: Credits) -> None:
    assert await bad_fields(credits_service.call("GetBalance", user_id="a b")) == {"user_id"}
