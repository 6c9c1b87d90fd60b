"""Recomputes a ledger from its transactions and says what does not fit, each as a sentence.

It is written apart from the service's own verification, in Python instead of SQL, so that the two
judge each other.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select

from services.credits.records import (
    Account,
    Reservation,
    ReservationState,
    Transaction,
    TransactionType,
)
from services.credits.tables import accounts, reservations, transactions
from services.credits.verification import Verifier
from services.runtime.database import Database

RESOLVED_BY = {
    ReservationState.COMMITTED: TransactionType.DEDUCTION,
    ReservationState.REFUNDED: TransactionType.REFUND,
    ReservationState.EXPIRED: TransactionType.EXPIRY,
}


@dataclass(frozen=True)
class Records:
    """A whole ledger."""

    accounts: list[Account]
    reservations: list[Reservation]
    transactions: list[Transaction]


async def problems(database: Database) -> list[str]:
    """Returns what is wrong with a ledger, by the service's verification and by this one."""
    # Tests leave reservations due that nobody sweeps; how long they may be is a test of its own.
    verifier = Verifier(database, asyncio.Event(), overdue=timedelta(days=1))
    verified = await verifier.verify()
    records = await read_records(database)
    said = [f"{violation.invariant}: {violation.detail}" for violation in verified.violations]
    if (verified.accounts, verified.transactions) != (
        len(records.accounts),
        len(records.transactions),
    ):
        said.append(f"{verified} has not read all of the ledger")
    return said + violations(records)


async def read_records(database: Database) -> Records:
    """Returns all that a database holds."""
    async with database.read() as connection:
        return Records(
            [Account(**row) for row in (await connection.execute(select(accounts))).mappings()],
            [
                Reservation(**{**row, "state": ReservationState(row["state"])})
                for row in (await connection.execute(select(reservations))).mappings()
            ],
            [
                Transaction(**{**row, "type": TransactionType(row["type"])})
                for row in (await connection.execute(select(transactions))).mappings()
            ],
        )


def violations(records: Records) -> list[str]:
    """Returns what is wrong with a ledger; nothing if it is good."""
    by_user: dict[str, list[Transaction]] = defaultdict(list)
    for transaction in sorted(records.transactions, key=lambda t: t.version):
        by_user[transaction.user_id].append(transaction)
    found: list[str] = []
    for account in records.accounts:
        mine = [r for r in records.reservations if r.user_id == account.user_id]
        found += _sums(account, by_user[account.user_id], mine)
        found += _chain(account.user_id, by_user[account.user_id])
        for reservation in mine:
            found += _reservation(reservation, by_user[account.user_id])
    return found + list(_total(records))


def _sums(account: Account, chain: list[Transaction], mine: list[Reservation]) -> Iterator[str]:
    said = (
        sum(t.available_delta for t in chain),
        sum(t.reserved_delta for t in chain),
        len(chain),
    )
    if (account.available, account.reserved, account.version) != said:
        yield f"I1: account {account} says otherwise than its transactions: {said}"
    open_credits = sum(r.credits for r in mine if r.state is ReservationState.RESERVED)
    if account.reserved != open_credits:
        yield f"I2: {account.user_id} has {account.reserved} reserved, not {open_credits}"


def _chain(user_id: str, chain: list[Transaction]) -> Iterator[str]:
    available = reserved = 0
    earlier = None
    for number, transaction in enumerate(chain, start=1):
        available += transaction.available_delta
        reserved += transaction.reserved_delta
        if transaction.version != number:
            yield f"I3: {user_id} has version {transaction.version} in place {number}"
        if (transaction.available_after, transaction.reserved_after) != (available, reserved):
            yield f"I3: {user_id} at {number} does not follow from what was before"
        if earlier is not None and transaction.created_at < earlier:
            yield f"I3: {user_id} at {number} is earlier than the one before"
        earlier = transaction.created_at


def _reservation(reservation: Reservation, chain: list[Transaction]) -> Iterator[str]:
    mine = [t for t in chain if t.reservation_id == reservation.reservation_id]

    def of(prefix: str) -> list[Transaction]:
        return [t for t in mine if t.key.startswith(prefix)]

    name = f"{reservation.user_id}/{reservation.reservation_id} ({reservation.state})"
    reserved, resolved, reimbursed = of("reserve:"), of("resolve:"), of("reimburse:")
    if len(reserved) != (reservation.state is not ReservationState.REJECTED):
        yield f"I4: {name} was reserved {len(reserved)} times"
    wanted = RESOLVED_BY.get(reservation.state)
    if [t.type for t in resolved] != ([wanted] if wanted else []):
        yield f"I4: {name} was resolved by {[t.type for t in resolved]}"
    spent = -sum(
        t.available_delta + t.reserved_delta
        for t in resolved
        if t.type is TransactionType.DEDUCTION
    )
    if reservation.committed != spent:
        yield f"I5: {name} says {reservation.committed} committed, its transactions {spent}"
    if reservation.reimbursed != sum(t.available_delta for t in reimbursed):
        yield f"I5: {name} says {reservation.reimbursed} reimbursed, its transactions otherwise"
    if reserved and reservation.credits != reserved[0].reserved_delta:
        yield f"I5: {name} has {reservation.credits} credits, reserved {reserved[0]}"


def _total(records: Records) -> Iterator[str]:
    here = sum(account.available + account.reserved for account in records.accounts)
    spent = sum(r.committed - r.reimbursed for r in records.reservations)
    added = _added(records.transactions)
    if here + spent != added:
        yield f"I6: {here} are here and {spent} spent, but {added} were added"


def _added(chain: Iterable[Transaction]) -> int:
    outside = {TransactionType.PURCHASE, TransactionType.BONUS, TransactionType.ADJUSTMENT}
    return sum(t.available_delta for t in chain if t.type in outside)
