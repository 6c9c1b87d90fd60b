"""Remembers the images that people bring.

A row whose digest is its own id has a file that is being stored or being removed: no upload finds
it by its content, and no request may refer to it. So a process that dies in between leaves nothing
behind that a later sweep would not find.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, case, delete, func, literal, literal_column, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from services.generation import tables
from services.runtime.database import Database, read_clock

__all__ = ["UPLOAD", "ImageRecord", "ImageRecords"]

UPLOAD = "upload:"
"""What the address of an uploaded image begins with; its id follows."""
UNUSED = timedelta(hours=24)
"""How long an image stays that no generation uses, from its last upload on."""
ASKED_FOR = timedelta(hours=1)
"""How long one stays at the least once it was asked for, until a generation refers to it."""
STORING = timedelta(minutes=10)
"""How long storing one may take, or removing it; what is not done then is for the next sweep."""

_columns = tables.images.c
_is_hidden = _columns.sha256 == _columns.image_id


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image that somebody uploaded."""

    image_id: str
    user_id: str
    key: str
    """Where our storage keeps it."""
    content_type: str
    size_bytes: int
    width_pixels: int
    height_pixels: int
    expires_at: datetime
    """When it goes unless it is used."""
    provider_url: str | None = None
    """Where the provider keeps a copy."""
    provider_expires_at: datetime | None = None
    """Until when it does."""


class ImageRecords:
    """Reads and writes the rows of images.

    `kept_for` is how long a generation uses its image after its end; None: until it is deleted.
    """

    def __init__(self, database: Database, kept_for: timedelta | None = None) -> None:
        self._database = database
        self._kept_for = kept_for

    async def find(self, image_id: str) -> ImageRecord | None:
        """Returns an image, whosever it is; None if it was removed."""
        async with self._database.read() as connection:
            found = await connection.execute(
                select(tables.images).where(_columns.image_id == image_id, ~_is_hidden)
            )
            return next((_record(row) for row in found.mappings()), None)

    async def keep(self, user_id: str, image_id: str) -> bool:
        """Keeps an image until a generation can refer to it; returns False if the user has none."""
        async with self._database.write() as connection:
            now = await read_clock(connection)
            kept = await connection.execute(
                update(tables.images)
                .where(_columns.image_id == image_id, _columns.user_id == user_id, ~_is_hidden)
                .values(expires_at=_later(now + ASKED_FOR))
                .returning(_columns.image_id)
            )
            return kept.first() is not None

    async def renew(self, user_id: str, sha256: str) -> ImageRecord | None:
        """Returns what a user has uploaded before, its time begun anew; None if nothing."""
        async with self._database.write() as connection:
            return await _renew(connection, user_id, sha256)

    async def count_unused(self, user_id: str, limit: int) -> int:
        """Returns how many images of a user no generation uses, counted to `limit`."""
        async with self._database.read() as connection:
            now = await read_clock(connection)
            unused = (
                select(_columns.image_id)
                .where(_columns.user_id == user_id, ~self._is_used(now))
                .limit(limit)
            )
            counted = await connection.execute(select(func.count()).select_from(unused.subquery()))
            number: int = counted.scalar_one()
            return number

    async def begin(self, record: ImageRecord) -> None:
        """Announces a file before it is stored; its `expires_at` is not looked at."""
        async with self._database.write() as connection:
            now = await read_clock(connection)
            values = {field.name: getattr(record, field.name) for field in fields(record)}
            await connection.execute(
                tables.images.insert().values(
                    values
                    | {"sha256": record.image_id, "created_at": now, "expires_at": now + STORING}
                )
            )

    async def finish(self, record: ImageRecord, sha256: str) -> ImageRecord | None:
        """Returns the image once its file is stored, or the same that was stored meanwhile.

        None: storing it took so long that it was taken for left behind.
        """
        for is_last in (False, True):
            try:
                return await self._finish(record, sha256)
            except IntegrityError:  # Another stored the same a moment ago.
                if is_last:
                    raise
        raise AssertionError

    async def set_provider_copy(self, image_id: str, url: str, expires_at: datetime) -> None:
        """Notes where the provider keeps a copy."""
        async with self._database.write() as connection:
            await connection.execute(
                update(tables.images)
                .where(_columns.image_id == image_id)
                .values(provider_url=url, provider_expires_at=expires_at)
            )

    async def claim_expired(self, limit: int) -> Sequence[ImageRecord]:
        """Returns at most `limit` images to be removed; nobody can refer to them any more.

        They are the caller's for ten minutes. Those that are used are given another day instead.
        """
        async with self._database.write() as connection:
            now = await read_clock(connection)
            for used, changes in (
                (True, {"expires_at": now + UNUSED}),
                (False, {"sha256": _columns.image_id, "expires_at": now + STORING}),
            ):
                chosen = await connection.execute(
                    select(_columns.image_id)
                    .where(
                        _columns.expires_at <= now,
                        (self._is_used(now) & ~_is_hidden) if used else ~self._is_used(now),
                    )
                    .order_by(_columns.expires_at)
                    .limit(limit)
                    .with_for_update(of=tables.images, skip_locked=True)
                )
                changed = await connection.execute(
                    update(tables.images)
                    .where(_columns.image_id.in_(list(chosen.scalars())))
                    .values(**changes)
                    .returning(tables.images)
                )
            return [_record(row) for row in changed.mappings()]

    async def forget(self, image_ids: Collection[str]) -> None:
        """Drops images whose files were removed."""
        async with self._database.write() as connection:
            await connection.execute(
                delete(tables.images).where(_columns.image_id.in_(sorted(image_ids)), _is_hidden)
            )

    async def _finish(self, record: ImageRecord, sha256: str) -> ImageRecord | None:
        async with self._database.write() as connection:
            known = await _renew(connection, record.user_id, sha256)
            if known is not None:
                return known
            now = await read_clock(connection)
            stored = await connection.execute(
                update(tables.images)
                .where(
                    _columns.image_id == record.image_id,
                    # Else a sweep may have its file already.
                    _columns.created_at > now - STORING,
                )
                .values(sha256=sha256, expires_at=now + UNUSED)
                .returning(tables.images)
            )
            return next((_record(row) for row in stored.mappings()), None)

    def _is_used(self, now: datetime) -> ColumnElement[bool]:
        """Returns the condition that a generation of the user's history refers to an image."""
        generations = tables.generations.c
        conditions = [
            generations.image_uri == literal(UPLOAD) + _columns.image_id,
            # Follows from the other, which no planner sees; an index has these rows only.
            generations.image_uri != literal_column("''"),
            generations.deleted_at.is_(None),
        ]
        if self._kept_for is not None:
            ended_lately = generations.finished_at > now - self._kept_for
            conditions.append(generations.finished_at.is_(None) | ended_lately)
        return (
            select(generations.generation_id).where(*conditions).correlate(tables.images).exists()
        )


async def _renew(connection: AsyncConnection, user_id: str, sha256: str) -> ImageRecord | None:
    now = await read_clock(connection)
    renewed = await connection.execute(
        update(tables.images)
        .where(_columns.user_id == user_id, _columns.sha256 == sha256)
        .values(expires_at=_later(now + UNUSED))
        .returning(tables.images)
    )
    return next((_record(row) for row in renewed.mappings()), None)


def _later(moment: datetime) -> ColumnElement[Any]:
    """Returns the later of `moment` and the time at which an image expires anyhow."""
    wanted = literal(moment, _columns.expires_at.type)
    return case((_columns.expires_at < wanted, wanted), else_=_columns.expires_at)


def _record(row: Any) -> ImageRecord:
    return ImageRecord(**{field.name: row[field.name] for field in fields(ImageRecord)})
