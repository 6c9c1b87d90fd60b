"""Hands due generations to workers: each to one, for as long as a lease lasts."""

import random
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Result,
    Select,
    and_,
    exists,
    func,
    literal,
    or_,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from services.generation import tables
from services.generation.events import Event, Poisoned, SubmitClaimed, SubmitRefused
from services.generation.gate import Gate, GatePolicy, admit, answered, pause, unanswered
from services.generation.metrics import GenerationMetrics
from services.generation.rows import generation_of
from services.generation.saga import step
from services.generation.state import Generation, Stage
from services.generation.store import transition, write_back
from services.generation.tables import in_stage
from services.generation.timing import Timing
from services.runtime.database import Database, read_clock
from services.runtime.failpoints import failpoint

__all__ = ["Attempt", "Claims", "NotOffered", "Work", "is_search_gate"]

CLAIMS_MAX = 5
"""What was begun so often is parked."""
_GATE = "create"
_WORKED_ON = tuple(stage for stage in Stage if not stage.is_final and stage is not Stage.PARKED)
_IN_FLIGHT = (Stage.SUBMITTING, Stage.RUNNING, Stage.CANCELING)


_READY, _SUSPECT, _ORPHANS, _SEARCH = "waiting", "suspect", "orphans", "search"
is_search_gate = tables.gates.c.name == "search"
# A newer release may know stages that this one leaves to it.
_is_suspect = and_(text(tables.SUSPECT), in_stage(*_WORKED_ON))


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
    suspect: bool
    """Whether something due may be what kills workers."""
    orphans: bool
    """Whether a prediction that nobody uses is to be seen to."""
    search: bool
    """Whether a lost create is to be looked for."""


class Claims:
    """Claims rows of `generations` and keeps the gate."""

    def __init__(
        self,
        database: Database,
        timing: Timing,
        policy: GatePolicy,
        replica: str,
        metrics: GenerationMetrics | None = None,
    ) -> None:
        """Takes the name of this replica, for operators."""
        self._metrics = metrics
        self._database = database
        self._timing = timing
        self._policy = policy
        self._replica = replica
        self._is_troubled = False

    async def drop_leases(self) -> None:
        """Has everything that is under way come due now: for a process that is the only one.

        What it had claimed when it died then waits for no lease to end. A prediction that nobody
        was looking at keeps its time: thousands at once would be more than may be asked for.
        """
        columns = tables.generations.c
        is_timer = in_stage(Stage.RUNNING) & (columns.claims == 0)
        async with self._database.write() as connection:
            now = await read_clock(connection)
            await connection.execute(
                update(tables.generations)
                .where(columns.due_at > now, columns.stage != Stage.READY.value, ~is_timer)
                .values(due_at=now)
            )
            await connection.execute(
                update(tables.gates).where(is_search_gate).values(paused_until=None)
            )
            predictions = tables.predictions.c
            await connection.execute(
                update(tables.predictions).where(predictions.due_at > now).values(due_at=now)
            )

    async def look(self) -> Work:
        """Returns what there is to do, without locking anything."""
        columns = tables.generations.c
        async with self._database.read() as connection:
            now = await read_clock(connection)
            found: Result[Any] = await connection.execute(
                # Each probes an index: to see that some are due, not all that are due are read.
                union_all(
                    *(_any(stage, in_stage(stage), columns.due_at <= now) for stage in _WORKED_ON),
                    _any(_SUSPECT, _is_suspect, columns.due_at <= now),
                    _any(_READY, in_stage(Stage.READY)),
                    _any(_ORPHANS, tables.predictions.c.due_at <= now),
                    _any(_SEARCH, tables.attempts.c.search_at <= now),
                )
            )
            names = set(found.scalars())
            return Work(
                due=[stage for stage in _WORKED_ON if stage in names],
                ready=_READY in names,
                suspect=_SUSPECT in names,
                orphans=_ORPHANS in names,
                search=_SEARCH in names,
            )

    async def count_running(self) -> int:
        """Returns how many predictions are being polled, by all replicas."""
        async with self._database.read() as connection:
            return await _count(connection, Stage.RUNNING)

    async def claim_due(
        self, stages: Collection[Stage], limit: int, lease_s: float
    ) -> list[Generation]:
        """Returns at most `limit` due generations, which are the caller's for `lease_s`."""
        trusted = text(f"NOT ({tables.SUSPECT})")
        # An index has each stage in the order of its time. None always comes first, or a flood of
        # one would starve the others.
        chosen = random.sample(list(stages), len(stages))
        kinds = [and_(in_stage(stage), trusted) for stage in chosen]
        return await self._claim(kinds, limit, lease_s)

    async def claim_suspect(self, lease_s: float) -> Generation | None:
        """Returns a due generation that may have killed workers, to be done while nothing else is.

        One that was begun too often is parked and not returned.
        """
        columns = tables.generations.c
        claimed = await self._claim([_is_suspect], 1, lease_s)
        if not claimed or claimed[0].claims <= CLAIMS_MAX:
            return claimed[0] if claimed else None
        async with self._database.write() as connection:
            found = await connection.execute(
                select(tables.generations)
                .where(columns.generation_id == claimed[0].generation_id)
                .where(columns.fence == claimed[0].fence)
                .with_for_update()
            )
            now, event = await read_clock(connection), Poisoned()
            for row in found.mappings():
                before = generation_of(row)
                parked = step(before, event, now, self._timing)
                await write_back(connection, [parked], [transition(before, parked, event, now)])
        return None

    async def _claim(
        self, kinds: Iterable[ColumnElement[bool]], limit: int, lease_s: float
    ) -> list[Generation]:
        """Claims what is due of each kind in turn, the longest due first."""
        columns = tables.generations.c
        chosen: list[str] = []
        async with self._database.write() as connection:
            now = await read_clock(connection)
            for kind in kinds:
                if len(chosen) == limit:
                    break
                found = await connection.execute(
                    select(columns.generation_id)
                    .where(columns.due_at <= now, kind)
                    .order_by(columns.due_at)
                    .limit(limit - len(chosen))
                    .with_for_update(skip_locked=True)
                )
                chosen += found.scalars()
            if not chosen:
                return []
            claimed = await connection.execute(
                update(tables.generations)
                .where(columns.generation_id.in_(chosen))
                .values(
                    due_at=now + timedelta(seconds=lease_s),
                    fence=columns.fence + 1,
                    claims=columns.claims + 1,
                    claimed_by=self._replica,
                )
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
            failpoint("gate.locked")
            self._is_troubled = gate.is_probing or gate.troubles > 0
            now = await read_clock(connection)
            in_flight = await _count(connection, *_IN_FLIGHT) + await _count_orphans(connection)
            free, _ = admit(gate, self._policy, in_flight, limit, now)
            ready = await self._lock_ready(connection, free, now) if free else []
            if not ready:
                return []
            _, gate = admit(gate, self._policy, in_flight, len(ready), now)
            await _write_gate(connection, gate)
            submitting = await self._submit(connection, ready, prepare, now)
        if self._metrics is not None:
            before = {generation.generation_id: generation for generation in ready}
            for claimed, _ in submitting:
                self._metrics.stepped(before[claimed.generation_id], claimed, SubmitClaimed())
        return submitting

    async def pause_creates(self, seconds: float | None, why: str) -> None:
        """Keeps the whole fleet from submitting for `seconds`; None = until a probe comes off."""
        pause_s = self._policy.probe_s if seconds is None else seconds
        probe = seconds is None
        await self._turn_gate(
            lambda gate, now: pause(gate, now + timedelta(seconds=pause_s), why, probe=probe)
        )

    async def note_unanswered(self, why: str) -> None:
        """Notes a create that had no answer; many in a row close the gate for the fleet."""
        pause_s = self._timing.trouble_pause_s
        await self._turn_gate(lambda gate, now: unanswered(gate, now, pause_s, why))

    async def note_answered(self) -> None:
        """Notes a create that had an answer, which opens a gate that was probing."""
        if self._is_troubled:
            await self._turn_gate(answered)

    async def _turn_gate(self, turn: Callable[[Gate, datetime], Gate]) -> None:
        async with self._database.write() as connection:
            gate = await _lock_gate(connection)
            await _write_gate(connection, turn(gate, await read_clock(connection)))

    async def _lock_ready(
        self, connection: AsyncConnection, limit: int, now: datetime
    ) -> list[Generation]:
        """Locks the oldest waiting generations that still have time to be submitted."""
        columns = tables.generations.c
        latest = now + timedelta(seconds=self._timing.submit_margin_s)
        found = await connection.execute(
            select(tables.generations)
            # Not `due_at`, which is later again while a worker sees to it that time is up.
            .where(in_stage(Stage.READY), columns.deadline_at > latest)
            .where(or_(columns.not_before.is_(None), columns.not_before <= now))
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
            if claimed.stage is not Stage.SUBMITTING:  # Its time was up.
                written.append(claimed)
                continue
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
                        "send_before": now + timedelta(seconds=self._timing.send_before_s),
                        "searches": 0,
                        "clean_searches": 0,
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
    return Gate(
        row.tokens, row.refilled_at, row.paused_until, row.why, row.troubles, row.is_probing
    )


async def _write_gate(connection: AsyncConnection, gate: Gate) -> None:
    await connection.execute(
        update(tables.gates)
        .where(tables.gates.c.name == _GATE)
        .values(
            tokens=gate.tokens,
            refilled_at=gate.refilled_at,
            paused_until=gate.paused_until,
            why=gate.why,
            troubles=gate.troubles,
            is_probing=gate.is_probing,
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


async def _count_orphans(connection: AsyncConnection) -> int:
    """Returns how many predictions that nobody uses may still be under way."""
    counted = await connection.execute(
        select(func.count())
        .select_from(tables.predictions)
        .where(tables.predictions.c.due_at.is_not(None))
    )
    number: int = counted.scalar_one()
    return number


def _any(name: str, *conditions: ColumnElement[bool]) -> Select[str]:
    """Returns a query with one row, that has this name, if anything meets the conditions."""
    return select(literal(name)).where(exists(1).where(*conditions))
