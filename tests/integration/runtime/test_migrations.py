"""Migrations run to the end or change nothing, once, whoever else runs them."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.runtime.database import open_database
from services.runtime.migrations import migrate, newest_revision, require_newest
from tests.postgresql import PostgresqlServer


def start_migration(url: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "services.credits", "migrate"],
        env={**os.environ, "REELWORKS_DATABASE_URL": url},
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


def test_a_file_that_is_no_database_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, but long enough to be looked at as one" * 100)

    migration = start_migration(f"sqlite:///{tmp_path}/text")
    lines = (migration.stderr.read() if migration.stderr else "").splitlines()

    assert migration.wait(timeout=30) == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: REELWORKS_DATABASE_URL: the database cannot be used: ")
