"""Writes the ledger to a database: one writer that decides batches under locks.

A user's rows are written only under the lock of the account, and accounts are locked in the order
of their ids, so batches of several processes never deadlock.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, TypeAlias

from sqlalchemy.ext.asyncio import AsyncConnection

from services.credits.commands import Command, OpenAccount, key_of, reservation_id_of
from services.credits.ledger import Books, Moved, Refused, Unchanged, decide
from services.credits.metrics import CreditsMetrics
from services.credits.records import (
    Account,
    Reservation,
    ReservationState,
    Transaction,
    TransactionType,
)
from services.credits.statements import BatchStatements, RowsStatement, batch_statements
from services.credits.tables import accounts, reservations, transactions
from services.runtime.database import Database, read_clock
from services.runtime.failpoints import failpoint
from services.runtime.group_commit import GroupCommit

__all__ = ["Answer", "CreditsStore", "Done"]

BATCH_MAX = 256
_PLACEHOLDER_TIME = datetime(1970, 1, 1, tzinfo=UTC)
_Key: TypeAlias = tuple[str, str]
"""A user's id, and the id of something of theirs."""
_Rows: TypeAlias = Sequence[Sequence[object]]
# The fields of a record are named as the columns of its table, and in their order.
_account_row = attrgetter(*accounts.c.keys())
_reservation_row = attrgetter(*reservations.c.keys())
_transaction_row = attrgetter(*transactions.c.keys())


@dataclass(frozen=True, slots=True)
class Done:
    """A command that was not refused: what it is about, as it is now."""

    account: Account
    reservation: Reservation | None
    transaction: Transaction | None
    """The movement; at a repetition known for commands with a request id only."""
    replayed: bool
    """Whether everything was so before, be it by a first try of the same batch."""


Answer: TypeAlias = Done | Refused


class CreditsStore:
    """The ledger in a database: `submit` commands while `run` writes them.

    `moved` is told of every account that a command has changed, once that is durable, and of some
    that it has not.
    """

    def __init__(
        self,
        database: Database,
        batch_max: int = BATCH_MAX,
        moved: Callable[[Account], None] = lambda _: None,
        metrics: CreditsMetrics | None = None,
    ) -> None:
        self._moved = moved
        self._metrics = metrics or CreditsMetrics()
        self._writer = GroupCommit[Command, Answer](
            database, _write_batch, batch_max=batch_max, wrote=self._metrics.wrote
        )

    async def submit(self, command: Command) -> Answer:
        """Returns what became of `command` once that is durable; every command can be repeated.

        Raises Overloaded, Conflict, Unavailable or ServiceFailed, as the writer does.
        """
        answer = await self._writer.submit(command)
        failpoint("ledger.after_commit")
        # Of replays too: a batch whose SQL commit got no answer is run again, and finds itself.
        if isinstance(answer, Done):
            self._moved(answer.account)
            if answer.transaction is not None and not answer.replayed:
                self._metrics.moved(answer.transaction)
        return answer

    async def run(self) -> None:
        """Writes until `close` was called and nothing waits any more."""
        await self._writer.run()

    def close(self) -> None:
        """Refuses new commands; `run` returns when those that wait are written."""
        self._writer.close()


@dataclass(slots=True)
class _Work:
    """What a batch has loaded, and then moved."""

    accounts: dict[str, Account]
    reservations: dict[_Key, Reservation]
    transactions: dict[_Key, Transaction]

    def copy(self) -> "_Work":
        return _Work(dict(self.accounts), dict(self.reservations), dict(self.transactions))

    def carry_out(self, command: Command, now: datetime) -> Answer:
        """Decides a command by what those before it have left, and keeps what it moves."""
        user_id, reservation_id, key = command.user_id, reservation_id_of(command), key_of(command)
        books = Books(
            self.accounts.get(user_id),
            None if reservation_id is None else self.reservations.get((user_id, reservation_id)),
            None if key is None else self.transactions.get((user_id, key)),
        )
        match decide(books, command, now):
            case Moved(account, reservation, transaction):
                self.accounts[user_id] = account
                self._keep(reservation)
                if transaction is not None:
                    self.transactions[user_id, transaction.key] = transaction
                return Done(account, reservation, transaction, replayed=False)
            case Unchanged():
                if books.account is None:
                    raise AssertionError("only an account that exists can have been moved before")
                return Done(books.account, books.reservation, books.transaction, replayed=True)
            case Refused() as refused:
                self._keep(refused.remembered)
                return refused

    def _keep(self, reservation: Reservation | None) -> None:
        if reservation is not None:
            self.reservations[reservation.user_id, reservation.reservation_id] = reservation


async def _write_batch(connection: AsyncConnection, commands: Sequence[Command]) -> list[Answer]:
    """Decides the commands in order and writes what they move, in about six statements.

    A command that cannot be decided, which is a defect, fails the batch; its neighbours are then
    tried without it.
    """
    batch = _Batch(connection, batch_statements(connection.dialect))
    opened = await batch.insert_placeholders(commands)
    locked = await batch.lock_accounts(commands)
    # After the locks: whoever held them before has written earlier times than this.
    now = await read_clock(connection)
    loaded = _Work(
        {account.user_id: account for account in locked if account.user_id not in opened},
        await batch.load_reservations(commands),
        await batch.load_transactions(commands),
    )
    work = loaded.copy()
    answers = [work.carry_out(command, now) for command in commands]
    await batch.write(loaded, work)
    failpoint("ledger.before_commit")
    return answers


@dataclass(frozen=True, slots=True)
class _Batch:
    """Reads and writes what a batch needs, a statement for each table and kind of change."""

    connection: AsyncConnection
    statements: BatchStatements

    async def insert_placeholders(self, commands: Sequence[Command]) -> frozenset[str]:
        """Inserts rows for accounts to be opened, since a row that is not there cannot be locked.

        Returns the users whose accounts were not there. Their rows are filled in when OpenAccount
        is carried out, which for these never fails but by failing the batch.
        """
        users = {command.user_id for command in commands if isinstance(command, OpenAccount)}
        rows = [
            (user_id, 0, 0, 0, _PLACEHOLDER_TIME, _PLACEHOLDER_TIME) for user_id in sorted(users)
        ]
        inserted = await self._select(self.statements.insert_placeholders, rows)
        return frozenset(user_id for (user_id,) in inserted)

    async def lock_accounts(self, commands: Sequence[Command]) -> list[Account]:
        """Returns the accounts that the commands name, as far as they exist, locked."""
        users = {command.user_id for command in commands}
        rows = [(user_id,) for user_id in users]
        return [Account(*row) for row in await self._select(self.statements.lock_accounts, rows)]

    async def load_reservations(self, commands: Sequence[Command]) -> dict[_Key, Reservation]:
        """Returns the reservations that the commands name, as far as they exist."""
        wanted = {
            (command.user_id, reservation_id)
            for command in commands
            if (reservation_id := reservation_id_of(command)) is not None
        }
        found = await self._select(self.statements.load_reservations, list(wanted))
        values = [Reservation(*row) for row in found]
        return {
            (value.user_id, value.reservation_id): replace(
                value, state=ReservationState(value.state)
            )
            for value in values
        }

    async def load_transactions(self, commands: Sequence[Command]) -> dict[_Key, Transaction]:
        """Returns the transactions by which repetitions of the commands are recognized."""
        wanted = {
            (command.user_id, key) for command in commands if (key := key_of(command)) is not None
        }
        found = await self._select(self.statements.load_transactions, list(wanted))
        values = [Transaction(*row) for row in found]
        return {
            (value.user_id, value.key): replace(value, type=TransactionType(value.type))
            for value in values
        }

    async def write(self, loaded: _Work, work: _Work) -> None:
        """Writes what differs between `loaded` and `work`."""
        moved = [
            (*_account_row(account), before.version if before is not None else 0)
            for user_id, account in work.accounts.items()
            if account is not (before := loaded.accounts.get(user_id))
        ]
        made = [
            _reservation_row(value)
            for key, value in work.reservations.items()
            if key not in loaded.reservations
        ]
        resolved = [
            _reservation_row(value)
            for key, value in work.reservations.items()
            if key in loaded.reservations and value is not loaded.reservations[key]
        ]
        written = [
            _transaction_row(value)
            for key, value in work.transactions.items()
            if key not in loaded.transactions
        ]
        changes = [moved, made, resolved, written]
        if await self._change(changes) != [len(rows) for rows in changes]:
            # The locks rule that out; were it to happen, a movement of somebody else's would be
            # overwritten.
            raise AssertionError("an account or a reservation was changed although it is locked")

    async def _change(self, changes: Sequence[_Rows]) -> list[int]:
        """Executes the statements of `changes`, and returns how many rows each has changed."""
        if not any(changes):
            return [0 for _ in changes]
        given = list(zip(self.statements.changes, changes, strict=True))
        if self.statements.changes_at_once is not None:
            parameters: dict[str, object] = {}
            for each, rows in given:
                parameters |= each.given.parameters(rows)
            result = await self.connection.execute(self.statements.changes_at_once, parameters)
            return list(result.one())
        return [await self._change_one(each, rows) for each, rows in given]

    async def _change_one(self, change: RowsStatement, rows: _Rows) -> int:
        if not rows:
            return 0
        parameters = change.given.parameters(rows)
        return (await self.connection.execute(change.statement, parameters)).rowcount

    async def _select(self, wanted: RowsStatement, rows: _Rows) -> Sequence[Any]:
        """Returns what a statement gives for these rows, if there are any."""
        if not rows:
            return ()
        return (
            await self.connection.execute(wanted.statement, wanted.given.parameters(rows))
        ).all()
