"""Looks at those that wait for the provider, and at how long the last ones took."""

import asyncio
import time

from sqlalchemy import Select, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.generation import tables
from services.generation.catalog import Offer
from services.generation.estimates import Line, Run, mean_provider_s, run_times
from services.generation.gate import GatePolicy
from services.generation.state import Stage
from services.generation.tables import SETTLED, in_stage
from services.runtime.database import Database, read_clock

__all__ = ["Queue"]

LINE_AGE_S_MAX = 1.0
RUNS_AGE_S_MAX = 60.0
POSITIONS_MAX = 2_000
"""How many places are known; whoever is behind them all is told the last."""
RUNS_MAX = 1_000
"""The latest completed generations, of all models together."""
_IN_FLIGHT = (Stage.SUBMITTING, Stage.RUNNING, Stage.CANCELING)


class Queue:
    """Reads the queue at most once a second, however many ask."""

    def __init__(self, database: Database, offer: Offer, policy: GatePolicy) -> None:
        self._database = database
        self._offer = offer
        self._policy = policy
        self._reading = asyncio.Lock()
        self._line: Line | None = None
        self._line_read_at = 0.0
        self._runs: list[Run] = []
        self._runs_read_at: float | None = None

    async def line(self) -> Line:
        """Returns the queue as it was at most a second ago."""
        async with self._reading:
            line = self._line
            if line is None or time.monotonic() - self._line_read_at >= LINE_AGE_S_MAX:
                # The time before the read: the answer is no younger than that.
                read_at = time.monotonic()
                line = self._line = await self._read()
                self._line_read_at = read_at
            return line

    async def unfinished(self, user_id: str, limit: int) -> int:
        """Returns how many of a user's generations have not ended, counted up to `limit`."""
        columns = tables.generations.c
        some = (
            select(columns.generation_id)
            .where(columns.user_id == user_id, columns.finished_at.is_(None))
            .limit(limit)
        )
        async with self._database.read() as connection:
            return await _number(connection, select(func.count()).select_from(some.subquery()))

    async def _read(self) -> Line:
        columns = tables.generations.c
        async with self._database.read() as connection:
            if self._runs_read_at is None or (
                time.monotonic() - self._runs_read_at >= RUNS_AGE_S_MAX
            ):
                self._runs = await _latest_runs(connection)
                self._runs_read_at = time.monotonic()
            first = await connection.execute(
                select(columns.generation_id)
                .where(in_stage(Stage.READY))
                .order_by(columns.created_at)
                .limit(POSITIONS_MAX)
            )
            positions = {key: place for place, key in enumerate(first.scalars(), start=1)}
            ready = len(positions)
            if ready == POSITIONS_MAX:
                ready = await _count(connection, Stage.READY)
            gate = await connection.execute(
                select(tables.gates.c.paused_until).where(tables.gates.c.name == "create")
            )
            return Line(
                now=await read_clock(connection),
                ready=ready,
                positions=positions,
                in_flight=await _count(connection, *_IN_FLIGHT),
                paused_until=gate.scalar_one_or_none(),
                policy=self._policy,
                provider_s=mean_provider_s(self._offer.catalog, self._runs),
                times=run_times(self._offer.catalog, self._runs),
            )


async def _latest_runs(connection: AsyncConnection) -> list[Run]:
    columns = tables.generations.c
    found = await connection.execute(
        select(
            columns.model,
            columns.resolution,
            columns.submitted_at,
            columns.started_at,
            columns.provider_ended_at,
            columns.finished_at,
        )
        .where(text(SETTLED), in_stage(Stage.COMPLETED))
        .order_by(columns.finished_at.desc(), columns.generation_id.desc())
        .limit(RUNS_MAX)
    )
    return [
        Run(
            model=row.model,
            resolution=row.resolution,
            provider_s=(row.provider_ended_at - row.submitted_at).total_seconds(),
            from_submit_s=(row.finished_at - row.submitted_at).total_seconds(),
            from_start_s=(
                None
                if row.started_at is None
                else (row.finished_at - row.started_at).total_seconds()
            ),
            from_end_s=(row.finished_at - row.provider_ended_at).total_seconds(),
        )
        for row in found
        if row.submitted_at is not None and row.provider_ended_at is not None
    ]


async def _count(connection: AsyncConnection, *stages: Stage) -> int:
    counting = select(func.count()).select_from(tables.generations).where(in_stage(*stages))
    return await _number(connection, counting)


async def _number(connection: AsyncConnection, counting: Select[int]) -> int:
    number: int = (await connection.execute(counting)).scalar_one()
    return number
