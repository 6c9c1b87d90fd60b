"""Brings the database of a service to its newest schema, with Alembic configured in code.

Each service has a package `migrations` with `env.py`, which calls `run_environment`, and
`versions/`. Nothing is read from the working directory, so it works from an installed wheel too.
"""

import asyncio

from alembic import command, context
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, column, select, text
from sqlalchemy import table as sql_table
from sqlalchemy.exc import DBAPIError

from services.runtime.database import Database, open_database
from services.runtime.errors import ServiceError
from services.runtime.settings import exit_with
from services.runtime.telemetry import get_logger

__all__ = ["migrate", "newest_revision", "open_migrated", "require_newest", "run_environment"]

ADVISORY_LOCK = 7_205_759_403
"""Key of the PostgreSQL lock that lets one migration run at a time; any number of ours will do."""

_UNUSABLE = (ServiceError, DBAPIError, OSError)
"""What opening a database raises for reasons that whoever runs the process can mend."""

logger = get_logger(__name__)


def migrate(service: str, database_url: str) -> None:
    """Brings the database of `service` (`credits`, for example) to its newest revision.

    Runs to the end or changes nothing; a second run finds nothing to do.
    """
    try:
        asyncio.run(_migrate(service, database_url))
    except _UNUSABLE as error:
        exit_with(_unusable(error))
    logger.info("migrated", revision=newest_revision(service))


def newest_revision(service: str) -> str:
    """Returns the revision that the code of `service` needs."""
    head = ScriptDirectory.from_config(_config(service)).get_current_head()
    if head is None:
        raise LookupError(f"services/{service}/migrations has no revision")
    return head


async def open_migrated(database_url: str, service: str) -> Database:
    """Opens the database of `service`; ends the process with exit code 2 if its schema is old."""
    database = open_database(database_url)
    try:
        problem = await require_newest(database, service)
    except _UNUSABLE as error:
        problem = _unusable(error)
    if problem is not None:
        await database.close()
        exit_with(problem)
    return database


async def require_newest(database: Database, service: str) -> str | None:
    """Returns what is wrong with the schema, and what to do about it; None if nothing is."""
    wanted = newest_revision(service)
    async with database.read() as connection:
        present = await connection.run_sync(_present_revision, service)
    if present == wanted:
        return None
    return (
        f"REELWORKS_DATABASE_URL: the schema is at {present or 'no revision'}, {wanted} is needed; "
        "run `reelworks migrate` first"
    )


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


async def _migrate(service: str, database_url: str) -> None:
    database = open_database(database_url, patient=True)
    try:
        async with database.writer.begin() as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(
                    text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK}
                )
            await connection.run_sync(_upgrade, service)
    finally:
        await database.close()


def _upgrade(connection: Connection, service: str) -> None:
    config = _config(service)
    config.attributes["connection"] = connection
    config.attributes["service"] = service
    command.upgrade(config, "head")


def _present_revision(connection: Connection, service: str) -> str | None:
    table = _version_table(service)
    if not connection.dialect.has_table(connection, table):
        return None
    return connection.execute(select(column("version_num")).select_from(sql_table(table))).scalar()


def _version_table(service: str) -> str:
    """Returns the table that names the revision; services that share a database have one each."""
    return f"{service}_schema_version"


def _unusable(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error, ServiceError) and error.__cause__ else error
    cause = getattr(cause, "orig", None) or cause
    return f"REELWORKS_DATABASE_URL: the database cannot be used: {cause}"
