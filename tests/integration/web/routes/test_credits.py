"""What a user has, and a statement that adds up."""

import asyncio
import csv
import io
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.client.credits import CreditsClient, TransactionType
from services.runtime.errors import AlreadyExists, NotFound, PreconditionFailed
from services.web import statement
from tests.integration.web.routes.api import OTHER, USER, Api, pointers, refused

CSV = "/api/credits/transactions?format=csv"


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


async def test_a_new_user_has_the_welcome_bonus(api: Api) -> None:
    balance = (await api.get("/api/credits")).json()

    assert (balance["available_credits"], balance["reserved_credits"]) == (100, 0)
    assert balance["version"] == 1
    assert balance["update_time"].endswith("Z")
    assert "user_id" not in balance


async def test_a_statement_comes_in_pages_newest_first(api: Api) -> None:
    generation_id = await api.created()
    await api.reaches(generation_id, "COMPLETED")

    first = (await api.get("/api/credits/transactions?page_size=2")).json()
    second = (
        await api.get(
            "/api/credits/transactions",
            params={"page_size": 2, "page_token": first["next_page_token"]},
        )
    ).json()
    since = (await api.get("/api/credits/transactions?after_version=2")).json()

    shown = first["transactions"] + second["transactions"]
    assert [one["type"] for one in shown] == ["DEDUCTION", "RESERVATION", "BONUS"]
    assert [one["generation_id"] for one in shown] == [generation_id, generation_id, ""]
    assert [one["version"] for one in shown] == [3, 2, 1]
    assert second["next_page_token"] == ""
    assert [one["version"] for one in since["transactions"]] == [3]
    described = api.app.openapi()["components"]["schemas"]["Transaction"]
    assert set(shown[0]) == set(described["properties"])


async def test_a_statement_is_nobody_else_s(api: Api) -> None:
    await api.created()
    page = (await api.get("/api/credits/transactions?page_size=1")).json()

    theirs = (await api.get("/api/credits/transactions", user=OTHER)).json()
    by_token = await api.get(
        "/api/credits/transactions",
        params={"page_size": 1, "page_token": page["next_page_token"]},
        user=OTHER,
    )

    assert [one["type"] for one in theirs["transactions"]] == ["BONUS"]
    refused(by_token, 422, "INVALID_FIELD")


async def test_a_wish_for_a_statement_that_is_wrong_is_named(api: Api) -> None:
    wrong = [
        ("format=xml", "/format"),
        ("page_size=0", "/page_size"),
        ("after_version=-1", "/after_version"),
        ("after_version=99999999999999999999", "/after_version"),
        ("page_token=forged", "/page_token"),
        ("format=csv&page_size=5", "/page_size"),
        ("format=csv&page_token=x", "/page_token"),
        ("since=1", "/since"),
    ]
    for query, pointer in wrong:
        answer = await api.get(f"/api/credits/transactions?{query}")

        refused(answer, 422, "INVALID_FIELD")
        assert pointers(answer) == [pointer], query


async def test_a_file_is_named_and_holds_everything(api: Api) -> None:
    await api.reaches(await api.created(), "COMPLETED")

    answer = await api.get(CSV)
    since = await api.get(f"{CSV}&after_version=1")

    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"].startswith("attachment; filename=")
    assert answer.headers["Cache-Control"] == "no-store"
    assert [row["type"] for row in rows_of(answer.text)] == ["DEDUCTION", "RESERVATION", "BONUS"]
    assert [row["version"] for row in rows_of(since.text)] == ["3", "2"]


async def test_a_file_is_written_page_by_page_and_what_happens_meanwhile_is_not_in_it(
    api: Api, monkeypatch: Any
) -> None:
    monkeypatch.setattr(statement, "PAGE_SIZE", 10)
    async with CreditsClient(api.services.credits.address) as client:
        await client.open_account(USER)
        for number in range(25):
            await client.add_credits(USER, 1, TransactionType.PURCHASE, f"p{number}")
        first = await client.list_transactions(USER, 10)
        chunks = []
        async for chunk in statement.write_statement(client, USER, first):
            chunks.append(chunk)
            await client.add_credits(USER, 1, TransactionType.PURCHASE, f"during{len(chunks)}")

    rows = rows_of(b"".join(chunks).decode())
    assert [int(row["version"]) for row in rows] == list(range(26, 0, -1))
    assert len(chunks) == 4
    assert max(len(chunk) for chunk in chunks) < 2000
    assert sum(int(row["credits"]) for row in rows) == int(rows[0]["available_after"]) == 125


async def test_a_whole_statement_of_several_pages_comes_over_http(api: Api) -> None:
    async with CreditsClient(api.services.credits.address) as client:
        await client.open_account(USER)
        await asyncio.gather(
            *(
                client.add_credits(USER, 1, TransactionType.PURCHASE, f"p{number}", '=1+"x",\n')
                for number in range(statement.PAGE_SIZE + 5)
            )
        )

    rows = rows_of((await api.get(CSV)).text)

    assert [int(row["version"]) for row in rows] == list(range(statement.PAGE_SIZE + 6, 0, -1))
    assert sum(int(row["credits"]) for row in rows) == (await api.balance())[0]
    assert rows[0]["description"] == '\'=1+"x",\n'


KINDS = ("add", "take", "reserve", "commit", "commit_some", "refund", "reimburse")
MOVES = st.lists(
    st.tuples(
        st.sampled_from([*KINDS, "reserve", "reserve"]),
        st.integers(0, 3),
        st.integers(1, 60),
    ),
    min_size=10,
    max_size=20,
)


async def move(client: CreditsClient, user: str, place: int, what: tuple[str, int, int]) -> None:
    """Makes one movement on an account; raises PreconditionFailed or NotFound if it cannot be."""
    name, which, amount = what
    reservation_id, key = f"r{which}", f"k{place}"
    match name:
        case "add":
            await client.add_credits(user, amount, TransactionType.PURCHASE, key, "=bought")
        case "take":
            await client.add_credits(user, -amount, TransactionType.ADJUSTMENT, key, "-taken")
        case "reserve":
            await client.reserve(user, reservation_id, amount)
        case "commit":
            await client.commit(user, reservation_id)
        case "commit_some":
            await client.commit(user, reservation_id, 1)
        case "refund":
            await client.refund(user, reservation_id, "changed my mind")
        case "reimburse":
            await client.reimburse(user, reservation_id, 1, key, "sorry")


async def test_whatever_moved_the_credits_the_file_adds_up_row_by_row(api: Api) -> None:
    """The movements are real, and so is the ledger; what it accepted is counted."""
    histories: list[list[tuple[str, int, int]]] = []

    @settings(
        max_examples=40,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(MOVES)
    def collect(history: list[tuple[str, int, int]]) -> None:
        histories.append(history)

    collect()
    accepted: Counter[str] = Counter()
    types: Counter[str] = Counter()
    async with CreditsClient(api.services.credits.address) as client:
        for number, history in enumerate(histories):
            user = f"user-{number}"
            await client.open_account(user)
            for place, what in enumerate(history):
                try:
                    await move(client, user, place, what)
                except (AlreadyExists, NotFound, PreconditionFailed):
                    accepted["refused"] += 1
                else:
                    accepted[what[0]] += 1
            rows = rows_of((await api.get(CSV, user=user)).text)
            types.update(row["type"] for row in rows)
            available = reserved = 0
            for version, row in enumerate(reversed(rows), start=1):
                available += int(row["credits"])
                reserved += int(row["reserved_change"])
                assert int(row["version"]) == version
                assert int(row["available_after"]) == available
                assert int(row["reserved_after"]) == reserved
            assert (available, reserved) == await api.balance(user)

    assert all(accepted[name] >= 5 for name in KINDS), accepted
    assert sum(accepted[name] for name in KINDS) > 200
    assert set(types) >= {
        "PURCHASE",
        "BONUS",
        "ADJUSTMENT",
        "RESERVATION",
        "DEDUCTION",
        "REFUND",
        "REIMBURSEMENT",
    }
