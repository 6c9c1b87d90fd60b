"""Writes what happens to generations: many commands in one database transaction.

Locks are taken in one order everywhere, or replicas would deadlock: new rows and events sorted by
their keys, then generations sorted. The clock is read after the locks. Claims are in `claims.py`,
reads in `history.py`.
"""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from typing import Any, TypeAlias

from sqlalchemy import bindparam, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.generation import tables
from services.generation.allowance import allowed, too_many_unfinished
from services.generation.bookings import Bookings, insert_into
from services.generation.commands import (
    Answer,
    AttemptRecord,
    Begin,
    Begun,
    Command,
    Deliver,
    Delivered,
    Happen,
    prediction_in,
)
from services.generation.deliveries import Disposition, is_echo, rule
from services.generation.events import (
    Event,
    PredictionSeen,
    Source,
    Submitted,
    SubmitUnknown,
    is_plan,
)
from services.generation.metrics import GenerationMetrics
from services.generation.prediction import Prediction
from services.generation.rows import generation_of, values_of
from services.generation.saga import begin, step
from services.generation.state import Generation, Request
from services.generation.timing import Timing
from services.runtime.database import Database, read_clock
from services.runtime.failpoints import failpoint
from services.runtime.group_commit import GroupCommit

__all__ = ["Store", "transition", "write_back"]

BATCH_MAX = 128
_Step: TypeAlias = tuple[Generation, Generation, Event]
"""A generation before and after an event."""


class Store:
    """The writer of generations. `on_change` is called after every durable change.

    A user has at most `unfinished_max` generations that have not ended; None for any number.
    """

    def __init__(
        self,
        database: Database,
        timing: Timing,
        on_change: Callable[[Generation], None],
        unfinished_max: int | None = None,
        metrics: GenerationMetrics | None = None,
    ) -> None:
        self._unfinished_max = unfinished_max
        self._timing = timing
        self._on_change = on_change
        self._metrics = metrics
        self._steps: Sequence[_Step] = ()
        self._orphans: Sequence[tuple[Request, Prediction]] = ()
        self._told: Sequence[tuple[Generation, Deliver]] = ()
        self.writer: GroupCommit[Command, Answer] = GroupCommit(
            database, self._apply, batch_max=BATCH_MAX, wrote=self._wrote
        )

    async def begin(self, command: Begin) -> Begun:
        """Returns the generation of an id, created if the id is new.

        Raises Overloaded if the id is new and the user has as many unfinished ones as allowed.
        """
        begun = await self.writer.submit(command)
        assert isinstance(begun, Begun)
        if begun.created:
            self._on_change(begun.generation)
            if self._metrics is not None:
                self._metrics.created(begun.generation)
        return begun

    async def happen(self, command: Happen) -> Generation:
        """Returns a generation after its step; raises LookupError if there is none of that id."""
        generation = await self.writer.submit(command)
        assert isinstance(generation, Generation)
        failpoint("batch.after_commit")
        self._on_change(generation)
        return generation

    async def deliver(self, command: Deliver) -> Delivered:
        """Returns what came of an event."""
        delivered = await self.writer.submit(command)
        assert isinstance(delivered, Delivered)
        if delivered.generation is not None:
            self._on_change(delivered.generation)
        return delivered

    async def _apply(
        self, connection: AsyncConnection, commands: Sequence[Command]
    ) -> Sequence[Answer | Exception]:
        batch = _Batch(connection, self._timing, self._unfinished_max)
        await batch.load(commands)
        answers = [batch.take(command) for command in commands]
        await batch.write()
        failpoint("batch.before_commit")
        if any(isinstance(command, Begin) for command in commands):
            failpoint("create.before_commit")
        if any(isinstance(command, Deliver) for command in commands):
            failpoint("event.before_commit")
        self._steps, self._orphans, self._told = batch.steps, batch.orphans, batch.told
        return answers

    def _wrote(self, commands: int) -> None:
        """Counts what the last batch has made durable."""
        if self._metrics is None:
            return
        self._metrics.wrote(commands)
        for before, after, event in self._steps:
            self._metrics.stepped(before, after, event)
        for request, prediction in self._orphans:
            self._metrics.orphan_ended(request, prediction)
        for generation, command in self._told:
            self._metrics.told(generation, command.received_at)


class _Batch:
    """One database transaction's worth of commands: load and lock, decide, write."""

    def __init__(
        self, connection: AsyncConnection, timing: Timing, unfinished_max: int | None
    ) -> None:
        self._connection = connection
        self._timing = timing
        self._unfinished_max = unfinished_max
        self._created: set[str] = set()
        self._fresh_events: set[tuple[str, str, str, int]] = set()
        self._before: dict[str, Generation] = {}
        self._now_is: dict[str, Generation] = {}
        self._booked: dict[str, str] = {}
        self._ended: set[str] = set()
        self.steps: list[_Step] = []
        self.orphans: list[tuple[Request, Prediction]] = []
        self.told: list[tuple[Generation, Deliver]] = []
        self._seeds: dict[tuple[str, int], int] = {}
        self._transitions: list[dict[str, Any]] = []
        self._dispositions: list[dict[str, Any]] = []

    async def load(self, commands: Sequence[Command]) -> None:
        """Inserts what is new, then locks and loads all that the commands are about."""
        self._now = await read_clock(self._connection)
        begins = {c.generation_id: c for c in reversed(commands) if isinstance(c, Begin)}
        delivers = [c for c in commands if isinstance(c, Deliver)]
        predictions = [p for c in commands if (p := prediction_in(c)) is not None]
        told = {p.job_id for p in predictions}
        if begins and self._unfinished_max is not None:
            # The first that came, first.
            arrived = list(begins.values())[::-1]
            begins = await allowed(self._connection, arrived, self._unfinished_max)
        await self._insert_begun(begins)
        await self._insert_events(delivers)
        await self._load_booked(told)
        wanted = {c.generation_id for c in commands if c.generation_id} | set(self._booked.values())
        rows = await self._connection.execute(
            select(tables.generations)
            .where(tables.generations.c.generation_id.in_(wanted))
            .order_by(tables.generations.c.generation_id)
            .with_for_update()
        )
        for row in rows.mappings():
            self._before[row["generation_id"]] = generation_of(row)
        self._now_is = dict(self._before)
        # Until the locks were ours, another replica may have booked a prediction or seen its end.
        ended = {p.job_id for p in predictions if p.is_final} - self._ended
        await self._load_booked((told - self._booked.keys()) | ended)
        await self._load_seeds(delivers)
        self._now = await read_clock(self._connection)
        self._bookings = Bookings(self._timing, self._now)

    def take(self, command: Command) -> Answer | Exception:
        """Returns the answer to one command; the next one sees what it changed."""
        match command:
            case Begin():
                generation = self._now_is.get(command.generation_id)
                if generation is None:
                    assert self._unfinished_max is not None, "else it was created"
                    return too_many_unfinished(self._unfinished_max)
                created = command.generation_id in self._created
                self._created.discard(command.generation_id)
                return Begun(generation, created)
            case Happen():
                return self._happen(command)
            case Deliver():
                return self._deliver(command)

    async def write(self) -> None:
        """Writes everything that the commands changed, a statement a table."""
        changed = [g for key, g in self._now_is.items() if g is not self._before[key]]
        await write_back(self._connection, changed, self._transitions)
        await self._bookings.write(self._connection)
        if self._dispositions:
            await self._connection.execute(_FILE_EVENT, self._dispositions)

    def _happen(self, command: Happen) -> Generation | Exception:
        generation = self._now_is.get(command.generation_id)
        if generation is None:
            return LookupError(f"no generation {command.generation_id}")
        event, record = command.event, command.record
        if is_plan(event) and command.fence != generation.fence:
            return generation
        if isinstance(event, Submitted):
            owner = self._booked.get(event.prediction.job_id, generation.generation_id)
            if owner != generation.generation_id:
                # No two generations share a prediction, whatever the provider answers.
                event = SubmitUnknown(event.attempt)
                record = replace(record, state="UNKNOWN") if record is not None else None
        if record is not None:
            self._bookings.record(command.generation_id, record)
        return self._step(generation, event)

    def _deliver(self, command: Deliver) -> Delivered:
        key = _event_key(command)
        if key not in self._fresh_events:
            return Delivered(Disposition.DUPLICATE)
        self._fresh_events.discard(key)
        prediction = command.prediction
        owner = self._booked.get(prediction.job_id) if prediction else None
        generation = self._now_is.get(owner or command.generation_id)
        seed = self._seeds.get((command.generation_id, command.attempt))
        is_of_attempt = seed is not None and is_echo(prediction, seed)
        ruling = rule(
            prediction,
            generation,
            command.attempt,
            is_booked=owner is not None,
            attempt_seed=seed,
        )
        disposition, after = ruling.disposition, generation
        if generation is not None and ruling.event is not None:
            after = self._step(generation, ruling.event)
            if after is not generation:
                disposition = Disposition.APPLIED
        if generation is not None and prediction is not None:
            if owner is not None:
                self._bookings.see(prediction, Source.WEBHOOK)
            elif ruling.event is None:
                self._book(
                    prediction, generation.generation_id, command.attempt, Source.WEBHOOK, "ORPHAN"
                )
            if owner is None and is_of_attempt:
                # The create's own answer may never come.
                self._bookings.record(
                    generation.generation_id, AttemptRecord(command.attempt, "CREATED")
                )
            if prediction.is_final and ruling.event is not None:
                self.told.append((after or generation, command))
            if prediction.is_final and after is generation:
                self._note_orphan(prediction, generation)
        self._dispositions.append(_event_columns(key) | {"new_disposition": disposition.value})
        return Delivered(disposition, after if after is not generation else None)

    def _step(self, generation: Generation, event: Event) -> Generation:
        """Returns the generation after `event`, and notes all that is to be written with it."""
        after = step(generation, event, self._now, self._timing)
        match event:
            case Submitted(attempt=attempt, prediction=prediction, source=source):
                if generation.job_id == prediction.job_id:
                    self._bookings.see(prediction, source)
                else:
                    adopted = after.job_id == prediction.job_id
                    role = "ADOPTED" if adopted else "ORPHAN"
                    self._book(prediction, generation.generation_id, attempt, source, role)
            case PredictionSeen(prediction=prediction, source=source) if (
                generation.provider_status != prediction.status
            ):
                self._bookings.see(prediction, source)
            case _:
                pass
        if after is generation:
            return generation
        self.steps.append((generation, after, event))
        if isinstance(event, PredictionSeen | Submitted) and event.prediction.is_final:
            self._ended.add(event.prediction.job_id)
        if after.stage is not generation.stage:
            self._transitions.append(transition(generation, after, event, self._now))
            self._bookings.give_up(generation, after)
        self._now_is[after.generation_id] = after
        return after

    def _note_orphan(self, prediction: Prediction, generation: Generation) -> None:
        """Notes that a prediction has ended which changes nothing any more."""
        if prediction.job_id not in self._ended:
            self._ended.add(prediction.job_id)
            self.orphans.append((generation.request, prediction))

    def _book(
        self, prediction: Prediction, generation_id: str, attempt: int, source: Source, role: str
    ) -> None:
        self._booked.setdefault(prediction.job_id, generation_id)
        self._bookings.book(prediction, generation_id, attempt, source, role)

    async def _insert_begun(self, begins: dict[str, Begin]) -> None:
        if not begins:
            return
        rows = [
            values_of(
                begin(
                    b.generation_id,
                    b.user_id,
                    b.request,
                    b.price_credits,
                    self._now,
                    self._timing,
                    b.retry_of,
                    b.traceparent,
                )
            )
            for _, b in sorted(begins.items())
        ]
        created = await self._connection.execute(
            insert_into(self._connection, tables.generations)
            .values(rows)
            .on_conflict_do_nothing(index_elements=["generation_id"])
            .returning(tables.generations.c.generation_id)
        )
        self._created = set(created.scalars())

    async def _insert_events(self, delivers: Sequence[Deliver]) -> None:
        if not delivers:
            return
        rows = {
            _event_key(d): _event_columns(_event_key(d), prefix="")
            | {
                "body": d.body,
                "received_at": d.received_at,
                "recorded_at": self._now,
                "disposition": Disposition.UNMATCHED.value,
            }
            for d in delivers
        }
        columns = tables.prediction_events.c
        fresh = await self._connection.execute(
            insert_into(self._connection, tables.prediction_events)
            .values([rows[key] for key in sorted(rows)])
            .on_conflict_do_nothing()
            .returning(
                columns.webhook_id, columns.body_sha256, columns.generation_id, columns.attempt
            )
        )
        self._fresh_events = {tuple(row) for row in fresh}

    async def _load_booked(self, job_ids: AbstractSet[str]) -> None:
        """Learns which generations predictions are booked for, and which have ended."""
        if job_ids:
            columns = tables.predictions.c
            found = await self._connection.execute(
                select(columns.job_id, columns.generation_id, columns.ended_at).where(
                    columns.job_id.in_(job_ids)
                )
            )
            for row in found:
                self._booked[row.job_id] = row.generation_id
                if row.ended_at is not None:
                    self._ended.add(row.job_id)

    async def _load_seeds(self, delivers: Sequence[Deliver]) -> None:
        keys = {(d.generation_id, d.attempt) for d in delivers if d.generation_id}
        if keys:
            columns = tables.attempts.c
            found = await self._connection.execute(
                select(columns.generation_id, columns.attempt, columns.seed).where(
                    tuple_(columns.generation_id, columns.attempt).in_(sorted(keys))
                )
            )
            self._seeds = {(row.generation_id, row.attempt): row.seed for row in found}


async def write_back(
    connection: AsyncConnection,
    generations: Sequence[Generation],
    transitions: Sequence[dict[str, Any]],
) -> None:
    """Writes generations whose rows the caller has locked, and how their stages changed."""
    if generations:
        rows = [
            values_of(g) | {"of_generation": g.generation_id}
            for g in sorted(generations, key=lambda g: g.generation_id)
        ]
        await connection.execute(_UPDATE, rows)
    if transitions:
        await connection.execute(tables.transitions.insert(), list(transitions))


def transition(
    before: Generation, after: Generation, event: Event, now: datetime
) -> dict[str, Any]:
    """Returns the row that says how a stage changed."""
    return {
        "generation_id": after.generation_id,
        "fence": after.fence,
        "at": now,
        "event": type(event).__name__,
        "from_stage": before.stage.value,
        "to_stage": after.stage.value,
    }


# The rows are locked, so there is no count to check and the driver may send them in one go.
_UPDATE = update(tables.generations).where(
    tables.generations.c.generation_id == bindparam("of_generation")
)
_FILE_EVENT = (
    update(tables.prediction_events)
    .where(
        tables.prediction_events.c.webhook_id == bindparam("of_webhook_id"),
        tables.prediction_events.c.body_sha256 == bindparam("of_body_sha256"),
        tables.prediction_events.c.generation_id == bindparam("of_generation_id"),
        tables.prediction_events.c.attempt == bindparam("of_attempt"),
    )
    .values(disposition=bindparam("new_disposition"))
)


def _event_key(command: Deliver) -> tuple[str, str, str, int]:
    digest = sha256(command.body).hexdigest()
    return (command.webhook_id, digest, command.generation_id, command.attempt)


def _event_columns(key: tuple[str, str, str, int], prefix: str = "of_") -> dict[str, Any]:
    names = ("webhook_id", "body_sha256", "generation_id", "attempt")
    return {prefix + name: value for name, value in zip(names, key, strict=True)}
