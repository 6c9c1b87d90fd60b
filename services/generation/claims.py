"""Hands due generations to workers: each to one, for as long as a lease lasts."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.generation import tables
from services.generation.events import Event, SubmitClaimed, SubmitRefused
from services.generation.gate import Gate, GatePolicy, admit, pause
from services.generation.rows import generation_of
from services.generation.saga import step
from services.generation.state import Generation, Stage
from services.generation.store import transition, write_back
from services.generation.tables import in_stage
from services.generation.timing import Timing
from services.runtime.database import Database, read_clock

__all__ = ["Attempt", "Claims", "NotOffered", "Work"]

_GATE = "create"
_STAGES = {stage.value: stage for stage in Stage}
_IN_FLIGHT = (Stage.SUBMITTING, Stage.RUNNING, Stage.CANCELING)


class NotOffered(Exception):
    """The catalog no longer has what a waiting generation asks for."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One submission, written before its first byte is sent."""

    generation_id: str
    attempt: int
    provider_model: str
    input: str
    """The model's input, as JSON."""
    schema_sha256: str
    seed: int


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to do."""

    due: Collection[Stage]
    """Stages that have a due generation."""
    ready: bool
    """Whether a generation waits to be submitted."""


class Claims:
    """Claims rows of `generations` and keeps the gate."""

    def __init__(self, database: Database, timing: Timing, policy: GatePolicy) -> None:
        self._database = database
        self._timing = timing
        self._policy = policy

    async def drop_leases(self) -> None:
        """Has everything that is under way come due now: for a process that is the only one.

        What it had claimed when it died then waits for no lease to end.
        """
        columns = tables.generations.c
        async with self._database.write() as connection:
            now = await read_clock(connection)
            await connection.execute(
                update(tables.generations)
                .where(columns.due_at > now, columns.stage != Stage.READY.value)
                .values(due_at=now)
            )

    async def look(self) -> Work:
        """Returns what there is to do, without locking anything."""
        columns = tables.generations.c
        async with self._database.read() as connection:
            now = await read_clock(connection)
            due = await connection.execute(
                select(columns.stage).where(columns.due_at <= now).distinct()
            )
            # A newer release may know stages that this one leaves to it.
            stages = [stage for value in due.scalars() if (stage := _STAGES.get(value)) is not None]
            ready = await connection.execute(
                select(columns.generation_id).where(in_stage(Stage.READY)).limit(1)
            )
            return Work(stages, ready.first() is not None)

    async def count_running(self) -> int:
        """Returns how many predictions are being polled, by all replicas."""
        async with self._database.read() as connection:
            return await _count(connection, Stage.RUNNING)

    async def claim_due(
        self, stages: Collection[Stage], limit: int, lease_s: float
    ) -> list[Generation]:
        """Returns at most `limit` due generations, which are the caller's for `lease_s`."""
        columns = tables.generations.c
        async with self._database.write() as connection:
            now = await read_clock(connection)
            found = await connection.execute(
                select(columns.generation_id)
                .where(columns.due_at <= now, columns.stage.in_([s.value for s in stages]))
                .order_by(columns.due_at)
                .limit(limit)
                .with_for_update(skip_locked=True)
            )
            chosen = list(found.scalars())
            if not chosen:
                return []
            claimed = await connection.execute(
                update(tables.generations)
                .where(columns.generation_id.in_(chosen))
                .values(due_at=now + timedelta(seconds=lease_s), fence=columns.fence + 1)
                .returning(tables.generations)
            )
            return [generation_of(row) for row in claimed.mappings()]

    async def claim_ready(
        self, limit: int, prepare: Callable[[Generation], Attempt]
    ) -> list[tuple[Generation, Attempt]]:
        """Returns at most `limit` generations that the gate lets be submitted, with their attempts.

        The intent is durable when this returns: whatever happens next, a later claim of the row
        never submits it again. `prepare` makes the attempt of a generation, or raises NotOffered.
        """
        async with self._database.write() as connection:
            gate = await _lock_gate(connection)
            now = await read_clock(connection)
            in_flight = await _count(connection, *_IN_FLIGHT)
            free, _ = admit(gate, self._policy, in_flight, limit, now)
            ready = await self._lock_ready(connection, free, now) if free else []
            if not ready:
                return []
            _, gate = admit(gate, self._policy, in_flight, len(ready), now)
            await _write_gate(connection, gate)
            return await self._submit(connection, ready, prepare, now)

    async def pause_creates(self, seconds: float, why: str) -> None:
        """Keeps the whole fleet from submitting for `seconds`."""
        async with self._database.write() as connection:
            gate = await _lock_gate(connection)
            now = await read_clock(connection)
            await _write_gate(connection, pause(gate, now + timedelta(seconds=seconds), why))

    async def _lock_ready(
        self, connection: AsyncConnection, limit: int, now: datetime
    ) -> list[Generation]:
        """Locks the oldest waiting generations that still have time to be submitted."""
        columns = tables.generations.c
        found = await connection.execute(
            select(tables.generations)
            .where(in_stage(Stage.READY), columns.due_at > now)
            .order_by(columns.created_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return [generation_of(row) for row in found.mappings()]

    async def _submit(
        self,
        connection: AsyncConnection,
        ready: list[Generation],
        prepare: Callable[[Generation], Attempt],
        now: datetime,
    ) -> list[tuple[Generation, Attempt]]:
        submitting, transitions, written = [], [], []
        for generation in ready:
            event: Event = SubmitClaimed()
            claimed = step(generation, event, now, self._timing)
            transitions.append(transition(generation, claimed, event, now))
            try:
                submitting.append((claimed, prepare(claimed)))
            except NotOffered as error:
                event = SubmitRefused(claimed.attempt, str(error))
                refused = step(claimed, event, now, self._timing)
                transitions.append(transition(claimed, refused, event, now))
                claimed = refused
            written.append(claimed)
        await write_back(connection, written, transitions)
        if submitting:
            await connection.execute(
                tables.attempts.insert(),
                [
                    {
                        "generation_id": attempt.generation_id,
                        "attempt": attempt.attempt,
                        "state": "OPEN",
                        "provider_model": attempt.provider_model,
                        "input": attempt.input,
                        "schema_sha256": attempt.schema_sha256,
                        "seed": attempt.seed,
                        "created_at": now,
                    }
                    for _, attempt in submitting
                ],
            )
        return submitting


async def _lock_gate(connection: AsyncConnection) -> Gate:
    found = await connection.execute(
        select(tables.gates).where(tables.gates.c.name == _GATE).with_for_update()
    )
    row = found.one()
    return Gate(row.tokens, row.refilled_at, row.paused_until, row.why)


async def _write_gate(connection: AsyncConnection, gate: Gate) -> None:
    await connection.execute(
        update(tables.gates)
        .where(tables.gates.c.name == _GATE)
        .values(
            tokens=gate.tokens,
            refilled_at=gate.refilled_at,
            paused_until=gate.paused_until,
            why=gate.why,
        )
    )


async def _count(connection: AsyncConnection, *stages: Stage) -> int:
    """Returns how many generations are in these stages, which are some of those in flight."""
    counted = await connection.execute(
        select(func.count())
        .select_from(tables.generations)
        # SQLite sees that an index fits only where its condition stands as it is.
        .where(in_stage(*_IN_FLIGHT), in_stage(*stages))
    )
    number: int = counted.scalar_one()
    return number
