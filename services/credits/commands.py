"""The commands of the ledger, and what each of them names."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, TypeAlias, assert_never

from services.credits.records import TransactionType

__all__ = [
    "AddCredits",
    "AddedType",
    "Command",
    "Commit",
    "Expire",
    "OpenAccount",
    "Refund",
    "Reimburse",
    "Reserve",
    "key_of",
    "reservation_id_of",
]

AddedType: TypeAlias = Literal[
    TransactionType.PURCHASE, TransactionType.BONUS, TransactionType.ADJUSTMENT
]
"""What can be added from outside; the other types follow from reservations."""


@dataclass(frozen=True, slots=True)
class OpenAccount:
    """Opens an account, once."""

    user_id: str
    bonus_credits: int
    """What the account begins with; 0 or more."""


@dataclass(frozen=True, slots=True)
class AddCredits:
    """Adds credits, or takes them by a negative ADJUSTMENT."""

    user_id: str
    request_id: str
    type: AddedType
    credits: int
    """Signed; never 0."""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Reserve:
    """Sets credits aside."""

    user_id: str
    reservation_id: str
    credits: int
    """1 or more."""
    ttl: timedelta
    """How long they can be committed."""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Commit:
    """Spends what is reserved, and returns the rest."""

    user_id: str
    reservation_id: str
    credits: int | None = None
    """What to spend; None spends all of it, 0 nothing."""


@dataclass(frozen=True, slots=True)
class Refund:
    """Gives back what is reserved."""

    user_id: str
    reservation_id: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Reimburse:
    """Gives back what was spent, deliberately."""

    user_id: str
    reservation_id: str
    request_id: str
    credits: int
    """1 or more."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Expire:
    """Gives back what is reserved and due."""

    user_id: str
    reservation_id: str


Command: TypeAlias = OpenAccount | AddCredits | Reserve | Commit | Refund | Reimburse | Expire


def reservation_id_of(command: Command) -> str | None:
    """Returns the reservation that `command` is about; None if it is about none."""
    match command:
        case OpenAccount() | AddCredits():
            return None
        case Reserve() | Commit() | Refund() | Reimburse() | Expire():
            return command.reservation_id
        case _:
            assert_never(command)


def key_of(command: Command) -> str | None:
    """Returns the key of the transaction by which a repetition of `command` is recognized.

    None for commands whose repetition the account or the reservation itself shows.
    """
    match command:
        case AddCredits():
            return f"add:{command.request_id}"
        case Reimburse():
            return f"reimburse:{command.request_id}"
        case OpenAccount() | Reserve() | Commit() | Refund() | Expire():
            return None
        case _:
            assert_never(command)
