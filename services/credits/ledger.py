"""Decides what each command does to an account and its reservations: the rules of the ledger.

| state             | Reserve | Commit c                  | Refund    | Expire  | Reimburse n      |
|-------------------|---------|---------------------------|-----------|---------|------------------|
| none              | new     | not found                 | not found | nothing | not found        |
| RESERVED, not due | replay  | COMMITTED if c <= credits | REFUNDED  | nothing | not committed    |
| RESERVED, due     | replay  | expired if c <= credits   | REFUNDED  | EXPIRED | not committed    |
| COMMITTED         | replay  | replay if c is the same   | refused   | nothing | += n if <= spent |
| REFUNDED          | replay  | refused                   | replay    | nothing | not committed    |
| EXPIRED           | replay  | expired                   | replay    | nothing | not committed    |
| REJECTED          | refused | refused                   | refused   | nothing | not committed    |

A new Reserve becomes RESERVED, or REJECTED when too few credits are available; one with other
credits than the first time is refused in every state. The order of checks is: the account, the key,
the state with amount and time, and last the balance and its limit. So a success that is repeated
succeeds although the balance would no longer allow it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias, assert_never

from services.credits.commands import (
    AddCredits,
    Command,
    Commit,
    Expire,
    OpenAccount,
    Refund,
    Reimburse,
    Reserve,
)
from services.credits.records import (
    CREDITS_MAX,
    Account,
    Reservation,
    ReservationState,
    Transaction,
    TransactionType,
)

__all__ = ["Books", "Moved", "Outcome", "Refusal", "Refused", "Unchanged", "decide"]

WELCOME_KEY = "open:welcome"
WELCOME_DESCRIPTION = "Welcome bonus"


class Refusal(StrEnum):
    """Why a command was refused; the names are those of the contract's `ErrorReason`."""

    ACCOUNT_NOT_FOUND = "ACCOUNT_NOT_FOUND"
    RESERVATION_NOT_FOUND = "RESERVATION_NOT_FOUND"
    INSUFFICIENT_CREDITS = "INSUFFICIENT_CREDITS"
    RESERVATION_REJECTED = "RESERVATION_REJECTED"
    RESERVATION_EXPIRED = "RESERVATION_EXPIRED"
    ALREADY_COMMITTED = "ALREADY_COMMITTED"
    ALREADY_REFUNDED = "ALREADY_REFUNDED"
    NOT_COMMITTED = "NOT_COMMITTED"
    COMMIT_EXCEEDS_RESERVATION = "COMMIT_EXCEEDS_RESERVATION"
    COMMIT_MISMATCH = "COMMIT_MISMATCH"
    REIMBURSE_EXCEEDS_COMMITTED = "REIMBURSE_EXCEEDS_COMMITTED"
    RESERVATION_ID_REUSED = "RESERVATION_ID_REUSED"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    BALANCE_LIMIT_EXCEEDED = "BALANCE_LIMIT_EXCEEDED"


@dataclass(frozen=True, slots=True)
class Books:
    """All that a command is decided by."""

    account: Account | None = None
    """The user's account, if it was opened."""
    reservation: Reservation | None = None
    """The reservation that the command names, if there is one."""
    transaction: Transaction | None = None
    """The transaction that has the command's own key, if there is one."""


@dataclass(frozen=True, slots=True)
class Moved:
    """The command was carried out; these are to be written together."""

    account: Account
    reservation: Reservation | None = None
    transaction: Transaction | None = None


@dataclass(frozen=True, slots=True)
class Unchanged:
    """What the command wants is so already."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The command was not carried out."""

    refusal: Refusal
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Explains the refusal to programs."""
    remembered: Reservation | None = None
    """To be written: the reservation by which the same refusal is given for ever."""


Outcome: TypeAlias = Moved | Unchanged | Refused


def decide(books: Books, command: Command, now: datetime) -> Outcome:
    """Returns what `command` does at the moment `now` to what is in `books`."""
    account = books.account
    if isinstance(command, OpenAccount):
        return Unchanged() if account is not None else _open(command, now)
    if account is None:
        return _refuse(Refusal.ACCOUNT_NOT_FOUND, user_id=command.user_id)
    # A clock that was set back does not reorder an account's record.
    moment = max(now, account.updated_at)
    match command:
        case AddCredits():
            return _add_credits(account, books.transaction, command, moment)
        case Reserve():
            return _reserve(account, books.reservation, command, moment)
        case Commit():
            return _commit(account, books.reservation, command, now, moment)
        case Refund():
            return _refund(account, books.reservation, command, moment)
        case Expire():
            return _expire(account, books.reservation, now, moment)
        case Reimburse():
            return _reimburse(account, books, command, moment)
        case _:
            assert_never(command)


def _open(command: OpenAccount, now: datetime) -> Outcome:
    account = Account(command.user_id, 0, 0, 0, created_at=now, updated_at=now)
    if command.bonus_credits == 0:
        return Moved(account)
    return _move(
        account,
        TransactionType.BONUS,
        WELCOME_KEY,
        now,
        available=command.bonus_credits,
        description=WELCOME_DESCRIPTION,
    )


def _add_credits(
    account: Account, known: Transaction | None, command: AddCredits, moment: datetime
) -> Outcome:
    if known is not None:
        if known.type != command.type:
            return _refuse(Refusal.REQUEST_ID_REUSED, field="type", was=known.type)
        if known.available_delta != command.credits:
            return _refuse(Refusal.REQUEST_ID_REUSED, field="credits", was=known.available_delta)
        return Unchanged()
    if account.available + command.credits < 0:
        return _insufficient(-command.credits, account.available)
    if account.available + account.reserved + command.credits > CREDITS_MAX:
        return _refuse(Refusal.BALANCE_LIMIT_EXCEEDED, limit=CREDITS_MAX)
    return _move(
        account,
        command.type,
        f"add:{command.request_id}",
        moment,
        available=command.credits,
        description=command.description,
    )


def _reserve(
    account: Account, known: Reservation | None, command: Reserve, moment: datetime
) -> Outcome:
    if known is None:
        return _reserve_first(account, command, moment)
    if known.credits != command.credits:
        return _refuse(Refusal.RESERVATION_ID_REUSED, field="credits", was=known.credits)
    match known.state:
        case ReservationState.REJECTED:
            return _insufficient(known.credits, known.rejected_available)
        case (
            ReservationState.RESERVED
            | ReservationState.COMMITTED
            | ReservationState.REFUNDED
            | ReservationState.EXPIRED
        ):
            return Unchanged()
        case _:
            assert_never(known.state)


def _reserve_first(account: Account, command: Reserve, moment: datetime) -> Outcome:
    enough = command.credits <= account.available
    reservation = Reservation(
        user_id=command.user_id,
        reservation_id=command.reservation_id,
        credits=command.credits,
        state=ReservationState.RESERVED if enough else ReservationState.REJECTED,
        committed=0,
        reimbursed=0,
        rejected_available=None if enough else account.available,
        created_at=moment,
        expires_at=moment + command.ttl,
        resolved_at=None if enough else moment,
        description=command.description,
    )
    if not enough:
        return replace(_insufficient(command.credits, account.available), remembered=reservation)
    return _move(
        account,
        TransactionType.RESERVATION,
        f"reserve:{command.reservation_id}",
        moment,
        available=-command.credits,
        reserved=command.credits,
        reservation=reservation,
    )


def _commit(
    account: Account,
    reservation: Reservation | None,
    command: Commit,
    now: datetime,
    moment: datetime,
) -> Outcome:
    if reservation is None:
        return _refuse(Refusal.RESERVATION_NOT_FOUND, reservation_id=command.reservation_id)
    spent = reservation.credits if command.credits is None else command.credits
    match reservation.state:
        case ReservationState.RESERVED if spent > reservation.credits:
            return _refuse(
                Refusal.COMMIT_EXCEEDS_RESERVATION, credits=reservation.credits, required=spent
            )
        case ReservationState.RESERVED if _due(reservation, now):
            return _expired(reservation)
        case ReservationState.RESERVED:
            return _move(
                account,
                TransactionType.DEDUCTION,
                f"resolve:{command.reservation_id}",
                moment,
                available=reservation.credits - spent,
                reserved=-reservation.credits,
                reservation=replace(
                    reservation,
                    state=ReservationState.COMMITTED,
                    committed=spent,
                    resolved_at=moment,
                ),
            )
        case ReservationState.COMMITTED if spent == reservation.committed:
            return Unchanged()
        case ReservationState.COMMITTED:
            return _refuse(Refusal.COMMIT_MISMATCH, committed=reservation.committed, required=spent)
        case ReservationState.REFUNDED:
            return _refuse(Refusal.ALREADY_REFUNDED)
        case ReservationState.EXPIRED:
            return _expired(reservation)
        case ReservationState.REJECTED:
            return _refuse(Refusal.RESERVATION_REJECTED)
        case _:
            assert_never(reservation.state)


def _refund(
    account: Account, reservation: Reservation | None, command: Refund, moment: datetime
) -> Outcome:
    if reservation is None:
        return _refuse(Refusal.RESERVATION_NOT_FOUND, reservation_id=command.reservation_id)
    match reservation.state:
        case ReservationState.RESERVED:
            return _give_back(
                account,
                reservation,
                ReservationState.REFUNDED,
                TransactionType.REFUND,
                moment,
                command.reason,
            )
        case ReservationState.REFUNDED | ReservationState.EXPIRED:
            return Unchanged()
        case ReservationState.COMMITTED:
            return _refuse(Refusal.ALREADY_COMMITTED, committed=reservation.committed)
        case ReservationState.REJECTED:
            return _refuse(Refusal.RESERVATION_REJECTED)
        case _:
            assert_never(reservation.state)


def _expire(
    account: Account, reservation: Reservation | None, now: datetime, moment: datetime
) -> Outcome:
    if reservation is None:
        return Unchanged()
    match reservation.state:
        case ReservationState.RESERVED if _due(reservation, now):
            return _give_back(
                account, reservation, ReservationState.EXPIRED, TransactionType.EXPIRY, moment
            )
        case (
            ReservationState.RESERVED
            | ReservationState.COMMITTED
            | ReservationState.REFUNDED
            | ReservationState.EXPIRED
            | ReservationState.REJECTED
        ):
            return Unchanged()
        case _:
            assert_never(reservation.state)


def _reimburse(account: Account, books: Books, command: Reimburse, moment: datetime) -> Outcome:
    known, reservation = books.transaction, books.reservation
    if known is not None:
        if known.reservation_id != command.reservation_id:
            return _refuse(
                Refusal.REQUEST_ID_REUSED, field="reservation_id", was=known.reservation_id
            )
        if known.available_delta != command.credits:
            return _refuse(Refusal.REQUEST_ID_REUSED, field="credits", was=known.available_delta)
        return Unchanged()
    if reservation is None:
        return _refuse(Refusal.RESERVATION_NOT_FOUND, reservation_id=command.reservation_id)
    match reservation.state:
        case ReservationState.COMMITTED:
            return _reimburse_committed(account, reservation, command, moment)
        case (
            ReservationState.RESERVED
            | ReservationState.REFUNDED
            | ReservationState.EXPIRED
            | ReservationState.REJECTED
        ):
            return _refuse(Refusal.NOT_COMMITTED, state=reservation.state)
        case _:
            assert_never(reservation.state)


def _reimburse_committed(
    account: Account, reservation: Reservation, command: Reimburse, moment: datetime
) -> Outcome:
    reimbursed = reservation.reimbursed + command.credits
    if reimbursed > reservation.committed:
        return _refuse(
            Refusal.REIMBURSE_EXCEEDS_COMMITTED,
            committed=reservation.committed,
            reimbursed=reservation.reimbursed,
            required=command.credits,
        )
    if account.available + account.reserved + command.credits > CREDITS_MAX:
        return _refuse(Refusal.BALANCE_LIMIT_EXCEEDED, limit=CREDITS_MAX)
    return _move(
        account,
        TransactionType.REIMBURSEMENT,
        f"reimburse:{command.request_id}",
        moment,
        available=command.credits,
        reservation=replace(reservation, reimbursed=reimbursed),
        description=command.reason,
    )


def _give_back(
    account: Account,
    reservation: Reservation,
    state: ReservationState,
    type_: TransactionType,
    moment: datetime,
    description: str = "",
) -> Moved:
    """Returns the reservation's credits to what is available."""
    return _move(
        account,
        type_,
        f"resolve:{reservation.reservation_id}",
        moment,
        available=reservation.credits,
        reserved=-reservation.credits,
        reservation=replace(reservation, state=state, resolved_at=moment),
        description=description,
    )


def _move(
    account: Account,
    type_: TransactionType,
    key: str,
    moment: datetime,
    *,
    available: int,
    reserved: int = 0,
    reservation: Reservation | None = None,
    description: str = "",
) -> Moved:
    """Returns the account after a movement, and the transaction that explains it."""
    moved = replace(
        account,
        available=account.available + available,
        reserved=account.reserved + reserved,
        version=account.version + 1,
        updated_at=moment,
    )
    if not description and reservation is not None:
        description = reservation.description
    transaction = Transaction(
        user_id=moved.user_id,
        version=moved.version,
        key=key,
        type=type_,
        available_delta=available,
        reserved_delta=reserved,
        available_after=moved.available,
        reserved_after=moved.reserved,
        reservation_id=None if reservation is None else reservation.reservation_id,
        description=description,
        created_at=moment,
    )
    return Moved(moved, reservation, transaction)


def _due(reservation: Reservation, now: datetime) -> bool:
    return reservation.expires_at <= now


def _refuse(refusal: Refusal, **metadata: object) -> Refused:
    return Refused(refusal, {name: str(value) for name, value in metadata.items()})


def _insufficient(required: int, available: int | None) -> Refused:
    return _refuse(Refusal.INSUFFICIENT_CREDITS, required=required, available=available)


def _expired(reservation: Reservation) -> Refused:
    # RFC 3339 as protobuf's JSON writes it.
    expire_time = reservation.expires_at.isoformat().replace("+00:00", "Z")
    return _refuse(Refusal.RESERVATION_EXPIRED, expire_time=expire_time)
