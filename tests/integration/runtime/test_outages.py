"""What becomes of connections and of acknowledgements when PostgreSQL's primary changes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from services.runtime import database as database_module
from services.runtime.database import Database, Trouble, open_database, trouble_of
from services.runtime.errors import Unavailable
from services.runtime.group_commit import GroupCommit
from tests.postgresql import PostgresqlServer, running_postgresql

SHORT_S = 0.3
NEW = "INSERT INTO notes VALUES (:note) ON CONFLICT DO NOTHING"
READ_ONLY = "DO $$ BEGIN RAISE 'a standby now' USING ERRCODE = '25006'; END $$"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    """A server that no other test uses, since it is made what others could not use."""
    with running_postgresql() as running:
        running.execute("CREATE TABLE notes (note text PRIMARY KEY)")
        yield running


@pytest.fixture
async def database(server: PostgresqlServer) -> AsyncIterator[Database]:
    opened = open_database(server.url("postgres"), connections=2)
    yield opened
    await opened.close()


async def sessions_of(database: Database) -> set[int]:
    """Returns the server's processes behind all connections of the pool that writes."""
    async with contextlib.AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(database.writer.connect()) for _ in range(2)]
        query = text("SELECT pg_backend_pid()")
        return {(await connection.execute(query)).scalar_one() for connection in connections}


async def test_all_connections_to_a_former_primary_are_given_up_at_once(
    database: Database,
) -> None:
    before = await sessions_of(database)
    with pytest.raises(DBAPIError) as raised:
        async with database.writer.begin() as connection:
            await connection.execute(text(READ_ONLY))
    after = await sessions_of(database)

    assert trouble_of(raised.value) is Trouble.LOST
    assert len(before) == len(after) == 2
    assert not before & after


async def test_all_connections_are_given_up_when_the_server_ends_one(
    database: Database, server: PostgresqlServer
) -> None:
    before = await sessions_of(database)
    async with database.writer.connect() as connection:
        mine = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        server.execute(f"SELECT pg_terminate_backend({mine}, 5000)")
        with pytest.raises(DBAPIError) as raised:
            await connection.execute(text("SELECT 1"))
    after = await sessions_of(database)

    assert trouble_of(raised.value) is Trouble.LOST
    assert not before & after


async def write_once(connection: AsyncConnection, notes: Sequence[str]) -> list[str | Exception]:
    for note in notes:
        await connection.execute(text(NEW), {"note": note})
    return list(notes)


async def test_nothing_is_acknowledged_that_no_standby_has_even_when_it_is_repeated(
    server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server keeps what a caller did not wait for, so that a repetition finds it there."""
    monkeypatch.setattr(database_module, "STATEMENT_TIMEOUT_S", SHORT_S)
    database = open_database(server.url("postgres"))
    commands = GroupCommit[str, str](database, write_once)
    require(server, "nobody")
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(commands.run())
            for _ in range(2):
                with pytest.raises(Unavailable):
                    await commands.submit("paid")
            found = server.execute("SELECT note FROM notes")
            require(server, "")
            answer = await commands.submit("paid")
            commands.close()
    finally:
        require(server, "")
        await database.close()

    assert found == "paid", "else its repetition would have written it"
    assert answer == "paid"


def require(server: PostgresqlServer, standby: str) -> None:
    """Has SQL commits wait for a standby of that name from now on."""
    server.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{standby}'")
    server.execute("SELECT pg_reload_conf()")
    until = "SELECT current_setting('synchronous_standby_names')"
    for _ in range(100):  # The server reads its files when it comes to it.
        if server.execute(until) == standby:
            return
    pytest.fail("the server does not read its settings")


@pytest.fixture
def standby() -> Iterator[PostgresqlServer]:
    """A server that only repeats what a primary does, of which there is none."""
    with running_postgresql() as running:
        (running.data / "standby.signal").touch()
        running.restart()
        assert running.execute("SELECT pg_is_in_recovery()") == "t"
        yield running


async def test_a_standby_is_not_taken_for_the_database(standby: PostgresqlServer) -> None:
    """It answers, with what was, and takes no writes."""
    database = open_database(standby.url("postgres"))
    try:
        with pytest.raises(Unavailable) as raised:
            async with database.read():
                pytest.fail("it is a standby")
    finally:
        await database.close()

    assert "no primary" in str(raised.value.__cause__)


async def test_of_several_hosts_the_primary_is_taken(
    standby: PostgresqlServer, server: PostgresqlServer
) -> None:
    hosts = "&".join(f"host=127.0.0.1:{one.port}" for one in (standby, server))
    database = open_database(f"postgresql://postgres@/postgres?{hosts}", connections=3)
    try:
        for connecting in (database.read(), database.write(), database.read(patient=True)):
            async with connecting as connection:
                ports = (await connection.execute(text("SHOW port"))).scalar_one()
                assert ports == str(server.port)
    finally:
        await database.close()
