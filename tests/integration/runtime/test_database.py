"""One URL opens a database that is durable, keeps moments exactly and reports trouble by kind."""

import traceback
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert, select, text
from sqlalchemy.exc import DBAPIError

from services.runtime import database as database_module
from services.runtime.database import (
    Database,
    Instant,
    Trouble,
    open_database,
    parse_database_url,
    read_clock,
    trouble_of,
)
from services.runtime.errors import Unavailable
from tests.conftest import NewDatabase
from tests.serving import free_address

MOMENTS = Table(
    "moments",
    MetaData(),
    Column("number", Integer, primary_key=True),
    Column("moment", Instant),
    sqlite_strict=True,
)


@pytest.fixture
async def database(new_database: NewDatabase) -> AsyncIterator[Database]:
    opened = open_database(new_database("credits"))
    yield opened
    await opened.close()


async def test_moments_are_kept_to_the_microsecond_and_come_back_in_utc(
    database: Database,
) -> None:
    moments = [
        datetime(2026, 7, 1, 12, 0, 0, 999_999, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 123_457, tzinfo=UTC),
        datetime(2026, 7, 1, 12, 0, 0, 1, tzinfo=timezone(timedelta(hours=2))),
        None,
    ]
    async with database.writer.begin() as connection:
        await connection.run_sync(MOMENTS.create)
        await connection.execute(
            insert(MOMENTS), [{"number": n, "moment": m} for n, m in enumerate(moments)]
        )
    async with database.read() as connection:
        query = select(MOMENTS.c.moment).order_by(MOMENTS.c.number)
        found = list((await connection.execute(query)).scalars())

    assert found == moments
    assert {moment.tzinfo for moment in found if moment is not None} == {UTC}


async def test_the_clock_goes_on_within_a_database_transaction(database: Database) -> None:
    async with database.writer.begin() as connection:
        first = await read_clock(connection)
        second = await read_clock(connection)

    assert first < second
    assert abs(second - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_sqlite_is_durable_and_its_readers_only_read(database: Database) -> None:
    async with database.writer.connect() as connection:
        pragmas = {
            name: (await connection.execute(text(f"PRAGMA {name}"))).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 5000,
    }
    with pytest.raises(DBAPIError, match="readonly"):
        async with database.reader.connect() as connection:
            await connection.execute(text("DELETE FROM accounts"))


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_a_sqlite_file_is_opened_by_one_process_at_a_time(
    new_database: NewDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    url = new_database("credits")
    first = open_database(url)
    with pytest.raises(SystemExit) as raised:
        open_database(url)
    await first.close()
    second = open_database(url)
    await second.close()

    assert raised.value.code == 2
    assert "in use by another process" in capsys.readouterr().err


@pytest.mark.parametrize("backend", ["postgresql"])
async def test_postgresql_confirms_only_what_is_durable(database: Database) -> None:
    async with database.read() as connection:
        shown = [
            (await connection.execute(text(f"SHOW {name}"))).scalar()
            for name in ("synchronous_commit", "timezone", "transaction_isolation", "lock_timeout")
        ]

    assert shown == ["on", "UTC", "read committed", "1s"]


async def test_a_database_that_is_away_is_unavailable() -> None:
    database = open_database(f"postgresql://postgres@{free_address()}/nothing")
    try:
        with pytest.raises(Unavailable) as raised:
            async with database.read():
                pytest.fail("nobody listens there")
    finally:
        await database.close()

    assert raised.value.reason == "DATABASE_UNAVAILABLE"


async def test_what_the_database_refuses_is_no_trouble_that_goes_away(database: Database) -> None:
    for statement, value in (
        ("INSERT INTO accounts (user_id) VALUES (:value)", None),
        ("SELECT :value FROM no_such_table", 1),
        ("SELECT * FROM accounts WHERE version = CAST(:value AS bigint)", 2**70),
    ):
        with pytest.raises((DBAPIError, OverflowError)) as raised:
            async with database.write() as connection:
                await connection.execute(text(statement), {"value": value})
        assert trouble_of(raised.value) is Trouble.OTHER, statement


@pytest.mark.parametrize("backend", ["postgresql"])
async def test_errors_say_nothing_of_what_people_wrote(database: Database) -> None:
    """They are logged, with all that led to them."""
    statement = text(
        "INSERT INTO accounts VALUES (:secret, -1, 0, 0, clock_timestamp(), clock_timestamp())"
    )
    written = {"secret": "a fox in love"}
    with pytest.raises(DBAPIError) as raised:
        async with database.write() as connection:
            await connection.execute(statement, written)
    told = "".join(traceback.format_exception(raised.value))

    assert "available_range" in told
    assert "fox" not in told


@pytest.mark.parametrize("backend", ["postgresql"])
async def test_only_what_reads_much_may_take_long(
    new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "STATEMENT_TIMEOUT_S", 0.2)
    database = open_database(new_database("credits"))
    slow = text("SELECT pg_sleep(0.5)")
    try:
        for connecting in (database.read(), database.write()):
            with pytest.raises(Unavailable):
                async with connecting as connection:
                    await connection.execute(slow)
        async with database.read(patient=True) as connection:
            await connection.execute(slow)
    finally:
        await database.close()


async def test_a_full_disk_is_trouble_that_may_go_away(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/small.sqlite3")
    try:
        async with database.writer.begin() as connection:
            await connection.execute(text("CREATE TABLE large (content blob)"))
            await connection.execute(text("PRAGMA max_page_count = 2"))
        with pytest.raises(Unavailable):
            async with database.write() as connection:
                await connection.execute(text("INSERT INTO large VALUES (zeroblob(100000))"))
    finally:
        await database.close()


@pytest.mark.parametrize("backend", ["postgresql"])
async def test_a_lock_that_is_not_given_is_a_conflict(database: Database) -> None:
    lock = text("LOCK TABLE accounts IN EXCLUSIVE MODE")
    async with database.writer.begin() as first:
        await first.execute(lock)
        async with database.writer.connect() as second:
            await second.execute(text("SET lock_timeout = '20ms'"))
            with pytest.raises(DBAPIError) as raised:
                await second.execute(lock)

    assert trouble_of(raised.value) is Trouble.CONFLICT


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("sqlite:////var/x.sqlite3", "sqlite+aiosqlite"),
        ("postgresql://u:secret@h/d", "postgresql+asyncpg"),
    ],
)
def test_one_url_chooses_the_driver(url: str, driver: str) -> None:
    assert parse_database_url(url).drivername == driver


@pytest.mark.parametrize("url", ["sqlite:///relative", "sqlite://", "mysql://u:secret@h/d", "x"])
def test_a_url_that_cannot_be_used_is_explained_without_its_password(
    url: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"^must ") as raised:
        parse_database_url(url.replace("relative", tmp_path.name))

    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("backend", ["postgresql"])
@pytest.mark.parametrize("state", ["25006", "53100", "53300", "57014", "57P01", "58030", "08006"])
async def test_a_database_that_cannot_write_now_is_lost_and_no_defect(
    database: Database, state: str
) -> None:
    """Disks that are full and primaries that became standbys are outages."""
    with pytest.raises(DBAPIError) as raised:
        async with database.writer.begin() as connection:
            await connection.execute(
                text(f"DO $$ BEGIN RAISE 'no' USING ERRCODE = '{state}'; END $$")
            )

    assert trouble_of(raised.value) is Trouble.LOST
