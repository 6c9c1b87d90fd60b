"""Migrations run to the end or change nothing, once, whoever else runs them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.runtime.database import open_database
from services.runtime.migrations import newest_revision, require_newest
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
    assert newest_revision("credits") == "0001"


@pytest.mark.parametrize("backend", ["postgresql"])
def test_migrations_at_the_same_time_wait_for_each_other(empty_database: str) -> None:
    processes = [start_migration(empty_database) for _ in range(3)]

    assert [process.wait(timeout=30) for process in processes] == [0, 0, 0]
