"""Brings the database of a service to its newest schema, with Alembic configured in code.

Each service has a package `migrations` with `env.py`, which calls `run_environment`, and
`versions/`. Nothing is read from the working directory, so it works from an installed wheel too.
"""

import asyncio
import contextlib
import functools
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from alembic import command, context
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, column, select, text
from sqlalchemy import table as sql_table
from sqlalchemy.exc import DBAPIError

from services.runtime.database import Database, Trouble, open_database, reachable, trouble_of
from services.runtime.database_settings import DatabaseSettings
from services.runtime.errors import ServiceError, Unavailable
from services.runtime.settings import exit_with
from services.runtime.telemetry import get_logger

__all__ = ["migrate", "newest_revision", "open_migrated", "require_newest", "run_environment"]

ADVISORY_LOCK = 7_205_759_403
"""Key of the PostgreSQL lock that lets one migration run at a time; any number of ours will do."""

LOCK_TIMEOUT = "2s"
"""How long a migration waits for a table that others use before it lets go of all, and tries again
later: whoever comes after it to that table waits behind it. Longer than a second, after which a
vacuum by the server itself makes way."""
LOOK_S = 1.0
"""How long a start that waits for its database lets pass before it looks again."""
FAILURE: Final = 1

_UNUSABLE = (ServiceError, DBAPIError, OSError)
"""What opening a database raises for reasons that whoever runs the process can mend."""

logger = get_logger(__name__)

_Found = TypeVar("_Found")


def migrate(
    service: str, database_url: str, *, wait_s: float = 0.0, is_pooled: bool = False
) -> None:
    """Brings the database of `service` (`credits`, for example) to its newest revision.

    Runs to the end or changes nothing; a second run finds nothing to do, nor does one by older
    code, with which a newer schema works. Waits so long for a PostgreSQL that is away, or for
    tables that others use; `is_pooled` says that a pooler in transaction mode stands before it.
    """
    revision = asyncio.run(_migrate(service, database_url, wait_s, is_pooled=is_pooled))
    if revision == newest_revision(service):
        logger.info("migrated", revision=revision)
    else:
        logger.warning(
            "schema is newer than this code, left as it is",
            revision=revision,
            known=newest_revision(service),
        )


@functools.cache
def newest_revision(service: str) -> str:
    """Returns the revision that the code of `service` needs."""
    head = ScriptDirectory.from_config(_config(service)).get_current_head()
    if head is None:
        raise LookupError(f"services/{service}/migrations has no revision")
    return head


async def open_migrated(settings: DatabaseSettings, service: str, leave: asyncio.Event) -> Database:
    """Opens the database of `service`, once it is there.

    Ends the process with exit code 2 if the schema is old or the database cannot be used as it is
    set, with 1 if PostgreSQL stayed away for as long as the settings allow, and with 0 if `leave`
    was set meanwhile.
    """
    database = open_database(
        settings.database_url,
        connections=settings.database_connections,
        is_pooled=settings.has_pooler,
    )
    try:
        problem = await _wait_for(
            database, lambda: require_newest(database, service), settings.database_wait_s, leave
        )
        if problem is not None:
            exit_with(problem)
    except BaseException:
        await database.close()
        raise
    return database


async def require_newest(database: Database, service: str) -> str | None:
    """Returns what is wrong with the schema, and what to do about it; None if nothing is.

    A revision that this code does not know is that of a newer release, which is made so that the
    release before it still works.
    """
    wanted = newest_revision(service)
    async with database.read() as connection:
        present = await connection.run_sync(_present_revision, service)
    if present == wanted or _is_newer(present, service):
        return None
    return (
        f"REELWORKS_DATABASE_URL: the schema is at {present or 'no revision'}, {wanted} is needed; "
        "run `reelworks migrate` first"
    )


def _is_newer(present: str | None, service: str) -> bool:
    """Tells whether a schema is one that a newer release made: this code does not know it."""
    return present is not None and present not in _known_revisions(service)


@functools.cache
def _known_revisions(service: str) -> frozenset[str]:
    revisions = ScriptDirectory.from_config(_config(service)).walk_revisions()
    return frozenset(revision.revision for revision in revisions)


def run_environment(metadata: MetaData) -> None:
    """Runs the migrations that Alembic was asked for; called by each service's `env.py`."""
    connection: Connection = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        version_table=_version_table(context.config.attributes["service"]),
        target_metadata=metadata,
        compare_type=True,
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()


def _config(service: str) -> Config:
    config = Config()
    config.set_main_option("script_location", f"services.{service}:migrations")
    config.set_main_option("path_separator", "os")
    return config


async def _migrate(service: str, database_url: str, wait_s: float, *, is_pooled: bool) -> str:
    """Returns the revision that the database has then."""
    database = open_database(database_url, patient=True, is_pooled=is_pooled)

    async def upgrade() -> str:
        with reachable():
            async with database.writer.begin() as connection:
                if connection.dialect.name == "postgresql":
                    # Another migration is waited for as long as it takes: nobody waits behind this.
                    await connection.execute(
                        text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK}
                    )
                    await connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
                return await connection.run_sync(_upgrade, service)

    try:
        return await _wait_for(database, upgrade, wait_s, asyncio.Event())
    finally:
        await database.close()


async def _wait_for(
    database: Database,
    ask: Callable[[], Awaitable[_Found]],
    wait_s: float,
    leave: asyncio.Event,
) -> _Found:
    """Returns what `ask` finds, as soon as the database answers; ends the process if it does not.

    A table that others use, and that `ask` wants for itself, is waited for as a server is. Only a
    server goes away and comes back: a file that cannot be opened is a wrong setting.
    """
    ends_at = time.monotonic() + wait_s
    while not leave.is_set():
        try:
            return await ask()
        except Unavailable as error:
            if not database.has_row_locks:
                exit_with(_unusable(error))
            if time.monotonic() >= ends_at:
                logger.critical(_what_is_wrong(error), waited_s=wait_s, error=_cause(error))
                sys.exit(FAILURE)
            logger.warning("waiting for the database", error=_cause(error))
        except _UNUSABLE as error:
            exit_with(_unusable(error))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(leave.wait(), LOOK_S)
    sys.exit(0)


def _upgrade(connection: Connection, service: str) -> str:
    """Returns the revision that the database has then."""
    present = _present_revision(connection, service)
    if present is not None and _is_newer(present, service):
        return present
    config = _config(service)
    config.attributes["connection"] = connection
    config.attributes["service"] = service
    command.upgrade(config, "head")
    return newest_revision(service)


def _present_revision(connection: Connection, service: str) -> str | None:
    table = _version_table(service)
    if not connection.dialect.has_table(connection, table):
        return None
    return connection.execute(select(column("version_num")).select_from(sql_table(table))).scalar()


def _version_table(service: str) -> str:
    """Returns the table that names the revision; services that share a database have one each."""
    return f"{service}_schema_version"


def _what_is_wrong(error: Unavailable) -> str:
    cause = error.__cause__
    is_in_use = cause is not None and trouble_of(cause) is Trouble.CONFLICT
    return "tables in use" if is_in_use else "database away"


def _unusable(error: BaseException) -> str:
    return f"REELWORKS_DATABASE_URL: the database cannot be used: {_cause(error)}"


def _cause(error: BaseException) -> str:
    """Returns in words what a driver said that SQLAlchemy and we have wrapped."""
    cause = error.__cause__ if isinstance(error, ServiceError) and error.__cause__ else error
    cause = getattr(cause, "orig", None) or cause
    return str(cause) or type(cause).__name__
