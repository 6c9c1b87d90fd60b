"""Connects to PostgreSQL: time limits, its primary, and what a pooler between leaves out."""

from collections.abc import Mapping
from typing import Any, Final

import asyncpg
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

__all__ = ["READ_ONLY", "connect_postgresql", "for_asyncpg"]

CONNECT_TIMEOUT_S = 3.0
LOCK_TIMEOUT = "1s"
READ_ONLY: Final = "25006"
"""What a server says that was the primary and is none any more."""


def for_asyncpg(url: URL) -> URL:
    """Returns `url` for asyncpg, which calls libpq's `sslmode` by another name."""
    mode = url.query.get("sslmode")
    if mode is not None:
        url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    return url.set(drivername="postgresql+asyncpg")


def connect_postgresql(
    url: URL,
    statement_timeout_s: float | None,
    *,
    connections: int,
    is_pooled: bool = False,
    settings: Mapping[str, str] | None = None,
) -> AsyncEngine:
    """Returns an engine whose statements end after their time, if they have one, as do waits.

    `is_pooled` says that a pooler stands before the server and gives each database transaction
    another of the server's sessions. `settings` are the server's, for its sessions.
    """
    is_patient = statement_timeout_s is None
    of_session = {
        "idle_in_transaction_session_timeout": "0" if is_patient else "15s",
        "lock_timeout": "0" if is_patient else LOCK_TIMEOUT,
        "synchronous_commit": "on",
        "timezone": "UTC",
        **(settings or {}),
    }
    arguments: dict[str, Any] = {
        "async_creator_fn": _connect_to_primary,
        "timeout": CONNECT_TIMEOUT_S,
        "command_timeout": statement_timeout_s,
        "server_settings": {"application_name": "reelworks"},
    }
    if is_pooled:
        arguments |= _WITHOUT_STATEMENTS
    else:
        arguments["server_settings"] |= of_session
    engine = create_async_engine(
        url,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT_S,
        # What is bound is what people wrote, and errors are logged.
        hide_parameters=True,
        connect_args=arguments,
    )
    event.listen(engine.sync_engine, "handle_error", _drop_detail)
    event.listen(engine.sync_engine, "handle_error", _leave_former_primary)
    if is_pooled:
        event.listen(engine.sync_engine, "begin", _setting_locally(of_session))
    return engine


# A statement that one session has prepared the next one does not know. One without a name is
# forgotten by itself. https://docs.sqlalchemy.org/en/21/dialects/postgresql.html#asyncpg
_WITHOUT_STATEMENTS: Final[Mapping[str, Any]] = {
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": lambda: "",
    "statement_cache_size": 0,
}


async def _connect_to_primary(*arguments: Any, **named: Any) -> Any:
    """Connects to that of the hosts which takes writes; a standby would answer with what was."""
    try:
        return await asyncpg.connect(*arguments, **{"target_session_attrs": "primary"} | named)
    except asyncpg.exceptions.TargetServerAttributeNotMatched as error:
        raise ConnectionError(f"no primary: {error}") from error


def _setting_locally(settings: Mapping[str, str]) -> Any:
    """Returns what begins a database transaction with settings that end with it.

    A pooler passes on none that belong to a session, or leaves them to whoever comes next.
    """
    calls = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings.items())
    statement = text(f"SELECT {calls}")

    def begin(connection: Connection) -> None:
        connection.execute(statement)

    return begin


def _drop_detail(context: ExceptionContext) -> None:
    # There PostgreSQL repeats the row that it refused, with what people wrote.
    cause = context.original_exception.__cause__
    if isinstance(cause, asyncpg.PostgresError):
        cause.detail = None


def _leave_former_primary(context: ExceptionContext) -> None:
    # The connection works, and so would all others of the pool go on to refuse every write.
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True
