"""Turns rows of the tables into the values that they stand for."""

from typing import Any

from sqlalchemy import RowMapping, Table

from services.credits.records import (
    Account,
    Reservation,
    ReservationState,
    Transaction,
    TransactionType,
)
from services.credits.tables import accounts, reservations, transactions

__all__ = ["account_of", "reservation_of", "transaction_of"]


def account_of(row: RowMapping) -> Account:
    """Returns the account in a row that has all its columns."""
    return Account(**_fields(accounts, row))


def reservation_of(row: RowMapping) -> Reservation:
    """Returns the reservation in a row that has all its columns."""
    fields = _fields(reservations, row)
    return Reservation(**fields | {"state": ReservationState(fields["state"])})


def transaction_of(row: RowMapping) -> Transaction:
    """Returns the transaction in a row that has all its columns."""
    fields = _fields(transactions, row)
    return Transaction(**fields | {"type": TransactionType(fields["type"])})


def _fields(table: Table, row: RowMapping) -> dict[str, Any]:
    """Returns what a row holds of a table; the fields of our records are named as its columns."""
    return {name: row[column] for name, column in table.c.items()}
