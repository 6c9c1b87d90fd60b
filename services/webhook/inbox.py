"""Keeps received events until generation has them: all SQL of the webhook service."""

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    CursorResult,
    bindparam,
    func,
    literal,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from services.runtime.database import Database, read_clock
from services.runtime.errors import Overloaded, Unavailable
from services.runtime.group_commit import GroupCommit
from services.runtime.shielding import Shielded
from services.webhook.tables import State, inbox

__all__ = ["ClaimedEvent", "Inbox", "ReceivedEvent", "Settlement"]

BATCH_ROWS_MAX = 200
QUEUE_ROWS_MAX = 1_000
QUEUE_BYTES_MAX = 64 * 1024 * 1024
STORE_LIMIT_S = 2.5

HEADERS_KEPT = frozenset(
    {"webhook-id", "webhook-timestamp", "webhook-signature", "content-type", "user-agent"}
)
HEADER_LINES_MAX = 8
HEADER_CHARACTERS_MAX = 512
SIGNATURE_CHARACTERS_MAX = 4_096
QUERY_CHARACTERS_MAX = 2_048
ERROR_CHARACTERS_MAX = 300
DISPOSITION_CHARACTERS_MAX = 64

_KEY = (inbox.c.webhook_id, inbox.c.body_sha256, inbox.c.generation_id, inbox.c.attempt)
# Written out, since a planner cannot tell that a bound value fits the index of pending rows.
_IS_PENDING = inbox.c.state == literal_column(f"'{State.PENDING.value}'")

_Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """A webhook whose signature was verified."""

    webhook_id: str
    body: bytes
    headers: Sequence[tuple[str, str]]
    """All header lines as they came; a few are kept."""
    query: str
    """Query of the address as it came."""
    query_verdict: str
    """`good`, `missing` or `bad`."""
    generation_id: str
    """What the address named; empty unless `good`."""
    attempt: int
    """What the address named; 0 unless `good`."""
    secret_number: int
    signed_at: datetime
    received_at: datetime


@dataclass(frozen=True, slots=True)
class ClaimedEvent:
    """An event that is to be delivered now, by nobody else until its lease ends."""

    sequence: int
    webhook_id: str
    generation_id: str
    attempt: int
    received_at: datetime
    body: bytes
    tries: int
    """How often it was claimed, this time included."""
    refusals: int
    """How many answers so far count towards DEAD."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a try to deliver came to."""

    sequence: int
    tries: int
    """As claimed; somebody who claimed the event meanwhile makes this settlement void."""
    state: State
    delay_s: float = 0.0
    """When to try again, from now, if it stays PENDING."""
    refused: bool = False
    """Whether the answer counts towards DEAD."""
    error: str = ""
    disposition: str = ""


@dataclass(frozen=True, slots=True)
class _Store:
    """One row to store."""

    row: _Row

    @property
    def key(self) -> tuple[Any, ...]:
        return tuple(self.row[column.name] for column in _KEY)


class Inbox:
    """Stores events, hands them out for delivery, and records what came of it.

    Stores and settlements of many callers share database transactions while `run` runs.
    """

    def __init__(
        self, database: Database, arrived: asyncio.Event, *, store_limit_s: float = STORE_LIMIT_S
    ) -> None:
        """Takes `arrived`, which is set whenever there is an event to deliver."""
        self._arrived = arrived
        self._database = database
        self._store_limit_s = store_limit_s
        self._writer: GroupCommit[_Store | Settlement, bool] = GroupCommit(
            database, _write, batch_max=BATCH_ROWS_MAX, queue_max=QUEUE_ROWS_MAX
        )
        self._stores = Shielded()
        self._waiting_bytes = 0

    async def run(self) -> None:
        """Writes until `close` was called and nothing waits any more."""
        await self._writer.run()

    def close(self) -> None:
        """Refuses new writes; those that wait are still written."""
        self._writer.close()

    async def store(self, event: ReceivedEvent) -> bool:
        """Returns once the event is durable whether it is new; False for one stored before.

        Raises ServiceError if it is not known to be durable within the limit. It may be stored all
        the same then, which is as good: the sender repeats it and it is found.
        """
        if self._waiting_bytes + len(event.body) > QUEUE_BYTES_MAX:
            raise Overloaded("SERVICE_OVERLOADED", "Too many bytes wait to be stored.")
        self._waiting_bytes += len(event.body)
        try:
            async with asyncio.timeout(self._store_limit_s):
                # Not canceled with its caller, so that the bytes count until they are gone.
                return await self._stores.finish(self._store(event))
        except TimeoutError:
            raise Unavailable("DATABASE_UNAVAILABLE", "Storing took too long.") from None

    async def claim(self, rows_max: int, lease_s: float) -> list[ClaimedEvent]:
        """Returns events that are due, which nobody else gets before the lease ends."""
        async with self._database.write() as connection:
            now = await read_clock(connection)
            due = (
                select(inbox.c.sequence)
                .where(_IS_PENDING, inbox.c.due_at <= now)
                .order_by(inbox.c.due_at)
                .limit(rows_max)
                .with_for_update(skip_locked=True)
                .cte("due")
            )
            claimed = await connection.execute(
                update(inbox)
                .where(inbox.c.sequence.in_(select(due.c.sequence)))
                .values(due_at=now + timedelta(seconds=lease_s), tries=inbox.c.tries + 1)
                .returning(
                    inbox.c.sequence,
                    inbox.c.webhook_id,
                    inbox.c.generation_id,
                    inbox.c.attempt,
                    inbox.c.received_at,
                    inbox.c.body,
                    inbox.c.tries,
                    inbox.c.refusals,
                )
            )
            return [ClaimedEvent(*row) for row in claimed]

    async def settle(self, settlement: Settlement) -> None:
        """Records what came of a try; after a ServiceError its lease will end it."""
        await self._writer.submit(settlement)

    async def probe(self) -> None:
        """Raises ServiceError unless a database transaction that writes can begin in time."""
        try:
            async with asyncio.timeout(self._store_limit_s), self._database.write() as connection:
                await connection.execute(select(literal(1)))
        except TimeoutError:
            raise Unavailable("DATABASE_UNAVAILABLE", "The database takes too long.") from None

    async def _store(self, event: ReceivedEvent) -> bool:
        try:
            is_new = await self._writer.submit(_Store(_row(event)))
        finally:
            self._waiting_bytes -= len(event.body)
        self._arrived.set()
        return is_new


async def _write(
    connection: AsyncConnection, commands: Sequence[_Store | Settlement]
) -> Sequence[bool | Exception]:
    """Writes a batch; the answer to a store is whether it was new.

    The order is the same in every replica, inserts by key and then settlements by sequence, or two
    of them could wait for each other.
    """
    now = await read_clock(connection)
    stores = [command for command in commands if isinstance(command, _Store)]
    settlements = [command for command in commands if isinstance(command, Settlement)]
    new = await _insert(connection, stores, now) if stores else set()
    if settlements:
        await _settle(connection, settlements, now)
    answers: list[bool | Exception] = []
    for command in commands:
        if isinstance(command, _Store):
            # Of equal events in one batch the first is the new one.
            answers.append(command.key in new)
            new.discard(command.key)
        else:
            answers.append(True)
    return answers


async def _insert(
    connection: AsyncConnection, stores: Sequence[_Store], now: datetime
) -> set[tuple[Any, ...]]:
    """Returns the keys of those that were not there before."""
    rows = [{**store.row, "stored_at": now, "due_at": now} for store in stores]
    if connection.dialect.name == "sqlite":
        last = await connection.execute(select(func.coalesce(func.max(inbox.c.sequence), 0)))
        first = last.scalar_one() + 1
        rows = [{**row, "sequence": first + place} for place, row in enumerate(rows)]
    rows.sort(key=lambda row: tuple(row[column.name] for column in _KEY))
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    inserted: CursorResult[Any] = await connection.execute(
        dialect.insert(inbox).on_conflict_do_nothing(index_elements=_KEY).returning(*_KEY), rows
    )
    return {tuple(row) for row in inserted}


async def _settle(
    connection: AsyncConnection, settlements: Sequence[Settlement], now: datetime
) -> None:
    await connection.execute(
        update(inbox)
        .where(
            inbox.c.sequence == bindparam("of_sequence"),
            inbox.c.tries == bindparam("of_tries"),
            _IS_PENDING,
        )
        .values(
            state=bindparam("to_state"),
            due_at=bindparam("to_due_at"),
            delivered_at=bindparam("to_delivered_at"),
            refusals=inbox.c.refusals + bindparam("more_refusals"),
            last_error=bindparam("to_last_error"),
            disposition=bindparam("to_disposition"),
        ),
        [
            {
                "of_sequence": settlement.sequence,
                "of_tries": settlement.tries,
                "to_state": settlement.state.value,
                "to_due_at": now + timedelta(seconds=settlement.delay_s),
                "to_delivered_at": now if settlement.state is State.DELIVERED else None,
                "more_refusals": int(settlement.refused),
                "to_last_error": _plain(settlement.error, ERROR_CHARACTERS_MAX),
                "to_disposition": _plain(settlement.disposition, DISPOSITION_CHARACTERS_MAX),
            }
            for settlement in sorted(settlements, key=lambda settlement: settlement.sequence)
        ],
    )


def _row(event: ReceivedEvent) -> _Row:
    kept = [
        (
            name.lower(),
            _plain(
                value,
                SIGNATURE_CHARACTERS_MAX
                if name.lower() == "webhook-signature"
                else HEADER_CHARACTERS_MAX,
            ),
        )
        for name, value in event.headers
        if name.lower() in HEADERS_KEPT
    ]
    return {
        "webhook_id": event.webhook_id,
        "body_sha256": hashlib.sha256(event.body).hexdigest(),
        "generation_id": event.generation_id,
        "attempt": event.attempt,
        "body": event.body,
        "headers": json.dumps(kept[:HEADER_LINES_MAX]),
        "query": _plain(event.query, QUERY_CHARACTERS_MAX),
        "query_verdict": event.query_verdict,
        "secret_number": event.secret_number,
        "signed_at": event.signed_at,
        "received_at": event.received_at,
        "state": State.PENDING.value,
        "tries": 0,
        "refusals": 0,
        "last_error": "",
        "disposition": "",
    }


def _plain(text: str, characters_max: int) -> str:
    """Returns `text` in characters that every database takes, cut to a length."""
    return text.encode("ascii", "backslashreplace").decode()[:characters_max]
