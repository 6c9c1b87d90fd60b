"""What the credits service tells of accounts, as plain values."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from reelworks.credits.v1 import credits_pb2

from services.client.wire import moment, moment_if_set, named

__all__ = [
    "AddedCredits",
    "Balance",
    "LedgerReport",
    "LedgerViolation",
    "OpenedAccount",
    "Reimbursed",
    "Reservation",
    "ReservationOutcome",
    "ReservationPage",
    "ReservationState",
    "Transaction",
    "TransactionPage",
    "TransactionType",
    "balance_of",
    "outcome_of",
    "report_of",
    "reservation_of",
    "transaction_of",
]


class TransactionType(StrEnum):
    """Why credits moved."""

    UNKNOWN = "UNKNOWN"
    PURCHASE = "PURCHASE"
    BONUS = "BONUS"
    ADJUSTMENT = "ADJUSTMENT"
    RESERVATION = "RESERVATION"
    DEDUCTION = "DEDUCTION"
    REFUND = "REFUND"
    EXPIRY = "EXPIRY"
    REIMBURSEMENT = "REIMBURSEMENT"


class ReservationState(StrEnum):
    """What became of reserved credits."""

    UNKNOWN = "UNKNOWN"
    RESERVED = "RESERVED"
    COMMITTED = "COMMITTED"
    REFUNDED = "REFUNDED"
    EXPIRED = "EXPIRED"
    REJECTED = "REJECTED"


@dataclass(frozen=True, slots=True)
class Balance:
    """What a user has."""

    user_id: str
    """Whose balance this is."""
    available_credits: int
    """Credits that can be reserved now."""
    reserved_credits: int
    """Credits set aside by open reservations."""
    version: int
    """How many transactions led to it; 0 if the account was never opened."""
    updated_at: datetime | None
    """When it last changed; None if the account was never opened."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """One movement on an account."""

    user_id: str
    """Whose account this is on."""
    version: int
    """Place in the account's record: 1, 2, 3 and so on."""
    type: TransactionType
    """Why credits moved."""
    credits: int
    """Signed change of the available credits."""
    reserved_change: int
    """Signed change of the reserved credits."""
    available_after: int
    """Available credits after it."""
    reserved_after: int
    """Reserved credits after it."""
    reservation_id: str
    """The reservation that moved, which for a generation is its id; empty if none did."""
    request_id: str
    """Key of the call that added credits; empty for others."""
    description: str
    """What it was for, in words."""
    created_at: datetime
    """When it was written."""


@dataclass(frozen=True, slots=True)
class TransactionPage:
    """A part of a statement, newest first."""

    transactions: tuple[Transaction, ...]
    """The transactions of this page."""
    next_page_token: str
    """Asks for the next page; empty at the end."""


@dataclass(frozen=True, slots=True)
class OpenedAccount:
    """An account that exists."""

    balance: Balance
    """The balance as it is now."""
    created: bool
    """Whether this call opened it."""


@dataclass(frozen=True, slots=True)
class AddedCredits:
    """What was added to an account."""

    balance: Balance
    """The balance as it is now."""
    transaction: Transaction
    """The transaction that added the credits, at the first call."""
    replayed: bool
    """Whether an earlier call with the same key had added them."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Credits set aside for one piece of work, and what became of them."""

    user_id: str
    """Whose credits these are."""
    reservation_id: str
    """The caller's id of it."""
    credits: int
    """Credits asked for."""
    state: ReservationState
    """What became of them."""
    committed_credits: int
    """Credits spent; 0 unless COMMITTED."""
    reimbursed_credits: int
    """Credits given back after the commit."""
    description: str
    """What the work is, in words."""
    created_at: datetime
    """When it was made."""
    expires_at: datetime | None
    """From when on it can no longer be committed."""
    resolved_at: datetime | None
    """When it left RESERVED; None until then."""


@dataclass(frozen=True, slots=True)
class ReservationOutcome:
    """What a move of a reservation led to."""

    reservation: Reservation
    """The reservation as it is now."""
    balance: Balance
    """The balance as it is now."""
    replayed: bool
    """Whether an earlier call had done it."""


@dataclass(frozen=True, slots=True)
class ReservationPage:
    """A part of a list of reservations, newest first."""

    reservations: tuple[Reservation, ...]
    """The reservations of this page."""
    next_page_token: str
    """Asks for the next page; empty at the end."""


@dataclass(frozen=True, slots=True)
class Reimbursed:
    """What was given back of committed credits."""

    reservation: Reservation
    """The reservation as it is now."""
    balance: Balance
    """The balance as it is now."""
    transaction: Transaction
    """The transaction that gave the credits back, at the first call."""
    replayed: bool
    """Whether an earlier call with the same key had given them back."""


@dataclass(frozen=True, slots=True)
class LedgerViolation:
    """Something in the ledger that does not agree."""

    invariant: str
    """Which rule it breaks: `I1` to `I7`."""
    user_id: str
    """Whose account it is in."""
    detail: str
    """What does not agree, in a sentence."""


@dataclass(frozen=True, slots=True)
class LedgerReport:
    """What a proof of the ledger's sums found."""

    accounts_checked: int
    """How many accounts were read."""
    transactions_checked: int
    """How many transactions were read."""
    violations: tuple[LedgerViolation, ...]
    """What does not agree, at most 1000 of it; empty if all is well."""


def balance_of(message: credits_pb2.Balance) -> Balance:
    """Returns the balance that a message holds."""
    return Balance(
        user_id=message.user_id,
        available_credits=message.available_credits,
        reserved_credits=message.reserved_credits,
        version=message.version,
        updated_at=moment_if_set(message, "update_time"),
    )


def transaction_of(message: credits_pb2.Transaction) -> Transaction:
    """Returns the transaction that a message holds."""
    return Transaction(
        user_id=message.user_id,
        version=message.version,
        type=named(TransactionType, credits_pb2.Transaction.Type, message.type),
        credits=message.credits,
        reserved_change=message.reserved_change,
        available_after=message.available_after,
        reserved_after=message.reserved_after,
        reservation_id=message.reservation_id,
        request_id=message.request_id,
        description=message.description,
        created_at=moment(message.create_time),
    )


def reservation_of(message: credits_pb2.Reservation) -> Reservation:
    """Returns the reservation that a message holds."""
    return Reservation(
        user_id=message.user_id,
        reservation_id=message.reservation_id,
        credits=message.credits,
        state=named(ReservationState, credits_pb2.Reservation.State, message.state),
        committed_credits=message.committed_credits,
        reimbursed_credits=message.reimbursed_credits,
        description=message.description,
        created_at=moment(message.create_time),
        expires_at=moment_if_set(message, "expire_time"),
        resolved_at=moment_if_set(message, "resolve_time"),
    )


def outcome_of(
    message: credits_pb2.ReserveResponse | credits_pb2.CommitResponse | credits_pb2.RefundResponse,
) -> ReservationOutcome:
    """Returns what a message says of a move of a reservation."""
    return ReservationOutcome(
        reservation_of(message.reservation), balance_of(message.balance), message.replayed
    )


def report_of(message: credits_pb2.VerifyLedgerResponse) -> LedgerReport:
    """Returns the report that a message holds."""
    return LedgerReport(
        accounts_checked=message.accounts_checked,
        transactions_checked=message.transactions_checked,
        violations=tuple(
            LedgerViolation(violation.invariant, violation.user_id, violation.detail)
            for violation in message.violations
        ),
    )
