"""Rows given to a statement arrive as they are, however many they are."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import ColumnElement, Text, column, select
from sqlalchemy.exc import DBAPIError

from services.runtime.database import Database, Instant, Int64, open_database
from services.runtime.rowset import GivenRows
from tests.conftest import NewDatabase

COLUMNS: list[ColumnElement[Any]] = [
    column("name", Text()),
    column("amount", Int64),
    column("at", Instant()),
]


@pytest.fixture
async def database(new_database: NewDatabase) -> AsyncIterator[Database]:
    opened = open_database(new_database("credits"))
    yield opened
    await opened.close()


async def sent(database: Database, rows: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Returns what the database makes of rows."""
    async with database.read() as connection:
        given = GivenRows(COLUMNS, connection.dialect)
        found = await connection.execute(select(*given.table.c), given.parameters(rows))
        return [tuple(row) for row in found]


async def test_values_arrive_exactly(database: Database) -> None:
    moment = datetime(2026, 7, 1, 12, 30, 59, 999_999, tzinfo=UTC)
    rows: list[tuple[object, ...]] = [
        ("", 0, moment),
        (None, None, None),
        ('quote " \\ \\u0000 {} é 😀 \n', 2**63 - 1, datetime.max.replace(tzinfo=UTC)),
        ("'; DROP TABLE accounts", -(2**63), moment - timedelta(days=40_000)),
        ("NULL", 10**15, moment),
        ("12", 10**15, moment),
    ]

    assert await sent(database, rows) == rows


async def test_a_thousand_rows_are_sent_by_the_same_statement(database: Database) -> None:
    rows: list[tuple[object, ...]] = [(str(number), number, None) for number in range(1000)]

    assert await sent(database, rows) == rows
    assert await sent(database, []) == []


async def test_text_that_no_database_can_hold_is_refused(database: Database) -> None:
    with pytest.raises((ValueError, DBAPIError)):
        await sent(database, [("a\0b", 1, None)])
