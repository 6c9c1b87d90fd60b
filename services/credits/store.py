"""Writes the ledger to a database: one writer that decides batches under locks.

A user's rows are written only under the lock of the account, and accounts are locked in the order
of their ids, so batches of several processes never deadlock.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

from sqlalchemy import Executable
from sqlalchemy.ext.asyncio import AsyncConnection

from services.credits.commands import Command, OpenAccount, key_of, reservation_id_of
from services.credits.ledger import Books, Moved, Refused, Unchanged, decide
from services.credits.records import (
    Account,
    Reservation,
    ReservationState,
    Transaction,
    TransactionType,
)
from services.credits.statements import BatchStatements, batch_statements
from services.runtime.database import Database, read_clock
from services.runtime.group_commit import GroupCommit
from services.runtime.rowset import row_parameter

__all__ = ["Answer", "CreditsStore", "Done"]

BATCH_MAX = 256
_PLACEHOLDER_TIME = datetime(1970, 1, 1, tzinfo=UTC)
_Key: TypeAlias = tuple[str, str]
"""A user's id, and the id of something of theirs."""


@dataclass(frozen=True, slots=True)
class Done:
    """A command that was not refused: what it is about, as it is now."""

    account: Account
    reservation: Reservation | None
    transaction: Transaction | None
    """The movement; at a repetition known for commands with a request id only."""
    replayed: bool
    """Whether everything was so before."""


Answer: TypeAlias = Done | Refused


class CreditsStore:
    """The ledger in a database: `submit` commands while `run` writes them.

    `moved` is told of every account that a command has changed, once that is durable.
    """

    def __init__(
        self,
        database: Database,
        batch_max: int = BATCH_MAX,
        moved: Callable[[Account], None] = lambda _: None,
    ) -> None:
        self._moved = moved
        self._writer = GroupCommit[Command, Answer](database, _write_batch, batch_max=batch_max)

    async def submit(self, command: Command) -> Answer:
        """Returns what became of `command` once that is durable; every command can be repeated.

        Raises Overloaded, Conflict, Unavailable or ServiceFailed, as the writer does.
        """
        answer = await self._writer.submit(command)
        if isinstance(answer, Done) and not answer.replayed:
            self._moved(answer.account)
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
    """Decides the commands in order and writes what they move, in about eight statements.

    A command that cannot be decided, which is a defect, fails the batch; its neighbours are then
    tried without it.
    """
    batch = _Batch(connection, batch_statements(connection.dialect))
    await batch.begin()
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
    return answers


@dataclass(frozen=True, slots=True)
class _Batch:
    """Reads and writes what a batch needs, a statement for each table and kind of change."""

    connection: AsyncConnection
    statements: BatchStatements

    async def begin(self) -> None:
        """Prepares the database transaction."""
        if self.statements.plan_by_keys is not None:
            await self.connection.execute(self.statements.plan_by_keys)

    async def insert_placeholders(self, commands: Sequence[Command]) -> frozenset[str]:
        """Inserts rows for accounts to be opened, since a row that is not there cannot be locked.

        Returns the users whose accounts were not there. Their rows are filled in when OpenAccount
        is carried out, which for these never fails but by failing the batch.
        """
        users = {command.user_id for command in commands if isinstance(command, OpenAccount)}
        rows = [
            {
                "user_id": user_id,
                "available": 0,
                "reserved": 0,
                "version": 0,
                "created_at": _PLACEHOLDER_TIME,
                "updated_at": _PLACEHOLDER_TIME,
            }
            for user_id in sorted(users)
        ]
        inserted = await self._execute(self.statements.insert_placeholders, rows)
        return frozenset(user_id for (user_id,) in inserted)

    async def lock_accounts(self, commands: Sequence[Command]) -> list[Account]:
        """Returns the accounts that the commands name, as far as they exist, locked."""
        users = {command.user_id for command in commands}
        rows = [{"user_id": user_id} for user_id in users]
        return [Account(*row) for row in await self._execute(self.statements.lock_accounts, rows)]

    async def load_reservations(self, commands: Sequence[Command]) -> dict[_Key, Reservation]:
        """Returns the reservations that the commands name, as far as they exist."""
        wanted = {
            (command.user_id, reservation_id)
            for command in commands
            if (reservation_id := reservation_id_of(command)) is not None
        }
        rows = [{"user_id": user_id, "reservation_id": id_} for user_id, id_ in wanted]
        found = await self._execute(self.statements.load_reservations, rows)
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
        rows = [{"user_id": user_id, "key": key} for user_id, key in wanted]
        found = await self._execute(self.statements.load_transactions, rows)
        values = [Transaction(*row) for row in found]
        return {
            (value.user_id, value.key): replace(value, type=TransactionType(value.type))
            for value in values
        }

    async def write(self, loaded: _Work, work: _Work) -> None:
        """Writes what differs between `loaded` and `work`."""
        moved = [
            _to_row(account) | {"version_before": before.version if before is not None else 0}
            for user_id, account in work.accounts.items()
            if account is not (before := loaded.accounts.get(user_id))
        ]
        if len(await self._execute(self.statements.update_accounts, moved)) != len(moved):
            # The locks rule that out; were it to happen, a movement of somebody else's would be
            # overwritten.
            raise AssertionError("an account was changed although it is locked")
        made = [
            _to_row(value)
            for key, value in work.reservations.items()
            if key not in loaded.reservations
        ]
        await self._execute(self.statements.insert_reservations, made)
        resolved = [
            _to_row(value)
            for key, value in work.reservations.items()
            if key in loaded.reservations and value is not loaded.reservations[key]
        ]
        if len(await self._execute(self.statements.update_reservations, resolved)) != len(resolved):
            raise AssertionError("a reservation is gone although its account is locked")
        written = [
            _to_row(value)
            for key, value in work.transactions.items()
            if key not in loaded.transactions
        ]
        await self._execute(self.statements.insert_transactions, written)

    async def _execute(
        self, statement: Executable, rows: Sequence[Mapping[str, object]]
    ) -> Sequence[Any]:
        """Executes a statement with these rows, if there are any, and returns what it gives."""
        if not rows:
            return ()
        parameter = row_parameter(rows, self.connection.dialect)
        result = await self.connection.execute(statement, parameter)
        return result.all() if result.returns_rows else ()


def _to_row(record: Account | Reservation | Transaction) -> dict[str, object]:
    """Returns the fields of a record, which are named as the columns of its table."""
    return {name: getattr(record, name) for name in record.__slots__}
