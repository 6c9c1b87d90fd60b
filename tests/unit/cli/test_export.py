"""A statement as CSV: what the first version's table had, then what the ledger knows besides."""

import csv
import io
from collections.abc import AsyncIterator

import pytest

from services.cli.export import COLUMNS, row_of, write_csv
from services.client.credits import Transaction, TransactionType
from services.runtime.errors import NotFound
from tests.unit.cli.samples import GENERATION_ID, paid_record, transaction


async def streamed(*transactions: Transaction) -> AsyncIterator[Transaction]:
    for one in transactions:
        yield one


def test_the_first_version_s_columns_come_first_in_its_order() -> None:
    assert COLUMNS[:7] == (
        "id",
        "user_id",
        "amount",
        "type",
        "generation_id",
        "description",
        "created_at",
    )


def test_a_transaction_is_named_by_its_user_and_its_version() -> None:
    cells = dict(zip(COLUMNS, row_of(paid_record()[1]), strict=True))

    assert cells == {
        "id": "ann:2",
        "user_id": "ann",
        "amount": -10,
        "type": "reservation",
        "generation_id": GENERATION_ID,
        "description": "",
        "created_at": "2026-05-04T12:00:00+00:00",
        "version": 2,
        "reserved_change": 10,
        "available_after": 90,
        "reserved_after": 10,
        "request_id": "",
    }


async def test_what_is_written_reads_back_as_it_was_and_sums_to_the_balance() -> None:
    said = 'a "red"\nfox, in snow'
    record = paid_record()
    record.append(transaction(4, TransactionType.ADJUSTMENT, credits=-5, description=said))
    file = io.StringIO()

    await write_csv(streamed(*record), file)

    rows = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert [row["version"] for row in rows] == ["1", "2", "3", "4"]
    assert rows[3]["description"] == said
    assert sum(int(row["amount"]) for row in rows) == 85


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1", "-1", "@A1", "\t=1", "\r=1", "\n=1"])
def test_no_text_of_people_s_is_a_formula_and_every_amount_is_a_number(text: str) -> None:
    one = transaction(4, TransactionType.ADJUSTMENT, credits=-5, description=text, request_id=text)

    cells = dict(zip(COLUMNS, row_of(one), strict=True))

    assert (cells["description"], cells["request_id"]) == (f"'{text}", f"'{text}")
    assert cells["amount"] == -5


async def test_an_empty_statement_has_its_titles_and_a_failed_one_nothing() -> None:
    async def refused() -> AsyncIterator[Transaction]:
        raise NotFound("ACCOUNT_NOT_FOUND", "No such account.")
        yield

    empty, failed = io.StringIO(), io.StringIO()

    await write_csv(streamed(), empty)
    with pytest.raises(NotFound):
        await write_csv(refused(), failed)

    assert empty.getvalue() == ",".join(COLUMNS) + "\n"
    assert failed.getvalue() == ""
