"""Rows sent in one parameter arrive as they are, however many they are."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import ColumnElement, Text, column, select

from services.runtime.database import Database, Instant, Int64, open_database
from services.runtime.rowset import given_rows, row_parameter
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


async def sent(database: Database, rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Returns what the database makes of rows."""
    async with database.read() as connection:
        statement = select(*given_rows(COLUMNS, connection.dialect).c)
        found = await connection.execute(statement, row_parameter(rows, connection.dialect))
        return [dict(row) for row in found.mappings()]


async def test_values_arrive_exactly(database: Database) -> None:
    moment = datetime(2026, 7, 1, 12, 30, 59, 999_999, tzinfo=UTC)
    rows: list[dict[str, object]] = [
        {"name": "", "amount": 0, "at": moment},
        {"name": None, "amount": None, "at": None},
        {
            "name": 'quote " \\ \\u0000 {} é 😀 \n',
            "amount": 2**63 - 1,
            "at": datetime.max.replace(tzinfo=UTC),
        },
        {
            "name": "'; DROP TABLE accounts",
            "amount": -(2**63),
            "at": moment - timedelta(days=40_000),
        },
        {"name": "12", "amount": 10**15, "at": moment},
    ]

    assert await sent(database, rows) == rows


async def test_a_thousand_rows_are_sent_by_the_same_statement(database: Database) -> None:
    rows: list[dict[str, object]] = [
        {"name": str(number), "amount": number, "at": None} for number in range(1000)
    ]

    assert await sent(database, rows) == rows
    assert await sent(database, []) == []


async def test_text_that_no_database_can_hold_is_refused(database: Database) -> None:
    with pytest.raises(ValueError, match="character 0"):
        await sent(database, [{"name": "a\0b", "amount": 1, "at": None}])
