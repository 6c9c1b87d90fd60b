"""Reads generations: one, a page of a user's history, or what changed lately."""

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from string import ascii_lowercase, ascii_uppercase
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    TextClause,
    and_,
    collate,
    func,
    or_,
    select,
    text,
    tuple_,
)

from services.generation import tables
from services.generation.rows import generation_of
from services.generation.state import Generation, Kind, Stage, Status, status_of
from services.runtime.database import Database, read_clock

__all__ = ["PAGE_ROWS", "SCAN_ROWS", "Cursor", "Filter", "History", "Page", "Place"]

PAGE_ROWS = 200
SCAN_ROWS = 10_000
"""How many generations a filter looks at for one page, which may then have few of them, or none."""
UNFINISHED_MAX = 1000
"""How many unfinished generations of a user are sent at once; the rest come as they change."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """The place of a generation in a user's history."""

    created_at: datetime
    generation_id: str


@dataclass(frozen=True, slots=True)
class Filter:
    """Which generations of a history are wanted."""

    status: Status | None = None
    kind: Kind | None = None
    text: str = ""
    """What the prompt contains, whatever the case of its letters A to Z."""


@dataclass(frozen=True, slots=True)
class Page:
    """Generations, newest first."""

    generations: Sequence[Generation]
    next: Cursor | None
    """Where to go on; None at the end."""


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a generation among those of all users, in order of one of its times."""

    moment: datetime
    generation_id: str = ""


_ALL = Filter()
_STAGES = frozenset(stage.value for stage in Stage)
_TO_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)


class History:
    """Reads from the tables of the generation service."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def clock(self) -> datetime:
        """Returns the database's time."""
        async with self._database.read() as connection:
            return await read_clock(connection)

    async def find(self, user_id: str, generation_id: str) -> Generation | None:
        """Returns a user's generation; None if the user has none of that id."""
        columns = tables.generations.c
        found = await self._select(
            columns.generation_id == generation_id, columns.user_id == user_id, limit=1
        )
        return found[0] if found else None

    async def page(
        self, user_id: str, limit: int, wanted: Filter = _ALL, after: Cursor | None = None
    ) -> Page:
        """Returns a user's generations behind `after`, without refused and deleted ones."""
        columns = tables.generations.c
        place = (columns.created_at, columns.generation_id)
        newest_first = [column.desc() for column in place]
        types = [column.type for column in place]
        conditions = [columns.user_id == user_id]
        if after is not None:
            # Without their types the values would be bound as Python's, which SQLite sorts apart.
            bound = tuple_(after.created_at, after.generation_id, types=types)
            conditions.append(tuple_(*place) < bound)
        last = None
        if wanted != _ALL:
            # A filter that matches little must not read all that the user ever made.
            last = await self._end_of_scan(conditions, newest_first)
        if last is not None:
            bound = tuple_(last.created_at, last.generation_id, types=types)
            conditions.append(tuple_(*place) >= bound)
        generations = await self._select(
            *conditions,
            *self._matches(wanted),
            order=newest_first,
            limit=limit + 1,
        )
        if len(generations) > limit:
            end = generations[limit - 1]
            return Page(generations[:limit], Cursor(end.created_at, end.generation_id))
        return Page(generations, last)

    async def find_any(self, generation_id: str) -> Generation | None:
        """Returns the generation of an id, whosever it is; None if the id is free."""
        found = await self._select(tables.generations.c.generation_id == generation_id, limit=1)
        return found[0] if found else None

    async def to_watch(
        self, user_id: str, generation_ids: Collection[str], updated_since: datetime | None
    ) -> AsyncIterator[Generation]:
        """Yields what a watcher needs first: those it names, the unfinished, the updated.

        One may come twice. The updated come last, oldest first, so that a watcher who is cut off
        misses nothing if it goes on behind the newest that it saw. They are read a page at a time,
        since they may be years' worth.
        """
        columns = tables.generations.c
        conditions = [columns.user_id == user_id]
        if updated_since is not None:
            conditions.append(columns.updated_at < updated_since)
        for generation in await self._select(
            *conditions,
            columns.finished_at.is_(None),
            order=(columns.created_at.desc(),),
            limit=UNFINISHED_MAX,
        ):
            yield generation
        if generation_ids:
            named = columns.generation_id.in_(sorted(generation_ids))
            for generation in await self._select(*conditions, named):
                yield generation
        place = None if updated_since is None else (updated_since, "")
        while place is not None:
            order = (columns.updated_at, columns.generation_id)
            page = await self._select(
                columns.user_id == user_id,
                tuple_(*order) > tuple_(*place, types=[column.type for column in order]),
                order=order,
                limit=PAGE_ROWS,
            )
            for generation in page:
                yield generation
            last = page[-1] if len(page) == PAGE_ROWS else None
            place = None if last is None else (last.updated_at, last.generation_id)

    async def changed(self, user_ids: Collection[str], since: datetime) -> list[Generation]:
        """Returns the generations of some users that changed visibly since a moment."""
        columns = tables.generations.c
        return await self._select(
            columns.user_id.in_(sorted(user_ids)),
            columns.updated_at >= since,
            order=(columns.updated_at,),
        )

    async def named(self, generation_ids: Collection[str]) -> dict[str, Generation]:
        """Returns the generations of these ids, whosever they are, by id."""
        columns = tables.generations.c
        found = await self._select(columns.generation_id.in_(sorted(generation_ids)))
        return {generation.generation_id: generation for generation in found}

    async def parked_page(self, limit: int, after: Cursor | None) -> list[Generation]:
        """Returns what is parked, of all users, behind the place where `after` was parked."""
        columns = tables.generations.c
        place = (columns.stage_since, columns.generation_id)
        behind = [] if after is None else [_behind(place, (after.created_at, after.generation_id))]
        return await self._select(tables.in_stage(Stage.PARKED), *behind, order=place, limit=limit)

    async def was_resumed(self, generation_id: str) -> bool:
        """Tells whether an operator ever let a generation go on."""
        columns = tables.transitions.c
        async with self._database.read() as connection:
            found = await connection.execute(
                select(columns.fence)
                .where(columns.generation_id == generation_id, columns.event == "Resumed")
                .limit(1)
            )
            return found.first() is not None

    async def last_seed(self, generation_id: str) -> int | None:
        """Returns the seed that a generation was last submitted with; None if it never was."""
        columns = tables.attempts.c
        async with self._database.read() as connection:
            found = await connection.execute(
                select(columns.seed)
                .where(columns.generation_id == generation_id)
                .order_by(columns.attempt.desc())
                .limit(1)
            )
            return found.scalar()

    def ended(self, after: Place, until: datetime, limit: int) -> AsyncIterator[Generation]:
        """Yields generations that have ended behind `after`, by `until`, those longest ago first.

        Refused ones are left out: they never had anything to settle.
        """
        column = tables.generations.c.finished_at
        return self._oldest_first(column, limit, text(tables.SETTLED), column <= until, after=after)

    def parked(self, limit: int) -> AsyncIterator[Generation]:
        """Yields generations that wait for an operator, those that have waited longest first."""
        return self._oldest_first(
            tables.generations.c.stage_since, limit, tables.in_stage(Stage.PARKED)
        )

    def overdue(self, deadline_until: datetime, limit: int) -> AsyncIterator[Generation]:
        """Yields generations under way whose deadline was by `deadline_until`, oldest first."""
        columns = tables.generations.c
        return self._oldest_first(
            columns.deadline_at,
            limit,
            # The index of what is due holds all that is under way, and nothing else.
            columns.due_at.is_not(None),
            columns.deadline_at <= deadline_until,
        )

    async def _end_of_scan(
        self, conditions: Sequence[ColumnElement[bool]], order: Sequence[ColumnElement[Any]]
    ) -> Cursor | None:
        """Returns the place of the last that a filter looks at; None if it looks at all."""
        columns = tables.generations.c
        async with self._database.read() as connection:
            found = await connection.execute(
                select(columns.created_at, columns.generation_id)
                .where(*conditions)
                .order_by(*order)
                .offset(SCAN_ROWS - 1)
                .limit(1)
            )
            last = found.one_or_none()
        return None if last is None else Cursor(last.created_at, last.generation_id)

    def _matches(self, wanted: Filter) -> Iterator[ColumnElement[bool]]:
        """Yields the conditions of a filter."""
        columns = tables.generations.c
        yield columns.stage != Stage.REJECTED.value
        yield columns.deleted_at.is_(None)
        if wanted.status is not None:
            yield _has_status(wanted.status)
        if wanted.kind is not None:
            yield columns.kind == wanted.kind.value
        if wanted.text:
            # The letters A to Z only, as SQLite's `lower` does: PostgreSQL's goes by the collation.
            prompt: ColumnElement[str] = columns.prompt
            if self._database.reader.dialect.name == "postgresql":
                prompt = collate(prompt, "C")
            text = wanted.text.translate(_TO_LOWER)
            yield func.lower(prompt).contains(text, autoescape=True)

    async def _oldest_first(
        self,
        moment: Column[datetime],
        limit: int,
        *conditions: ColumnElement[bool] | TextClause,
        after: Place | None = None,
    ) -> AsyncIterator[Generation]:
        """Yields at most `limit` generations of all users by one of their times, page by page."""
        order: Sequence[Column[Any]] = (moment, tables.generations.c.generation_id)
        while limit > 0:
            behind = []
            if after is not None:
                place = (after.moment, after.generation_id)
                behind = [tuple_(*order) > tuple_(*place, types=[c.type for c in order])]
            size = min(limit, PAGE_ROWS)
            page = await self._select(*conditions, *behind, order=order, limit=size)
            for generation in page:
                yield generation
            if len(page) < size:
                return
            limit -= size
            after = Place(getattr(page[-1], moment.key), page[-1].generation_id)

    async def _select(
        self,
        *conditions: ColumnElement[bool] | TextClause,
        order: Sequence[ColumnElement[Any]] = (),
        limit: int | None = None,
    ) -> list[Generation]:
        async with self._database.read() as connection:
            found = await connection.execute(
                select(tables.generations).where(*conditions).order_by(*order).limit(limit)
            )
            # A newer release may know stages that this one has no word for.
            return [generation_of(row) for row in found.mappings() if row["stage"] in _STAGES]


def _behind(place: Sequence[ColumnElement[Any]], values: Sequence[object]) -> ColumnElement[bool]:
    # Without their types the values would be bound as Python's, which SQLite sorts apart.
    return tuple_(*place) > tuple_(*values, types=[column.type for column in place])


def _has_status(status: Status) -> ColumnElement[bool]:
    """Returns the condition that a generation has a public status."""
    columns = tables.generations.c
    has_begun = columns.submitted_at.is_not(None) | columns.failure_code.is_not(None)
    return or_(
        *(
            and_(columns.stage.in_(stages), condition)
            for begun, condition in (
                (True, has_begun),
                (False, ~has_begun),
            )
            if (stages := [s.value for s in Stage if status_of(s, begun=begun) is status])
        ),
        # A status that no stage has matches nothing.
        columns.generation_id.is_(None),
    )
