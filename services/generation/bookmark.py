"""Keeps how far all generations that ended were looked at, for processes to come."""

from datetime import datetime

from sqlalchemy import select, update

from services.generation.tables import bookmarks
from services.runtime.database import Database

__all__ = ["Bookmark"]

_NAME = "ended"


class Bookmark:
    """A moment by the database's clock that only moves forward; all replicas share it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self) -> datetime:
        """Returns the moment; raises Unavailable when the database is away."""
        async with self._database.read() as connection:
            found = await connection.execute(
                select(bookmarks.c.moment).where(bookmarks.c.name == _NAME)
            )
            moment: datetime = found.scalar_one()
            return moment

    async def move(self, moment: datetime) -> None:
        """Moves it to `moment`, unless another replica is ahead."""
        async with self._database.write() as connection:
            await connection.execute(
                update(bookmarks)
                .where(bookmarks.c.name == _NAME, bookmarks.c.moment < moment)
                .values(moment=moment)
            )
