"""Shows operators what is stored, and replays or drops what they choose."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ColumnElement,
    RowMapping,
    Select,
    and_,
    case,
    func,
    literal_column,
    or_,
    select,
    update,
)

from services.runtime.database import Database, read_clock
from services.runtime.errors import NotFound
from services.runtime.shielding import Shielded
from services.webhook.tables import IS_NOBODYS, State, inbox

__all__ = ["Backlog", "EventFilter", "EventState", "Events", "Replayed", "StoredEvent"]

REPLAY_ROWS = 200
"""Replayed in one database transaction, so that webhooks are stored meanwhile."""
REPLAYED_SHOWN = 100


class EventState(StrEnum):
    """Where an event stands, in the words of the contract."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    DEAD = "DEAD"
    DROPPED = "DROPPED"
    """It was given up, whatever it was before."""


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events are meant: those that satisfy every field that is set."""

    sequences: tuple[int, ...] = ()
    webhook_ids: tuple[str, ...] = ()
    """With `sequences` one field: an event named in either is meant."""
    generation_id: str = ""
    state: EventState | None = None
    received_from: datetime | None = None
    received_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as it is kept."""

    sequence: int
    webhook_id: str
    generation_id: str
    """Empty unless the address proved it."""
    attempt: int
    """0 unless the address proved it."""
    state: EventState
    disposition: str
    last_error: str
    drop_reason: str
    """Empty unless DROPPED."""
    tries: int
    refusals: int
    query_verdict: str
    """`good`, `missing` or `bad`."""
    secret_number: int
    body_sha256: str
    body_bytes: int
    """0 once it is gone."""
    body_gone: bool
    signed_at: datetime
    received_at: datetime
    stored_at: datetime
    delivered_at: datetime | None
    due_at: datetime | None
    """None unless PENDING."""
    body: bytes = b""
    """Empty in lists."""
    headers: tuple[tuple[str, str], ...] = ()
    """Empty in lists."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay did, or would do."""

    count: int
    gone_count: int
    """How many of the chosen were left, since their bodies are gone."""
    first: tuple[StoredEvent, ...]
    """Some of the replayed in order of arrival, as they were before."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits."""

    pending: int
    oldest_pending_s: float
    """How long ago the oldest of them was acknowledged; 0 without any."""
    dead: int


class Events:
    """The inbox as operators see it; every method raises Unavailable when the database is away."""

    def __init__(self, database: Database, due: Callable[[], None]) -> None:
        """Takes `due`, which is called when there is an event to deliver."""
        self._database = database
        self._due = due
        self._writes = Shielded()

    async def find(self, sequence: int) -> StoredEvent:
        """Returns an event with its body and headers; raises NotFound if there is none."""
        wanted = select(*_SUMMARY, inbox.c.body, inbox.c.headers)
        found = await self._read(wanted.where(inbox.c.sequence == sequence))
        if not found:
            raise _not_found("event_id", sequence)
        return found[0]

    async def page(
        self, chosen: EventFilter, limit: int, below: int | None = None
    ) -> list[StoredEvent]:
        """Returns events, the last that came first, from behind the one numbered `below`."""
        conditions = _conditions(chosen)
        if below is not None:
            conditions.append(inbox.c.sequence < below)
        order = inbox.c.sequence.desc()
        return await self._read(select(*_SUMMARY).where(*conditions).order_by(order).limit(limit))

    async def replay(self, chosen: EventFilter, *, dry_run: bool) -> Replayed:
        """Has the chosen events delivered once more, as far as their bodies are still there.

        Raises NotFound if one that is named does not exist. A caller that leaves does not stop it.
        """
        await self._require(chosen)
        conditions = _conditions(chosen)
        async with self._database.read() as connection:
            counted = await connection.execute(
                select(
                    func.count(),
                    func.coalesce(func.sum(case((_HAS_BODY, 1), else_=0)), 0),
                    func.coalesce(func.max(inbox.c.sequence), 0),
                ).where(*conditions)
            )
            total, count, last = counted.one()
        conditions += [_HAS_BODY, inbox.c.sequence <= last]
        first = await self._read(
            select(*_SUMMARY).where(*conditions).order_by(inbox.c.sequence).limit(REPLAYED_SHOWN)
        )
        if not dry_run:
            count = await self._writes.finish(self._make_due(conditions))
        return Replayed(count, total - count, tuple(first))

    async def drop(self, sequences: Sequence[int], reason: str) -> int:
        """Gives events up and returns how many were not given up before.

        Raises NotFound if one of them does not exist; then none is given up.
        """
        await self._require(EventFilter(sequences=tuple(sequences)))
        return await self._writes.finish(self._drop(sequences, reason))

    async def backlog(self) -> Backlog:
        """Returns what waits for generation, and what waits for a person."""
        async with self._database.read() as connection:
            now = await read_clock(connection)
            pending = select(func.count(), func.min(inbox.c.stored_at))
            waiting = await connection.execute(pending.where(_in_state(EventState.PENDING)))
            count, oldest = waiting.one()
            dead = select(func.count()).where(_in_state(EventState.DEAD))
            dead_count = (await connection.execute(dead)).scalar_one()
        age_s = 0.0 if oldest is None else (now - oldest).total_seconds()
        return Backlog(count, max(0.0, age_s), dead_count)

    async def drain(self) -> None:
        """Waits for changes under way whose callers left."""
        await self._writes.drain()

    async def _require(self, chosen: EventFilter) -> None:
        """Raises NotFound for the first event that is named and does not exist."""
        named: tuple[tuple[str, ColumnElement[Any], Sequence[Any]], ...] = (
            ("event_id", inbox.c.sequence, chosen.sequences),
            ("webhook_id", inbox.c.webhook_id, chosen.webhook_ids),
        )
        for name, key, wanted in named:
            if wanted:
                async with self._database.read() as connection:
                    rows = await connection.execute(select(key).where(key.in_(wanted)))
                    known = set(rows.scalars())
                missing = next((one for one in wanted if one not in known), None)
                if missing is not None:
                    raise _not_found(name, missing)

    async def _make_due(self, conditions: Sequence[ColumnElement[bool]]) -> int:
        """Makes events due now, some at a time, and returns how many."""
        count = last = 0
        while True:
            async with self._database.write() as connection:
                rows = await connection.execute(
                    select(inbox.c.sequence)
                    .where(*conditions, inbox.c.sequence > last)
                    # The order in which rows are locked everywhere.
                    .order_by(inbox.c.sequence)
                    .limit(REPLAY_ROWS)
                    .with_for_update()
                )
                batch = list(rows.scalars())
                if not batch:
                    return count
                await connection.execute(
                    update(inbox)
                    .where(inbox.c.sequence.in_(batch))
                    .values(
                        state=State.PENDING.value,
                        due_at=await read_clock(connection),
                        delivered_at=None,
                        refusals=0,
                        # Once known, that no generation uses it stays known: to a repetition the
                        # answer is only that it came before.
                        disposition=case((IS_NOBODYS, inbox.c.disposition), else_=""),
                    )
                )
            count, last = count + len(batch), batch[-1]
            self._due()

    async def _drop(self, sequences: Sequence[int], reason: str) -> int:
        async with self._database.write() as connection:
            now = await read_clock(connection)
            rows = await connection.execute(
                select(inbox.c.sequence)
                .where(inbox.c.sequence.in_(sequences), inbox.c.dropped_at.is_(None))
                .order_by(inbox.c.sequence)
                .with_for_update()
            )
            batch = list(rows.scalars())
            await connection.execute(
                update(inbox)
                .where(inbox.c.sequence.in_(batch))
                .values(
                    # What is under way is settled in vain, since it is PENDING no more.
                    state=case(
                        (inbox.c.state == State.PENDING.value, State.DEAD.value),
                        else_=inbox.c.state,
                    ),
                    dropped_at=now,
                    drop_reason=reason,
                    body=b"",
                    headers="[]",
                    blanked_at=now,
                )
            )
        return len(batch)

    async def _read(self, statement: Select[Any]) -> list[StoredEvent]:
        async with self._database.read() as connection:
            rows = (await connection.execute(statement)).mappings()
            return [_event(row) for row in rows]


_HAS_BODY = inbox.c.blanked_at.is_(None)

_SUMMARY = (
    *(column for column in inbox.c if column.name not in ("body", "headers", "query")),
    func.length(inbox.c.body).label("body_bytes"),
)


def _conditions(chosen: EventFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    named = []
    if chosen.sequences:
        named.append(inbox.c.sequence.in_(chosen.sequences))
    if chosen.webhook_ids:
        named.append(inbox.c.webhook_id.in_(chosen.webhook_ids))
    if named:
        conditions.append(or_(*named))
    if chosen.generation_id:
        # Said for the planner: the index holds only rows that have one.
        conditions += [
            inbox.c.generation_id == chosen.generation_id,
            inbox.c.generation_id != literal_column("''"),
        ]
    if chosen.state is not None:
        conditions.append(_in_state(chosen.state))
    if chosen.received_from is not None:
        conditions.append(inbox.c.received_at >= chosen.received_from)
    if chosen.received_before is not None:
        conditions.append(inbox.c.received_at < chosen.received_before)
    return conditions


def _in_state(state: EventState) -> ColumnElement[bool]:
    if state is EventState.DROPPED:
        return inbox.c.dropped_at.is_not(None)
    # Written out, since a planner cannot tell that a bound value fits a partial index.
    return and_(inbox.c.state == literal_column(f"'{state.value}'"), inbox.c.dropped_at.is_(None))


def _event(row: RowMapping) -> StoredEvent:
    dropped = row["dropped_at"] is not None
    state = EventState.DROPPED if dropped else EventState(row["state"])
    return StoredEvent(
        sequence=row["sequence"],
        webhook_id=row["webhook_id"],
        generation_id=row["generation_id"],
        attempt=row["attempt"],
        state=state,
        disposition=row["disposition"],
        last_error=row["last_error"],
        drop_reason=row["drop_reason"] or "",
        tries=row["tries"],
        refusals=row["refusals"],
        query_verdict=row["query_verdict"],
        secret_number=row["secret_number"],
        body_sha256=row["body_sha256"],
        body_bytes=row["body_bytes"],
        body_gone=row["blanked_at"] is not None,
        signed_at=row["signed_at"],
        received_at=row["received_at"],
        stored_at=row["stored_at"],
        delivered_at=row["delivered_at"],
        due_at=row["due_at"] if state is EventState.PENDING else None,
        body=row.get("body", b""),
        headers=tuple((name, value) for name, value in json.loads(row.get("headers") or "[]")),
    )


def _not_found(name: str, value: object) -> NotFound:
    return NotFound("EVENT_NOT_FOUND", f"There is no event with {name} {value}.", **{name: value})
