"""The statements by which a batch is read and written; their text is the same for any batch."""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Dialect,
    Executable,
    FromClause,
    Insert,
    Table,
    Update,
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
from services.runtime.rowset import GivenRows

__all__ = ["BatchStatements", "RowsStatement", "batch_statements"]

_ACCOUNT_CHANGES = ("available", "reserved", "version", "created_at", "updated_at")
_RESERVATION_CHANGES = ("state", "committed", "reimbursed", "resolved_at")


@dataclass(frozen=True, slots=True)
class RowsStatement:
    """A statement that takes rows."""

    statement: Executable
    given: GivenRows


@dataclass(frozen=True, slots=True)
class BatchStatements:
    """All of a batch, in the order in which they are executed.

    What selects, gives the fields of a record in order.
    """

    insert_placeholders: RowsStatement
    """Takes rows of accounts and gives the users of those that were not there."""
    lock_accounts: RowsStatement
    """Takes `user_id`."""
    load_reservations: RowsStatement
    """Takes `user_id`, `reservation_id`."""
    load_transactions: RowsStatement
    """Takes `user_id`, `key`."""
    changes: Sequence[RowsStatement]
    """Changes of accounts, with `version_before` behind their columns, each to a row that still has
    it; new reservations; changes of reservations; new transactions."""
    changes_at_once: Executable | None
    """All `changes` in one statement, which gives how many rows each has changed; None where the
    database has no such statement."""


@functools.lru_cache(maxsize=8)
def batch_statements(dialect: Dialect) -> BatchStatements:
    """Returns the statements in the words of `dialect`; they are made once for an engine."""
    changes = _changes(dialect)
    return BatchStatements(
        insert_placeholders=_insert_new_accounts(dialect),
        lock_accounts=_lock_accounts(dialect),
        load_reservations=_load(reservations, Reservation, "reservation_id", dialect),
        load_transactions=_load(transactions, Transaction, "key", dialect),
        changes=[RowsStatement(statement, given) for statement, given in changes],
        changes_at_once=(
            _at_once([statement for statement, _ in changes])
            if dialect.name == "postgresql"
            else None
        ),
    )


def _insert_new_accounts(dialect: Dialect) -> RowsStatement:
    # Each dialect has an insert of its own, alike in what is used here.
    insert_new: Any = sqlite.insert if dialect.name == "sqlite" else postgresql.insert
    given = GivenRows(accounts.c, dialect)
    rows = given.table.c
    statement: Executable = (
        insert_new(accounts)
        .from_select(
            accounts.c.keys(),
            # SQLite takes ON CONFLICT behind a SELECT for a join, unless that has a WHERE.
            select(*rows).where(rows.user_id.is_not(None)).order_by(rows.user_id),
        )
        .on_conflict_do_nothing()
        .returning(accounts.c.user_id)
    )
    return RowsStatement(statement, given)


def _lock_accounts(dialect: Dialect) -> RowsStatement:
    given = GivenRows([accounts.c.user_id], dialect)
    statement = (
        select(*_fields(accounts, Account))
        .join_from(accounts, given.table, accounts.c.user_id == given.table.c.user_id)
        .order_by(accounts.c.user_id)
        .with_for_update(of=accounts)
    )
    return RowsStatement(statement, given)


def _load(table: Table, record: type[Any], key: str, dialect: Dialect) -> RowsStatement:
    given = GivenRows([table.c.user_id, table.c[key]], dialect)
    same = _same(table, given.table, key)
    return RowsStatement(select(*_fields(table, record)).join_from(table, given.table, same), given)


def _changes(dialect: Dialect) -> list[tuple[Insert | Update, GivenRows]]:
    version_before: ColumnElement[Any] = column("version_before", Int64)
    moved = GivenRows([*accounts.c, version_before], dialect, "moved")
    made = GivenRows(reservations.c, dialect, "made")
    resolved = GivenRows(reservations.c, dialect, "resolved")
    written = GivenRows(transactions.c, dialect, "written")
    return [
        (
            update(accounts)
            .values({name: moved.table.c[name] for name in _ACCOUNT_CHANGES})
            .where(
                accounts.c.user_id == moved.table.c.user_id,
                accounts.c.version == moved.table.c.version_before,
            ),
            moved,
        ),
        (_insert(reservations, made), made),
        (
            update(reservations)
            .values({name: resolved.table.c[name] for name in _RESERVATION_CHANGES})
            .where(_same(reservations, resolved.table, "reservation_id")),
            resolved,
        ),
        (_insert(transactions, written), written),
    ]


def _at_once(changes: Sequence[Insert | Update]) -> Executable:
    """Returns one statement that does what all `changes` do, and gives their numbers of rows."""
    changed = [
        change.returning(change.table.c.user_id).cte(f"changed{number}")
        for number, change in enumerate(changes)
    ]
    return select(*(select(func.count()).select_from(rows).scalar_subquery() for rows in changed))


def _insert(table: Table, given: GivenRows) -> Insert:
    return insert(table).from_select(table.c.keys(), select(*given.table.c))


def _same(table: Table, given: FromClause, key: str) -> ColumnElement[bool]:
    return and_(table.c.user_id == given.c.user_id, table.c[key] == given.c[key])


def _fields(table: Table, record: type[Any]) -> Iterable[ColumnElement[Any]]:
    """Returns the columns in the order in which `record` takes them."""
    return [table.c[field.name] for field in fields(record)]
