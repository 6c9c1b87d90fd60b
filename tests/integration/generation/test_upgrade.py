"""A database of the first version keeps every row when it is brought to the newest schema."""

import asyncio
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Column, Connection, MetaData, Table, inspect

from services.generation import tables
from services.runtime.database import Database
from services.runtime.migrations import migrate
from tests.integration.generation.harness import opened
from tests.postgresql import PostgresqlServer

CREATED = datetime(2026, 5, 4, 12, tzinfo=UTC)
LATER = CREATED + timedelta(seconds=40)
RUNNING, UNCERTAIN, COMPLETED, FAILED = (str(uuid.UUID(int=number)) for number in range(1, 5))

Row = dict[str, Any]


@pytest.fixture
def url(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    if backend == "sqlite":
        return f"sqlite:///{tmp_path}/former.sqlite3"
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    return server.url(server.create_database())


def test_every_row_of_the_first_version_is_there_after_the_upgrade(url: str) -> None:
    former = asyncio.run(_filled_at_first_revision(url))
    assert all(former.values()), "each table of the first version has rows"

    migrate("generation", url)

    now = asyncio.run(_rows(url))
    for name, rows in former.items():
        found = {_key(name, row): row for row in now[name]}
        assert len(found) == len(rows) + (name == "gates")
        for row in rows:
            assert found[_key(name, row)].items() >= row.items()
    assert now["images"] == now["model_schemas"] == []


def test_new_columns_of_former_rows_say_what_follows_from_the_others(url: str) -> None:
    asyncio.run(_filled_at_first_revision(url))
    migrate("generation", url)

    now = asyncio.run(_rows(url))
    for row in now["generations"]:
        uncertain_since = LATER if row["generation_id"] == UNCERTAIN else None
        assert row["uncertain_since"] == uncertain_since
        assert (row["claims"], row["resubmissions"], row["refund_percent"]) == (0, 0, None)
    for row in now["attempts"]:
        assert row["send_before"] == CREATED + timedelta(seconds=10)
        assert row["search_at"] == (LATER if row["state"] == "UNKNOWN" else None)
    orphans = {row["job_id"]: row["due_at"] for row in now["predictions"]}
    assert orphans == {"adopted": None, "live-orphan": LATER, "ended-orphan": None}
    assert {row["found_by"] for row in now["predictions"]} == {"CREATE"}


def test_foreign_keys_still_hold_after_the_upgrade(url: str) -> None:
    asyncio.run(_filled_at_first_revision(url))
    migrate("generation", url)

    assert asyncio.run(_referred(url)) == {
        "attempts": {"generations"},
        "predictions": {"generations"},
        "transitions": {"generations"},
    }


async def _filled_at_first_revision(url: str) -> Mapping[str, list[Row]]:
    """Makes the schema of the first version, fills each table and returns what it holds."""

    def upgrade(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", "services.generation:migrations")
        config.set_main_option("path_separator", "os")
        config.attributes.update(connection=connection, service="generation")
        command.upgrade(config, "0001")

    async with opened(url) as database:
        async with database.writer.begin() as connection:
            await connection.run_sync(upgrade)
            await connection.run_sync(_insert)
        return await _read(database)


def _insert(connection: Connection) -> None:
    present = {table.name: table for table in _present_tables(connection)}
    for name, rows in _former_rows().items():
        connection.execute(present[name].insert(), rows)


def _former_rows() -> dict[str, list[Row]]:
    def generation(generation_id: str, stage: str, **more: Any) -> Row:
        return {
            "generation_id": generation_id,
            "user_id": "ada",
            "kind": "TEXT_TO_VIDEO",
            "model": "t2v-14B",
            "resolution": "480p",
            "prompt": 'it\'s a fox; "quoted" — ünïcode',
            "negative_prompt": "",
            "image_uri": "",
            "aspect_ratio": "16:9",
            "seed": 2**31 - 1,
            "price_credits": 20,
            "stage": stage,
            "stage_since": CREATED,
            "parked_from": None,
            "due_at": None,
            "fence": 2**40,
            "failures": 1,
            "defects": 2,
            "attempt": 1,
            "job_id": None,
            "provider_status": None,
            "provider_ended_at": None,
            "missing": 0,
            "progress_percent": 50,
            "output_url": None,
            "output_key": None,
            "output_size_bytes": None,
            "output_sha256": None,
            "failure_code": None,
            "failure_message": None,
            "rejected_available": None,
            "charged_credits": 0,
            "created_at": CREATED,
            "deadline_at": LATER,
            "submitted_at": None,
            "started_at": None,
            "finished_at": None,
            "updated_at": LATER + timedelta(microseconds=1),
            "version": 7,
        } | more

    def attempt(generation_id: str, state: str) -> Row:
        return {
            "generation_id": generation_id,
            "attempt": 1,
            "state": state,
            "provider_model": "wan-video/wan-2.1-1.3b",
            "input": '{"seed": 7}',
            "schema_sha256": "0" * 64,
            "seed": 7,
            "created_at": CREATED,
            "settled_at": LATER,
            "http_status": 201,
            "answer": b"\x00\xff",
            "detail": None,
        }

    def prediction(job_id: str, role: str, ended_at: datetime | None) -> Row:
        return {
            "job_id": job_id,
            "generation_id": RUNNING,
            "attempt": 1,
            "role": role,
            "status": "processing",
            "first_seen_at": LATER,
            "ended_at": ended_at,
        }

    stored = {"output_key": "key", "output_size_bytes": 2**33, "output_sha256": "0" * 64}
    return {
        "generations": [
            generation(RUNNING, "RUNNING", due_at=LATER, job_id="adopted"),
            generation(UNCERTAIN, "SUBMITTING", due_at=LATER),
            generation(COMPLETED, "COMPLETED", charged_credits=20, finished_at=LATER, **stored),
            generation(FAILED, "FAILED", failure_code="MODEL_FAILED", finished_at=LATER),
        ],
        "attempts": [attempt(RUNNING, "CREATED"), attempt(UNCERTAIN, "UNKNOWN")],
        "predictions": [
            prediction("adopted", "ADOPTED", None),
            prediction("live-orphan", "ORPHAN", None),
            prediction("ended-orphan", "ORPHAN", LATER),
        ],
        "transitions": [
            {
                "generation_id": RUNNING,
                "fence": 2,
                "at": CREATED,
                "event": "Reserved",
                "from_stage": "RESERVING",
                "to_stage": "READY",
            }
        ],
        "prediction_events": [
            {
                "webhook_id": "message",
                "body_sha256": "0" * 64,
                "generation_id": RUNNING,
                "attempt": 1,
                "body": b"{}",
                "received_at": CREATED,
                "recorded_at": LATER,
                "disposition": "APPLIED",
            }
        ],
    }


async def _rows(url: str) -> dict[str, list[Row]]:
    async with opened(url) as database:
        return await _read(database)


async def _read(database: Database) -> dict[str, list[Row]]:
    """What each table holds, as values of Python, in the columns that it has."""
    found: dict[str, list[Row]] = {}
    async with database.read() as connection:
        for table in await connection.run_sync(_present_tables):
            answer = await connection.execute(table.select())
            found[table.name] = [dict(row) for row in answer.mappings()]
    return found


def _present_tables(connection: Connection) -> list[Table]:
    """The tables of the code that exist, with those of their columns that exist."""
    inspector = inspect(connection)
    present = []
    for name, table in tables.metadata.tables.items():
        if inspector.has_table(name):
            columns = {column["name"] for column in inspector.get_columns(name)}
            kept = [Column(c.name, c.type) for c in table.c if c.name in columns]
            present.append(Table(name, MetaData(), *kept))
    return present


async def _referred(url: str) -> dict[str, set[str]]:
    """Which tables the rows of a table refer to, as the database has it."""

    def read(connection: Connection) -> dict[str, set[str]]:
        inspector = inspect(connection)
        keys = {name: inspector.get_foreign_keys(name) for name in tables.metadata.tables}
        return {
            name: {key["referred_table"] for key in found} for name, found in keys.items() if found
        }

    async with opened(url) as database, database.writer.connect() as connection:
        return await connection.run_sync(read)


def _key(table: str, row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[column.name] for column in tables.metadata.tables[table].primary_key)
