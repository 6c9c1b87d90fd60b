"""ListTransactions."""

from reelworks.credits.v1 import credits_pb2

from services.runtime.errors import NotFound
from tests.contract.credits.conftest import Credits, bad_fields, refusal

Type = credits_pb2.Transaction.Type


async def test_a_statement_explains_the_balance_newest_first(credits_service: Credits) -> None:
    await credits_service.open()
    r1 = {"user_id": "ada", "reservation_id": "r1"}
    r2 = {"user_id": "ada", "reservation_id": "r2"}
    await credits_service.call("Reserve", credits=20, description="a fox", **r1)
    await credits_service.call("Commit", **r1)
    await credits_service.call("Reserve", credits=20, **r2)
    await credits_service.call("Refund", reason="no video", **r2)

    statement = await credits_service.call("ListTransactions", user_id="ada")

    rows = [
        (t.version, t.type, t.credits, t.reserved_change, t.available_after, t.reserved_after)
        for t in statement.transactions
    ]
    assert rows == [
        (5, Type.REFUND, 20, -20, 80, 0),
        (4, Type.RESERVATION, -20, 20, 60, 20),
        (3, Type.DEDUCTION, 0, -20, 80, 0),
        (2, Type.RESERVATION, -20, 20, 80, 20),
        (1, Type.BONUS, 100, 0, 100, 0),
    ]
    words = [(t.reservation_id, t.description) for t in statement.transactions]
    assert words == [
        ("r2", "no video"),
        ("r2", ""),
        ("r1", "a fox"),
        ("r1", "a fox"),
        ("", "Welcome bonus"),
    ]
    assert {t.user_id for t in statement.transactions} == {"ada"}
    assert statement.next_page_token == ""


async def test_pages_are_stable_while_others_write(credits_service: Credits) -> None:
    await credits_service.open()
    for number in range(6):
        await add(credits_service, f"q{number}")

    versions, token = [], ""
    for number in range(4):
        page = await credits_service.call(
            "ListTransactions", user_id="ada", page_size=2, page_token=token
        )
        versions.append([transaction.version for transaction in page.transactions])
        token = page.next_page_token
        await add(credits_service, f"later{number}")

    assert versions == [[7, 6], [5, 4], [3, 2], [1]]
    assert token == ""


async def test_a_page_that_holds_the_rest_exactly_is_the_last(credits_service: Credits) -> None:
    await credits_service.open()
    await add(credits_service, "q")

    page = await credits_service.call("ListTransactions", user_id="ada", page_size=2)

    assert len(page.transactions) == 2
    assert page.next_page_token == ""


async def test_a_token_is_good_for_its_own_statement_only(credits_service: Credits) -> None:
    await credits_service.open("ada")
    await credits_service.open("bob")
    await add(credits_service, "q")
    page = await credits_service.call("ListTransactions", user_id="ada", page_size=1)

    for user_id, token in (
        ("bob", page.next_page_token),
        ("ada", "2"),
        ("ada", page.next_page_token[:-4]),
        ("ada", page.next_page_token + "===="),
        ("ada", "ü"),
        ("ada", "!" * 32),
    ):
        call = credits_service.call("ListTransactions", user_id=user_id, page_token=token)
        assert await bad_fields(call) == {"page_token"}, token


async def test_what_is_unknown_is_not_found(credits_service: Credits) -> None:
    assert await refusal(NotFound, credits_service.call("ListTransactions", user_id="nobody")) == (
        "ACCOUNT_NOT_FOUND",
        {"user_id": "nobody"},
    )


async def test_malformed_fields_are_all_named(credits_service: Credits) -> None:
    for page_size in (-1, 1001):
        call = credits_service.call(
            "ListTransactions", user_id="a b", page_size=page_size, page_token="x"
        )
        assert await bad_fields(call) == {"user_id", "page_size", "page_token"}


async def add(credits_service: Credits, request_id: str) -> None:
    await credits_service.call(
        "AddCredits", user_id="ada", type=Type.BONUS, credits=1, request_id=request_id
    )


async def test_what_came_since_is_listed_alone(credits_service: Credits) -> None:
    await credits_service.open()
    for number in range(4):
        await add(credits_service, f"q{number}")

    since, token = [], ""
    for _ in range(2):
        page = await credits_service.call(
            "ListTransactions", user_id="ada", after_version=2, page_size=2, page_token=token
        )
        since.append([transaction.version for transaction in page.transactions])
        token = page.next_page_token
    nothing = await credits_service.call("ListTransactions", user_id="ada", after_version=5)

    assert since == [[5, 4], [3]]
    assert token == ""
    assert list(nothing.transactions) == []


async def test_a_token_is_good_for_the_same_beginning_only(credits_service: Credits) -> None:
    await credits_service.open()
    await add(credits_service, "q")
    page = await credits_service.call("ListTransactions", user_id="ada", page_size=1)

    call = credits_service.call(
        "ListTransactions", user_id="ada", after_version=1, page_token=page.next_page_token
    )

    assert await bad_fields(call) == {"page_token"}


async def test_a_version_below_zero_is_refused(credits_service: Credits) -> None:
    call = credits_service.call("ListTransactions", user_id="ada", after_version=-1)

    assert await bad_fields(call) == {"after_version"}
