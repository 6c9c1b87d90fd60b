"""Computes every balance again from the transactions, and says what does not agree.

The invariants are those of docs/ledger.md, I1 to I7, each a query over whole sets that answers a
row, with a sentence, for whatever breaks it. All of them see one moment: a snapshot of the
database. A statement reads the users of one range, so that none of them runs for long, however
many users there are. A range is a whole account at the least: one with tens of millions of
transactions can outlast the time that a statement has, and is then not verified.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Text, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.credits.records import Violation
from services.runtime.database import Database, Instant, Int64, read_clock
from services.runtime.errors import DeadlineExceeded, Unavailable

__all__ = ["VIOLATIONS_MAX", "Part", "Verification", "Verifier"]

ADVISORY_LOCK = 7_205_759_404
"""Key of the PostgreSQL lock that lets one replica verify a part at a time."""

VIOLATIONS_MAX = 1000
DEADLINE_S = 600.0
ACCOUNTS_PER_RANGE = 1000
TRANSACTIONS_PER_RANGE = 50_000
LIMB = 10**9
"""What sums are divided by into two that fit into 64 bits, however many rows there are."""
LAST_ID = "\U0010ffff"
"""Sorts behind every id."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was read, and what of it does not agree."""

    accounts: int
    transactions: int
    reservations: int
    violations: tuple[Violation, ...]
    """At most 1,000; none if all is well."""

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing to read."""
        return not (self.accounts or self.transactions or self.reservations)


@dataclass(frozen=True, slots=True)
class Part:
    """What the users of one range come to."""

    violations: tuple[Violation, ...]
    next_first: str | None
    """Where the next part begins; None behind the last."""


class Verifier:
    """Verifies the ledger, one verification at a time; it only reads.

    `overdue` is how long a reservation may be due before it is one that nobody sweeps.
    """

    def __init__(
        self,
        database: Database,
        stopping: asyncio.Event,
        overdue: timedelta,
        transactions_per_range: int = TRANSACTIONS_PER_RANGE,
    ) -> None:
        self._database = database
        self._stopping = stopping
        self._overdue = overdue
        self._transactions_per_range = transactions_per_range
        self._turn = asyncio.Lock()

    async def verify(self, user_id: str | None = None) -> Verification:
        """Returns what a user's part of the ledger, or all of it, comes to at one moment.

        Raises DeadlineExceeded after 10 minutes, and Unavailable when the database is away or the
        process stops.
        """
        try:
            async with (
                asyncio.timeout(DEADLINE_S),
                self._turn,
                self._database.read(patient=True) as connection,
            ):
                return await self._verify(await _at_one_moment(connection), user_id)
        except TimeoutError:
            raise DeadlineExceeded(
                "VERIFICATION_TOO_LONG", "The ledger could not be verified in 10 minutes."
            ) from None

    async def verify_part(self, first: str) -> Part | None:
        """Returns what the users from the id `first` on come to, as many as one statement reads.

        None while another process verifies a part: one at a time is enough. Raises Unavailable when
        the database is away.
        """
        async with self._database.read(patient=True) as given:
            connection = await _at_one_moment(given)
            if not await _is_alone(connection):
                return None
            overdue_since = await read_clock(connection) - self._overdue
            last = await self._end_of_range(connection, first)
            violations = await _violations(connection, first, last, overdue_since, VIOLATIONS_MAX)
            return Part(tuple(violations), None if last == LAST_ID else _following(last))

    async def _verify(self, connection: AsyncConnection, user_id: str | None) -> Verification:
        overdue_since = await read_clock(connection) - self._overdue
        accounts = transactions = reservations = 0
        violations: list[Violation] = []
        async for first, last in self._ranges(connection, user_id):
            if self._stopping.is_set():
                raise Unavailable("", "The service is stopping; verify again.")
            counted = (await connection.execute(_COUNTS, {"first": first, "last": last})).one()
            accounts += counted.accounts
            transactions += counted.transactions
            reservations += counted.reservations
            room = VIOLATIONS_MAX - len(violations)
            violations += await _violations(connection, first, last, overdue_since, room)
        return Verification(accounts, transactions, reservations, tuple(violations))

    async def _ranges(
        self, connection: AsyncConnection, user_id: str | None
    ) -> AsyncIterator[tuple[str, str]]:
        """Yields the first and the last id of each range of users; together they are all there are.

        What belongs to no account lies in a range too.
        """
        if user_id is not None:
            yield user_id, user_id
            return
        first = ""
        while True:
            last = await self._end_of_range(connection, first)
            yield first, last
            if last == LAST_ID:
                return
            first = _following(last)

    async def _end_of_range(self, connection: AsyncConnection, first: str) -> str:
        """Returns the last id of the range that begins with `first`."""
        wanted = {"first": first, "room": ACCOUNTS_PER_RANGE}
        rows = (await connection.execute(_NEXT_ACCOUNTS, wanted)).all()
        claimed = 0
        for number, (id_, version) in enumerate(rows, start=1):
            claimed += version
            if claimed >= self._transactions_per_range or number == ACCOUNTS_PER_RANGE:
                last: str = id_
                return last
        return LAST_ID


def _following(id_: str) -> str:
    return id_ + "\x01"  # The very next id, since no id holds a NUL.


async def _violations(
    connection: AsyncConnection, first: str, last: str, overdue_since: datetime, room: int
) -> list[Violation]:
    """Returns at most `room` things that do not agree, among the users of a range."""
    scope: dict[str, object] = {"first": first, "last": last, "overdue_since": overdue_since}
    violations: list[Violation] = []
    for query in _QUERIES:
        left = {"room": room - len(violations)}
        found = await connection.execute(query, scope | left)
        violations += [Violation(*row) for row in found]
    return violations


async def _is_alone(connection: AsyncConnection) -> bool:
    """Tells whether no other process verifies a part, until the database transaction ends."""
    if connection.dialect.name == "sqlite":
        return True  # No other process has the file open.
    lock = text("SELECT pg_try_advisory_xact_lock(:key)")
    return bool((await connection.execute(lock, {"key": ADVISORY_LOCK})).scalar_one())


async def _at_one_moment(connection: AsyncConnection) -> AsyncConnection:
    """Returns `connection` so that all its statements see the moment of the first one."""
    if connection.dialect.name == "sqlite":
        return connection  # A database transaction of SQLite sees one moment anyway.
    return await connection.execution_options(
        isolation_level="REPEATABLE READ", postgresql_readonly=True
    )


def _query(sql: str) -> Any:
    """Returns a query whose parameters have the types of the columns that they meet."""
    types: Mapping[str, Any] = {
        "first": Text(),
        "last": Text(),
        "overdue_since": Instant(),
        "room": Int64,
    }
    used = [bindparam(name, type_=type_) for name, type_ in types.items() if f":{name}" in sql]
    return text(sql).bindparams(*used)


_NEXT_ACCOUNTS = _query("""
SELECT user_id, version FROM accounts WHERE user_id >= :first ORDER BY user_id LIMIT :room
""")

_COUNTS = _query("""
SELECT
  (SELECT count(*) FROM accounts WHERE user_id BETWEEN :first AND :last) AS accounts,
  (SELECT count(*) FROM transactions WHERE user_id BETWEEN :first AND :last) AS transactions,
  (SELECT count(*) FROM reservations WHERE user_id BETWEEN :first AND :last) AS reservations
""")


def _limbs(value: str) -> tuple[str, str]:
    """Returns two SQL sums; the first times LIMB, plus the second, is that of `value`.

    SQLite's own sum fails beyond 64 bits, and one bad row would stop the verification of all users.
    """
    return f"sum(({value}) / {LIMB})", f"sum(({value}) % {LIMB})"


def _sum(value: str) -> str:
    """Returns the SQL sum of `value`; SQLite rounds one that is beyond 64 bits."""
    high, low = _limbs(value)
    return f"({high} * {LIMB} + {low})"


_ADDED = _limbs(
    "CASE WHEN type IN ('PURCHASE', 'BONUS', 'ADJUSTMENT') THEN available_delta ELSE 0 END"
)
_SPENT = _limbs("committed - reimbursed")

# What was added and what was spent in a lifetime can be more than 64 bits hold, in a good ledger
# too; their difference cannot.
_BALANCES = f"""
WITH said AS (
  SELECT user_id, {_sum("available_delta")} AS available, {_sum("reserved_delta")} AS reserved,
    count(*) AS version, {_ADDED[0]} AS added_high, {_ADDED[1]} AS added_low
  FROM transactions WHERE user_id BETWEEN :first AND :last GROUP BY user_id
),
held AS (
  SELECT user_id, {_sum("CASE WHEN state = 'RESERVED' THEN credits ELSE 0 END")} AS credits,
    {_SPENT[0]} AS spent_high, {_SPENT[1]} AS spent_low
  FROM reservations WHERE user_id BETWEEN :first AND :last GROUP BY user_id
),
users AS (
  SELECT user_id FROM accounts WHERE user_id BETWEEN :first AND :last
  UNION SELECT user_id FROM said UNION SELECT user_id FROM held
),
books AS (
  SELECT users.user_id,
    coalesce(a.available, 0) AS available, coalesce(a.reserved, 0) AS reserved,
    coalesce(a.version, 0) AS version,
    coalesce(said.available, 0) AS said_available, coalesce(said.reserved, 0) AS said_reserved,
    coalesce(said.version, 0) AS said_version, coalesce(held.credits, 0) AS held,
    coalesce(added_high, 0) AS added_high, coalesce(added_low, 0) AS added_low,
    coalesce(spent_high, 0) AS spent_high, coalesce(spent_low, 0) AS spent_low
  FROM users
  LEFT JOIN accounts AS a ON a.user_id = users.user_id
  LEFT JOIN said ON said.user_id = users.user_id
  LEFT JOIN held ON held.user_id = users.user_id
)
SELECT * FROM (
  SELECT 'I1' AS invariant, user_id,
    'account ' || user_id || ' has ' || available || ' available, its transactions say '
      || said_available AS detail
  FROM books WHERE available <> said_available
  UNION ALL
  SELECT 'I1', user_id,
    'account ' || user_id || ' has ' || reserved || ' reserved, its transactions say '
      || said_reserved
  FROM books WHERE reserved <> said_reserved
  UNION ALL
  SELECT 'I1', user_id,
    'account ' || user_id || ' has version ' || version || ', it has ' || said_version
      || ' transactions'
  FROM books WHERE version <> said_version
  UNION ALL
  SELECT 'I2', user_id,
    'account ' || user_id || ' has ' || reserved || ' reserved, its open reservations hold '
      || held
  FROM books WHERE reserved <> held
  UNION ALL
  SELECT 'I6', user_id,
    'account ' || user_id || ' has ' || (available + reserved) || ' and has spent '
      || (spent_high * {LIMB} + spent_low) || ', but '
      || (added_high * {LIMB} + added_low) || ' were added'
  FROM books
  WHERE (spent_high - added_high) * {LIMB} + (spent_low - added_low) + available + reserved <> 0
) AS found ORDER BY user_id, invariant LIMIT :room
"""  # noqa: S608  All of it is written here.

# As a numeric, no sum with a bad change overflows.
_RECORD = """
SELECT 'I3' AS invariant, user_id,
  CASE
    WHEN version <> version_before + 1 THEN
      'transaction ' || version || ' of ' || user_id || ' follows ' || version_before
    WHEN created_at < created_before THEN
      'transaction ' || version || ' of ' || user_id || ' is earlier than the one before'
    ELSE
      'transaction ' || version || ' of ' || user_id || ' leaves ' || available_after
        || ' available and ' || reserved_after || ' reserved, but makes '
        || available_made || ' and ' || reserved_made
  END AS detail
FROM (
  SELECT user_id, version, available_after, reserved_after, created_at,
    coalesce(lag(version) OVER record, 0) AS version_before,
    CAST(available_delta AS numeric) + coalesce(lag(available_after) OVER record, 0)
      AS available_made,
    CAST(reserved_delta AS numeric) + coalesce(lag(reserved_after) OVER record, 0)
      AS reserved_made,
    coalesce(lag(created_at) OVER record, created_at) AS created_before
  FROM transactions WHERE user_id BETWEEN :first AND :last
  WINDOW record AS (PARTITION BY user_id ORDER BY version)
) AS chain
WHERE version <> version_before + 1
  OR available_after <> available_made
  OR reserved_after <> reserved_made
  OR created_at < created_before
ORDER BY user_id, version LIMIT :room
"""

_RESERVATIONS = f"""
WITH moved AS (
  SELECT user_id, reservation_id,
    sum(CASE WHEN substr(key, 1, 8) = 'reserve:' THEN 1 ELSE 0 END) AS reserved,
    sum(CASE WHEN substr(key, 1, 8) = 'resolve:' THEN 1 ELSE 0 END) AS resolved,
    max(CASE WHEN substr(key, 1, 8) = 'resolve:' THEN type ELSE '' END) AS resolved_by,
    {_sum("CASE WHEN type = 'RESERVATION' THEN reserved_delta ELSE 0 END")} AS credits,
    - {_sum("CASE WHEN type = 'DEDUCTION' THEN available_delta ELSE 0 END")}
      - {_sum("CASE WHEN type = 'DEDUCTION' THEN reserved_delta ELSE 0 END")} AS committed,
    {_sum("CASE WHEN type = 'REIMBURSEMENT' THEN available_delta ELSE 0 END")} AS reimbursed
  FROM transactions
  WHERE user_id BETWEEN :first AND :last AND reservation_id IS NOT NULL
  GROUP BY user_id, reservation_id
),
judged AS (
  SELECT r.user_id, r.state, r.credits, r.committed, r.reimbursed,
    'reservation ' || r.reservation_id || ' of ' || r.user_id AS name,
    CASE r.state WHEN 'REJECTED' THEN 0 ELSE 1 END AS to_reserve,
    CASE r.state WHEN 'COMMITTED' THEN 'DEDUCTION' WHEN 'REFUNDED' THEN 'REFUND'
      WHEN 'EXPIRED' THEN 'EXPIRY' ELSE '' END AS to_resolve_by,
    coalesce(moved.reserved, 0) AS reserved, coalesce(moved.resolved, 0) AS resolved,
    coalesce(moved.resolved_by, '') AS resolved_by, coalesce(moved.credits, 0) AS said_credits,
    coalesce(moved.committed, 0) AS said_committed,
    coalesce(moved.reimbursed, 0) AS said_reimbursed
  FROM reservations AS r
  LEFT JOIN moved ON moved.user_id = r.user_id AND moved.reservation_id = r.reservation_id
  WHERE r.user_id BETWEEN :first AND :last
)
SELECT * FROM (
  SELECT 'I4' AS invariant, user_id,
    name || ' is ' || state || ' and was reserved ' || reserved || ' times' AS detail
  FROM judged WHERE reserved <> to_reserve
  UNION ALL
  SELECT 'I4', user_id,
    name || ' is ' || state || ' and was resolved ' || resolved || ' times, by '
      || CASE resolved_by WHEN '' THEN 'nothing' ELSE resolved_by END
  FROM judged
  WHERE resolved_by <> to_resolve_by OR resolved <> CASE to_resolve_by WHEN '' THEN 0 ELSE 1 END
  UNION ALL
  SELECT 'I4', user_id,
    'transactions of ' || user_id || ' name reservation ' || reservation_id
      || ', which does not exist'
  FROM moved
  WHERE NOT EXISTS (
    SELECT 1 FROM reservations AS r
    WHERE r.user_id = moved.user_id AND r.reservation_id = moved.reservation_id
  )
  UNION ALL
  SELECT 'I5', user_id,
    name || ' has ' || credits || ' credits, its transactions say ' || said_credits
  FROM judged WHERE credits <> said_credits AND reserved > 0
  UNION ALL
  SELECT 'I5', user_id,
    name || ' has ' || committed || ' committed, its transactions say ' || said_committed
  FROM judged WHERE committed <> said_committed
  UNION ALL
  SELECT 'I5', user_id,
    name || ' has ' || reimbursed || ' reimbursed, its transactions say ' || said_reimbursed
  FROM judged WHERE reimbursed <> said_reimbursed
) AS found ORDER BY user_id, invariant LIMIT :room
"""  # noqa: S608  All of it is written here.

_OVERDUE = """
SELECT 'I7' AS invariant, user_id,
  'reservation ' || reservation_id || ' of ' || user_id
    || ' is RESERVED, though it has been due for more than two sweeps' AS detail
FROM reservations
WHERE state = 'RESERVED' AND expires_at < :overdue_since AND user_id BETWEEN :first AND :last
ORDER BY user_id, expires_at LIMIT :room
"""

_QUERIES = tuple(map(_query, (_BALANCES, _RECORD, _RESERVATIONS, _OVERDUE)))
