"""What a process needs to know of its database."""

from typing import Annotated, Literal

from pydantic import Field

from services.runtime.settings import DAY_S, OR_FILE, Settings

__all__ = ["DatabaseSettings"]


class DatabaseSettings(Settings):
    """Where the data of a service is kept, and how it is reached."""

    database_url: Annotated[str, OR_FILE]
    """Where its data is kept: `sqlite:////absolute/path` or `postgresql://user@host/name`."""
    database_connections: Annotated[int, Field(ge=1, le=100)] = 10
    """Connections to PostgreSQL that write, at most, and as many that read; two more scan. All
    replicas together must stay below the server's `max_connections`."""
    database_pooler: Literal["none", "transaction"] = "none"
    """`transaction` if PgBouncer stands before PostgreSQL in transaction mode: statements are not
    kept prepared then, and settings of sessions are made anew in each database transaction."""
    database_wait_s: Annotated[float, Field(ge=0, le=DAY_S)] = 60.0
    """How long a start waits for a PostgreSQL that is away, and a migration for tables that others
    use, before it gives up, with exit code 1."""

    @property
    def has_pooler(self) -> bool:
        """Whether a pooler gives each database transaction another session of the server."""
        return self.database_pooler == "transaction"
