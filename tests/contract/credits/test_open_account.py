"""OpenAccount."""

import asyncio

from tests.contract.credits.conftest import Credits, bad_fields


async def test_an_account_is_opened_once_with_the_welcome_bonus(credits_service: Credits) -> None:
    first = await credits_service.call("OpenAccount", user_id="ada")
    await credits_service.call("Reserve", user_id="ada", reservation_id="r", credits=30)
    second = await credits_service.call("OpenAccount", user_id="ada")

    assert first.created
    assert (first.balance.user_id, first.balance.available_credits) == ("ada", 100)
    assert first.balance.version == 1
    assert first.balance.update_time.seconds > 0
    assert not second.created
    assert (second.balance.available_credits, second.balance.reserved_credits) == (70, 30)


async def test_of_many_openings_at_once_one_creates(credits_service: Credits) -> None:
    answers = await asyncio.gather(
        *(credits_service.call("OpenAccount", user_id="ada") for _ in range(8))
    )

    assert [answer.created for answer in answers].count(True) == 1
    assert {answer.balance.available_credits for answer in answers} == {100}


async def test_a_malformed_user_id_is_refused(credits_service: Credits) -> None:
    for user_id in ("", "a b", "x" * 65, "ü", "a/b", "a\n"):
        assert await bad_fields(credits_service.call("OpenAccount", user_id=user_id)) == {"user_id"}

    assert (await credits_service.call("OpenAccount", user_id="A-z_0" + "x" * 59)).created
