"""Writes a statement as CSV that adds up, row by row, and that spreadsheets only show."""

import csv
import io
from collections.abc import AsyncIterator, Sequence

from services.client.credits import CreditsClient, Transaction, TransactionPage

__all__ = ["COLUMNS", "PAGE_SIZE", "lines_of", "write_statement"]

COLUMNS = (
    "version",
    "create_time",
    "type",
    "generation_id",
    "credits",
    "available_after",
    "reserved_change",
    "reserved_after",
    "description",
)
PAGE_SIZE = 500
"""Transactions in memory at once; the service has up to 1000 in a page."""
_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a text begins with that spreadsheets would carry out instead of showing it."""


async def write_statement(
    client: CreditsClient, user_id: str, first: TransactionPage, after_version: int = 0
) -> AsyncIterator[bytes]:
    """Yields the statement of a user, newest first, from its `first` page on, page by page.

    What happens meanwhile is not in it: each row's `available_after` is that of the row below it
    plus its own `credits`, and the last one begins at what was available after `after_version`.
    """
    yield lines_of((), with_titles=True)
    page = first
    while True:
        yield lines_of(page.transactions)
        if not page.next_page_token:
            return
        page = await client.list_transactions(
            user_id, PAGE_SIZE, page.next_page_token, after_version=after_version
        )


def lines_of(transactions: Sequence[Transaction], *, with_titles: bool = False) -> bytes:
    """Returns the lines of some transactions, as RFC 4180 has them."""
    text = io.StringIO()
    writer = csv.writer(text)
    if with_titles:
        writer.writerow(COLUMNS)
    writer.writerows(map(_row, transactions))
    return text.getvalue().encode()


def _row(transaction: Transaction) -> tuple[str | int, ...]:
    return (
        transaction.version,
        transaction.created_at.isoformat().replace("+00:00", "Z"),
        transaction.type,
        # A generation reserves under its own id; other work may have ids of another form.
        _as_text(transaction.reservation_id),
        transaction.credits,
        transaction.available_after,
        transaction.reserved_change,
        transaction.reserved_after,
        _as_text(transaction.description),
    )


def _as_text(written: str) -> str:
    return f"'{written}" if written.startswith(_FORMULA_SIGNS) else written
