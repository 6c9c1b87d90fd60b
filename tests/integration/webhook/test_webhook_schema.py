"""The migrated schema is the one that the code knows, and rows of the first one live on in it."""

from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text, update
from sqlalchemy.exc import DBAPIError

from services.webhook.tables import inbox, metadata
from tests.integration.webhook.harness import opened, opened_inbox, received


async def test_the_migrated_schema_has_the_columns_indexes_and_comments_of_the_code(
    url: str,
) -> None:
    def differences(connection: Connection) -> list[Any]:
        options = {"compare_type": True, "version_table": "webhook_schema_version"}
        context = MigrationContext.configure(connection, opts=options)
        found: list[Any] = compare_metadata(context, metadata)
        return found

    async with opened(url) as database, database.writer.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_the_migrated_schema_has_the_checks_of_the_code(url: str) -> None:
    def checks(connection: Connection) -> set[str | None]:
        return {check["name"] for check in inspect(connection).get_check_constraints("inbox")}

    async with opened(url) as database, database.writer.connect() as connection:
        found = await connection.run_sync(checks)

    declared = {str(c.name) for c in inbox.constraints if type(c).__name__ == "CheckConstraint"}
    assert found == declared


@pytest.mark.parametrize("reason", ["", "x" * 201])
async def test_the_database_itself_refuses_a_reason_of_no_length_or_too_much(
    url: str, reason: str
) -> None:
    async with opened(url) as database, opened_inbox(database) as box:
        await box.store(received())
        with pytest.raises(DBAPIError):
            async with database.writer.begin() as connection:
                await connection.execute(update(inbox).values(drop_reason=reason))


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_lists_by_state_and_generation_use_their_indexes(url: str) -> None:
    plans = {
        "ix_inbox_dead": "state = 'DEAD' AND dropped_at IS NULL ORDER BY sequence DESC",
        "ix_inbox_generation_id": "generation_id = 'g' AND generation_id != '' ORDER BY sequence",
    }
    async with opened(url) as database, database.read() as connection:
        for index, condition in plans.items():
            plan = await connection.execute(
                text(f"EXPLAIN QUERY PLAN SELECT webhook_id FROM inbox WHERE {condition}")
            )
            assert index in " ".join(str(row) for row in plan), condition
