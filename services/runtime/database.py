"""Opens the database of a service: one SQLite file, or PostgreSQL, from one URL."""

import contextlib
import fcntl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, TypeVar

from sqlalchemy import (
    REAL,
    BigInteger,
    Boolean,
    Connection,
    DateTime,
    Dialect,
    Double,
    Engine,
    Integer,
    MetaData,
    Text,
    create_engine,
    event,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import QueuePool
from sqlalchemy.types import TypeDecorator, TypeEngine

from services.runtime.errors import Unavailable
from services.runtime.postgresql import READ_ONLY, connect_postgresql, for_asyncpg
from services.runtime.settings import exit_with
from services.runtime.writer_thread import WriterThread

__all__ = [
    "SQLITE_TABLE",
    "Database",
    "Flag",
    "Float64",
    "Instant",
    "Int64",
    "Key",
    "Trouble",
    "new_metadata",
    "open_database",
    "parse_database_url",
    "reachable",
    "read_clock",
    "read_clock_of",
    "trouble_of",
    "wait_briefly_for_locks",
    "wait_for_standbys",
]

POOL_CONNECTIONS = 10
SCANNERS = 2
SQLITE_READERS = 4
STATEMENT_TIMEOUT_S = 3.0
"""Of what a caller waits for; a connection that missed it takes two more to be closed."""
SCAN_TIMEOUT_S = 30.0
BRIEF_LOCK_TIMEOUT = "10ms"
BUSY_TIMEOUT_MS = 5_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Result = TypeVar("_Result")

# Only a transaction that has written something waits; a message in the log changes no table.
_MARK_IF_UNCHANGED = text(
    "SELECT CASE WHEN pg_current_xact_id_if_assigned() IS NULL"
    " THEN pg_logical_emit_message(true, 'reelworks', '') END"
)

# Whoever is waited for finds rows by an index. The planner cannot tell how many rows a parameter
# holds, keeps a plan that it made for an empty table, and from the sixth time on one that it made
# for any parameter: each would read whole tables for a few rows.
_PLAN_BY_KEYS = {"enable_hashjoin": "off", "enable_mergejoin": "off", "enable_seqscan": "off"}


# A STRICT table of SQLite takes only its own names of types; its INTEGER has 64 bits, its REAL too.
Int64 = BigInteger().with_variant(Integer(), "sqlite")
Float64: TypeEngine[Any] = Double().with_variant(REAL(), "sqlite")
# Sorted by bytes, so that every replica sorts alike, which is the order in which rows are locked.
Key = Text().with_variant(Text(collation="C"), "postgresql")

SQLITE_TABLE: Mapping[str, Any] = {"sqlite_strict": True, "sqlite_with_rowid": False}
"""Options of every table: SQLite then keeps to declared types, and orders rows by primary key."""


class Instant(TypeDecorator[datetime]):
    """A moment: timestamptz on PostgreSQL, whole microseconds since 1970 UTC on SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Returns the column's type in `dialect`."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(Integer())
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Turns an aware moment into what the database keeps."""
        if value is None or dialect.name != "sqlite":
            return value
        # Whole numbers throughout: `timestamp()` is a float, which loses microseconds.
        elapsed = value - _EPOCH
        return (elapsed.days * 86_400 + elapsed.seconds) * 1_000_000 + elapsed.microseconds

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Turns what the database keeps into an aware moment in UTC."""
        if value is None:
            return None
        if dialect.name == "sqlite":
            seconds, microseconds = divmod(int(value), 1_000_000)
            return datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds)
        moment: datetime = value
        return moment.astimezone(UTC)


class Flag(TypeDecorator[bool]):
    """Yes or no: boolean on PostgreSQL, 1 or 0 on SQLite, whose STRICT tables know no such type."""

    impl = Boolean
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Returns the column's type in `dialect`."""
        return dialect.type_descriptor(Integer() if dialect.name == "sqlite" else Boolean())

    def process_result_value(self, value: Any, _dialect: Dialect) -> bool | None:
        """Turns what the database keeps into a truth value."""
        return None if value is None else bool(value)


def new_metadata() -> MetaData:
    """Returns metadata whose constraints all have names, so that migrations can speak of them."""
    return MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Trouble(StrEnum):
    """What kind of failure a database reported, as far as the caller's next step depends on it."""

    LOST = "lost"
    """The connection failed, so whether the SQL commit happened is open."""
    CONFLICT = "conflict"
    """Another database transaction was in the way; the same work can be tried again."""
    OTHER = "other"
    """The data or the statement was refused; trying the same again fails the same way."""


_CONFLICT_STATES = {"40001", "40P01", "55P03"}
# Connection, resources, operator's intervention, system error; and a primary that became a standby.
_LOST_CLASSES = ("08", "53", "57", "58")


def trouble_of(error: BaseException) -> Trouble:
    """Returns the kind of failure that `error`, raised by SQLAlchemy or its driver, stands for."""
    if isinstance(error, OSError | TimeoutError):
        return Trouble.LOST
    if not isinstance(error, DBAPIError):
        # A pool that has no connection to give within its time says so by SQLAlchemy's own error.
        pool_empty = isinstance(error, SQLAlchemyError) and "QueuePool limit" in str(error)
        return Trouble.LOST if pool_empty else Trouble.OTHER
    sqlite_name = getattr(error.orig, "sqlite_errorname", None)
    if sqlite_name is not None:
        return _sqlite_trouble(sqlite_name)
    state = getattr(error.orig, "sqlstate", None)
    if state in _CONFLICT_STATES:
        return Trouble.CONFLICT
    lost = str(state).startswith(_LOST_CLASSES) or state == READ_ONLY
    if error.connection_invalidated or lost:
        return Trouble.LOST
    # asyncpg's DataError, for a value that no column can hold, is an InterfaceError too.
    refused = isinstance(getattr(error.orig, "__cause__", None), ValueError)
    if state is None and not refused and isinstance(error, InterfaceError | OperationalError):
        return Trouble.LOST
    return Trouble.OTHER


def _sqlite_trouble(name: str) -> Trouble:
    """Returns the kind of failure that SQLite's name of a result code stands for."""
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Trouble.CONFLICT
    if name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_FULL", "SQLITE_READONLY")):
        return Trouble.LOST
    return Trouble.OTHER


@dataclass(frozen=True, slots=True)
class Database:
    """A service's database: one engine to write and one to read."""

    writer: AsyncEngine
    reader: AsyncEngine
    scanner: AsyncEngine
    """For what reads much; the reader itself where no statement has a time limit."""
    lock: IO[str] | None
    """Held while this process has a SQLite file open; None on PostgreSQL."""
    thread: WriterThread | None = None
    """What writes whole database transactions to a SQLite file; None on PostgreSQL."""

    @property
    def is_exclusive(self) -> bool:
        """Whether no other process can work on it meanwhile."""
        return self.lock is not None

    @property
    def has_row_locks(self) -> bool:
        """Whether a row that is locked leaves the others free."""
        return self.writer.dialect.name != "sqlite"

    @property
    def pools(self) -> Mapping[str, QueuePool]:
        """What keeps the connections, by what they are for; any thread may ask."""
        engines = {self.scanner: "scanner", self.reader: "reader", self.writer: "writer"}
        pools = {name: engine.sync_engine.pool for engine, name in engines.items()}
        return {name: pool for name, pool in pools.items() if isinstance(pool, QueuePool)}

    @contextlib.asynccontextmanager
    async def read(self, *, patient: bool = False) -> AsyncIterator[AsyncConnection]:
        """Gives a connection for reading; raises Unavailable when the database is away.

        A `patient` one is for statements that read much: each may take 30 s instead of 3.
        """
        with reachable():
            async with (self.scanner if patient else self.reader).connect() as connection:
                yield connection

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Gives a connection in a database transaction, committed at the end of the block."""
        turn = contextlib.nullcontext() if self.thread is None else self.thread.turn
        async with turn:
            with reachable():
                async with self.writer.begin() as connection:
                    yield connection

    async def transact(self, work: Callable[[Connection], _Result]) -> _Result:
        """Returns what `work` returns, in a database transaction that is committed behind it.

        On SQLite all of it runs in a thread, to which each statement by itself would be handed
        over at the cost of several. Raises what SQLAlchemy raises.
        """
        if self.thread is not None:
            return await self.thread.transact(work)
        async with self.writer.begin() as connection:
            return await connection.run_sync(work)

    async def close(self) -> None:
        """Closes all connections and lets other processes at a SQLite file."""
        for engine in {self.writer, self.reader, self.scanner}:
            await engine.dispose()
        if self.thread is not None:
            await self.thread.close()
        if self.lock is not None:
            self.lock.close()


@contextlib.contextmanager
def reachable() -> Any:
    """Turns the failure to reach a database into Unavailable, and lets every other error pass."""
    try:
        yield
    except (DBAPIError, SQLAlchemyError, OSError) as error:
        if trouble_of(error) is Trouble.OTHER:
            raise
        raise Unavailable(
            "DATABASE_UNAVAILABLE", "The database cannot be reached; repeat the call."
        ) from error


def parse_database_url(url: str) -> URL:
    """Returns the URL of an asynchronous driver for `sqlite:////absolute/path` or `postgresql://…`.

    Raises ValueError that says what is wrong, without the URL, which may hold a password.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ValueError("must be sqlite:////absolute/path or postgresql://host/name") from None
    match parsed.get_backend_name():
        case "sqlite":
            if not parsed.database or not Path(parsed.database).is_absolute():
                raise ValueError("must name an absolute path: sqlite:////absolute/path")
            return parsed.set(drivername="sqlite+aiosqlite")
        case "postgresql":
            return for_asyncpg(parsed)
        case other:
            raise ValueError(f"must be of sqlite or postgresql, not of {other}")


def open_database(
    url: str,
    *,
    patient: bool = False,
    connections: int = POOL_CONNECTIONS,
    is_pooled: bool = False,
) -> Database:
    """Opens the database at `url`; connections are made when they are first needed.

    A SQLite file is opened by one process at a time: another one ends here with exit code 2.
    `patient` is for migrations, whose statements may take as long as they must.
    On PostgreSQL, so many `connections` at most write, and as many read; `is_pooled` says that a
    pooler in transaction mode stands before it.
    """
    parsed = _parse_or_exit(url)
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(parsed)
    if patient:
        engine = connect_postgresql(parsed, None, connections=1, is_pooled=is_pooled)
        return Database(writer=engine, reader=engine, scanner=engine, lock=None)
    writer, reader = (
        connect_postgresql(
            parsed,
            STATEMENT_TIMEOUT_S,
            connections=connections,
            is_pooled=is_pooled,
            settings=_PLAN_BY_KEYS,
        )
        for _ in range(2)
    )
    scanner = connect_postgresql(parsed, SCAN_TIMEOUT_S, connections=SCANNERS, is_pooled=is_pooled)
    return Database(writer=writer, reader=reader, scanner=scanner, lock=None)


async def read_clock(connection: AsyncConnection) -> datetime:
    """Returns the database's time as it is now, not as it was when its transaction began."""
    return await connection.run_sync(read_clock_of)


def read_clock_of(connection: Connection) -> datetime:
    """Returns the same, for work that runs in a database transaction."""
    if connection.dialect.name == "sqlite":
        return datetime.now(UTC)  # SQLite runs in this process and has no other clock.
    moment: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return moment


def wait_briefly_for_locks(connection: Connection) -> None:
    """Has the rest of a database transaction wait but a moment for each lock of a row."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SET LOCAL lock_timeout = '{BRIEF_LOCK_TIMEOUT}'"))


def wait_for_standbys(connection: Connection) -> None:
    """Has the SQL commit wait for standbys, even if this database transaction changed nothing.

    What it has read may be of one whose wait for them was broken off: it is there, and would be
    gone after a failover. Whoever is told that a repeated command is done relies on it.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_MARK_IF_UNCHANGED)


def _parse_or_exit(url: str) -> URL:
    try:
        return parse_database_url(url)
    except ValueError as error:
        exit_with(f"REELWORKS_DATABASE_URL: {error}")


def _open_sqlite(url: URL) -> Database:
    path = Path(str(url.database))
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(path.name + ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        exit_with(f"REELWORKS_DATABASE_URL: {path} is in use by another process")
    # One writer: SQLite has one write lock, and waiting for it in our queue is fair and quiet.
    writer = create_async_engine(url, pool_size=1, max_overflow=0, hide_parameters=True)
    reader = create_async_engine(
        url, pool_size=SQLITE_READERS, max_overflow=0, hide_parameters=True
    )
    threaded = create_engine(
        url.set(drivername="sqlite"), pool_size=1, max_overflow=0, hide_parameters=True
    )
    _configure_sqlite(writer.sync_engine, begin="BEGIN IMMEDIATE", read_only=False)
    _configure_sqlite(threaded, begin="BEGIN IMMEDIATE", read_only=False)
    _configure_sqlite(reader.sync_engine, begin="BEGIN", read_only=True)
    return Database(
        writer=writer, reader=reader, scanner=reader, lock=lock, thread=WriterThread(threaded)
    )


def _configure_sqlite(engine: Engine, begin: str, *, read_only: bool) -> None:
    """Sets a SQLite engine up for durability, and for its locks to be taken where we say.

    Reading first and asking for the write lock later would fail without waiting, so a writer begins
    with BEGIN IMMEDIATE (https://docs.sqlalchemy.org/en/21/dialects/sqlite.html).
    """

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # The driver sends no BEGIN of its own.
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout = {BUSY_TIMEOUT_MS}",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            f"query_only = {'ON' if read_only else 'OFF'}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Any) -> None:
        connection.exec_driver_sql(begin)
