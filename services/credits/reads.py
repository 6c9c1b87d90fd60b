"""Reads the ledger: accounts, reservations, statements, and what is due."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    RowMapping,
    Select,
    and_,
    bindparam,
    case,
    func,
    select,
    text,
    tuple_,
)

from services.credits.ledger import Books
from services.credits.records import (
    Account,
    OpenReservations,
    Reservation,
    ReservationState,
    Transaction,
)
from services.credits.rows import account_of, reservation_of, transaction_of
from services.credits.tables import UNSPENT, accounts, reservations, transactions
from services.runtime.database import Database, read_clock
from services.runtime.group_read import GroupRead
from services.runtime.rowset import GivenRows

__all__ = ["LedgerReads", "ReservationPlace"]

ACCOUNTS_PER_STATEMENT = 1000


@dataclass(frozen=True, slots=True)
class ReservationPlace:
    """Where a reservation stands among others, in order of one of its times."""

    moment: datetime
    """When it was made, or from when on it is due, whichever orders the list."""
    reservation_id: str
    user_id: str


class LedgerReads:
    """Reads from the tables of the ledger; each read sees one moment of the primary database.

    Every method raises Unavailable when the database is away.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        # In a parameter, or the statement's text would depend on how many there are.
        self._wanted = GivenRows([accounts.c.user_id], database.reader.dialect)
        self._select_wanted = select(accounts).where(
            accounts.c.user_id.in_(select(self._wanted.table.c.user_id))
        )
        self._accounts = GroupRead[str, Account](self._accounts_by_user)

    async def find_account(self, user_id: str) -> Account | None:
        """Returns the account of a user; None if it was never opened.

        Raises Overloaded when too many wait.
        """
        return await self._accounts.find(user_id)

    async def find_accounts(self, user_ids: Collection[str]) -> list[Account]:
        """Returns the accounts of some users, as far as they were opened."""
        found: list[Account] = []
        wanted = sorted(user_ids)
        for start in range(0, len(wanted), ACCOUNTS_PER_STATEMENT):
            some = wanted[start : start + ACCOUNTS_PER_STATEMENT]
            found += (await self._accounts_by_user(some)).values()
        return found

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
        return Books(account_of(rows[0]), reservation_of(rows[0]) if found else None)

    async def list_transactions(
        self, user_id: str, limit: int, *, below_version: int | None = None, after_version: int = 0
    ) -> list[Transaction] | None:
        """Returns a user's transactions, newest first; None if the account was never opened.

        Only those with a version above `after_version`, and below `below_version` where it is
        given.
        """
        columns = transactions.c
        statement = (
            select(transactions)
            .where(columns.user_id == user_id, columns.version > after_version)
            .order_by(columns.version.desc())
            .limit(limit)
        )
        if below_version is not None:
            statement = statement.where(columns.version < below_version)
        # Joined to the account, which only an empty page depends on, each page would cost as much
        # as the whole statement: PostgreSQL would read and sort all of it.
        rows = await self._read(statement)
        if not rows and await self.find_account(user_id) is None:
            return None
        return [transaction_of(row) for row in rows]

    async def list_reservations(
        self,
        limit: int,
        *,
        user_id: str | None = None,
        state: ReservationState | None = None,
        created_before: datetime | None = None,
        after: ReservationPlace | None = None,
    ) -> list[Reservation]:
        """Returns reservations of one user, or of all, newest first, from behind `after`."""
        columns = reservations.c
        order = (columns.created_at, columns.reservation_id, columns.user_id)
        statement = select(reservations).order_by(*(column.desc() for column in order))
        if user_id is not None:
            statement = statement.where(columns.user_id == user_id)
        if state is not None:
            statement = statement.where(_is_in(state))
        if created_before is not None:
            statement = statement.where(columns.created_at < created_before)
        if after is not None:
            statement = statement.where(tuple_(*order) < _bound(after, order))
        return [reservation_of(row) for row in await self._read(statement.limit(limit))]

    async def due_reservations(
        self, limit: int, after: ReservationPlace | None = None
    ) -> list[ReservationPlace]:
        """Returns where reservations in RESERVED are that are due, the longest due first."""
        columns = reservations.c
        order = (columns.expires_at, columns.reservation_id, columns.user_id)
        statement = select(*order).where(_is_in(ReservationState.RESERVED)).order_by(*order)
        if after is not None:
            # Said of the first column alone too, since that one has the index.
            statement = statement.where(
                columns.expires_at >= after.moment, tuple_(*order) > _bound(after, order)
            )
        async with self._database.read() as connection:
            now = await read_clock(connection)
            found = await connection.execute(
                statement.where(columns.expires_at <= now).limit(limit)
            )
            return [ReservationPlace(*row) for row in found]

    async def open_reservations(self, overdue: timedelta) -> OpenReservations:
        """Returns what is set aside; `overdue` is how long ago the time of some was over."""
        columns = reservations.c
        async with self._database.read() as connection:
            late = columns.expires_at < await read_clock(connection) - overdue
            found = await connection.execute(
                # An index has the open ones, which are few, however many there ever were.
                select(
                    func.count(),
                    func.coalesce(func.sum(columns.credits), 0),
                    func.coalesce(func.sum(case((late, 1), else_=0)), 0),
                ).where(_is_in(ReservationState.RESERVED))
            )
            return OpenReservations(*map(int, found.one()))

    async def _accounts_by_user(self, user_ids: Collection[str]) -> dict[str, Account]:
        parameters = self._wanted.parameters([(user_id,) for user_id in user_ids])
        async with self._database.read() as connection:
            rows = await connection.execute(self._select_wanted, parameters)
            # The fields of an account are those of its table, in their order.
            return {row.user_id: Account(*row) for row in rows}

    async def _read(self, statement: Select[Any]) -> Sequence[RowMapping]:
        """Returns all rows of one statement, which sees one moment."""
        async with self._database.read() as connection:
            rows: Sequence[RowMapping] = (await connection.execute(statement)).mappings().all()
        return rows


def _is_in(state: ReservationState) -> ColumnElement[bool]:
    # Written out, or neither database could tell that a partial index holds these rows; SQLite
    # recognizes the index's own condition only.
    wanted: ColumnElement[str] = bindparam("state", state.value, literal_execute=True)
    is_in = reservations.c.state == wanted
    is_unspent = state not in (ReservationState.RESERVED, ReservationState.COMMITTED)
    return and_(is_in, text(UNSPENT)) if is_unspent else is_in


def _bound(place: ReservationPlace, order: Sequence[ColumnElement[Any]]) -> ColumnElement[Any]:
    # Without their types the values would be bound as Python's, which SQLite sorts apart.
    return tuple_(
        place.moment, place.reservation_id, place.user_id, types=[column.type for column in order]
    )
