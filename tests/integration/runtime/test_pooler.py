"""A pooler in transaction mode gives each database transaction another session, and none of ours
relies on what an earlier one left in it."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from services.runtime.database import Database, open_database
from services.runtime.errors import Unavailable
from tests.conftest import NewDatabase
from tests.postgresql import NOBODY, PostgresqlServer
from tests.serving import free_address

SESSIONS = 2
TURNS = 20
PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
PREPARED = text("SELECT count(*) FROM pg_prepared_statements")

pytestmark = pytest.mark.parametrize("backend", ["postgresql"])


async def prepared_statements(database: Database) -> int:
    """Returns how many a session keeps that has run a few."""
    try:
        async with database.write() as connection:
            for number in range(3):
                await connection.execute(text(f"SELECT {number}"))
        async with database.write() as connection:
            count: int = (await connection.execute(PREPARED)).scalar_one()
            return count
    finally:
        await database.close()


async def test_statements_are_kept_only_where_sessions_stay(new_database: NewDatabase) -> None:
    url = new_database("credits")

    kept = await prepared_statements(open_database(url, connections=1))
    pooled = await prepared_statements(open_database(url, connections=1, is_pooled=True))

    assert kept >= 3
    assert pooled == 0


async def test_the_settings_of_a_session_hold_in_each_database_transaction(
    new_database: NewDatabase,
) -> None:
    database = open_database(new_database("credits"), connections=1, is_pooled=True)
    names = ("lock_timeout", "synchronous_commit", "enable_seqscan", "timezone")
    try:
        async with database.write() as connection:
            inside = [(await connection.execute(text(f"SHOW {name}"))).scalar() for name in names]
    finally:
        await database.close()

    assert inside == ["1s", "on", "off", "UTC"]


@pytest.fixture
def pooled_url(
    new_database: NewDatabase,
    postgresql: PostgresqlServer,
) -> Iterator[str]:
    """The URL of a database behind PgBouncer, which has few sessions for it."""
    if PGBOUNCER is None:
        pytest.skip("pgbouncer is not installed")
    name = new_database("credits").rpartition("/")[2]
    folder = postgresql.data.parent  # The user that runs it may look in there.
    address = free_address()
    users, settings = folder / f"{name}.users", folder / f"{name}.ini"
    users.write_text('"postgres" ""\n')
    settings.write_text(
        f"[databases]\n{name} = host=127.0.0.1 port={postgresql.port}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {address.rpartition(':')[2]}\n"
        f"unix_socket_dir =\nauth_type = trust\nauth_file = {users}\n"
        f"pool_mode = transaction\ndefault_pool_size = {SESSIONS}\n"
    )
    with subprocess.Popen(
        [PGBOUNCER, "--quiet", settings],
        user=NOBODY if os.getuid() == 0 else None,
        cwd=folder,
        stderr=subprocess.DEVNULL,
    ) as pooler:
        try:
            yield f"postgresql://postgres@{address}/{name}"
        finally:
            pooler.terminate()


async def test_many_connections_share_few_sessions_without_mixing_them_up(
    pooled_url: str,
) -> None:
    database = open_database(pooled_url, is_pooled=True)

    async def take_turns(number: int) -> int:
        for turn in range(TURNS):
            statement = text(f"SELECT CAST(:given AS int) + {turn % 3}")
            async with database.write() as connection:
                found = (await connection.execute(statement, {"given": number})).scalar_one()
                limit = (await connection.execute(text("SHOW lock_timeout"))).scalar_one()
            assert (found, limit) == (number + turn % 3, "1s")
        return number

    try:
        await _answering(database)
        done = await asyncio.gather(*(take_turns(number) for number in range(8)))
    finally:
        await database.close()

    assert done == list(range(8))


async def _answering(database: Database) -> None:
    """Waits until the pooler listens."""
    async with asyncio.timeout(10):
        while True:
            try:
                async with database.read():
                    return
            except Unavailable:
                continue
