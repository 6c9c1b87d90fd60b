"""Migrations run to the end or change nothing, once, whoever else runs them."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from services.runtime.database import open_database
from services.runtime.migrations import migrate, newest_revision, require_newest
from tests.postgresql import PostgresqlServer

LIMIT_S = 40.0


def start_migration(url: str, **settings: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "services.credits", "migrate"],
        env={**os.environ, "REELWORKS_DATABASE_URL": url, **settings},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def empty_database(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    if backend == "sqlite":
        return f"sqlite:///{tmp_path}/new/credits.sqlite3"
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    return server.url(server.create_database())


async def test_an_empty_database_is_migrated_and_until_then_refused(empty_database: str) -> None:
    database = open_database(empty_database)
    before = await require_newest(database, "credits")
    await database.close()
    outcomes = [start_migration(empty_database).wait(timeout=30) for _ in range(2)]
    database = open_database(empty_database)
    after = await require_newest(database, "credits")
    await database.close()

    assert before is not None
    assert "run `reelworks migrate` first" in before
    assert outcomes == [0, 0]
    assert after is None
    assert newest_revision("credits") == "0005"


@pytest.mark.parametrize("backend", ["postgresql"])
def test_migrations_at_the_same_time_wait_for_each_other(empty_database: str) -> None:
    processes = [start_migration(empty_database) for _ in range(3)]

    assert [process.wait(timeout=30) for process in processes] == [0, 0, 0]


def test_services_that_share_a_database_keep_their_schemas_apart(empty_database: str) -> None:
    for service in ("credits", "generation", "webhook"):
        migrate(service, empty_database)
    missing = asyncio.run(_missing(empty_database))

    assert missing == [None, None, None]


async def _missing(url: str) -> list[str | None]:
    database = open_database(url)
    try:
        return [await require_newest(database, s) for s in ("credits", "generation", "webhook")]
    finally:
        await database.close()


async def set_revision(url: str, revision: str) -> None:
    database = open_database(url)
    async with database.write() as connection:
        await connection.execute(
            text("UPDATE credits_schema_version SET version_num = :revision"),
            {"revision": revision},
        )
    await database.close()


async def revision_of(url: str) -> str | None:
    database = open_database(url)
    try:
        async with database.read() as connection:
            found: str | None = await connection.scalar(
                text("SELECT version_num FROM credits_schema_version")
            )
            return found
    finally:
        await database.close()


async def test_a_schema_of_a_newer_release_is_left_as_it_is(empty_database: str) -> None:
    await asyncio.to_thread(migrate, "credits", empty_database)
    await set_revision(empty_database, "9999")

    migration = start_migration(empty_database)
    _, lines = await asyncio.to_thread(migration.communicate, timeout=LIMIT_S)
    missing = await _missing_of_credits(empty_database)

    assert migration.returncode == 0, lines
    assert "schema is newer than this code, left as it is" in lines
    assert "Traceback" not in lines
    assert await revision_of(empty_database) == "9999"
    assert missing is None


async def _missing_of_credits(url: str) -> str | None:
    database = open_database(url)
    try:
        return await require_newest(database, "credits")
    finally:
        await database.close()


@pytest.fixture
def former(postgresql: PostgresqlServer) -> str:
    """A database whose next migration wants the table of transactions for itself."""
    url = postgresql.url(postgresql.create_database())
    asyncio.run(_upgrade_to("0003", url))
    return url


async def _upgrade_to(revision: str, url: str) -> None:
    def upgrade(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", "services.credits:migrations")
        config.set_main_option("path_separator", "os")
        config.attributes.update(connection=connection, service="credits")
        command.upgrade(config, revision)

    database = open_database(url)
    async with database.writer.begin() as connection:
        await connection.run_sync(upgrade)
    await database.close()


@contextlib.asynccontextmanager
async def reading(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Holds a table as a long report does, until it is closed."""
    reader = await asyncpg.connect(url)
    try:
        await reader.execute("BEGIN")
        await reader.fetch("SELECT * FROM transactions")
        yield reader
    finally:
        await reader.close()


async def test_others_read_on_while_a_migration_waits_for_a_reader(former: str) -> None:
    async with reading(former):
        other = await asyncpg.connect(former)
        migration = start_migration(former)
        waiting = asyncio.create_task(asyncio.to_thread(told, migration, "waiting for"))
        reads = 0
        async with asyncio.timeout(LIMIT_S):
            while not waiting.done() or reads == 0:
                await other.fetch("SELECT * FROM transactions")
                reads += waiting.done()
        await other.close()
    code = await asyncio.to_thread(migration.wait, LIMIT_S)

    assert "lock timeout" in waiting.result()
    assert code == 0
    assert await revision_of(former) == newest_revision("credits")


async def test_a_migration_gives_up_when_a_table_stays_in_use(former: str) -> None:
    async with reading(former):
        migration = start_migration(former, REELWORKS_DATABASE_WAIT_S="1")
        _, lines = await asyncio.to_thread(migration.communicate, timeout=LIMIT_S)

    assert migration.returncode == 1
    assert "tables in use" in lines.splitlines()[-1]
    assert await revision_of(former) == "0003"


def told(process: "subprocess.Popen[str]", words: str) -> str:
    """Returns the line that has these words, as soon as it is written."""
    assert process.stderr is not None
    return next((line for line in process.stderr if words in line), "")


def test_a_file_that_is_no_database_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, but long enough to be looked at as one" * 100)

    migration = start_migration(f"sqlite:///{tmp_path}/text")
    lines = (migration.stderr.read() if migration.stderr else "").splitlines()

    assert migration.wait(timeout=30) == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: REELWORKS_DATABASE_URL: the database cannot be used: ")
