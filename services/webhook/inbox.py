"""Keeps received events until generation has them: all SQL of the webhook service."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_never

from sqlalchemy import Connection, literal, select

from services.runtime.database import Database, read_clock_of
from services.runtime.errors import Unavailable
from services.runtime.failpoints import failpoint
from services.runtime.group_commit import GroupCommit
from services.webhook.statements import RECEIVED, SETTLED, BatchStatements, batch_statements
from services.webhook.tables import State

__all__ = ["ClaimedEvent", "Inbox", "ReceivedEvent", "Settlement"]

BATCH_ROWS_MAX = 200
BATCH_BYTES_MAX = 16 * 1024 * 1024
QUEUE_ROWS_MAX = 1_000
QUEUE_BYTES_MAX = 64 * 1024 * 1024
STORE_LIMIT_S = 2.5
RELEASED_ROWS_MAX = 1_000

HEADER_LINES_MAX = 8
HEADER_CHARACTERS_MAX = 512
_CHARACTERS_MAX = {"webhook-signature": 4_096}
QUERY_CHARACTERS_MAX = 2_048
ERROR_CHARACTERS_MAX = 300
DISPOSITION_CHARACTERS_MAX = 64

_Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """A webhook whose signature was verified."""

    webhook_id: str
    body: bytes
    headers: Sequence[tuple[str, str]]
    """Those lines that are to be kept, their names in lower case, as they came."""
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
    lease_ends_at: datetime
    """Until when nobody else gets it; tells this claim from all others."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a try to deliver came to."""

    sequence: int
    lease_ends_at: datetime
    """As claimed; whoever claimed, replayed or dropped the event since makes this void."""
    state: State
    delay_s: float = 0.0
    """When to try again, from now, if it stays PENDING."""
    refused: bool = False
    """Whether the answer counts towards DEAD."""
    error: str = ""
    disposition: str = ""


@dataclass(frozen=True, slots=True)
class _Store:
    """An event to store."""

    key: _Key
    row: dict[str, Any]
    """What is known of it, but for its body."""
    body: bytes


@dataclass(frozen=True, slots=True)
class _Release:
    """Events to be delivered although their time has not come."""

    leased: bool
    """Those that are being delivered, rather than those that wait after a failure."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """Events to hand out."""

    rows_max: int
    lease_s: float


_Command = _Store | Settlement | _Release | _Claim


class Inbox:
    """Stores events, hands them out for delivery, and records what came of it.

    All that is written at about the same time, by whomever, shares a database transaction while
    `run` runs: a burst of events costs few of them, and delivering them costs none of its own.
    """

    def __init__(
        self,
        database: Database,
        arrived: asyncio.Event,
        *,
        store_limit_s: float = STORE_LIMIT_S,
        wrote: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Takes `arrived`, which is set whenever there is an event to deliver.

        `wrote` is told how many events a database transaction stored, maybe in another thread.
        """
        self._arrived = arrived
        self._database = database
        self._store_limit_s = store_limit_s
        self._wrote = wrote
        self._writer = GroupCommit[_Command, Any](
            database,
            at_once=self._write,
            batch_max=BATCH_ROWS_MAX,
            queue_max=QUEUE_ROWS_MAX,
            weigh=_weigh,
            batch_weight_max=BATCH_BYTES_MAX,
            queue_weight_max=QUEUE_BYTES_MAX,
        )

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
        failpoint("inbox.received")
        is_new: bool = await self._writer.submit(_command(event), self._store_limit_s)
        failpoint("inbox.after_commit")
        self._arrived.set()
        return is_new

    async def claim(self, rows_max: int, lease_s: float) -> list[ClaimedEvent]:
        """Returns events that are due, oldest first; nobody else gets them before the lease ends.

        Raises ServiceError; what was claimed all the same waits for the end of its lease.
        """
        claimed: list[ClaimedEvent] = await self._writer.submit(_Claim(rows_max, lease_s))
        return claimed

    async def settle(self, settlement: Settlement) -> None:
        """Records what came of a try; after a ServiceError its lease will end it."""
        await self._writer.submit(settlement)

    async def release_paused(self) -> None:
        """Has events come due that wait only since generation was away; raises ServiceError.

        Of very many the rest come due by themselves.
        """
        await self._writer.submit(_Release(leased=False))

    async def drop_leases(self) -> None:
        """Has come due what was being delivered when this process was last killed.

        Raises ServiceError. Where other processes may be delivering, it does nothing.
        """
        if self._database.is_exclusive:
            await self._writer.submit(_Release(leased=True))

    async def probe(self) -> None:
        """Raises ServiceError unless a database transaction that writes can begin in time."""
        try:
            async with asyncio.timeout(self._store_limit_s), self._database.write() as connection:
                await connection.execute(select(literal(1)))
        except TimeoutError:
            raise Unavailable("DATABASE_UNAVAILABLE", "The database takes too long.") from None

    def _write(self, connection: Connection, commands: Sequence[_Command]) -> list[Any]:
        answers = _write(connection, commands)
        if stored := sum(isinstance(command, _Store) for command in commands):
            failpoint("inbox.before_commit")
            self._wrote(stored)
        return answers


def _weigh(command: _Command) -> int:
    """Returns how many bytes a command makes a batch larger, as far as it matters."""
    return len(command.body) if isinstance(command, _Store) else 0


def _write(connection: Connection, commands: Sequence[_Command]) -> list[Any]:
    """Writes a batch; the answer to a store is whether it was new, to a claim what it got.

    The order is the same in every replica, or two of them could wait for each other: inserts by
    key, settlements, and last what passes over rows that are locked.
    """
    statements = batch_statements(connection.dialect)
    now = read_clock_of(connection)
    stores = [command for command in commands if isinstance(command, _Store)]
    settlements = [command for command in commands if isinstance(command, Settlement)]
    new = _insert(connection, statements, stores, now) if stores else set()
    if settlements:
        _settle(connection, statements, settlements, now)
    for leased in {command.leased for command in commands if isinstance(command, _Release)}:
        connection.execute(
            statements.release, {"now": now, "leased": int(leased), "rows_max": RELEASED_ROWS_MAX}
        )
    answers: list[Any] = []
    for command in commands:
        match command:
            case _Store():
                # Of equal events in one batch the first is the new one.
                answers.append(command.key in new)
                new.discard(command.key)
            case Settlement() | _Release():
                answers.append(None)
            case _Claim():
                answers.append(_claim(connection, statements, command, now))
            case _:
                assert_never(command)
    return answers


def _insert(
    connection: Connection,
    statements: BatchStatements,
    stores: Sequence[_Store],
    now: datetime,
) -> set[_Key]:
    """Returns the keys of those that were not there before."""
    rows = []
    bodies = [b"-"]  # Since of no bytes at all, SQLite would make NULL.
    body_from = 2
    for place, store in enumerate(stores, start=1):
        body_bytes = len(store.body)
        received = [store.row[one.name] for one in RECEIVED]
        rows.append([*received, place, body_from, body_bytes])
        bodies.append(store.body)
        body_from += body_bytes
    given = {**statements.received.parameters(rows), "now": now}
    inserted = connection.execute(statements.insert, {**given, "bodies": b"".join(bodies)})
    if inserted.rowcount == len(stores):  # Fetching the keys would cost more than storing them.
        return {store.key for store in stores}
    return {tuple(row) for row in connection.execute(statements.select_new, given)}


def _settle(
    connection: Connection,
    statements: BatchStatements,
    settlements: Sequence[Settlement],
    now: datetime,
) -> None:
    rows = []
    for settlement in settlements:
        row: dict[str, object] = {
            "sequence": settlement.sequence,
            "state": settlement.state.value,
            "due_at": now + timedelta(seconds=settlement.delay_s),
            "delivered_at": now if settlement.state is State.DELIVERED else None,
            "last_error": _plain(settlement.error, ERROR_CHARACTERS_MAX),
            "disposition": _plain(settlement.disposition, DISPOSITION_CHARACTERS_MAX),
        }
        more = [settlement.lease_ends_at, int(settlement.refused)]
        rows.append([*(row[one.name] for one in SETTLED), *more])
    connection.execute(statements.settle, statements.settled.parameters(rows))


def _claim(
    connection: Connection, statements: BatchStatements, command: _Claim, now: datetime
) -> list[ClaimedEvent]:
    claimed = connection.execute(
        statements.claim,
        {
            "now": now,
            "lease_ends_at": now + timedelta(seconds=command.lease_s),
            "rows_max": command.rows_max,
        },
    )
    return sorted((ClaimedEvent(*row) for row in claimed), key=lambda event: event.sequence)


def _command(event: ReceivedEvent) -> _Store:
    key = (
        event.webhook_id,
        hashlib.sha256(event.body).hexdigest(),
        event.generation_id,
        event.attempt,
    )
    lines = [
        (name, _plain(value, _CHARACTERS_MAX.get(name, HEADER_CHARACTERS_MAX)))
        for name, value in event.headers[:HEADER_LINES_MAX]
    ]
    row = {
        "webhook_id": key[0],
        "body_sha256": key[1],
        "generation_id": key[2],
        "attempt": key[3],
        "headers": json.dumps(lines),
        "query": _plain(event.query, QUERY_CHARACTERS_MAX),
        "query_verdict": event.query_verdict,
        "secret_number": event.secret_number,
        "signed_at": event.signed_at,
        "received_at": event.received_at,
    }
    return _Store(key, row, event.body)


def _plain(text: str, characters_max: int) -> str:
    """Returns `text` in characters that every database takes, cut to a length."""
    if text.isascii():
        return text[:characters_max]
    return text.encode("ascii", "backslashreplace").decode()[:characters_max]
