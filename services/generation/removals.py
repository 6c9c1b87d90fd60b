"""Hands out generations whose files are to be removed: each to one sweep at a time."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    TextClause,
    bindparam,
    delete,
    select,
    text,
    true,
    tuple_,
    update,
)

from services.generation import tables
from services.generation.history import Place
from services.generation.rows import generation_of
from services.generation.state import Generation, Stage
from services.generation.tables import SETTLED, in_stage
from services.runtime.database import Database, read_clock

__all__ = ["Removals"]

LEASE = timedelta(minutes=15)
"""How long a sweep has the generations that it claimed to itself."""

_columns = tables.generations.c


class Removals:
    """Reads and writes when files of generations are removed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim_due(self, retention: timedelta | None, limit: int) -> Sequence[Generation]:
        """Returns at most `limit` generations whose files are to go now, longest due first.

        `retention` is the age at which videos go, None for never.
        """
        async with self._database.write() as connection:
            now = await read_clock(connection)
            due = await connection.execute(
                select(_columns.generation_id)
                .where(*_due(now), ~_is_kept(now, retention))
                .order_by(_columns.erase_at)
                .limit(limit)
                .with_for_update(skip_locked=True)
            )
            chosen = list(due.scalars())
            claimed = await connection.execute(
                update(tables.generations)
                .where(_columns.generation_id.in_(chosen))
                .values(erase_at=now + LEASE)
                .returning(tables.generations)
            )
            by_id = {row["generation_id"]: generation_of(row) for row in claimed.mappings()}
            return [by_id[generation_id] for generation_id in chosen]

    async def postpone(self, retention: timedelta | None, limit: int) -> int:
        """Puts off at most `limit` that are due by a setting that is no longer in force.

        Returns how many.
        """
        async with self._database.write() as connection:
            now = await read_clock(connection)
            found = await connection.execute(
                select(_columns.generation_id, _columns.finished_at)
                .where(*_due(now), _is_kept(now, retention))
                .order_by(_columns.erase_at)
                .limit(limit)
                .with_for_update(skip_locked=True)
            )
            later = [_schedule(row.generation_id, row.finished_at, retention) for row in found]
            if later:
                await connection.execute(_POSTPONE, later)
            return len(later)

    async def prune_events(self, kept: timedelta, limit: int) -> int:
        """Removes at most `limit` of the provider's events that are older, and returns how many.

        What they told is in the rows of their generations.
        """
        events = tables.prediction_events
        async with self._database.write() as connection:
            now = await read_clock(connection)
            key = tuple_(*events.primary_key.columns)
            old = (
                select(*events.primary_key.columns)
                .where(events.c.recorded_at < now - kept)
                .order_by(events.c.recorded_at)
                .limit(limit)
            )
            removed = await connection.execute(delete(events).where(key.in_(old)))
            return removed.rowcount

    async def finish(self, generation_ids: Collection[str]) -> Sequence[Generation]:
        """Returns generations whose files were removed, after noting that."""
        if not generation_ids:
            return []
        async with self._database.write() as connection:
            chosen = _columns.generation_id.in_(sorted(generation_ids))
            # Rows are locked in one order everywhere, or replicas would deadlock.
            await connection.execute(
                select(_columns.generation_id)
                .where(chosen)
                .order_by(_columns.generation_id)
                .with_for_update()
            )
            now = await read_clock(connection)
            erased = await connection.execute(
                update(tables.generations)
                .where(chosen)
                .values(
                    erase_at=None,
                    erased_at=now,
                    fence=_columns.fence + 1,
                    version=_columns.version + 1,
                    updated_at=now,
                )
                .returning(tables.generations)
            )
            return [generation_of(row) for row in erased.mappings()]

    async def schedule(self, retention: timedelta, after: Place | None, limit: int) -> Place | None:
        """Lets videos go by the setting of today if that is sooner than when they ended.

        Looks at `limit` generations behind `after`; returns where to go on, None at the end.
        """
        async with self._database.write() as connection:
            order = (_columns.finished_at, _columns.generation_id)
            conditions: list[ColumnElement[bool] | TextClause] = [
                # An index has all that have ended.
                text(SETTLED),
                in_stage(Stage.COMPLETED),
            ]
            if after is not None:
                place = (after.moment, after.generation_id)
                conditions.append(tuple_(*order) > tuple_(*place, types=[c.type for c in order]))
            found = await connection.execute(
                select(*order).where(*conditions).order_by(*order).limit(limit)
            )
            page = [Place(row.finished_at, row.generation_id) for row in found]
            if page:
                await connection.execute(
                    _HASTEN,
                    # Rows are locked in one order everywhere, or replicas would deadlock.
                    [
                        _schedule(end.generation_id, end.moment, retention)
                        for end in sorted(page, key=lambda end: end.generation_id)
                    ],
                )
            return page[-1] if len(page) == limit else None


_POSTPONE = (
    update(tables.generations)
    .where(_columns.generation_id == bindparam("of_generation"))
    .values(erase_at=bindparam("new_erase_at"))
)
_HASTEN = _POSTPONE.where(
    _columns.erased_at.is_(None),
    _columns.deleted_at.is_(None),
    _columns.erase_at.is_(None) | (_columns.erase_at > bindparam("new_erase_at")),
)


def _schedule(
    generation_id: str, finished_at: datetime, retention: timedelta | None
) -> dict[str, Any]:
    return {
        "of_generation": generation_id,
        "new_erase_at": None if retention is None else finished_at + retention,
    }


def _due(now: datetime) -> Sequence[ColumnElement[bool]]:
    return _columns.erase_at <= now, _columns.finished_at.is_not(None)


def _is_kept(now: datetime, retention: timedelta | None) -> ColumnElement[bool]:
    """Returns the condition that files stay, whatever was in force when their generation ended.

    Those of deleted generations go, and those of ended ones without a video.
    """
    has_video = in_stage(Stage.COMPLETED) & _columns.deleted_at.is_(None)
    is_young = true() if retention is None else _columns.finished_at > now - retention
    return has_video & is_young
