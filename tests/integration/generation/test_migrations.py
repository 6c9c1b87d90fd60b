"""The migrated schema is the one that the code knows, and it holds what it promises."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Table, inspect, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from services.generation import tables
from services.generation.rows import values_of
from services.generation.state import Stage
from services.runtime.database import Database, open_database
from services.runtime.migrations import migrate, require_newest
from tests.integration.generation.harness import OUTPUT, generation_in, opened
from tests.postgresql import PostgresqlServer


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with opened(url) as database:
        yield database


@pytest.fixture
def empty_url(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    if backend == "sqlite":
        return f"sqlite:///{tmp_path}/empty.sqlite3"
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    return server.url(server.create_database())


async def test_the_migrated_schema_has_the_tables_columns_and_indexes_of_the_code(
    database: Database,
) -> None:
    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "version_table": "generation_schema_version"}
        )
        found: list[Any] = compare_metadata(context, tables.metadata)
        return found

    async with database.writer.connect() as connection:
        assert await connection.run_sync(differences) == []
    assert await require_newest(database, "generation") is None


async def test_the_migrated_schema_has_the_checks_comments_and_options_of_the_code(
    database: Database, empty_url: str
) -> None:
    async with opened(empty_url) as declared, declared.writer.begin() as connection:
        await connection.run_sync(tables.metadata.create_all)
        wanted = await connection.run_sync(_details)
    async with database.writer.connect() as connection:
        found = await connection.run_sync(_details)

    assert found == wanted
    assert len(found["generations"]["checks"]) == 19


def _details(connection: Connection) -> dict[str, dict[str, Any]]:
    """What Alembic's comparison leaves out."""
    inspector = inspect(connection)
    found: dict[str, dict[str, Any]] = {
        table: {
            "checks": sorted(
                (str(check["name"]), check["sqltext"])
                for check in inspector.get_check_constraints(table)
            ),
            "uniques": sorted(
                str(unique["name"]) for unique in inspector.get_unique_constraints(table)
            ),
            "primary key": inspector.get_pk_constraint(table),
            "foreign keys": [key["name"] for key in inspector.get_foreign_keys(table)],
            "comments": {c["name"]: c.get("comment") for c in inspector.get_columns(table)},
            "collations": {
                c["name"]: getattr(c["type"], "collation", None)
                for c in inspector.get_columns(table)
            },
            "index conditions": {
                index["name"]: {k: str(v) for k, v in index.get("dialect_options", {}).items()}
                for index in inspector.get_indexes(table)
            },
        }
        for table in tables.metadata.tables
    }
    if connection.dialect.name == "sqlite":
        for row in connection.execute(text("PRAGMA table_list")).mappings():
            if row["name"] in found:
                found[row["name"]]["options"] = (row["strict"], row["wr"])
    return found


def test_a_migration_can_be_repeated_and_is_asked_for_where_it_is_missing(empty_url: str) -> None:
    async def problem() -> str | None:
        database = open_database(empty_url)
        try:
            return await require_newest(database, "generation")
        finally:
            await database.close()

    before = asyncio.run(problem())
    migrate("generation", empty_url)
    migrate("generation", empty_url)

    assert before is not None
    assert "run `reelworks migrate` first" in before
    assert asyncio.run(problem()) is None


NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
REFUSED: list[tuple[Table, dict[str, Any]]] = [
    (tables.generations, {"stage": "COMPLETED", "due_at": None}),
    (tables.generations, {"charged_credits": 10}),
    (tables.generations, {"stage": "FAILED"}),
    (tables.generations, {"due_at": None}),
    (tables.generations, {"stage": "WAITING"}),
    (tables.generations, {"kind": "TEXT"}),
    (tables.generations, {"price_credits": 0}),
    (tables.generations, {"prompt": ""}),
    (tables.generations, {"prompt": "x" * 501}),
    (tables.generations, {"negative_prompt": "x" * 501}),
    (tables.generations, {"image_uri": "x" * 2049}),
    (tables.generations, {"user_id": "x" * 65}),
    (tables.generations, {"generation_id": "short"}),
    (tables.generations, {"attempt": 1000}),
    (tables.generations, {"progress_percent": 101}),
    (tables.generations, {"job_id": ""}),
    (tables.generations, {"failure_code": "BAD_LUCK"}),
    (tables.generations, {"version": None}),
    (tables.generations, {"stage": "CANCELED", "due_at": None}),
    (tables.generations, {"refund_percent": 101}),
    (tables.generations, {"resubmissions": 2}),
    (tables.generations, {"deleted_at": NOW}),
    (tables.attempts, {"state": "LOST"}),
    (tables.attempts, {"search_at": NOW}),
    (tables.attempts, {"attempt": 0}),
    (tables.predictions, {"role": "SPARE"}),
    (tables.predictions, {"found_by": "CHANCE"}),
    (tables.predictions, {"ended_by": "CHANCE"}),
    (tables.predictions, {"due_at": NOW}),
    (tables.predictions, {"generation_id": "0" * 36}),
    (tables.prediction_events, {"disposition": "DUPLICATE"}),
    (tables.prediction_events, {"webhook_id": ""}),
]


async def test_the_database_refuses_what_must_never_be(database: Database) -> None:
    await _fill(database)
    for table, values in REFUSED:
        with pytest.raises(IntegrityError):
            async with database.writer.begin() as connection:
                await connection.execute(update(table).values(values))


async def test_a_charge_needs_the_price_the_end_and_the_video(database: Database) -> None:
    await _fill(database)
    output = {"output_key": "k", "output_size_bytes": 1, "output_sha256": "0" * 64}
    ended = {"stage": "COMPLETED", "due_at": None}
    charge = {"charged_credits": 10}

    for values in (ended | charge, charge | output, ended | output | {"charged_credits": 9}):
        with pytest.raises(IntegrityError):
            async with database.writer.begin() as connection:
                await connection.execute(update(tables.generations).values(values))
    async with database.writer.begin() as connection:
        await connection.execute(update(tables.generations).values(ended | charge | output))


async def test_a_cancel_charges_no_more_than_it_does_not_give_back(database: Database) -> None:
    await _fill(database)
    canceled = {"stage": "CANCELED", "due_at": None, "refund_percent": 75}

    with pytest.raises(IntegrityError):
        async with database.writer.begin() as connection:
            await connection.execute(
                update(tables.generations).values(canceled | {"charged_credits": 3})
            )
    async with database.writer.begin() as connection:
        await connection.execute(
            update(tables.generations).values(canceled | {"charged_credits": 2})
        )


async def test_one_prediction_serves_one_generation(database: Database) -> None:
    await _fill(database)
    other = generation_in(Stage.COMPLETED, job_id="job", output=OUTPUT)

    with pytest.raises(IntegrityError):
        async with database.writer.begin() as connection:
            await connection.execute(tables.generations.insert(), [values_of(other)])


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_sqlite_keeps_to_declared_types(database: Database) -> None:
    await _fill(database)

    with pytest.raises(DBAPIError, match="cannot store TEXT"):
        async with database.writer.begin() as connection:
            await connection.execute(text("UPDATE generations SET fence = 'one'"))


async def test_the_gates_are_there_from_the_start(database: Database) -> None:
    async with database.read() as connection:
        gates = (await connection.execute(tables.gates.select().order_by("name"))).all()

    assert [gate.name for gate in gates] == ["create", "search"]
    for gate in gates:
        assert (gate.tokens, gate.paused_until, gate.why) == (0, None, "")
        assert (gate.troubles, gate.is_probing) == (0, False)


async def _fill(database: Database) -> None:
    """One row a table, all of them as they should be."""
    generation = generation_in(Stage.RUNNING, job_id="job")
    name, now = {"generation_id": generation.generation_id}, generation.created_at
    rows: list[tuple[Table, dict[str, Any]]] = [
        (tables.generations, values_of(generation)),
        (
            tables.attempts,
            name
            | {"attempt": 1, "state": "OPEN", "provider_model": "a/b", "input": "{}"}
            | {"schema_sha256": "0", "seed": 1, "created_at": now, "send_before": now}
            | {"searches": 0, "clean_searches": 0},
        ),
        (
            tables.predictions,
            name
            | {"job_id": "job", "attempt": 1, "role": "ADOPTED", "status": "starting"}
            | {"first_seen_at": now, "found_by": "CREATE", "fence": 0, "failures": 0},
        ),
        (
            tables.prediction_events,
            name
            | {"webhook_id": "msg", "body_sha256": "0", "attempt": 1, "body": b"{}"}
            | {"received_at": now, "recorded_at": now, "disposition": "APPLIED"},
        ),
    ]
    async with database.writer.begin() as connection:
        for table, row in rows:
            await connection.execute(table.insert(), [row])
