"""Changes tables that have rows, by one description for SQLite and PostgreSQL.

SQLite cannot change a constraint of a table: it is made anew beside the old one, and filled from
it. Alembic's batch mode does that too, but drops the old table under the rows that refer to it,
which foreign keys forbid, and leaves a default behind with each new column.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from alembic import op
from sqlalchemy import CheckConstraint, Column, Connection, MetaData, Table, inspect, text

from services.runtime.database import SQLITE_TABLE

__all__ = ["TableChange", "change_tables"]


@dataclass(frozen=True, slots=True)
class TableChange:
    """What is to be different in a table."""

    table: str
    """Its name."""
    columns: tuple[Column[Any], ...] = ()
    """Columns to add. A `server_default`, which must be a constant, is what the present rows get;
    the table keeps no default."""
    checks: Mapping[str, str] = field(default_factory=dict)
    """Conditions by the whole names of their constraints, to add or to put in place of others."""


def change_tables(changes: Iterable[TableChange]) -> None:
    """Carries out `changes` inside a migration; every row, index and foreign key stays."""
    by_table = {change.table: change for change in changes}
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        _make_anew(connection, by_table)
        return
    for change in by_table.values():
        _alter(connection, change)


def _alter(connection: Connection, change: TableChange) -> None:
    present = {check["name"] for check in inspect(connection).get_check_constraints(change.table)}
    for column in change.columns:
        # With a constant default no row is rewritten, however many there are.
        op.add_column(change.table, column)
        if column.server_default is not None:
            op.alter_column(change.table, column.name, server_default=None)
    for name, condition in change.checks.items():
        if name in present:
            op.drop_constraint(op.f(name), change.table, type_="check")
        op.create_check_constraint(op.f(name), change.table, text(condition))


def _make_anew(connection: Connection, changes: Mapping[str, TableChange]) -> None:
    metadata = MetaData()
    metadata.reflect(connection, **SQLITE_TABLE)
    tables: list[Table] = []
    for table in metadata.sorted_tables:  # Those that others refer to come first.
        referred = {key.column.table for key in table.foreign_keys}
        # Who refers to a table that is renamed refers to it under its new name: make them anew too.
        if table.name in changes or referred.intersection(tables):
            tables.append(table)
    kept = {table.name: [column.name for column in table.columns] for table in tables}
    for table in tables:
        _declare(table, changes.get(table.name, TableChange(table.name)))
        for index in table.indexes:
            op.drop_index(str(index.name), table.name)  # The new table's has the same name.
    for table in tables:
        op.rename_table(table.name, _former(table))
    for table in tables:
        table.create(connection)
        _fill(connection, table, kept[table.name], changes.get(table.name))
    for table in reversed(tables):
        op.drop_table(_former(table))


def _declare(table: Table, change: TableChange) -> None:
    """Adds to a reflected table what is to be different."""
    for constraint in list(table.constraints):
        if isinstance(constraint, CheckConstraint) and constraint.name in change.checks:
            table.constraints.discard(constraint)
    for name, condition in change.checks.items():
        table.append_constraint(CheckConstraint(condition, name=op.f(name)))
    for column in change.columns:
        table.append_column(Column(column.name, column.type, nullable=column.nullable))


def _fill(
    connection: Connection, table: Table, kept: list[str], change: TableChange | None
) -> None:
    values = {name: name for name in kept}
    for column in change.columns if change else ():
        if column.server_default is not None:
            values[column.name] = str(column.server_default.arg)  # type: ignore[attr-defined]
    connection.execute(
        text(
            f"INSERT INTO {table.name} ({', '.join(values)}) "  # noqa: S608  No value of a user.
            f"SELECT {', '.join(values.values())} FROM {_former(table)}"
        )
    )


def _former(table: Table) -> str:
    return f"{table.name}_before"
