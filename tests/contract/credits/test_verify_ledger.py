"""VerifyLedger."""

import pytest
from sqlalchemy import text

from services.runtime.database import open_database
from services.runtime.errors import NotFound
from tests.contract.credits.conftest import Credits, bad_fields, refusal


async def lived(credits_service: Credits, user_id: str) -> None:
    """An account with one reservation of each end."""
    await credits_service.open(user_id)
    for name in ("committed", "refunded", "open"):
        await credits_service.call("Reserve", user_id=user_id, reservation_id=name, credits=20)
    await credits_service.call("Commit", user_id=user_id, reservation_id="committed", credits=15)
    await credits_service.call("Refund", user_id=user_id, reservation_id="refunded")
    await credits_service.call(
        "Reimburse",
        user_id=user_id,
        reservation_id="committed",
        credits=5,
        request_id="q",
        reason="late",
    )


async def test_a_good_ledger_proves_its_sums(credits_service: Credits) -> None:
    empty = await credits_service.call("VerifyLedger")
    for user_id in ("ada", "bob"):
        await lived(credits_service, user_id)

    everything = await credits_service.call("VerifyLedger")
    one = await credits_service.call("VerifyLedger", user_id="ada")

    read = [
        (answer.accounts_checked, answer.transactions_checked, list(answer.violations))
        for answer in (empty, everything, one)
    ]
    assert read == [(0, 0, []), (2, 14, []), (1, 7, [])]


async def test_a_user_of_whom_there_is_nothing_is_not_proven(credits_service: Credits) -> None:
    await lived(credits_service, "ada")

    nobody = await refusal(NotFound, credits_service.call("VerifyLedger", user_id="adda"))

    assert nobody == ("ACCOUNT_NOT_FOUND", {"user_id": "adda"})


@pytest.mark.parametrize("backend", ["postgresql"])
async def test_what_does_not_agree_is_said_in_a_sentence(credits_service: Credits) -> None:
    for user_id in ("ada", "bob"):
        await lived(credits_service, user_id)
    database = open_database(credits_service.database_url)
    try:
        for change in ("+ 10", "- 10"):
            async with database.write() as connection:
                await connection.execute(
                    text(
                        f"UPDATE accounts SET available = available {change} WHERE user_id = 'bob'"
                    )
                )
            answers = [
                await credits_service.call("VerifyLedger", user_id=user_id)
                for user_id in ("", "ada", "bob")
            ]
            if change == "+ 10":
                found = answers
    finally:
        await database.close()

    said = [[(v.invariant, v.user_id, v.detail) for v in answer.violations] for answer in found]
    wrong = [
        ("I1", "bob", "account bob has 80 available, its transactions say 70"),
        ("I6", "bob", "account bob has 100 and has spent 10, but 100 were added"),
    ]
    assert said == [wrong, [], wrong]
    assert not any(answer.violations for answer in answers)


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_a_malformed_user_is_refused(credits_service: Credits) -> None:
    assert await bad_fields(credits_service.call("VerifyLedger", user_id="a b")) == {"user_id"}
