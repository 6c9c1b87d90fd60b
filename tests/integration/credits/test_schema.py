"""The migrated schema is the one that the code knows, and it holds what it promises."""

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from services.credits.tables import metadata
from services.runtime.database import Database, open_database
from services.runtime.migrations import require_newest
from tests.conftest import NewDatabase
from tests.postgresql import PostgresqlServer


@pytest.fixture
async def database(new_database: NewDatabase) -> AsyncIterator[Database]:
    opened = open_database(new_database("credits"))
    yield opened
    await opened.close()


# SQLAlchemy does not know its own word for a constraint that older rows need not meet.
@pytest.mark.filterwarnings("ignore:Can't validate argument 'dialect_options'")
async def test_the_migrated_schema_has_the_tables_columns_and_indexes_of_the_code(
    database: Database,
) -> None:
    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "version_table": "credits_schema_version"}
        )
        found: list[Any] = compare_metadata(context, metadata)
        return found

    async with database.writer.connect() as connection:
        assert await connection.run_sync(differences) == []
    assert await require_newest(database, "credits") is None


async def test_the_migrated_schema_has_the_checks_and_options_of_the_code(
    database: Database, backend: str, tmp_path: Any, request: pytest.FixtureRequest
) -> None:
    if backend == "sqlite":
        url = f"sqlite:///{tmp_path}/declared.sqlite3"
    else:
        server: PostgresqlServer = request.getfixturevalue("postgresql")
        url = server.url(server.create_database())
    declared = open_database(url)
    try:
        async with declared.writer.begin() as connection:
            await connection.run_sync(metadata.create_all)
            wanted = await connection.run_sync(_constraints)
        async with database.writer.connect() as connection:
            found = await connection.run_sync(_constraints)
    finally:
        await declared.close()

    assert found == wanted
    assert len(found["transactions"]["checks"]) == {"sqlite": 7, "postgresql": 8}[backend]


def _constraints(connection: Connection) -> dict[str, dict[str, Any]]:
    inspector = inspect(connection)
    found: dict[str, dict[str, Any]] = {
        table: {
            "checks": {c["name"]: c["sqltext"] for c in inspector.get_check_constraints(table)},
            "primary key": inspector.get_pk_constraint(table),
            "comments": {c["name"]: c.get("comment") for c in inspector.get_columns(table)},
            "collations": {
                c["name"]: getattr(c["type"], "collation", None)
                for c in inspector.get_columns(table)
            },
        }
        for table in metadata.tables
    }
    if connection.dialect.name == "sqlite":
        for row in connection.execute(text("PRAGMA table_list")).mappings():
            if row["name"] in found:
                found[row["name"]]["options"] = (row["strict"], row["wr"])
    return found


TIMES = {"sqlite": ("1000", "2000"), "postgresql": ("'2026-01-01Z'", "'2026-01-02Z'")}


async def execute(database: Database, *statements: str) -> None:
    async with database.writer.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def seed(database: Database, backend: str) -> None:
    """An account of 70 + 30 credits with an open reservation, and what led there."""
    early, late = TIMES[backend]
    open_ = f"INSERT INTO accounts VALUES ('u', 70, 30, 2, {early}, {early})"
    reservation = f"('u', 'r', 30, 'RESERVED', 0, 0, NULL, {early}, {late}, NULL, '')"
    welcome = f"('u', 1, 'open:welcome', 'BONUS', 100, 0, 100, 0, NULL, '', {early})"
    reserve = f"('u', 2, 'reserve:r', 'RESERVATION', -30, 30, 70, 30, 'r', '', {early})"
    await execute(
        database,
        open_,
        f"INSERT INTO reservations VALUES {reservation}",
        f"INSERT INTO transactions VALUES {welcome}, {reserve}",
    )


REFUSED_WRITES = [
    "UPDATE accounts SET available = -1",
    "UPDATE accounts SET reserved = -1",
    "UPDATE accounts SET version = -1",
    "UPDATE accounts SET available = 999999999999971",
    "UPDATE accounts SET available = NULL",
    "INSERT INTO accounts VALUES ('', 0, 0, 0, {early}, {early})",
    "INSERT INTO accounts VALUES ('{long}', 0, 0, 0, {early}, {early})",
    "UPDATE reservations SET credits = 0",
    "UPDATE reservations SET credits = 1000000000000001",
    "UPDATE reservations SET state = 'HELD', resolved_at = {late}",
    "UPDATE reservations SET state = 'COMMITTED', resolved_at = {late}, committed = 31",
    "UPDATE reservations SET state = 'COMMITTED', resolved_at = {late}, committed = -1",
    "UPDATE reservations SET state = 'COMMITTED', resolved_at = {late}, reimbursed = 1",
    "UPDATE reservations SET state = 'REFUNDED', resolved_at = {late}, committed = 1",
    "UPDATE reservations SET state = 'REFUNDED'",
    "UPDATE reservations SET resolved_at = {late}",
    "UPDATE reservations SET state = 'REJECTED', resolved_at = {late}",
    "UPDATE reservations SET rejected_available = 1",
    "UPDATE reservations SET state = 'REJECTED', resolved_at = {late}, rejected_available = 30",
    "UPDATE reservations SET description = '{long}{long}{long}{long}'",
    "INSERT INTO reservations VALUES ('u', '{long}', {open})",
    "INSERT INTO reservations VALUES ('nobody', 'r', {open})",
]
REFUSED_TRANSACTIONS = [
    # version, key, type, deltas, balances after, reservation
    "0, 'add:q', 'BONUS', 1, 0, 71, 30, NULL",
    "2, 'add:q', 'BONUS', 1, 0, 71, 30, NULL",
    "3, 'reserve:r', 'RESERVATION', -30, 30, 40, 60, 'r'",
    "3, 'add:q', 'GIFT', 1, 0, 71, 30, NULL",
    "3, 'add:q', 'PURCHASE', -1, 0, 69, 30, NULL",
    "3, 'add:q', 'BONUS', 0, 0, 70, 30, NULL",
    "3, 'add:q', 'ADJUSTMENT', 0, 0, 70, 30, NULL",
    "3, 'add:q', 'BONUS', 1, 1, 71, 31, NULL",
    "3, 'ADD:q', 'BONUS', 1, 0, 71, 30, NULL",
    "3, 'open:welcome', 'PURCHASE', 1, 0, 71, 30, NULL",
    "3, 'add:', 'BONUS', 1, 0, 71, 30, NULL",
    "3, 'add:{long}', 'BONUS', 1, 0, 71, 30, 'r'",
    "3, 'add:{long}0123456', 'BONUS', 1, 0, 71, 30, NULL",
    "3, 'resolve:r', 'REFUND', 30, -29, 100, 1, 'r'",
    "3, 'resolve:r', 'REFUND', 30, -30, 100, 0, NULL",
    "3, 'resolve:x', 'REFUND', 30, -30, 100, 0, 'r'",
    "3, 'resolve:r', 'EXPIRY', -30, 30, 40, 60, 'r'",
    "3, 'resolve:r', 'DEDUCTION', 31, -30, 101, 0, 'r'",
    "3, 'resolve:r', 'DEDUCTION', -1, -30, 69, 0, 'r'",
    "3, 'resolve:x', 'DEDUCTION', 0, -30, 70, 0, 'x'",
    "3, 'reimburse:q', 'REIMBURSEMENT', 1, 0, 71, 30, NULL",
    "3, 'reimburse:q', 'REIMBURSEMENT', -1, 0, 69, 30, 'r'",
    "3, 'add:q', 'REIMBURSEMENT', 1, 0, 71, 30, 'r'",
    "3, 'add:q', 'BONUS', 1, 0, -1, 30, NULL",
    "3, 'add:q', 'BONUS', 1, 0, 999999999999971, 30, NULL",
    "3, 'add:q', 'PURCHASE', 1000000000000001, 0, 71, 30, NULL",
    "3, 'add:q', 'PURCHASE', 9223372036854775807, 0, 71, 30, NULL",
    "3, 'add:q', 'ADJUSTMENT', -1000000000000001, 0, 71, 30, NULL",
    "3, 'resolve:r', 'DEDUCTION', 0, -1000000000000001, 70, 0, 'r'",
]


async def test_the_database_refuses_what_no_ledger_may_hold(
    database: Database, backend: str
) -> None:
    await seed(database, backend)
    early, late = TIMES[backend]
    transactions = [
        f"INSERT INTO transactions VALUES ('u', {values}, '', {early})"
        for values in REFUSED_TRANSACTIONS
    ]

    accepted = []
    for write in REFUSED_WRITES + transactions:
        statement = write.format(
            early=early,
            late=late,
            long="0123456789abcdef" * 4 + "x",
            open=f"1, 'RESERVED', 0, 0, NULL, {early}, {late}, NULL, ''",
        )
        try:
            await execute(database, statement)
        except IntegrityError:
            continue
        accepted.append(statement)

    assert accepted == []


async def test_good_transactions_are_accepted(database: Database, backend: str) -> None:
    await seed(database, backend)
    early, _ = TIMES[backend]

    for values in (
        "3, 'resolve:r', 'DEDUCTION', 10, -30, 80, 0, 'r'",
        "4, 'add:q', 'ADJUSTMENT', -80, 0, 0, 0, NULL",
        "5, 'reimburse:q', 'REIMBURSEMENT', 20, 0, 20, 0, 'r'",
    ):
        await execute(database, f"INSERT INTO transactions VALUES ('u', {values}, '', {early})")


AGAIN = "INSERT INTO transactions SELECT * FROM transactions WHERE version = 1"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE transactions SET description = 'x'",
        "DELETE FROM transactions",
        f"{AGAIN} ON CONFLICT (user_id, version) DO UPDATE SET description = 'x'",
    ],
)
async def test_transactions_are_never_changed(
    database: Database, backend: str, change: str
) -> None:
    await seed(database, backend)

    with pytest.raises(DBAPIError, match="append-only"):
        await execute(database, change)


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize(
    "values",
    [
        "2, 'add:q', 'BONUS', 5, 0, 75, 30, NULL",
        "3, 'reserve:r', 'RESERVATION', -3, 3, 67, 33, 'r'",
    ],
    ids=["version", "key"],
)
async def test_no_program_replaces_a_transaction_of_a_sqlite_file(
    database: Database, backend: str, values: str
) -> None:
    await seed(database, backend)

    with contextlib.closing(sqlite3.connect(database.writer.url.database or "")) as foreign:
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            foreign.execute(f"INSERT OR REPLACE INTO transactions VALUES ('u', {values}, '', 1000)")
        found = foreign.execute("SELECT version, available_delta FROM transactions").fetchall()

    assert found == [(1, 100), (2, -30)]


async def test_amounts_are_whole_numbers(database: Database, backend: str) -> None:
    await seed(database, backend)

    with pytest.raises(DBAPIError):
        await execute(database, "UPDATE accounts SET available = 'many'")
    if backend == "sqlite":  # PostgreSQL rounds what is written as a fraction.
        with pytest.raises(IntegrityError):
            await execute(database, "UPDATE accounts SET available = 1.5")
