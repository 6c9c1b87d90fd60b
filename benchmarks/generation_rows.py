"""Fills the database of the generation service, up to a million rows in seconds."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Integer,
    MetaData,
    Table,
    Text,
    cast,
    func,
    literal,
    literal_column,
    select,
    text,
    true,
    type_coerce,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateIndex, CreateTable, DropIndex, DropTable

from services.generation import tables
from services.generation.rows import values_of
from services.generation.saga import begin
from services.generation.state import Generation, Kind, Output, Request, Stage
from services.generation.timing import Timing
from services.runtime.database import Database, Instant, Int64, open_database

__all__ = ["PROVIDER_MODEL", "fill", "finished", "insert", "remove", "running", "waiting"]

PROVIDER_MODEL = "wavespeedai/wan-2.1-t2v-480p"
_REQUEST = Request(
    kind=Kind.TEXT_TO_VIDEO,
    model="t2v-14B",
    resolution="480p",
    prompt="a red fox running through fresh snow, early morning, low camera, slow motion",
)
_DIGEST = "0" * 64
_FILLED = (tables.generations, tables.attempts, tables.predictions)
_USERS = 10_000
_COPIED_AT_ONCE = 100_000
_COPIES = Table(
    "copies",
    MetaData(),
    Column("number", Integer, nullable=False),
    Column("generation_id", Text, nullable=False),
    Column("job_id", Text, nullable=False),
    prefixes=["TEMPORARY"],
)


def waiting(generation_id: str, now: datetime) -> Generation:
    """Returns a generation that waits to be submitted."""
    timing = Timing()
    begun = begin(generation_id, "benchmark", _REQUEST, 10, now, timing)
    latest = begun.deadline_at - timedelta(seconds=timing.submit_margin_s)
    return replace(begun, stage=Stage.READY, due_at=latest)


def running(generation_id: str, job_id: str, now: datetime, due_at: datetime) -> Generation:
    """Returns a generation whose prediction is to be looked at when `due_at` comes."""
    return replace(
        waiting(generation_id, now),
        stage=Stage.RUNNING,
        due_at=due_at,
        attempt=1,
        job_id=job_id,
        provider_status="starting",
        submitted_at=now,
    )


def finished(generation_id: str, job_id: str, now: datetime) -> Generation:
    """Returns a generation that ended well."""
    return replace(
        running(generation_id, job_id, now - timedelta(minutes=1), now),
        stage=Stage.COMPLETED,
        due_at=None,
        provider_status="succeeded",
        progress_percent=100,
        output_url="https://replicate.delivery/xezq/0000000000000000/output.mp4",
        output=Output("outputs/user/video.mp4", 2_000_000, _DIGEST, 5.0, "thumbnails/user/v.jpg"),
        charged_credits=10,
        started_at=now - timedelta(seconds=40),
        provider_ended_at=now - timedelta(seconds=1),
        finished_at=now,
    )


async def insert(database: Database, generations: Sequence[Generation]) -> None:
    """Writes generations, and the attempts and predictions of those that have any."""
    submitted = [generation for generation in generations if generation.job_id is not None]
    async with database.write() as connection:
        for table, rows in (
            (tables.generations, [values_of(generation) for generation in generations]),
            (tables.attempts, [_attempt(generation) for generation in submitted]),
            (tables.predictions, [_prediction(generation) for generation in submitted]),
        ):
            if rows:
                await connection.execute(table.insert(), rows)


async def remove(database: Database, generation_ids: Collection[str]) -> None:
    """Deletes generations and all that belongs to them."""
    async with database.write() as connection:
        for table in (*_FILLED[1:], tables.transitions, tables.generations):
            of_them = table.c.generation_id.in_(generation_ids)
            await connection.execute(table.delete().where(of_them))


async def fill(url: str, count: int, advance: Callable[[int], None]) -> None:
    """Writes so many generations that ended well, one a second until just now, of 10,000 users.

    Each has its attempt and its prediction. `advance` is told how many were written.
    """
    database = open_database(url, patient=True)
    pattern = finished("0" * 36, "0" * 26, datetime.now(UTC))
    indexes = [index for table in _FILLED for index in sorted(table.indexes, key=str)]
    try:
        await insert(database, [pattern])
        advance(1)
        async with database.write() as connection:
            if database.is_exclusive:
                await connection.execute(text("PRAGMA cache_size = -400000"))
            # To sort an index once is faster than to keep it sorted all the while.
            for index in indexes:
                await connection.execute(DropIndex(index))
        for first in range(1, count, _COPIED_AT_ONCE):
            copied = min(_COPIED_AT_ONCE, count - first)
            async with database.write() as connection:
                await _copy(connection, pattern, first, copied)
            advance(copied)
        async with database.write() as connection:
            for index in indexes:
                await connection.execute(CreateIndex(index))
        if not database.is_exclusive:
            # As its upkeep would do by itself a little later, in the middle of what is measured.
            async with database.writer.connect() as connection:
                alone = await connection.execution_options(isolation_level="AUTOCOMMIT")
                await alone.execute(text("VACUUM ANALYZE"))
                await alone.execute(text("CHECKPOINT"))
    finally:
        await database.close()


async def _copy(connection: AsyncConnection, pattern: Generation, first: int, count: int) -> None:
    """Copies the rows of a generation, once for each number from `first` on.

    Ids are random as real ones are: neighbors in time are none in an index.
    """
    is_sqlite = connection.dialect.name == "sqlite"
    random = "lower(hex(randomblob(18)))" if is_sqlite else "gen_random_uuid()::text"
    numbers = select(literal(first).label("number")).cte("numbers", recursive=True)
    numbers = numbers.union_all(
        select(numbers.c.number + 1).where(numbers.c.number < first + count - 1)
    )
    keys = select(
        numbers.c.number,
        literal_column(random).label("generation_id"),
        func.substr(literal_column(random), 1, 26).label("job_id"),
    )
    await connection.execute(DropTable(_COPIES, if_exists=True))
    await connection.execute(CreateTable(_COPIES))
    await connection.execute(_COPIES.insert().from_select(_COPIES.c.keys(), keys))
    for table in _FILLED:
        copies = (
            select(*(_copied(column, is_sqlite=is_sqlite) for column in table.columns))
            .select_from(table.join(_COPIES, true()))
            .where(table.c.generation_id == pattern.generation_id)
            # A table of SQLite is sorted by its key, and much faster to write in that order.
            .order_by(_COPIES.c.generation_id)
        )
        await connection.execute(table.insert().from_select(table.columns.keys(), copies))


def _copied(column: Column[Any], *, is_sqlite: bool) -> ColumnElement[Any]:
    """Returns what a copy has in a column."""
    number = _COPIES.c.number
    if column.key in _COPIES.c:
        return _COPIES.c[column.key]
    if column.key == "user_id":
        return literal("user").concat(cast(number % _USERS, Text))
    if isinstance(column.type, Instant):
        if is_sqlite:
            return type_coerce(column, Int64) - number * 1_000_000
        return column - number * literal_column("interval '1 second'")
    return column


def _attempt(generation: Generation) -> dict[str, Any]:
    return {
        "generation_id": generation.generation_id,
        "attempt": 1,
        "state": "CREATED",
        "provider_model": PROVIDER_MODEL,
        "input": "{}",
        "schema_sha256": _DIGEST,
        "seed": 1,
        "created_at": generation.created_at,
        "settled_at": generation.submitted_at,
        "http_status": 201,
        "send_before": generation.created_at,
        "searches": 0,
        "clean_searches": 0,
    }


def _prediction(generation: Generation) -> dict[str, Any]:
    return {
        "job_id": generation.job_id,
        "generation_id": generation.generation_id,
        "attempt": 1,
        "role": "ADOPTED",
        "status": generation.provider_status,
        "first_seen_at": generation.created_at,
        "found_by": "CREATE",
        "ended_at": generation.finished_at,
        "ended_by": "WEBHOOK" if generation.finished_at else None,
        "fence": 0,
        "failures": 0,
    }
