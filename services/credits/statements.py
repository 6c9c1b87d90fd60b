"""The statements by which a batch is read and written; their text is the same for any batch."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Dialect,
    Executable,
    FromClause,
    Table,
    and_,
    column,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from services.credits.records import Account, Reservation, Transaction
from services.credits.tables import accounts, reservations, transactions
from services.runtime.database import Int64
from services.runtime.rowset import given_rows

__all__ = ["BatchStatements", "batch_statements"]

_ACCOUNT_CHANGES = ("available", "reserved", "version", "created_at", "updated_at")
_RESERVATION_CHANGES = ("state", "committed", "reimbursed", "resolved_at")


@dataclass(frozen=True, slots=True)
class BatchStatements:
    """All of a batch, in the order in which they are executed.

    Each takes its rows by `row_parameter`; what selects, gives the fields of a record in order.
    """

    plan_by_keys: Executable | None
    """To be executed first in the database transaction, without rows; None where not needed."""
    insert_placeholders: Executable
    """Takes rows of accounts and gives the users of those that were not there."""
    lock_accounts: Executable
    """Takes `user_id`."""
    load_reservations: Executable
    """Takes `user_id`, `reservation_id`."""
    load_transactions: Executable
    """Takes `user_id`, `key`."""
    update_accounts: Executable
    """Takes rows of accounts with `version_before`; gives a row for each that still had it."""
    insert_reservations: Executable
    update_reservations: Executable
    """Takes rows of reservations; gives a row for each that was there."""
    insert_transactions: Executable


@functools.lru_cache(maxsize=8)
def batch_statements(dialect: Dialect) -> BatchStatements:
    """Returns the statements in the words of `dialect`; they are made once for an engine."""
    by_user = given_rows([accounts.c.user_id], dialect)
    version_before: ColumnElement[Any] = column("version_before", Int64)
    changed_accounts = given_rows([*accounts.c, version_before], dialect)
    changed_reservations = given_rows(reservations.c, dialect)
    return BatchStatements(
        plan_by_keys=_plan_by_keys() if dialect.name == "postgresql" else None,
        insert_placeholders=_insert_new_accounts(dialect),
        lock_accounts=(
            select(*_fields(accounts, Account))
            .join_from(accounts, by_user, accounts.c.user_id == by_user.c.user_id)
            .order_by(accounts.c.user_id)
            .with_for_update(of=accounts)
        ),
        load_reservations=_load(reservations, Reservation, "reservation_id", dialect),
        load_transactions=_load(transactions, Transaction, "key", dialect),
        update_accounts=(
            update(accounts)
            .values({name: changed_accounts.c[name] for name in _ACCOUNT_CHANGES})
            .where(
                accounts.c.user_id == changed_accounts.c.user_id,
                accounts.c.version == changed_accounts.c.version_before,
            )
            .returning(accounts.c.user_id)
        ),
        insert_reservations=_insert(reservations, dialect),
        update_reservations=(
            update(reservations)
            .values({name: changed_reservations.c[name] for name in _RESERVATION_CHANGES})
            .where(_same(reservations, changed_reservations, "reservation_id"))
            .returning(reservations.c.reservation_id)
        ),
        insert_transactions=_insert(transactions, dialect),
    )


def _plan_by_keys() -> Executable:
    """Returns what makes PostgreSQL find rows by their keys for the rest of the transaction.

    Its planner cannot tell how many rows a parameter holds, and would read whole tables for a few.
    A plan that it keeps from when a table was empty finds a reservation through all of its user's.
    """
    settings = {
        "plan_cache_mode": "force_custom_plan",
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
        "enable_seqscan": "off",
    }
    return select(*(func.set_config(name, value, True) for name, value in settings.items()))


def _insert_new_accounts(dialect: Dialect) -> Executable:
    # Each dialect has an insert of its own, alike in what is used here.
    insert_new: Any = sqlite.insert if dialect.name == "sqlite" else postgresql.insert
    given = given_rows(accounts.c, dialect)
    statement: Executable = (
        insert_new(accounts)
        .from_select(
            accounts.c.keys(),
            # SQLite takes ON CONFLICT behind a SELECT for a join, unless that has a WHERE.
            select(*given.c).where(given.c.user_id.is_not(None)).order_by(given.c.user_id),
        )
        .on_conflict_do_nothing()
        .returning(accounts.c.user_id)
    )
    return statement


def _insert(table: Table, dialect: Dialect) -> Executable:
    return insert(table).from_select(table.c.keys(), select(*given_rows(table.c, dialect).c))


def _load(table: Table, record: type[Any], key: str, dialect: Dialect) -> Executable:
    given = given_rows([table.c.user_id, table.c[key]], dialect)
    return select(*_fields(table, record)).join_from(table, given, _same(table, given, key))


def _same(table: Table, given: FromClause, key: str) -> ColumnElement[bool]:
    return and_(table.c.user_id == given.c.user_id, table.c[key] == given.c[key])


def _fields(table: Table, record: type[Any]) -> Iterable[ColumnElement[Any]]:
    """Returns the columns in the order in which `record` takes them."""
    return [table.c[field.name] for field in fields(record)]
