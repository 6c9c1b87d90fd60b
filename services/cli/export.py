"""Writes a statement as CSV, with the columns of the product's first version in front."""

import csv
from collections.abc import AsyncIterator
from typing import TextIO

from services.client.credits import Transaction

__all__ = ["COLUMNS", "row_of", "write_csv"]

COLUMNS = (
    # Those of the table credit_transactions, in its order.
    "id",
    "user_id",
    "amount",
    "type",
    "generation_id",
    "description",
    "created_at",
    # What the ledger knows besides.
    "version",
    "reserved_change",
    "available_after",
    "reserved_after",
    "request_id",
)
_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a text begins with that spreadsheets would carry out instead of showing it."""


async def write_csv(statement: AsyncIterator[Transaction], file: TextIO) -> None:
    """Writes a line of titles and one for each transaction, as they come: they may be many.

    Nothing is written if the first transaction cannot be had.
    """
    writer = csv.writer(file, lineterminator="\n")
    first = await anext(statement, None)
    writer.writerow(COLUMNS)
    if first is not None:
        writer.writerow(row_of(first))
    async for transaction in statement:
        writer.writerow(row_of(transaction))
    file.flush()


def row_of(transaction: Transaction) -> tuple[str | int, ...]:
    """Returns the cells of a transaction, in the order of `COLUMNS`.

    The sum of its `amount` over a whole statement is what is available. A text of people's that a
    spreadsheet would take for a formula has a `'` in front.
    """
    return (
        # A colon is in no user's id, so that no two transactions share an id.
        f"{transaction.user_id}:{transaction.version}",
        transaction.user_id,
        transaction.credits,
        transaction.type.lower(),
        # A generation reserves under its own id.
        transaction.reservation_id,
        _as_text(transaction.description),
        transaction.created_at.isoformat(),
        transaction.version,
        transaction.reserved_change,
        transaction.available_after,
        transaction.reserved_after,
        _as_text(transaction.request_id),
    )


def _as_text(written: str) -> str:
    return f"'{written}" if written.startswith(_FORMULA_SIGNS) else written
