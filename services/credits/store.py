"""Keeps the ledger in a database: one writer that decides batches under locks, and reads.

A user's rows are written only under the lock of the account, and accounts are locked in the order
of their ids, so batches of several processes never deadlock.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

from sqlalchemy import (
    RowMapping,
    Select,
    Table,
    Update,
    and_,
    column,
    insert,
    select,
    tuple_,
    update,
    values,
)
from sqlalchemy.dialects import postgresql, sqlite
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
from services.credits.tables import accounts, reservations, transactions
from services.runtime.database import Database, Int64, read_clock
from services.runtime.group_commit import GroupCommit

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
    """The ledger in a database: `submit` commands while `run` writes them."""

    def __init__(self, database: Database, batch_max: int = BATCH_MAX) -> None:
        self._database = database
        self._writer = GroupCommit[Command, Answer](database, _write_batch, batch_max=batch_max)

    async def submit(self, command: Command) -> Answer:
        """Returns what became of `command` once that is durable; every command can be repeated.

        Raises Overloaded, Conflict, Unavailable or ServiceFailed, as the writer does.
        """
        return await self._writer.submit(command)

    async def run(self) -> None:
        """Writes until `close` was called and nothing waits any more."""
        await self._writer.run()

    def close(self) -> None:
        """Refuses new commands; `run` returns when those that wait are written."""
        self._writer.close()

    async def find_account(self, user_id: str) -> Account | None:
        """Returns the account of a user; None if it was never opened."""
        rows = await self._read(select(accounts).where(accounts.c.user_id == user_id))
        return _account(rows[0]) if rows else None

    async def find_reservation(self, user_id: str, reservation_id: str) -> Books:
        """Returns the account of a user and one of its reservations, as far as they exist."""
        same = and_(
            reservations.c.user_id == accounts.c.user_id,
            reservations.c.reservation_id == reservation_id,
        )
        rows = await self._read(
            select(accounts, reservations)
            .outerjoin_from(accounts, reservations, same)
            .where(accounts.c.user_id == user_id)
        )
        if not rows:
            return Books()
        found = rows[0][reservations.c.reservation_id] is not None
        return Books(_account(rows[0]), _reservation(rows[0]) if found else None)

    async def list_transactions(
        self, user_id: str, below_version: int | None, limit: int
    ) -> list[Transaction] | None:
        """Returns a user's transactions, newest first; None if the account was never opened.

        `below_version` is the oldest that is known already; None begins with the newest.
        """
        same = accounts.c.user_id == transactions.c.user_id
        if below_version is not None:
            same = and_(same, transactions.c.version < below_version)
        rows = await self._read(
            select(accounts.c.user_id, transactions)
            .outerjoin_from(accounts, transactions, same)
            .where(accounts.c.user_id == user_id)
            .order_by(transactions.c.version.desc())
            .limit(limit)
        )
        if not rows:
            return None
        return [_transaction(row) for row in rows if row[transactions.c.version] is not None]

    async def _read(self, statement: Select[Any]) -> Sequence[RowMapping]:
        """Returns all rows of one statement, which sees one moment."""
        async with self._database.read() as connection:
            rows: Sequence[RowMapping] = (await connection.execute(statement)).mappings().all()
        return rows


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
    opened = await _insert_placeholders(connection, commands)
    locked = await _lock_accounts(connection, commands)
    # After the locks: whoever held them before has written earlier times than this.
    now = await read_clock(connection)
    loaded = _Work(
        {account.user_id: account for account in locked if account.user_id not in opened},
        await _load_reservations(connection, commands),
        await _load_transactions(connection, commands),
    )
    work = loaded.copy()
    answers = [work.carry_out(command, now) for command in commands]
    await _write(connection, loaded, work)
    return answers


async def _insert_placeholders(
    connection: AsyncConnection, commands: Sequence[Command]
) -> frozenset[str]:
    """Inserts rows for accounts to be opened, since a row that is not there cannot be locked.

    Returns the users whose accounts were not there. Their rows are filled in when OpenAccount is
    carried out, which for these never fails but by failing the batch.
    """
    users = sorted({command.user_id for command in commands if isinstance(command, OpenAccount)})
    if not users:
        return frozenset()
    rows = [
        {
            "user_id": user_id,
            "available": 0,
            "reserved": 0,
            "version": 0,
            "created_at": _PLACEHOLDER_TIME,
            "updated_at": _PLACEHOLDER_TIME,
        }
        for user_id in users
    ]
    # Each dialect has an insert of its own, alike in what is used here.
    insert_new: Any = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = insert_new(accounts).values(rows).on_conflict_do_nothing()
    inserted = await connection.execute(statement.returning(accounts.c.user_id))
    return frozenset(inserted.scalars())


async def _lock_accounts(
    connection: AsyncConnection, commands: Sequence[Command]
) -> Iterable[Account]:
    users = {command.user_id for command in commands}
    rows = await connection.execute(
        select(accounts)
        .where(accounts.c.user_id.in_(sorted(users)))
        .order_by(accounts.c.user_id)
        .with_for_update()
    )
    return [_account(row) for row in rows.mappings()]


async def _load_reservations(
    connection: AsyncConnection, commands: Sequence[Command]
) -> dict[_Key, Reservation]:
    wanted = {
        (command.user_id, reservation_id)
        for command in commands
        if (reservation_id := reservation_id_of(command)) is not None
    }
    if not wanted:
        return {}
    ids = tuple_(reservations.c.user_id, reservations.c.reservation_id)
    rows = await connection.execute(select(reservations).where(ids.in_(sorted(wanted))))
    found = [_reservation(row) for row in rows.mappings()]
    return {(value.user_id, value.reservation_id): value for value in found}


async def _load_transactions(
    connection: AsyncConnection, commands: Sequence[Command]
) -> dict[_Key, Transaction]:
    wanted = {
        (command.user_id, key) for command in commands if (key := key_of(command)) is not None
    }
    if not wanted:
        return {}
    keys = tuple_(transactions.c.user_id, transactions.c.key)
    rows = await connection.execute(select(transactions).where(keys.in_(sorted(wanted))))
    found = [_transaction(row) for row in rows.mappings()]
    return {(value.user_id, value.key): value for value in found}


async def _write(connection: AsyncConnection, loaded: _Work, work: _Work) -> None:
    """Writes what differs between `loaded` and `work`: a statement a table and kind of change."""
    moved = [
        (account, before.version if before is not None else 0)
        for user_id, account in work.accounts.items()
        if account is not (before := loaded.accounts.get(user_id))
    ]
    if moved:
        updated = await connection.execute(_update_accounts(moved))
        if len(updated.all()) != len(moved):
            # The locks rule that out; were it to happen, a movement of somebody else's would be
            # overwritten.
            raise AssertionError("an account was changed although it is locked")
    made = [value for key, value in work.reservations.items() if key not in loaded.reservations]
    if made:
        await connection.execute(insert(reservations), _to_rows(reservations, made))
    resolved = [
        value
        for key, value in work.reservations.items()
        if key in loaded.reservations and value is not loaded.reservations[key]
    ]
    if resolved:
        updated = await connection.execute(_update_reservations(resolved))
        if len(updated.all()) != len(resolved):
            raise AssertionError("a reservation is gone although its account is locked")
    written = [value for key, value in work.transactions.items() if key not in loaded.transactions]
    if written:
        await connection.execute(insert(transactions), _to_rows(transactions, written))


def _update_accounts(moved: Sequence[tuple[Account, int]]) -> Update:
    """Returns the statement that writes accounts whose version is still the one beside them."""
    names = ("available", "reserved", "version", "created_at", "updated_at")
    columns = [column(name, accounts.c[name].type) for name in ("user_id", *names)]
    new = (
        values(*columns, column("version_before", Int64), name="new")
        .data(
            [
                (account.user_id, *(getattr(account, name) for name in names), version_before)
                for account, version_before in moved
            ]
        )
        .cte("new")
    )
    return (
        update(accounts)
        .values({name: new.c[name] for name in names})
        .where(
            accounts.c.user_id == new.c.user_id,
            accounts.c.version == new.c.version_before,
        )
        .returning(accounts.c.user_id)
    )


def _update_reservations(resolved: Sequence[Reservation]) -> Update:
    keys = ("user_id", "reservation_id")
    names = ("state", "committed", "reimbursed", "resolved_at")
    columns = [column(name, reservations.c[name].type) for name in (*keys, *names)]
    new = (
        values(*columns, name="new")
        .data([tuple(getattr(value, name) for name in (*keys, *names)) for value in resolved])
        .cte("new")
    )
    return (
        update(reservations)
        .values({name: new.c[name] for name in names})
        .where(*(reservations.c[name] == new.c[name] for name in keys))
        .returning(reservations.c.reservation_id)
    )


def _to_rows(
    table: Table, records: Sequence[Reservation] | Sequence[Transaction]
) -> list[dict[str, Any]]:
    names = table.c.keys()
    return [{name: getattr(record, name) for name in names} for record in records]


def _account(row: RowMapping) -> Account:
    return Account(**_fields(accounts, row))


def _reservation(row: RowMapping) -> Reservation:
    fields = _fields(reservations, row)
    return Reservation(**fields | {"state": ReservationState(fields["state"])})


def _transaction(row: RowMapping) -> Transaction:
    fields = _fields(transactions, row)
    return Transaction(**fields | {"type": TransactionType(fields["type"])})


def _fields(table: Table, row: RowMapping) -> dict[str, Any]:
    """Returns what a row holds of a table; the fields of our records are named as its columns."""
    return {name: row[column_] for name, column_ in table.c.items()}
