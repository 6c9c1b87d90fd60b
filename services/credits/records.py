"""The values that the ledger keeps: accounts, reservations and transactions."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

__all__ = [
    "CREDITS_MAX",
    "INVARIANTS",
    "Account",
    "OpenReservations",
    "Reservation",
    "ReservationState",
    "Transaction",
    "TransactionType",
    "Violation",
]

INVARIANTS = ("I1", "I2", "I3", "I4", "I5", "I6", "I7")
"""What always holds of a ledger: docs/ledger.md."""
CREDITS_MAX = 10**15
"""Most credits that an amount or an account may have; exact in JavaScript's numbers too."""
REQUEST_KEY_PREFIXES = ("add:", "reimburse:")


class ReservationState(StrEnum):
    """What can have become of a reservation."""

    RESERVED = "RESERVED"
    COMMITTED = "COMMITTED"
    REFUNDED = "REFUNDED"
    EXPIRED = "EXPIRED"
    REJECTED = "REJECTED"


class TransactionType(StrEnum):
    """Why credits moved."""

    PURCHASE = "PURCHASE"
    BONUS = "BONUS"
    ADJUSTMENT = "ADJUSTMENT"
    RESERVATION = "RESERVATION"
    DEDUCTION = "DEDUCTION"
    REFUND = "REFUND"
    EXPIRY = "EXPIRY"
    REIMBURSEMENT = "REIMBURSEMENT"


@dataclass(frozen=True, slots=True)
class Account:
    """What a user has."""

    user_id: str
    available: int
    """Credits that can be reserved; 0 or more."""
    reserved: int
    """Credits set aside by reservations in RESERVED; 0 or more."""
    version: int
    """How many transactions led here."""
    created_at: datetime
    updated_at: datetime

    def __post_init__(self) -> None:
        sound = (
            self.available >= 0
            and self.reserved >= 0
            and self.available + self.reserved <= CREDITS_MAX
        )
        if not sound:
            raise AssertionError(f"account cannot be: {self}")


@dataclass(frozen=True, slots=True)
class Reservation:
    """Credits set aside for one piece of work, and what became of them."""

    user_id: str
    reservation_id: str
    credits: int
    """What was asked for; 1 or more."""
    state: ReservationState
    committed: int
    """What was spent of them; 0 unless COMMITTED."""
    reimbursed: int
    """What was given back of the spent ones."""
    rejected_available: int | None
    """What was available when REJECTED; None in any other state."""
    created_at: datetime
    expires_at: datetime
    """From when on it cannot be committed."""
    resolved_at: datetime | None
    """When it left RESERVED; None until then."""
    description: str

    def __post_init__(self) -> None:
        if not 0 <= self.reimbursed <= self.committed <= self.credits:
            raise AssertionError(f"reservation cannot be: {self}")


@dataclass(frozen=True, slots=True)
class Transaction:
    """One movement on an account, never changed."""

    user_id: str
    version: int
    """Place in the account's record: 1, 2, 3 and so on, without a gap."""
    key: str
    """What happens at most once: `<kind>:<id>`, unique for the user."""
    type: TransactionType
    available_delta: int
    reserved_delta: int
    available_after: int
    reserved_after: int
    reservation_id: str | None
    description: str
    created_at: datetime

    @property
    def request_id(self) -> str | None:
        """The caller's key of an AddCredits or a Reimburse; None for other transactions."""
        for prefix in REQUEST_KEY_PREFIXES:
            if self.key.startswith(prefix):
                return self.key.removeprefix(prefix)
        return None


@dataclass(frozen=True, slots=True)
class OpenReservations:
    """What all reservations that are open come to."""

    reservations: int
    credits_held: int
    overdue: int
    """Those whose time was over a while ago, and that nobody expired."""


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that does not agree."""

    invariant: str
    """Which rule it breaks: I1 to I7."""
    user_id: str
    detail: str
    """What does not agree, in a sentence."""
