"""Reads how the service is doing: what is under way, what ended within a day, what went wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, case, func, literal_column, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.generation import tables
from services.generation.open_figures import OpenFigures, StageCount
from services.generation.state import FailureCode, Stage, Status, status_of
from services.generation.tables import SETTLED, in_stage
from services.runtime.database import Database, read_clock

__all__ = ["EndCount", "Statistics", "Stats"]

PERIOD = timedelta(hours=24)
OVERDUE = timedelta(minutes=5)
"""How long after its deadline something should have ended for sure."""
DURATIONS_MAX = 10_000
"""Of so many completed ones at the most, the latest, the duration is looked at."""


@dataclass(frozen=True, slots=True)
class EndCount:
    """How many ended in one way."""

    stage: Stage
    code: FailureCode | None
    generations: int

    @property
    def status(self) -> Status:
        """How they ended, in the product's words."""
        return status_of(self.stage)


@dataclass(frozen=True, slots=True)
class Stats:
    """How the service is doing."""

    stages: Sequence[StageCount]
    """What is unfinished."""
    ends: Sequence[EndCount]
    """What ended within a day."""
    completion_s: tuple[float, float] | None
    """What half, and nine of ten, of those completed within a day took less than."""
    ends_by_webhook: int
    ends_by_poll: int
    """Who told first of the predictions that ended within a day."""
    unsettled_credits: int
    """What is reserved for unfinished ones."""
    live_orphans: int
    orphans: int
    """Predictions that no generation uses: not ended, and all that were found within a day."""
    paused_until: datetime | None
    """Until when nothing is submitted; None if the gate is open."""
    paused_why: str

    @property
    def success_ratio(self) -> float | None:
        """The completed ones among all that were not canceled or rejected; None if none ended."""
        counted = [end for end in self.ends if end.stage in (Stage.COMPLETED, Stage.FAILED)]
        all_of_them = sum(end.generations for end in counted)
        completed = sum(end.generations for end in counted if end.stage is Stage.COMPLETED)
        return completed / all_of_them if all_of_them else None


class Statistics:
    """Reads statistics from the tables of the generation service."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self) -> Stats:
        """Returns how all replicas together are doing."""
        async with self._database.read() as connection:
            now = await read_clock(connection)
            since = now - PERIOD
            stages, unsettled, _ = await _unfinished(connection, now)
            told = await _told_by(connection, since)
            live, found = await _live_orphans(connection), await _orphans(connection, since)
            paused_until, why = await _gate(connection)
            return Stats(
                stages=stages,
                ends=await _ends(connection, since),
                completion_s=await _completion_s(connection, since),
                ends_by_webhook=told.get("WEBHOOK", 0),
                ends_by_poll=told.get("POLL", 0),
                unsettled_credits=unsettled,
                live_orphans=live,
                orphans=found,
                paused_until=paused_until if paused_until and paused_until > now else None,
                paused_why=why,
            )

    async def read_open(self) -> OpenFigures:
        """Returns what is under way, which indexes have, so that it can be read often."""
        async with self._database.read() as connection:
            now = await read_clock(connection)
            stages, unsettled, overdue = await _unfinished(connection, now)
            paused_until, _ = await _gate(connection)
            return OpenFigures(
                read_at=now,
                stages=stages,
                unsettled_credits=unsettled,
                overdue=overdue,
                live_orphans=await _watched_orphans(connection),
                is_paused=paused_until is not None and paused_until > now,
            )


async def _unfinished(
    connection: AsyncConnection, now: datetime
) -> tuple[list[StageCount], int, int]:
    """Returns what is at each stage, the credits that are reserved for it, and what is overdue."""
    columns = tables.generations.c
    is_overdue = and_(columns.deadline_at < now - OVERDUE, columns.stage != Stage.PARKED.value)
    found = await connection.execute(
        select(
            columns.stage,
            func.count().label("generations"),
            func.min(columns.stage_since).label("oldest_at"),
            func.sum(columns.price_credits).label("credits"),
            func.sum(case((is_overdue, 1), else_=0)).label("overdue"),
        )
        .where(columns.finished_at.is_(None))
        .group_by(columns.stage)
    )
    counts, unsettled, overdue = [], 0, 0
    # A newer release may know stages that this one cannot name.
    known = [row for row in found if row.stage in _ORDER]
    for row in sorted(known, key=lambda row: _ORDER[row.stage]):
        stage = Stage(row.stage)
        counts.append(StageCount(stage, row.generations, row.oldest_at))
        # Before the answer of credits nothing is known to be reserved.
        unsettled += 0 if stage is Stage.RESERVING else int(row.credits)
        overdue += int(row.overdue)
    return counts, unsettled, overdue


async def _ends(connection: AsyncConnection, since: datetime) -> list[EndCount]:
    columns = tables.generations.c
    found = await connection.execute(
        select(columns.stage, columns.failure_code, func.count().label("generations"))
        .where(text(SETTLED), columns.finished_at >= since)
        .group_by(columns.stage, columns.failure_code)
    )
    ends = [
        EndCount(
            Stage(row.stage),
            None if row.failure_code is None else FailureCode(row.failure_code),
            row.generations,
        )
        for row in found
        if row.stage in _ORDER
    ]
    return sorted(ends, key=lambda end: (_ORDER[end.stage], end.code or ""))


async def _completion_s(connection: AsyncConnection, since: datetime) -> tuple[float, float] | None:
    columns = tables.generations.c
    found = await connection.execute(
        select(columns.created_at, columns.finished_at)
        .where(text(SETTLED), in_stage(Stage.COMPLETED), columns.finished_at >= since)
        .order_by(columns.finished_at.desc())
        .limit(DURATIONS_MAX)
    )
    took = sorted((row.finished_at - row.created_at).total_seconds() for row in found)
    if not took:
        return None
    return took[(len(took) - 1) // 2], took[-(-len(took) * 9 // 10) - 1]


async def _told_by(connection: AsyncConnection, since: datetime) -> dict[str, int]:
    columns = tables.predictions.c
    found = await connection.execute(
        select(columns.ended_by, func.count().label("predictions"))
        .where(columns.ended_at >= since)
        .group_by(columns.ended_by)
    )
    return {row.ended_by: row.predictions for row in found}


async def _live_orphans(connection: AsyncConnection) -> int:
    live = await connection.execute(
        select(func.count())
        .select_from(tables.predictions)
        .where(_IS_ORPHAN, tables.predictions.c.ended_at.is_(None))
    )
    return live.scalar_one()


async def _watched_orphans(connection: AsyncConnection) -> int:
    watched = await connection.execute(
        select(func.count())
        .select_from(tables.predictions)
        .where(tables.predictions.c.due_at.is_not(None))
    )
    return watched.scalar_one()


async def _orphans(connection: AsyncConnection, since: datetime) -> int:
    found = await connection.execute(
        select(func.count())
        .select_from(tables.predictions)
        .where(_IS_ORPHAN, tables.predictions.c.first_seen_at >= since)
    )
    return found.scalar_one()


async def _gate(connection: AsyncConnection) -> tuple[datetime | None, str]:
    columns = tables.gates.c
    found = await connection.execute(
        select(columns.paused_until, columns.why).where(columns.name == "create")
    )
    row = found.one_or_none()
    return (None, "") if row is None else (row.paused_until, row.why)


_ORDER = {stage.value: place for place, stage in enumerate(Stage)}
_IS_ORPHAN = tables.predictions.c.role == literal_column("'ORPHAN'")
